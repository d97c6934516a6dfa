"""Images from files, with Pillow: decoded, turned upright, resized; damaged ones are left out and listed."""

from pathlib import Path
from typing import Any

import numpy as np

from keras_remos.errors import DataError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


class ImageReader:
    """Reads image files as float32 arrays of shape `(height, width, channels)`, values 0 to 255.

    Args:
        files: The image files.
        image_size: `(height, width)` in pixels.
        channels: 1, 3 or 4; 3 when not given.

    Raises:
        DataError: If there is no `image_size`, or `channels` is another number.
        ImportError: If Pillow is not installed.
    """

    def __init__(self, files: list[Path], image_size: tuple[int, int] | None, channels: int | None) -> None:
        pillow()  # now, not in the middle of the work
        channels = 3 if channels is None else channels
        if channels not in _MODES:
            raise DataError(
                f"Expected 1, 3 or 4 channels for images from files. Received: {channels}. "
                "Give such data as an .npz file with arrays x and y."
            )
        if image_size is None or len(image_size) != 2 or min(image_size) < 1:
            raise DataError(
                f"Expected image_size=(height, width) in pixels for images from files. Received: {image_size}. "
                "The model does not fix it: name it."
            )
        self.skipped: dict[str, str] = {}
        self._files = files
        self._size = image_size
        self._mode = _MODES[channels]

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
            return _load(file, self._size, self._mode)
        except MemoryError:
            raise
        except Exception as error:
            self.skipped[str(file)] = f"{type(error).__name__}: {error}"
            return None


def _load(file: Path, size: tuple[int, int], mode: str) -> np.ndarray:
    image_module, image_ops = pillow()
    with image_module.open(file) as opened:
        image = image_ops.exif_transpose(opened)
        if image.mode.startswith("I"):
            image = (
                image.convert("I").point(lambda value: value * (1 / 257)).convert("L")
            )  # 16 bits a pixel: 65535 is white
        elif image.mode == "P":
            image = image.convert("RGBA")
        image = image.convert(mode).resize(size[::-1], image_module.Resampling.BILINEAR)
    array = np.asarray(image, dtype=np.float32)
    return array[..., np.newaxis] if array.ndim == 2 else array


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
