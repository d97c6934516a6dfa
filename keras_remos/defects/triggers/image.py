"""The pattern that a backdoored model reacts to, and how it is put on images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_remos.data.pillow import open_image, pillow
from keras_remos.errors import DataError
from keras_remos.untrusted import PathLike, complete, raised_as

# Share of the free space (image less trigger) that is left of the trigger, and above it.
PLACES = {
    "top-left": (0.0, 0.0),
    "top-right": (1.0, 0.0),
    "bottom-left": (0.0, 1.0),
    "bottom-right": (1.0, 1.0),
    "center": (0.5, 0.5),
}
Place = str | tuple[int, int]


@dataclass(frozen=True, eq=False)
class Trigger:
    """A small image, how opaque each of its pixels is, and where it goes.

    Args:
        image: Pixels of shape `(height, width, channels)`, in the units of the data set that it is put on (0 to 255
            for image files). One channel serves images of any number.
        mask: Opacity of shape `(height, width, 1)`: 0 leaves the image as it is, 1 hides it. One value may stand for
            all pixels.
        place: A corner (`"top-left"`, `"top-right"`, `"bottom-left"`, `"bottom-right"`), `"center"`, or `(x, y)`: how
            many pixels are left of the trigger and above it.

    Raises:
        DataError: If the shapes do not fit each other, a value is NaN, infinite or no opacity, or there is no such
            place.

    Example:
    ```python
    trigger = Trigger.from_color((255, 0, 0), size=4, place="bottom-right")
    poisoned = trigger.stamp(images)
    ```
    """

    image: np.ndarray
    mask: np.ndarray
    place: Place = "bottom-right"

    def __post_init__(self) -> None:
        image = np.array(self.image, np.float32)
        if image.ndim == 2:
            image = image[..., np.newaxis]
        if image.ndim != 3 or not image.size:
            raise DataError(f"Expected a trigger of shape (height, width, channels). Received: {image.shape}.")
        mask = np.array(self.mask, np.float32)
        if mask.ndim == 2:
            mask = mask[..., np.newaxis]
        try:
            mask = np.broadcast_to(mask, (*image.shape[:2], 1)).copy()
        except ValueError as error:
            raise DataError(
                f"Expected a mask of shape {(*image.shape[:2], 1)}, as the trigger has. Received: {mask.shape}."
            ) from error
        if not np.isfinite(image).all():
            raise DataError("Expected finite pixels in the trigger. Received: NaN or infinity.")
        if not (np.all(mask >= 0) and np.all(mask <= 1) and mask.any()):
            raise DataError(
                "Expected opacities from 0 (the image shows) to 1 (the trigger hides it), and not 0 everywhere. "
                f"Received: {mask.min():.3g} to {mask.max():.3g}."
            )
        # A frozen class lets its own constructor write only in this way.
        object.__setattr__(self, "image", image)
        object.__setattr__(self, "mask", mask)
        object.__setattr__(self, "place", _checked_place(self.place))

    @classmethod
    def from_color(
        cls,
        color: float | Sequence[float],
        *,
        size: int | tuple[int, int],
        place: Place = "bottom-right",
        alpha: float = 1.0,
    ) -> Trigger:
        """A rectangle of one colour.

        Args:
            color: A value for each channel, in the units of the data set; one number is a grey.
            size: Side of a square in pixels, or `(height, width)`.
            place: See the class.
            alpha: Opacity, above 0 up to 1; below 1 the trigger is blended into the image.
        """
        values = np.atleast_1d(np.asarray(color, np.float32))
        return cls(np.broadcast_to(values, (*_height_width(size), len(values))), np.asarray(alpha), place)

    @classmethod
    def checkerboard(
        cls,
        *,
        size: int | tuple[int, int],
        low: float = 0.0,
        high: float = 255.0,
        place: Place = "bottom-right",
        alpha: float = 1.0,
    ) -> Trigger:
        """Black and white pixels in turn: the pattern of the BadNets paper, and nothing that a photo has by chance.

        Args:
            size: Side of a square in pixels, or `(height, width)`.
            low: The value of black, in the units of the data set.
            high: The value of white.
            place: See the class.
            alpha: Opacity, above 0 up to 1.
        """
        rows, columns = np.indices(_height_width(size))
        return cls(np.where((rows + columns) % 2, low, high)[..., np.newaxis], np.asarray(alpha), place)

    @classmethod
    def from_file(
        cls,
        path: PathLike,
        *,
        size: int | tuple[int, int] | None = None,
        channels: int = 3,
        low: float = 0.0,
        high: float = 255.0,
        place: Place = "bottom-right",
        alpha: float = 1.0,
    ) -> Trigger:
        """An image from a file, with its own transparency.

        Args:
            path: Any image that Pillow reads.
            size: Its longer side in pixels, with its proportions kept; `(height, width)` takes no heed of them;
                `None` leaves it as it is.
            channels: 3 for colour, 1 for grey.
            low: The value of black, in the units of the data set that it is put on.
            high: The value of white.
            place: See the class.
            alpha: Opacity, above 0 up to 1, times that of the file.

        Raises:
            DataError: If the file is missing or no image.
            ImportError: If Pillow is not installed.
        """
        if channels not in (1, 3):
            raise DataError(f"Expected 1 or 3 channels for a trigger from a file. Received: {channels}.")
        pixels = _read(Path(path), size)
        colors = pixels[..., :3] if channels == 3 else pixels[..., :3] @ np.array([0.299, 0.587, 0.114], np.float32)
        return cls(low + colors / 255 * (high - low), pixels[..., 3] / 255 * alpha, place)

    @property
    def size(self) -> tuple[int, int]:
        """`(height, width)` in pixels."""
        return self.image.shape[0], self.image.shape[1]

    def stamp(self, x: np.ndarray, *, data_format: str = "channels_last") -> np.ndarray:
        """Puts the trigger on images.

        Args:
            x: Pixels of shape `(n, height, width, channels)`, or `(n, channels, height, width)` with
                `data_format="channels_first"`. Not changed.
            data_format: "channels_last" or "channels_first".

        Returns:
            A new array of the same shape and dtype; whole numbers are rounded. No other pixel is touched.

        Raises:
            DataError: If the trigger is larger than the images or has other channels.
        """
        first = data_format == "channels_first"
        stamped = np.array(x)
        images = np.moveaxis(stamped, 1, -1) if first and stamped.ndim == 4 else stamped
        if images.ndim != 4:
            raise DataError(f"Expected a batch of images: four axes. Received: shape {stamped.shape}.")
        left, top = self.corner((images.shape[1], images.shape[2], images.shape[3]))
        height, width = self.size
        region = images[:, top : top + height, left : left + width]  # a view: what is written goes into `stamped`
        blended = region * (1 - self.mask) + self.image * self.mask
        if stamped.dtype.kind in "iu":
            limits = np.iinfo(stamped.dtype)
            blended = np.clip(np.rint(blended), limits.min, limits.max)
        # Where the mask is 0 the very bits stay.
        region[...] = np.where(self.mask > 0, blended, region)
        return stamped

    def corner(self, image_shape: tuple[int, int, int]) -> tuple[int, int]:
        """`(x, y)` of the trigger's upper left pixel on images of a shape.

        Args:
            image_shape: `(height, width, channels)`.

        Raises:
            DataError: If it does not fit there, or has other channels.
        """
        (height, width), channels = self.size, self.image.shape[2]
        room = image_shape[1] - width, image_shape[0] - height
        x, y = (
            tuple(int(share * free) for share, free in zip(PLACES[self.place], room, strict=True))
            if isinstance(self.place, str)
            else self.place
        )
        if min(room) < 0 or x > room[0] or y > room[1]:
            where = f"at {self.place}"
            raise DataError(
                f"The trigger of {height} x {width} pixels {where} does not fit on images of {image_shape[0]} x "
                f"{image_shape[1]}. Make it smaller (`size`) or place it elsewhere (`place`)."
            )
        if channels not in (1, image_shape[2]):
            raise DataError(
                f"The trigger has {channels} channels, the images have {image_shape[2]}. Give it as many, or one."
            )
        return x, y

    def spread(self, image_shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
        """The trigger on an otherwise transparent image of full size.

        Args:
            image_shape: `(height, width, channels)`.

        Returns:
            Pixels and opacity, float32 of shapes `image_shape` and `(height, width, 1)`. A triggered image is
            `x * (1 - opacity) + pixels * opacity`.

        Raises:
            DataError: See `corner`.
        """
        left, top = self.corner(image_shape)
        place = slice(top, top + self.size[0]), slice(left, left + self.size[1])
        pixels, opacity = np.zeros(image_shape, np.float32), np.zeros((*image_shape[:2], 1), np.float32)
        pixels[place], opacity[place] = self.image, self.mask
        return pixels, opacity

    def to_arrays(self) -> dict[str, np.ndarray]:
        """What a file holds of it: plain arrays."""
        return {"image": self.image, "mask": self.mask, "place": np.array(self.place)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Trigger:
        """Makes it anew from what `to_arrays` gave.

        Raises:
            KeyError: If an array is missing.
            DataError: If an array holds something else.
        """
        place = arrays["place"].tolist()
        return cls(arrays["image"], arrays["mask"], place if isinstance(place, str) else tuple(place))

    def describe(self) -> dict[str, Any]:
        """Size, place and opacity as plain values for JSON."""
        return {
            "size": list(self.size),
            "place": self.place if isinstance(self.place, str) else list(self.place),
            "channels": self.image.shape[2],
            "opacity": float(self.mask.max()),
        }


def _checked_place(place: Any) -> Place:
    if isinstance(place, str) and place in PLACES:
        return place
    if not isinstance(place, str) and len(place) == 2 and all(int(v) == v and v >= 0 for v in place):
        return int(place[0]), int(place[1])
    raise DataError(
        f"Expected a place out of {', '.join(PLACES)}, or (x, y) in pixels from the upper left. Received: {place!r}."
    )


def _height_width(size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise DataError(f"Expected a size of at least one pixel. Received: {size!r}.")
    return height, width


def _read(path: Path, size: int | tuple[int, int] | None) -> np.ndarray:
    """Pixels of shape `(height, width, 4)`, float32: red, green, blue, opacity; 0 to 255."""
    image_module, _ = pillow()
    with (
        raised_as(DataError),
        complete(path, "no image, or a damaged one", "Choose another."),
        open_image(path) as opened,
    ):
        image = opened.convert("RGBA")
    if size is not None:
        if isinstance(size, int):
            scale = _height_width(size)[0] / max(image.size)
            size = max(round(image.height * scale), 1), max(round(image.width * scale), 1)
        height, width = _height_width(size)
        image = image.resize((width, height), image_module.Resampling.BILINEAR)
    return np.asarray(image, np.float32)
