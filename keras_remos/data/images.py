"""Images from files, with Pillow: decoded, turned upright, resized; damaged ones are left out and listed."""

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from keras_remos.errors import DataError
from keras_remos.untrusted import check_regular

_JPEG = {".jpg", ".jpeg", ".jpe", ".jfif"}
IMAGE_SUFFIXES = frozenset(
    {*_JPEG, ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".tga"}
)

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}

# Values of 14 bits do not pass it: above are 16 bits, up to it they may be of 10, 12 or 14 bits, or dark ones of 16.
_MOST_OF_14_BITS = 2**14 - 1
# Pictures of 0 to 255 that are all so dark are as likely some of another range.
_LEAST_OF_255 = 31
# By what share of white floating-point values may leave its range: resampling does so.
SLACK = 0.01
# How many of the files are looked at to find their range.
_LOOKED_AT = 32
# Tags of TIFF files: bits of a value, and what its lowest means (0: white).
_BITS, _PHOTOMETRIC = 258, 262
WAY_OUT = (
    "Save the images with 8 bits a value, or say what black and white are (`pixel_range`): values then "
    "stay as they are."
)


def find_white(least: float, most: float, what: str, *, slack: float = 0.0) -> float:
    """The value that means white, found from those that there are, where a file does not say it.

    No value above 1: 1. The largest from 32 to 255: 255. The largest of more than 14 bits (above 16383) and no more
    than 16: 65535. What lies between cannot be known: 10, 12 or 14 bits, or dark pictures of 16.

    Args:
        least: The smallest value of all the images that were looked at.
        most: The largest.
        what: What to call them in a message.
        slack: By what share of white values may leave its range.

    Returns:
        1, 255 or 65535.

    Raises:
        DataError: If it cannot be known, or values are negative.
    """
    for white, darkest in ((1.0, -1), (255.0, _LEAST_OF_255), (65535.0, _MOST_OF_14_BITS)):
        if darkest < most <= white * (1 + slack) and least >= -white * slack:
            return white
    raise DataError(
        "Expected images of which it is known what is white: with values up to 1, 255 or 65535. Received: "
        f"{what} with values from {least:g} to {most:g}, from which it cannot be told. {WAY_OUT}"
    )


