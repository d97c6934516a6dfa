"""Input scaling: the functions, and finding out which one a teacher was trained with."""

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_remos.data.scaling import (
    SCALINGS,
    batch_norm_gap,
    choose_scaling,
    guess_scaling,
    scale_inputs,
    scaling_gaps,
)
from keras_remos.errors import DataError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the team's data folder ../shared/data is not here")


def images(count=32, seed=0):
    """Blobs of colour on a coloured ground: channels with statistics of their own, as photos have."""
    rng = np.random.default_rng(seed)
    ground = rng.normal((130, 115, 100), 45, (count, 1, 1, 3))
    coarse = np.kron(rng.normal(0, 40, (count, 4, 4, 3)), np.ones((1, 2, 2, 1)))
    return np.clip(ground + coarse, 0, 255).astype(np.float32)


def toy(scaling, kind="functional", *, steps=1000, channels=3):
    """A model whose first batch normalization has seen `steps` batches of images in one scaling."""
    norm = keras.layers.BatchNormalization(name="norm")
    conv = keras.layers.Conv2D(6, 3, name="conv")
    head = [keras.layers.ReLU(), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    if kind == "nested":
        stem = keras.Sequential([keras.Input((8, 8, channels)), conv, norm], name="stem")
        model = keras.Sequential([keras.Input((8, 8, channels)), stem, *head])
    elif kind == "subclassed":

        class Subclassed(keras.Model):
            def __init__(self):
                super().__init__()
                self.conv, self.norm, self.head = conv, norm, head[-1]

            def call(self, x):
                return self.head(keras.ops.mean(self.norm(self.conv(x)), (1, 2)))

        model = Subclassed()
        model(np.zeros((1, 8, 8, channels), np.float32))
    else:
        model = keras.Sequential([keras.Input((8, 8, channels)), conv, norm, *head])
    rng = np.random.default_rng(1)
    conv.set_weights([rng.normal(0, 0.2, weight.shape) for weight in conv.get_weights()])
    features = np.asarray(keras.ops.convert_to_numpy(conv(scale_inputs(images()[..., :channels], scaling))))
    left = norm.momentum**steps
    gamma, beta, mean, variance = norm.get_weights()
    mean = left * mean + (1 - left) * features.mean((0, 1, 2))
    norm.set_weights([gamma, beta, mean, left * variance + (1 - left) * features.var((0, 1, 2))])
    return model


# --- scaling ----------------------------------------------------------------------------------------------------------


def test_scalings_agree_with_keras():
    x = images(4)
    for name, mode in (("-1-1", "tf"), ("imagenet", "torch"), ("caffe", "caffe")):
        expected = keras.applications.imagenet_utils.preprocess_input(x.copy(), mode=mode, data_format="channels_last")
        np.testing.assert_allclose(scale_inputs(x, name), expected, atol=1e-4)
    np.testing.assert_array_equal(scale_inputs(x, "none"), x)
    np.testing.assert_allclose(scale_inputs(x, "0-1") * 255, x, rtol=1e-6)


@pytest.mark.parametrize("name", SCALINGS)
def test_scaling_is_float32_leaves_its_input_alone_and_knows_channels_first(name):
    x = images(4).astype(np.uint8)
    before = x.copy()
    result = scale_inputs(x, name)
    assert result.dtype == np.float32 and result.shape == x.shape
    np.testing.assert_array_equal(x, before)
    first = scale_inputs(np.moveaxis(x, -1, 1), name, data_format="channels_first")
    np.testing.assert_allclose(np.moveaxis(first, 1, -1), result, atol=1e-5)
    again = np.float32(x)
    assert not np.shares_memory(scale_inputs(again, name), again)


@pytest.mark.parametrize(
    ("x", "name", "options", "message"),
    [
        (images(1), "torch", {}, "none, 0-1"),
        (images(1)[..., :1], "imagenet", {}, "three channels"),
        (images(1), "caffe", {"data_format": "channels_first"}, "three channels"),
        (images(1), "0-1", {"data_format": "last"}, "channels_last"),
    ],
)
def test_bad_scaling(x, name, options, message):
    with pytest.raises(DataError, match=message):
        scale_inputs(x, name, **options)


# --- by layers and names ----------------------------------------------------------------------------------------------


def named(name, *layers):
    return keras.Sequential([keras.Input((8, 8, 3)), *layers, keras.layers.Conv2D(2, 3)], name=name)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet50", "caffe"),
        ("resnet152v2", "-1-1"),
        ("vgg19", "caffe"),
        ("mobilenet_100_224", "-1-1"),
        ("mobilenetv2_035_224", "-1-1"),
        ("inception_resnet_v2", "-1-1"),
        ("xception", "-1-1"),
        ("NASNet", "-1-1"),
        ("densenet121", "imagenet"),
        ("convnext_tiny", "imagenet"),
        ("efficientnetv2-b0", "imagenet"),
        ("efficientnetv2-s", "-1-1"),
        ("efficientnetb0", "none"),
        ("resnet20", None),
        ("my_model", None),
    ],
)
def test_families_by_name(name, expected):
    assert guess_scaling(named(name))[0] == expected
    assert guess_scaling(keras.Sequential([keras.Input((8, 8, 3)), named(name)], name="outer"))[0] == expected


