"""Input scaling: the functions, and finding out which one a teacher was trained with."""

import json
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

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


@pytest.mark.slow
@pytest.mark.once
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


# --- scaled inside ----------------------------------------------------------------------------------------------------


def preprocess(mode):
    return lambda x: keras.applications.imagenet_utils.preprocess_input(x, "channels_last", mode)


class Inside(keras.layers.Layer):
    """Scales within, and hands on to a convolution of its own."""

    def __init__(self, scale):
        super().__init__()
        self.scale, self.conv = scale, keras.layers.Conv2D(2, 3)

    def call(self, x):
        return self.conv(self.scale(x))


# What a model may do to its inputs, and what it then takes.
INSIDE = {
    "x / 255": (lambda x: x / 255.0, "none"),
    "x / 127.5 - 1": (lambda x: x / 127.5 - 1.0, "none"),
    "imagenet": (preprocess("torch"), "none"),
    "caffe": (preprocess("caffe"), "none"),
    "tf": (preprocess("tf"), "none"),
    "mean": (lambda x: x - np.array([123.0, 117.0, 104.0], "float32"), "none"),
    "reversal": (lambda x: ops.flip(x, -1), "none"),
    "reversal and mean": (lambda x: ops.flip(x, -1) - np.array([104.0, 117.0, 123.0], "float32"), "none"),
    "own statistics": (lambda x: (x - 120.0) / 60.0, "none"),
    "clipped": (lambda x: ops.clip(x, 0, 255) / 255.0, "none"),
    "rescaling": (keras.layers.Rescaling(1 / 255), "none"),
    "normalization": (keras.layers.Normalization(mean=120.0, variance=3600.0), "none"),
    "2 x - 1": (lambda x: 2 * x - 1, "0-1"),
    "255 x": (lambda x: ops.clip(x, 0, 1) * 255, "0-1"),
    "own statistics of 0 to 1": (lambda x: (x - 0.47) / 0.25, "0-1"),
    "(x + 1) / 2": (lambda x: (x + 1) / 2, "-1-1"),
}
# What leaves the values as they are.
OUTSIDE = {
    "nothing": lambda x: x,
    "padding": keras.layers.ZeroPadding2D(3),
    "padding and pooling": lambda x: keras.layers.AveragePooling2D(2)(keras.layers.ZeroPadding2D(1)(x)),
    "resizing": keras.layers.Resizing(6, 6),
    "patches": lambda x: ops.reshape(x, (-1, 16, 12)),
    "transposed": lambda x: ops.transpose(x, (0, 2, 1, 3)),
    "augmentation": keras.layers.RandomFlip(),
}


def scaled_inside(scale, where="operators", *, name="vgg16", channels=3):
    """A model whose name says "caffe", and that scales its inputs itself."""
    x = keras.Input((8, 8, channels))
    if where == "nested":
        h = keras.Model(x, keras.layers.Conv2D(2, 3)(scale(x)))(x)
    elif where == "before":
        h = keras.Sequential([keras.Input((8, 8, channels)), keras.layers.Conv2D(2, 3)], name="vgg19")(scale(x))
    elif where == "layer":
        h = Inside(scale)(x)
    elif where == "subclassed":

        class Subclassed(keras.Model):
            def __init__(self):
                super().__init__(name=name)
                self.inside = Inside(scale)

            def call(self, x):
                return self.inside(x)

        model = Subclassed()
        model(np.zeros((1, 8, 8, channels), np.float32))
        return model
    else:
        h = scale(x)
        h = keras.layers.Conv2D(2, 3)(h) if len(h.shape) == 4 else keras.layers.Dense(2)(h)
    return keras.Model(x, h, name=name)


@pytest.mark.parametrize("kind", INSIDE)
def test_a_scaling_of_operators_is_seen(kind):
    scale, expected = INSIDE[kind]
    model = scaled_inside(scale)
    name, reason = guess_scaling(model)
    assert name == expected and "scales its inputs itself" in reason
    assert choose_scaling(model, images())[0] == expected


@pytest.mark.parametrize("where", ["nested", "before", "layer", "subclassed"])
@pytest.mark.parametrize("kind", ["x / 255", "caffe", "2 x - 1"])
def test_a_scaling_is_seen_wherever_it_stands(kind, where):
    scale, expected = INSIDE[kind]
    assert choose_scaling(scaled_inside(scale, where), images())[0] == expected


@pytest.mark.parametrize("kind", OUTSIDE)
def test_what_scales_nothing_is_no_scaling(kind):
    assert guess_scaling(scaled_inside(OUTSIDE[kind]))[0] == "caffe"


def test_what_a_real_architecture_sees():
    x = keras.Input((32, 32, 3))
    base = keras.applications.VGG16(weights=None, include_top=False, input_shape=(32, 32, 3))
    assert guess_scaling(base)[0] == "caffe"
    name, reason = guess_scaling(keras.Model(x, base(keras.applications.vgg16.preprocess_input(x))))
    assert name == "none" and "0 to 255 as -124 to 151" in reason


@pytest.mark.once
@settings(max_examples=25, deadline=None)
@given(
    gain=st.sampled_from([1 / 255, 1 / 127.5, 1 / 64, 1.0]),
    offset=st.floats(-2, 2),
    channels=st.integers(1, 5),
    sides=st.tuples(*[st.one_of(st.none(), st.integers(3, 9))] * 2),
    data_format=st.sampled_from(["channels_last", "channels_first"]),
)
def test_a_model_is_measured_whatever_its_axes(gain, offset, channels, sides, data_format):
    first = data_format == "channels_first"
    x = keras.Input((channels, *sides) if first else (*sides, channels))
    h = x * gain + (offset if gain < 1 else 0)
    # Pooled first: TensorFlow has convolutions of channels_first on some processors only.
    h = keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D(data_format=data_format)(h))
    assert guess_scaling(keras.Model(x, h))[0] == ("none" if gain < 1 else None)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_scales_alike(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        for scale, expected in (*INSIDE.values(), (OUTSIDE["nothing"], "caffe")):
            if not isinstance(scale, keras.layers.Layer):
                assert guess_scaling(scaled_inside(scale))[0] == expected
    finally:
        keras.config.set_dtype_policy(before)


def test_grey_images_that_become_colours_are_scaled_inside():
    def scale(x):
        return preprocess("caffe")(ops.concatenate([x, x, x], axis=-1))

    assert guess_scaling(scaled_inside(scale, channels=1))[0] == "none"


def test_what_was_learned_is_no_scaling():
    norm = keras.layers.BatchNormalization()
    model = scaled_inside(norm)
    norm.set_weights([np.full(3, value) for value in (1.0, 0.0, 0.5, 0.1)])
    assert guess_scaling(model)[0] == "caffe"


def test_data_that_are_scaled_already_are_not_scaled_twice_in_silence():
    with pytest.warns(UserWarning, match="scaled already.*scales its inputs itself.*scaled twice"):
        assert choose_scaling(scaled_inside(INSIDE["x / 255"][0]), images() / 255)[0] == "none"
    assert choose_scaling(scaled_inside(INSIDE["2 x - 1"][0]), images() / 255)[0] == "none"
    assert choose_scaling(scaled_inside(OUTSIDE["nothing"]), images() / 255)[0] == "none"


def test_a_measurement_leaves_no_trace():
    model = scaled_inside(INSIDE["caffe"][0])
    before = model.get_weights()
    guess_scaling(model)
    assert not any("call" in vars(layer) for layer in model.layers)
    for weight, kept in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, kept)


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


@pytest.mark.once
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
