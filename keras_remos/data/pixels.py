"""`PixelSpace`: how a model's inputs come from pixels, in both directions that an attack needs."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from keras import ops
from numpy.lib.mixins import NDArrayOperatorsMixin

from keras_remos.data.scaling import SCALINGS, scale_inputs
from keras_remos.errors import DataError, MismatchError, RemosError
from keras_remos.untrusted import pieces

PREPROCESSOR = "preprocessor"
# Epsilons are given in levels of a common image file, whatever the range of the pixels at hand.
LEVELS = 255
# How far from a level what is meant to be one may be, in levels: float32 rounds, and scaling back and forth does.
_SLACK = 1e-4
# Bytes of pixels that are rounded at a time.
_AT_ONCE = 2**20


@dataclass(frozen=True)
class PixelSpace:
    """How a model's inputs come from pixels: the range that pixels may take, and their scaling.

    Attacks are made, projected and stored in pixels, so that one attack set fits students with other scalings.

    Args:
        scaling: One of `SCALINGS`, or `"preprocessor"` where the model brings its own (gradients cannot pass it). All
            but `"none"` first bring `[low, high]` to 0 to 255, the range that they are defined on.
        low: The smallest pixel value: 0 for image files.
        high: The largest: 255 for image files, 1 for arrays that hold `x / 255`.
        data_format: `"channels_last"` or `"channels_first"`.

    Raises:
        RemosError: If an option has no such value or the range is empty.

    Example:
    ```python
    space = PixelSpace("imagenet")
    model(space.scale(images))         # images: uint8 or float, 0 to 255
    space.epsilon(5.7)                 # 5.7: an epsilon of 5.7/255 of the range, in pixels
    ```
    """

    scaling: str = "none"
    low: float = 0.0
    high: float = 255.0
    data_format: str = "channels_last"

    def __post_init__(self) -> None:
        if self.scaling not in (*SCALINGS, PREPROCESSOR):
            raise RemosError(f"Unknown scaling {self.scaling!r}: expected one of {', '.join(SCALINGS)}.")
        if self.data_format not in ("channels_last", "channels_first"):
            raise RemosError(
                f"`data_format` must be 'channels_last' or 'channels_first', received {self.data_format!r}."
            )
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise RemosError(
                f"Pixels must range from a finite low to a greater high (`pixel_range`), received low={self.low}, "
                f"high={self.high}."
            )

    @property
    def channel_axis(self) -> int:
        """The axis of the channels in a batch of images."""
        return -1 if self.data_format == "channels_last" else 1

    def scale(self, x: Any) -> Any:
        """Turns pixels into what the model takes.

        Args:
            x: Pixels, shape `(batch, ...)`: a NumPy array of any type, or `Samples`, which are read; or a float tensor
                of the backend (then the result is one too, and gradients pass).

        Returns:
            float32, the same shape. For NumPy arrays of 0 to 255 exactly `scale_inputs`; for tensors the same to
            within float32 rounding.

        Raises:
            RemosError: If the scaling is the model's own preprocessor.
            DataError: If the scaling is per channel and there are not three of them.
        """
        self.check_scales()
        if isinstance(x, (np.ndarray, NDArrayOperatorsMixin)):
            return scale_inputs(self._to_levels(np.asarray(x)), self.scaling, data_format=self.data_format)
        if self.scaling == "none":
            return x
        gain, offset = self._affine(len(x.shape), x.shape[self.channel_axis])
        if self.scaling == "caffe":
            x = ops.flip(x, axis=self.channel_axis)
        return x * ops.convert_to_tensor(gain) + ops.convert_to_tensor(offset)

    def check_scales(self) -> None:
        """Makes sure that the scaling is a known formula, which gradients pass.

        Raises:
            RemosError: If it is the model's own preprocessor.
        """
        if self.scaling == PREPROCESSOR:
            raise RemosError(
                "This model's images are scaled by its own preprocessor, which no gradient passes. Say how they are "
                f"scaled (`scaling`): one of {', '.join(SCALINGS)}."
            )

    def unscale(self, x: np.ndarray) -> np.ndarray:
        """The inverse of `scale`: pixels from what a model takes, not clipped to their range.

        Args:
            x: NumPy array, `(batch, ...)`.

        Returns:
            float32, the same shape.
        """
        self.check_scales()
        if self.scaling == "none":
            return np.array(x, np.float32)
        gain, offset = self._affine(x.ndim, x.shape[self.channel_axis])
        pixels = (np.asarray(x, np.float32) - offset) / gain
        return np.flip(pixels, self.channel_axis) if self.scaling == "caffe" else pixels

    def to_levels(self, x: np.ndarray, *, near: np.ndarray, within: float, towards: bool = True) -> np.ndarray:
        """Rounds pixels to the 256 levels of an image file, and takes none further from where it was than it may be.

        Args:
            x: Pixels, shape `(n, ...)`.
            near: What they were made from, the same shape.
            within: How far from it a pixel may be, in levels. At least 1, as a level that near may not exist otherwise;
                then the nearest one is taken.
            towards: Whether all are rounded towards what they were made from; else to the nearest level that is within.

        Returns:
            uint8, the same shape: 0 is `low`, 255 is `high`.
        """
        made = np.empty(x.shape, np.uint8)
        # In float64 a whole batch would take a multiple of its room.
        for piece in pieces(x, size=_AT_ONCE):
            levels, start = (self.as_levels(np.asarray(pixels[piece], np.float64)) for pixels in (x, near))
            nearest = np.rint(start)
            start = np.where(np.abs(start - nearest) <= _SLACK, nearest, start)
            rounded = np.where(levels >= start, np.floor(levels), np.ceil(levels)) if towards else np.rint(levels)
            least, most = np.ceil(start - within), np.floor(start + within)
            rounded = np.where(least <= most, np.clip(rounded, least, most), nearest)
            made[piece] = np.clip(rounded, 0, LEVELS)
        return made

    def nearest_levels(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rounds pixels to the nearest of the 256 levels of an image file.

        Args:
            x: Pixels, shape `(n, ...)`.

        Returns:
            uint8, the same shape; and which images are levels as they are, booleans of shape `(n,)`.
        """
        if x.dtype == np.uint8 and self._of_bytes:
            return x, np.ones(len(x), bool)
        levels = self.as_levels(np.asarray(x, np.float32))
        nearest = np.clip(np.nan_to_num(np.rint(levels)), 0, LEVELS)
        whole = (np.abs(levels - nearest) <= _SLACK).reshape(len(x), -1).all(axis=1)
        return nearest.astype(np.uint8), whole

    def from_levels(self, levels: np.ndarray) -> np.ndarray:
        """Pixels of this range, float32, from the 256 levels of an image file."""
        if self._of_bytes:
            return levels.astype(np.float32)
        pixels = (self.low + levels * self.epsilon(1.0)).astype(np.float32)
        # Its ends need not be numbers of float32: then what is next to them inside.
        low, high = np.float32(self.low), np.float32(self.high)
        low = low if float(low) >= self.low else np.nextafter(low, high)
        high = high if float(high) <= self.high else np.nextafter(high, low)
        return np.clip(pixels, low, high)

    @property
    def _of_bytes(self) -> bool:
        return (self.low, self.high) == (0, LEVELS)

    def as_levels(self, x: np.ndarray) -> np.ndarray:
        """Pixels of any shape as levels, not rounded: `low` is 0, `high` 255."""
        return (x - self.low) * (LEVELS / (self.high - self.low))

    def _to_levels(self, x: np.ndarray) -> np.ndarray:
        if self.scaling == "none" or self._of_bytes:
            return x
        return self.as_levels(np.asarray(x, np.float32))

    def _affine(self, rank: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
        """Every scaling is `x * gain + offset` for each channel: two grey values tell both."""
        shape = [1] * rank
        shape[self.channel_axis] = channels
        ends = [
            scale_inputs(np.full(shape, level), self.scaling, data_format=self.data_format).astype(np.float64)
            for level in (0, LEVELS)
        ]
        gain = (ends[1] - ends[0]) / (self.high - self.low)
        return gain.astype(np.float32), (ends[0] - self.low * gain).astype(np.float32)

    @property
    def of_files(self) -> PixelSpace:
        """The same model's inputs out of pixels of image files, which are read as 0 to 255.

        Pixels of arrays may have been scaled before: `"none"` of `x / 255` is `"0-1"` of `x`. A range of another kind
        (of 12 bits, say) stays: such files are read as they are stored.
        """
        scaled = {(0.0, 255.0): "none", (0.0, 1.0): "0-1", (-1.0, 1.0): "-1-1"}.get((self.low, self.high))
        if scaled is None:
            return self
        scaling = scaled if self.scaling == "none" else self.scaling
        return replace(self, scaling=scaling, low=0.0, high=float(LEVELS))

    def epsilon(self, levels: float) -> float:
        """A distance that is given in levels of 255, in pixels of this range."""
        return levels * (self.high - self.low) / LEVELS

    def check(self, x: Any) -> None:
        """Makes sure that samples are pixels of this range.

        Args:
            x: An array, or `Samples`.

        Raises:
            DataError: If they are none, hold no numbers, or values outside the range.
        """
        if not math.prod(x.shape) or x.dtype.kind not in "uif":
            raise DataError(f"Expected at least one image of numbers, received shape {x.shape} of {x.dtype}.")
        least, most = (float(x.min()), float(x.max())) if isinstance(x, np.ndarray) else x.limits
        if not (self.low <= least and most <= self.high):
            raise DataError(
                f"Expected pixels from {self.low:g} to {self.high:g}, received values from {least:g} to {most:g}. "
                "Pass pixels as they are in the files, before any scaling, or say their range: "
                "`pixel_range`, or `low` and `high` of a PixelSpace."
            )

    def check_same_pixels(self, other: PixelSpace) -> None:
        """Makes sure that two models' pixels mean the same; their scalings may differ.

        Raises:
            MismatchError: If range or data format differ.
        """
        ours, theirs = ((space.low, space.high, space.data_format) for space in (self, other))
        if ours != theirs:
            raise MismatchError(
                f"Pixels from {self.low:g} to {self.high:g}, {self.data_format}, were expected; these range from "
                f"{other.low:g} to {other.high:g}, {other.data_format}. Bring both to one range and data format."
            )

    def get_config(self) -> dict[str, Any]:
        """The options, as `PixelSpace(**config)` takes them."""
        return asdict(self)
