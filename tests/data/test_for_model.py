"""Data sets in the form that a model takes: axes, and pixels that are scaled once."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers as kl

from keras_remos.data.for_model import open_for_model
from keras_remos.errors import DataError


def model_of(shape: tuple[int | None, ...], data_format: str = "channels_last", **how: Any) -> keras.Model:
    return keras.Sequential(
        [keras.Input(shape), kl.GlobalAveragePooling2D(data_format=data_format), kl.Dense(2)], **how
    )


def stored(folder: Path, x: np.ndarray) -> Path:
    np.savez(folder / "data.npz", x=x, y=np.arange(len(x)) % 2)
    return folder / "data.npz"


def pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, *shape)).astype("uint8")


def read(model: keras.Model, path: Path, **options: Any) -> tuple[np.ndarray, Any]:
    matched = open_for_model(model, path, scaling="none", **options)
    x, y = matched.dataset.read_all()
    np.testing.assert_array_equal(np.sort(y), [0, 0, 0, 1, 1, 1])
    return x, matched


def in_order(x: np.ndarray) -> list[list[float]]:
    """Images, whatever the order of the samples."""
    return sorted(x.reshape(len(x), -1).tolist())


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sides=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    channels=st.integers(1, 13),
    known=st.booleans(),
    kept_first=st.booleans(),
)
def test_arrays_are_read_as_the_model_takes_them(
    tmp_path: Path, sides: tuple[int, int], channels: int, known: bool, kept_first: bool
) -> None:
    shape = (channels, *(sides if known else (None, None)))
    first = pixels(channels, *sides)
    x = first if kept_first else np.moveaxis(first, 1, -1)
    if not kept_first and x.shape[1] == channels and (not known or x.shape[1:] == first.shape[1:]):
        first = x  # as the model takes it, as far as anyone can tell
    found, matched = read(model_of(shape, "channels_first"), stored(tmp_path, x))
    assert found.dtype == np.float32 and matched.space.data_format == "channels_first"
    assert in_order(found) == in_order(first.astype("float32"))


def test_grey_arrays_get_a_channel_in_front(tmp_path: Path) -> None:
    found, _ = read(model_of((1, 4, 5), "channels_first"), stored(tmp_path, pixels(4, 5)))
    assert found.shape == (6, 1, 4, 5)


@pytest.mark.parametrize("shape", [(1, 128, 2), (5, 4, 12), (2, 6, 6), (3, 8, 8)])
def test_channels_last_stay_last(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    x = pixels(*shape)
    found, matched = read(model_of(shape), stored(tmp_path, x))
    assert matched.space.data_format == "channels_last"
    assert in_order(found) == in_order(x.astype("float32"))


def test_arrays_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = stored(tmp_path, pixels(3, 6, 6))
    with pytest.raises(DataError, match=r"\(3, 8, 8\).*\(8, 8, 3\).*Received: \(3, 6, 6\)"):
        open_for_model(model_of((3, 8, 8), "channels_first"), path)


def test_a_size_that_was_asked_for_is_checked(tmp_path: Path) -> None:
    path, model = stored(tmp_path, pixels(3, 6, 6)), model_of((3, None, None), "channels_first")
    assert read(model, path, image_size=(6, 6))[0].shape == (6, 3, 6, 6)
    with pytest.raises(DataError, match="8, 8"):
        open_for_model(model, path, image_size=(8, 8))


def test_images_in_files_are_turned(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for number, values in enumerate(pixels(5, 4, 3)):
        (tmp_path / "ab"[number % 2]).mkdir(exist_ok=True)
        image.fromarray(values).save(tmp_path / "ab"[number % 2] / f"{number}.png")
    found, _ = read(model_of((3, 5, 4), "channels_first"), tmp_path)
    assert in_order(found) == in_order(np.moveaxis(pixels(5, 4, 3), -1, 1).astype("float32"))


def test_pixels_are_scaled_once(tmp_path: Path) -> None:
    x = keras.Input((8, 8, 3))
    scaled = keras.applications.vgg16.preprocess_input(x)
    model = keras.Model(x, kl.Dense(2)(kl.Flatten()(kl.Conv2D(2, 3)(scaled))), name="vgg16")
    matched = open_for_model(model, stored(tmp_path, pixels(8, 8, 3)))
    assert matched.scaling == "none" and "itself" in matched.reason
    assert in_order(matched.dataset.read_all()[0]) == in_order(pixels(8, 8, 3).astype("float32"))
