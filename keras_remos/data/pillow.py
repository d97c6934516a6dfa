"""What Pillow tells of an image file, and what is done with it whatever it shows."""

from pathlib import Path
from typing import Any

import numpy as np

from keras_remos.untrusted import check_regular

_JPEG = {".jpg", ".jpeg", ".jpe", ".jfif"}
IMAGE_SUFFIXES = frozenset(
    {*_JPEG, ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".tga"}
)
# In Pillow's words: others of its formats start programs, as PostScript does.
_FORMATS = ("JPEG", "MPO", "PNG", "BMP", "DIB", "GIF", "WEBP", "AVIF", "TIFF", "PPM", "JPEG2000", "TGA")

# Tags of TIFF files: bits of a value, and what its lowest means (0: white).
_BITS, _PHOTOMETRIC = 258, 262
# A tag of EXIF data: how an image is to be turned. From 5 up height and width change places.
_ORIENTATION, UPRIGHT, ON_ITS_SIDE = 274, 1, 5


def is_image(file: Path) -> bool:
    """Whether a file is one of an image, by its name; by what is in it if that has no ending."""
    if file.suffix:
        return file.suffix.lower() in IMAGE_SUFFIXES
    pillow()  # it is missing, which says nothing of the file
    try:
        with open_image(file):
            return True
    except Exception:  # whatever a file of another kind makes Pillow stumble over
        return False


def open_image(file: Path) -> Any:
    """An image, of which only the head is read: in one of the formats that images have, whatever its name says.

    Raises:
        FileError: If it is no regular file.
        Exception: Whatever a file of another kind makes Pillow raise.
    """
    image_module, _ = pillow()
    image_module.init()
    return image_module.open(check_regular(file), formats=[name for name in _FORMATS if name in image_module.OPEN])


def orientation(opened: Any) -> int:
    """How an image is to be turned, as its EXIF data say; not at all where they cannot be read."""
    try:
        return int(opened.getexif().get(_ORIENTATION, UPRIGHT))
    except Exception:  # whatever damaged tags make Pillow stumble over
        return UPRIGHT


def upright(image_ops: Any, opened: Any, turned: int) -> Any:
    """An image as its EXIF data say that it is to be turned; as it is stored where they cannot be read."""
    if turned == UPRIGHT:
        return opened
    try:
        return image_ops.exif_transpose(opened)
    except Exception:  # whatever damaged tags make Pillow stumble over
        return opened.copy()


def lowest_is_white(image: Any) -> bool:
    """Whether a file says that its lowest value means white."""
    return bool(_tags(image).get(_PHOTOMETRIC) == 0)


def _tags(image: Any) -> Any:
    return getattr(image, "tag_v2", {})


def kind_of_values(image: Any) -> str | None:
    """Whether an image holds more than 8 bits a value: whole numbers (I) or floating point (F)."""
    return image.mode[0] if image.mode[0] in "IF" else None


def stated_white(image: Any) -> float | None:
    """White, where a file says what it is."""
    if image.format == "PPM":
        return 65535.0 if kind_of_values(image) == "I" else None  # Pillow has brought it there
    bits = _tags(image).get(_BITS, (16,))[0]
    return float(2**bits - 1) if bits < 16 else None


def values_of(image: Any) -> np.ndarray:
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