@pytest.mark.parametrize(
    ("family", "options"),
    [
        ("ResNet50V2", {}),
        ("MobileNetV2", {"alpha": 0.35}),
        ("MobileNetV3Small", {"minimalistic": True}),
        ("EfficientNetV2B0", {}),
    ],
)
def test_keras_applications(family, options):
    build = getattr(keras.applications, family)
    model = build(weights=None, include_top=False, input_shape=(32, 32, 3), **options)
    built_in = family in ("MobileNetV3Small", "EfficientNetV2B0")
    assert guess_scaling(model)[0] == ("none" if built_in else "-1-1")


def test_a_scaling_layer_counts_only_before_the_first_kernel():
    assert guess_scaling(named("vgg16", keras.layers.Rescaling(1 / 255)))[0] == "none"
    late = named("m", keras.layers.Conv2D(3, 3), keras.layers.Rescaling(2.0))
    assert guess_scaling(late)[0] is None


# --- by batch normalization -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["functional", "nested", "subclassed"])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_scaling_of_the_training_is_found(kind, scaling):
    model = toy(scaling, kind)
    chosen, reason = choose_scaling(model, images(seed=5))
    assert chosen == scaling, scaling_gaps(model, images(seed=5))
    assert "batch normalization" in reason and reason.endswith(".")


@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_scaling_is_found_after_a_short_training(scaling):
    model = toy(scaling, steps=40)
    assert choose_scaling(model, images(seed=5))[0] == scaling


def test_gap_is_zero_for_the_training_data_and_grows_with_distance():
    model = toy("0-1", steps=10_000)
    x = scale_inputs(images(), "0-1")
    assert batch_norm_gap(model, x) == pytest.approx(0, abs=1e-4)
    assert 0.01 < batch_norm_gap(model, 2 * x) < batch_norm_gap(model, 20 * x)


def test_measurement_leaves_the_model_as_it_was():
    model = toy("0-1")
    x = images()
    weights, before = (model.get_weights(), np.asarray(keras.ops.convert_to_numpy(model(x, training=False))))
    scaling_gaps(model, x)
    assert "call" not in vars(model.get_layer("norm"))
    for weight, kept in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, kept)
    np.testing.assert_array_equal(np.asarray(keras.ops.convert_to_numpy(model(x, training=False))), before)


def test_batch_norm_is_believed_more_than_a_name_or_a_layer():
    model = toy("imagenet")
    renamed = keras.Model(model.inputs[0], model.outputs[0], name="resnet50")
    assert guess_scaling(renamed)[0] == "caffe"
    assert choose_scaling(renamed, images())[0] == "imagenet"