class ImageReader:
    """Reads image files as float32 arrays of shape `(height, width, channels)`, values 0 to 255.

    Values of 8 bits are as they are. Where a value has more (grey TIFF, PNG and PGM files), a file that says so itself
    is taken at its word: 12 bits a value means that 4095 is white. Most say only that they hold 16 or 32 bits, or
    floating point: then `find_white` finds it from up to 32 of the files, in one way for all of them.

    Args:
        files: The image files.
        image_size: `(height, width)` in pixels.
        channels: 1, 3 or 4; 3 when not given.
        as_stored: Leave values of more than 8 bits as they are, whatever white is.

    Raises:
        DataError: If there is no `image_size`, `channels` is another number, or white cannot be known.
        ImportError: If Pillow is not installed.
    """

    def __init__(
        self,
        files: list[Path],
        image_size: tuple[int, int] | None,
        channels: int | None,
        *,
        as_stored: bool = False,
    ) -> None:
        pillow()  # now, not in the middle of the work
        channels = 3 if channels is None else channels
        if channels not in _MODES:
            raise DataError(
                f"Expected 1, 3 or 4 channels for images from files. Received: {channels}. "
                "Give such data as an .npz file with arrays x and y."
            )
        if image_size is None or len(image_size) != 2 or min(image_size) < 1:
            raise DataError(
                f"Expected `image_size` (height, width) in pixels for images from files. Received: {image_size}. "
                "The model does not fix it: name it."
            )
        self.skipped: dict[str, str] = {}
        self._files = files
        self._size = image_size
        self._mode = _MODES[channels]
        self._as_stored = as_stored
        # White of files of whole numbers (I) and floating point (F) that do not say it.
        self._whites: dict[str, float] = {}
        if not as_stored:
            self._find_whites(files[:: math.ceil(len(files) / _LOOKED_AT)] if files else [])

    def __len__(self) -> int:
        return len(self._files)

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads images; a damaged one goes to `skipped`.

        Args:
            indices: Which files, shape `(n,)`.

        Returns:
            The images that could be read, shape `(m, height, width, channels)`, and their indices, shape `(m,)`.
        """
        channels = len(self._mode) if self._mode != "L" else 1
        images = np.empty((len(indices), *self._size, channels), np.float32)
        good: list[int] = []
        for index in indices:
            image = self._decode(self._files[index])
            if image is not None:
                images[len(good)] = image
                good.append(int(index))
        return images[: len(good)], np.array(good, dtype=np.int64)

    def digest(self, indices: np.ndarray) -> bytes:
        """Returns the digests of files, byte by byte, one after the other; zeros for one that cannot be opened."""
        return b"".join(_digest(self._files[index]) for index in indices)

    def check_all(self) -> None:
        """Decodes every file once.

        Raises:
            DataError: If one is damaged; it names the first few.
        """
        bad = [file for file in self._files if self._decode(file) is None]
        if bad:
            listed = "; ".join(f"{file}: {self.skipped[str(file)]}" for file in bad[:3])
            raise DataError(
                f"Expected readable images only (strict). Received: {len(bad)} of {len(self)} damaged ({listed}). "
                "Repair or remove them, or go without `strict` to leave them out."
            )

    def _decode(self, file: Path) -> np.ndarray | None:
        try:
            return self._load(file)
        except (MemoryError, DataError):
            raise
        except Exception as error:
            self.skipped[str(file)] = f"{type(error).__name__}: {error}"
            return None

    def _load(self, file: Path) -> np.ndarray:
        image_module, image_ops = pillow()
        with image_module.open(check_regular(file)) as opened:
            kind, white = _kind(opened), _stated_white(opened)
            is_inverted = _tags(opened).get(_PHOTOMETRIC) == 0
            image = _upright(image_ops, opened)
            if kind is None:
                image = image.convert("RGBA") if image.mode == "P" else image
                image = image.convert(self._mode)
            else:
                values = _values(image)
        if kind is not None:
            image = image_module.fromarray(self._to_levels(values, kind, white, file, is_inverted))
        resized = np.asarray(image.resize(self._size[::-1], image_module.Resampling.BILINEAR), dtype=np.float32)
        if kind is None:
            return resized[..., np.newaxis] if resized.ndim == 2 else resized
        channels = [resized] * (1 if self._mode == "L" else 3)
        return np.stack([*channels, np.full_like(resized, 255)] if self._mode == "RGBA" else channels, axis=-1)

    def _to_levels(
        self, values: np.ndarray, kind: str, white: float | None, file: Path, is_inverted: bool
    ) -> np.ndarray:
        """Values of more than 8 bits to 0 to 255."""
        if self._as_stored:
            return values
        if white is None:
            if kind not in self._whites:
                self._find_whites([file])
            white = self._whites[kind]
            least, most, slack = float(values.min()), float(values.max()), white * _slack(kind)
            if least < -slack or most > white + slack:
                raise DataError(
                    f"Expected values from 0 to {white:g} in {file}, as in others of these images. Received: {least:g} "
                    f"to {most:g}. {WAY_OUT}"
                )
        levels = np.clip(values, 0, white) * np.float32(255) / np.float32(white)
        return 255 - levels if is_inverted else levels

    def _find_whites(self, files: Iterable[Path]) -> None:
        """Finds white for what these files hold and do not say it of; those that are damaged are not looked at."""
        image_module, _ = pillow()
        ends: dict[str, tuple[float, float]] = {}
        for file in files:
            try:
                with image_module.open(check_regular(file)) as opened:
                    kind = _kind(opened)
                    if kind is None or _stated_white(opened) is not None:
                        continue
                    values = _values(opened)
            except MemoryError:
                raise
            except Exception:  # `read` says so of it
                continue
            least, most = ends.get(kind, (math.inf, -math.inf))
            ends[kind] = min(least, float(values.min())), max(most, float(values.max()))
        for kind, (least, most) in ends.items():
            what = "floating-point images" if kind == "F" else "images of 16 or 32 bits a value"
            self._whites[kind] = find_white(least, most, what, slack=_slack(kind))


def _digest(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except OSError:
        return bytes(hashlib.sha256().digest_size)


def is_image(file: Path) -> bool:
    """Whether a file is one of an image, by its name; by what is in it if that has no ending."""
    if file.suffix:
        return file.suffix.lower() in IMAGE_SUFFIXES
    image_module, _ = pillow()
    try:
        with image_module.open(check_regular(file)):
            return True
    except Exception:  # whatever a file of another kind makes Pillow stumble over
        return False


def _upright(image_ops: Any, opened: Any) -> Any:
    """An image as its EXIF data say that it is to be turned; as it is stored where they cannot be read."""
    try:
        return image_ops.exif_transpose(opened)
    except Exception:  # whatever damaged tags make Pillow stumble over
        return opened.copy()


def _slack(kind: str) -> float:
    return SLACK if kind == "F" else 0.0


def _tags(image: Any) -> Any:
    return getattr(image, "tag_v2", {})


def _kind(image: Any) -> str | None:
    """Whether an image holds more than 8 bits a value: whole numbers (I) or floating point (F)."""
    return image.mode[0] if image.mode[0] in "IF" else None


def _stated_white(image: Any) -> float | None:
    """White, where a file says what it is."""
    if image.format == "PPM":
        return 65535.0 if _kind(image) == "I" else None  # Pillow has brought it there
    bits = _tags(image).get(_BITS, (16,))[0]
    return float(2**bits - 1) if bits < 16 else None


def _values(image: Any) -> np.ndarray:
    """The values of an image of more than 8 bits, float32.

    Raises:
        ValueError: If one is NaN or infinite: the file is damaged.
    """
    values = np.asarray(image).astype(np.float32)
    if not np.isfinite(values).all():
        raise ValueError("NaN or infinity among the values")
    return values


def pillow() -> tuple[Any, Any]:
    """Pillow's `Image` and `ImageOps`.

    Raises:
        ImportError: If it is not installed; says how to get it.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError('Reading images needs Pillow: pip install "keras-remos[image]"') from error
    return Image, ImageOps
