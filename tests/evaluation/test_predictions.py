"""What models say about pixels, whatever scaling and kind of output they have."""

import keras
import numpy as np
import pytest
from keras import layers as kl
from toys import build_cnn

from keras_remos.data.pixels import PixelSpace
from keras_remos.errors import DataError, RemosError
from keras_remos.evaluation.predictions import check_fits, predict_all, predict_classes

IMAGES = np.random.default_rng(0).integers(0, 256, (11, 8, 8, 3)).astype("uint8")


def expected(model: keras.Model, space: PixelSpace) -> np.ndarray:
    return np.argmax(keras.ops.convert_to_numpy(model(space.scale(IMAGES))), axis=-1)


def logits_of(model: keras.Model) -> keras.Model:
    head = kl.Dense(3, name="logits")
    same = keras.Model(model.input, head(model.get_layer("pool").output), name="logits")
    head.kernel.assign(model.get_layer("head").kernel)
    head.bias.assign(model.get_layer("head").bias)
    return same


@pytest.mark.parametrize("batch_size", [4, 11, 64])
def test_the_class_is_the_greatest_output_whatever_the_batch_size(batch_size: int) -> None:
    model, space = build_cnn(), PixelSpace("imagenet")
    said = predict_classes(model, IMAGES, space, batch_size=batch_size)
    assert said.dtype == np.int64 and said.tolist() == expected(model, space).tolist()


def test_several_models_are_asked_at_once_each_in_its_own_scaling() -> None:
    model = build_cnn()
    panel = {
        "softmax": (model, PixelSpace("imagenet")),
        "logits": (logits_of(model), PixelSpace("imagenet")),
        "raw": (model, PixelSpace("none")),
    }
    said = predict_all(panel, IMAGES, batch_size=4)
    assert np.array_equal(said["softmax"], said["logits"])
    for name, (judge, space) in panel.items():
        assert np.array_equal(said[name], expected(judge, space))


def test_subclassed_models_are_asked_too() -> None:
    class Plain(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.inner = build_cnn()

        def call(self, x: object, training: bool = False) -> object:
            return self.inner(x, training=training)

    space = PixelSpace("0-1")
    assert check_fits(Plain(), IMAGES, space, "plain") == 3
    assert np.array_equal(predict_classes(Plain(), IMAGES, space), expected(build_cnn(), space))


def test_what_does_not_fit_the_memory_names_a_batch_size(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object) -> object:
        raise MemoryError("out of memory")

    monkeypatch.setattr("keras_remos.evaluation.predictions.compiled", lambda function, *models: full)
    with pytest.raises(RemosError, match="`batch_size=8` and 1 models: try `batch_size=4`"):
        predict_classes(build_cnn(), IMAGES, PixelSpace("none"), batch_size=8)


@pytest.mark.parametrize("batch_size", [0, 2.5])
def test_a_batch_holds_a_whole_number_of_images(batch_size: object) -> None:
    with pytest.raises(RemosError, match="`batch_size` must be a whole number"):
        predict_classes(build_cnn(), IMAGES, PixelSpace("none"), batch_size=batch_size)  # type: ignore[arg-type]


def with_nan() -> keras.Model:
    model = build_cnn()
    model.get_layer("head").bias.assign([0.0, np.nan, 0.0])
    return model


def with_output(*tail: kl.Layer) -> keras.Model:
    x = keras.Input((8, 8, 3))
    h = x
    for layer in tail:
        h = layer(h)
    return keras.Model(x, h)


@pytest.mark.parametrize(
    ("model", "x", "error", "message"),
    [
        (build_cnn, np.zeros((2, 9, 8, 3)), DataError, "takes images of shape 8 x 8 x 3, the data has 9 x 8 x 3"),
        (build_cnn, np.zeros((2, 8, 8)), DataError, "the data has 8 x 8"),
        (build_cnn, np.full((2, 8, 8, 3), 300.0), DataError, "0 to 255"),
        (with_nan, IMAGES, RemosError, "NaN or infinity for 11 of 11"),
        (lambda: with_output(kl.Flatten(), kl.Dense(1)), IMAGES, RemosError, "no classifier"),
        (lambda: with_output(kl.Conv2D(2, 1)), IMAGES, RemosError, "no classifier"),
    ],
)
def test_wrong_input_is_named(model: object, x: np.ndarray, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        predict_classes(model(), x, PixelSpace("none"))  # type: ignore[operator]