def test_without_batch_norm():
    assert np.isnan(batch_norm_gap(named("m"), images()))
    assert choose_scaling(named("vgg16"), images())[0] == "caffe"
    name, reason = choose_scaling(named("m"), images())
    assert name == "0-1" and "guess" in reason


def test_an_untrained_batch_norm_tells_nothing():
    model = named("m", keras.layers.Conv2D(3, 3), keras.layers.BatchNormalization())
    assert np.isnan(batch_norm_gap(model, images()))
    assert choose_scaling(model, images())[0] == "0-1"


def test_inputs_that_do_not_fit_tell_nothing():
    model = toy("0-1")
    assert np.isnan(batch_norm_gap(model, images()[..., :2]))
    assert "call" not in vars(model.get_layer("norm"))


def test_grey_images_have_no_imagenet_scaling():
    grey = images(seed=5)[..., :1]
    model = toy("-1-1", channels=1)
    assert set(scaling_gaps(model, grey)) == {"none", "0-1", "-1-1"}
    assert choose_scaling(model, grey)[0] == "-1-1"


def test_scaled_data_stay_as_they_are():
    name, reason = choose_scaling(toy("none"), images() / 255)
    assert name == "none" and "already" in reason


@needs_shared
@pytest.mark.parametrize("teacher", ["cifar10_resnet20", "cifar10_resnet56"])
def test_real_teachers(teacher):
    path = SHARED / "teachers" / f"{teacher}.keras"
    with zipfile.ZipFile(path) as archive:
        saved_by = json.loads(archive.read("metadata.json"))["keras_version"]
    if [int(part) for part in saved_by.split(".")[:2]] > [int(part) for part in keras.__version__.split(".")[:2]]:
        pytest.skip(f"saved by Keras {saved_by}, which Keras {keras.__version__} does not read")
    model = keras.saving.load_model(path, compile=False)
    for file in ("cifar10_test1000", "imagenette10_32", "flowers102_20c_32", "caltech101_20c_32"):
        with np.load(SHARED / "images" / f"{file}.npz") as arrays:
            x = arrays["x" if "x" in arrays.files else "x_train"]
        sample = x[np.random.default_rng(0).permutation(len(x))[:64]]
        gaps = scaling_gaps(model, sample)
        assert choose_scaling(model, sample)[0] == "imagenet"
        assert gaps["imagenet"] < 0.05 and sorted(gaps.values())[1] > 4 * gaps["imagenet"], (file, gaps)


@pytest.mark.parametrize("name", SCALINGS)
@pytest.mark.parametrize(("data_format", "shape"), [("channels_last", (2, 5, 4, 3)), ("channels_first", (2, 3, 5, 4))])
def test_scaled_images_lie_in_memory_as_any_tensor_can_be_made_of(name, data_format, shape):
    scaled = scale_inputs(np.ones(shape, "uint8"), name, data_format=data_format)
    assert scaled.flags.c_contiguous and scaled.dtype == np.float32


def test_other_than_four_axes_with_channels_first_are_refused():
    with pytest.raises(DataError, match="three channels"):
        scale_inputs(np.ones((2, 3, 8)), "caffe", data_format="channels_first")


def test_a_batch_normalization_inside_a_composite_layer_tells_the_scaling():
    class Block(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.conv, self.bn = keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()

        def call(self, x):
            return self.bn(self.conv(x), training=False)

    block = Block()
    model = keras.Sequential([keras.Input((8, 8, 3)), block, keras.layers.GlobalAveragePooling2D()])
    raw = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3)).astype("float32")
    seen = np.asarray(keras.ops.convert_to_numpy(block.conv(scale_inputs(raw, "-1-1"))))
    block.bn.moving_mean.assign(seen.mean(axis=(0, 1, 2)))
    block.bn.moving_variance.assign(seen.var(axis=(0, 1, 2)))
    assert choose_scaling(model, raw)[0] == "-1-1"
