"""Pixel spaces against `scale_inputs`, as arrays and as tensors that gradients pass."""

import numpy as np
import pytest
from keras import ops
from toys import numpy

from keras_remos.data.pixels import PixelSpace
from keras_remos.data.scaling import SCALINGS, scale_inputs
from keras_remos.errors import DataError, MismatchError, RemosError
from keras_remos.models.input_gradients import value_and_grad

PIXELS = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3)).astype("float32")
RANGES = [(0.0, 255.0), (0.0, 1.0), (-1.0, 1.0)]


def in_range(low: float, high: float) -> np.ndarray:
    return (low + PIXELS / 255 * (high - low)).astype("float32")


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_pixels_are_scaled_as_scale_inputs_does(scaling: str, data_format: str) -> None:
    pixels = PIXELS if data_format == "channels_last" else np.moveaxis(PIXELS, -1, 1)
    space = PixelSpace(scaling, data_format=data_format)
    expected = scale_inputs(pixels, scaling, data_format=data_format)
    np.testing.assert_array_equal(space.scale(pixels), expected)
    np.testing.assert_array_equal(space.scale(pixels.astype("uint8")), expected)
    np.testing.assert_allclose(numpy(space.scale(ops.convert_to_tensor(pixels))), expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(space.unscale(expected), pixels, atol=1e-4)


@pytest.mark.parametrize("limits", RANGES)
@pytest.mark.parametrize("scaling", SCALINGS[1:])
def test_any_range_of_pixels_gives_the_same_inputs(scaling: str, limits: tuple[float, float]) -> None:
    space, pixels = PixelSpace(scaling, *limits), in_range(*limits)
    expected = scale_inputs(PIXELS, scaling)
    np.testing.assert_allclose(space.scale(pixels), expected, atol=2e-5)
    np.testing.assert_allclose(numpy(space.scale(ops.convert_to_tensor(pixels))), expected, atol=2e-5)
    np.testing.assert_allclose(space.unscale(expected), pixels, atol=1e-4)
    assert space.epsilon(255) == pytest.approx(limits[1] - limits[0])


@pytest.mark.parametrize("scaling", SCALINGS)
def test_gradients_pass(scaling: str) -> None:
    space = PixelSpace(scaling)
    weights = np.random.default_rng(1).normal(size=PIXELS.shape).astype("float32")
    _, gradient = value_and_grad(lambda x, weights: ops.sum(space.scale(x) * weights))(PIXELS, weights)
    # Scaling is affine: one more level moves the sum by the gradient.
    moved = float(np.sum((scale_inputs(PIXELS + weights, scaling) - scale_inputs(PIXELS, scaling)) * weights))
    assert float(np.sum(numpy(gradient) * weights)) == pytest.approx(moved, rel=1e-3)


def test_only_images_of_three_channels_have_colours() -> None:
    with pytest.raises(DataError, match="three channels"):
        PixelSpace("imagenet").scale(ops.zeros((1, 4, 4, 1)))
    assert PixelSpace("0-1").scale(ops.ones((1, 4, 4, 1))).shape == (1, 4, 4, 1)


def test_a_preprocessor_is_no_formula() -> None:
    with pytest.raises(RemosError, match="own preprocessor.*`scaling`"):
        PixelSpace("preprocessor").scale(PIXELS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scaling": "half"}, "Unknown scaling 'half'"),
        ({"data_format": "last"}, "channels_last"),
        ({"low": 1.0, "high": 1.0}, "low=1.0, high=1.0"),
        ({"high": float("nan")}, "high=nan"),
    ],
)
def test_what_is_no_space(options: dict[str, object], message: str) -> None:
    with pytest.raises(RemosError, match=message):
        PixelSpace(**options)  # type: ignore[arg-type]


def test_values_outside_the_range_are_no_pixels() -> None:
    PixelSpace().check(PIXELS)
    for wrong in (PIXELS - 300, PIXELS * 2, np.full((1, 2), np.nan), np.zeros((0, 2)), np.array(["a"])):
        with pytest.raises(DataError):
            PixelSpace().check(wrong)
    with pytest.raises(DataError, match="0 to 1, received values from 0 to 255"):
        PixelSpace(high=1.0).check(PIXELS)


def test_spaces_of_the_same_pixels_may_scale_them_in_their_own_ways() -> None:
    PixelSpace("imagenet").check_same_pixels(PixelSpace("caffe"))
    with pytest.raises(MismatchError, match="0 to 255.*0 to 1"):
        PixelSpace().check_same_pixels(PixelSpace(high=1.0))
