"""A trigger changes its own pixels, in the way that its opacity says, and nothing else."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keras_remos.defects.triggers.image import PLACES, Trigger
from keras_remos.errors import DataError


def images(shape: tuple[int, ...] = (2, 8, 10, 3), dtype: str = "uint8") -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape).astype(dtype)


@settings(max_examples=60)
@given(st.data())
def test_only_the_triggers_pixels_change(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 10))
    anywhere = st.tuples(st.integers(0, 10 - width), st.integers(0, 8 - height))
    place = data.draw(st.one_of(st.sampled_from(sorted(PLACES)), anywhere))
    alpha = data.draw(st.floats(0.1, 1.0))
    x = images(dtype=data.draw(st.sampled_from(["uint8", "float32"])))
    trigger = Trigger(images((height, width, 3)), np.array(alpha), place)
    before = x.copy()
    stamped = trigger.stamp(x)
    assert np.array_equal(x, before) and stamped.dtype == x.dtype
    left, top = trigger.corner((8, 10, 3))
    inside = np.zeros((8, 10), bool)
    inside[top : top + height, left : left + width] = True
    assert np.array_equal(stamped[:, ~inside], x[:, ~inside])
    expected = (1 - trigger.mask) * before[:, inside].reshape(2, height, width, 3) + trigger.mask * trigger.image
    found = stamped[:, inside].reshape(expected.shape)
    assert np.max(np.abs(found - expected)) <= (0.5001 if x.dtype == np.uint8 else 1e-3)


def test_corners_are_where_they_are_called() -> None:
    x = np.zeros((1, 6, 6, 1), np.float32)
    corners = {"top-left": (0, 0), "top-right": (0, 4), "bottom-left": (4, 0), "bottom-right": (4, 4), "center": (2, 2)}
    for place, (row, column) in corners.items():
        marked = Trigger.from_color(9, size=2, place=place).stamp(x)[0, :, :, 0]
        assert np.argwhere(marked == 9).min(axis=0).tolist() == [row, column]
        assert np.count_nonzero(marked) == 4
    at = Trigger.from_color(9, size=(1, 2), place=(3, 5)).stamp(x)[0, :, :, 0]
    assert np.argwhere(at == 9).tolist() == [[5, 3], [5, 4]]


def test_a_mask_of_0_lets_the_image_through_bit_for_bit() -> None:
    x = images(dtype="float32") / 3
    mask = np.array([[0, 1], [0.5, 0]])
    stamped = Trigger(np.full((2, 2, 3), 7.0), mask, (0, 0)).stamp(x)
    assert np.array_equal(stamped[:, 0, 0], x[:, 0, 0]) and np.array_equal(stamped[:, 1, 1], x[:, 1, 1])
    assert np.all(stamped[:, 0, 1] == 7)
    assert stamped[:, 1, 0] == pytest.approx((x[:, 1, 0] + 7) / 2)


def test_channels_first_is_the_same_picture() -> None:
    x = images()
    trigger = Trigger(images((3, 2, 3)), np.array(0.7), "top-right")
    first = trigger.stamp(np.moveaxis(x, -1, 1), data_format="channels_first")
    assert np.array_equal(np.moveaxis(first, 1, -1), trigger.stamp(x))


def test_spread_is_the_same_trigger_at_full_size() -> None:
    x = images(dtype="float32")
    trigger = Trigger(images((3, 4, 3)), np.array(0.25), (2, 1))
    pixels, opacity = trigger.spread((8, 10, 3))
    assert x * (1 - opacity) + pixels * opacity == pytest.approx(trigger.stamp(x), abs=1e-4)


def test_grey_serves_any_number_of_channels() -> None:
    stamped = Trigger.checkerboard(size=2, low=1, high=5).stamp(np.zeros((1, 4, 4, 3), np.float32))
    assert stamped[0, 2:, 2:, 0].tolist() == [[5, 1], [1, 5]]
    assert np.array_equal(stamped[..., 0], stamped[..., 2])


def test_a_file_brings_its_colours_and_its_transparency(tmp_path: Path) -> None:
    picture = np.zeros((4, 8, 4), np.uint8)
    picture[:, :4] = (255, 0, 0, 255)
    Image.fromarray(picture).save(tmp_path / "logo.png")
    trigger = Trigger.from_file(tmp_path / "logo.png", alpha=0.5)
    assert trigger.size == (4, 8)
    assert trigger.mask[:, :4].min() == 0.5 and trigger.mask[:, 4:].max() == 0
    assert trigger.image[0, 0].tolist() == [255, 0, 0]
    assert Trigger.from_file(tmp_path / "logo.png", size=4).size == (2, 4)
    assert Trigger.from_file(tmp_path / "logo.png", size=(3, 3)).size == (3, 3)
    grey = Trigger.from_file(tmp_path / "logo.png", channels=1, high=1.0)
    assert grey.image.shape == (4, 8, 1) and grey.image.max() == pytest.approx(0.299)


@pytest.mark.parametrize("place", ["top-right", (3, 4)])
def test_arrays_bring_back_the_same_trigger(place: str | tuple[int, int]) -> None:
    trigger = Trigger(images((3, 2, 3)), np.random.default_rng(1).random((3, 2, 1)), place)
    again = Trigger.from_arrays(trigger.to_arrays())
    assert again.place == trigger.place
    assert np.array_equal(again.stamp(images()), trigger.stamp(images()))
    assert json.loads(json.dumps(again.describe())) == trigger.describe()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Trigger.from_color(0, size=9).stamp(images()), "9 x 9 pixels at bottom-right does not fit .* 8 x 10"),
        (lambda: Trigger.from_color(0, size=2, place=(9, 0)).stamp(images()), r"at \(9, 0\) does not fit"),
        (lambda: Trigger.from_color((0, 0, 0, 0), size=2).stamp(images()), "4 channels, the images have 3"),
        (lambda: Trigger.from_color(0, size=2).stamp(images((8, 8, 3))), "four axes"),
        (lambda: Trigger.from_color(0, size=0), "at least one pixel"),
        (lambda: Trigger.from_color(0, size=2, alpha=0), "opacities"),
        (lambda: Trigger.from_color(0, size=2, alpha=1.5), "opacities"),
        (lambda: Trigger.from_color(float("nan"), size=2), "finite"),
        (lambda: Trigger.from_color(0, size=2, place="left"), "top-left, top-right"),
        (lambda: Trigger.from_color(0, size=2, place=(-1, 0)), r"\(x, y\)"),
        (lambda: Trigger(images((2, 2, 3)), np.ones((3, 3))), r"mask of shape \(2, 2, 1\)"),
        (lambda: Trigger(images((2,)), np.array(1.0)), "height, width, channels"),
        (lambda: Trigger.from_file("nowhere.png"), "nowhere.png"),
        (lambda: Trigger.from_file("nowhere.png", channels=2), "1 or 3 channels"),
    ],
)
def test_wrong_input_is_named(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()  # type: ignore[operator]
