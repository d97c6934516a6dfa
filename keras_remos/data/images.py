"""Images from files, with Pillow: decoded, turned upright, resized; damaged ones are left out and listed."""

import hashlib
import math
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keras_remos.data.ahead import ReadAhead, usual_workers
from keras_remos.data.kept import (
    CACHES,
    MOST_IN_MEMORY,
    Cache,
    KeptImages,
    Mark,
    cache_file,
    mark_of,
    open_cache,
    record_of,
    write_cache,
)
from keras_remos.data.opencv import decode_jpeg, opencv
from keras_remos.data.pillow import (
    ON_ITS_SIDE,
    kind_of_values,
    lowest_is_white,
    open_image,
    orientation,
    pillow,
    stated_white,
    upright,
    values_of,
)
from keras_remos.data.white import SLACK, WAY_OUT, find_white
from keras_remos.errors import DataError
from keras_remos.progress import track
from keras_remos.untrusted import check_regular

Decoding = Literal["reduced", "full", "opencv"]
DECODINGS: tuple[Decoding, ...] = ("reduced", "full", "opencv")

_JPEG_FORMATS = {"JPEG", "MPO"}

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}

# How many of the files are looked at to find their range.
_LOOKED_AT = 32
# Where all files are read one after the other: so many at a time.
_PIECE = 64


class _WhiteUnknownError(Exception):
    """What is white in images of a kind has to be found first, and in the order of the files."""

    def __init__(self, kind: str) -> None:
        super().__init__("not known what is white")
        self.kind = kind


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
        decoding: `"reduced"`: a JPEG that is at least twice as large as it is to be is decoded at the smallest of 1/2,
            1/4 and 1/8 of its size that is still large enough. `"opencv"`: so too, but by OpenCV. `"full"`: at its own
            size.
        workers: How many threads read at a time, the one that asks being one of them; `None`: one a core, at most 8.
            What is read does not depend on it.
        cache: Where decoded images of 8 bits are kept. `"memory"`, `"disk"` or `"none"`; `"auto"`: in memory, from the
            second time on that one is read, if all of them take no more than 256 MB.

    Raises:
        DataError: If there is no `image_size`, `channels` is another number, or white cannot be known; or if one of the
            last three is none of these.
        ImportError: If Pillow is not installed, or OpenCV where it is to decode.
    """

    def __init__(
        self,
        files: list[Path],
        image_size: tuple[int, int] | None,
        channels: int | None,
        *,
        as_stored: bool = False,
        decoding: Decoding = "reduced",
        workers: int | None = None,
        cache: Cache = "auto",
    ) -> None:
        image_module, _ = pillow()  # now, not in the middle of the work
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
        check_reading(decoding, workers, cache)
        if decoding == "opencv":
            opencv()
        # All its formats now, the usual ones first: a thread would not find those that another is about to load.
        image_module.preinit()
        image_module.init()
        self.skipped: dict[str, str] = {}
        self._files = files
        self._size = image_size
        self._shape = (*image_size, channels)
        self._mode = _MODES[channels]
        self._as_stored = as_stored
        self._decoding = decoding
        self._ahead = ReadAhead(self._read_one, usual_workers() if workers is None else workers)
        # White of files of whole numbers (I) and floating point (F) that do not say it.
        self._whites: dict[str, float] = {}
        if not as_stored:
            self._find_whites(files[:: math.ceil(len(files) / _LOOKED_AT)] if files else [])
        self._kept: KeptImages | None = None  # nothing, until there is room
        self._kept = self._room_for(cache)

    def __len__(self) -> int:
        return len(self._files)

    def expect(self, indices: np.ndarray) -> None:
        """Says which images will be asked for after the next `read`: they are read meanwhile."""
        self._ahead.expect(indices.tolist())

    def read(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reads images; a damaged one goes to `skipped`.

        Args:
            indices: Which files, shape `(n,)`.

        Returns:
            The images that could be read, shape `(m, height, width, channels)`, and their indices, shape `(m,)`.
        """
        images = np.empty((len(indices), *self._shape), np.float32)
        good: list[int] = []
        for index, image in self._decoded(indices.tolist()):
            if image is not None:
                images[len(good)] = image
                good.append(index)
        return images[: len(good)], np.array(good, dtype=np.int64)

    def digest(self, indices: np.ndarray) -> bytes:
        """Returns the digests of files, byte by byte, one after the other; zeros for one that cannot be opened."""
        return b"".join(_digest(self._files[index]) for index in indices)

    def check_all(self) -> None:
        """Decodes every file once.

        Raises:
            DataError: If one is damaged; it names the first few.
        """
        bad = [self._files[index] for index, image in self._all() if image is None]
        if bad:
            listed = "; ".join(f"{file}: {self.skipped[str(file)]}" for file in bad[:3])
            raise DataError(
                f"Expected readable images only (strict). Received: {len(bad)} of {len(self)} damaged ({listed}). "
                "Repair or remove them, or go without `strict` to leave them out."
            )

    def _room_for(self, cache: Cache) -> KeptImages | None:
        count = len(self._files)
        if cache == "disk":
            try:
                place = cache_file(self._files, self._shape, [self._decoding, pillow()[0].__version__])
            except RuntimeError as error:  # nobody knows where this user's folders are
                warnings.warn(f"Images are read without a cache: {error}", stacklevel=2)
                return None
            marks: list[Mark] = [mark_of(file) or (-1, -1) for file in self._files]
            kept = open_cache(place, marks, self._shape)
            if kept is None:
                images = ((marks[index], _of_8_bits(image)) for index, image in self._all("Images to the cache"))
                if write_cache(place, count, self._shape, images):
                    kept = open_cache(place, marks, self._shape)
            return kept
        fits = count * record_of(self._shape).itemsize <= MOST_IN_MEMORY
        if cache == "memory" or (cache == "auto" and fits):
            return KeptImages.in_memory(count, self._shape, at_once=cache == "memory")
        return None

    def _all(self, description: str = "") -> Iterator[tuple[int, np.ndarray | None]]:
        """Every image once, as `_decoded` has them; with progress on terminals, if it is described."""
        pieces = range(0, len(self), _PIECE)
        shown: bool | str = "auto" if description else False
        with track(pieces, total=len(pieces), description=description, verbose=shown) as tracked:
            for start in tracked:
                yield from self._decoded(range(start, min(start + _PIECE, len(self))))

    def _decoded(self, indices: Iterable[int]) -> Iterator[tuple[int, np.ndarray | None]]:
        """The images of these files in this order; `None` for one that is damaged, which is then in `skipped`."""
        indices = list(indices)
        for index, (mark, found) in zip(indices, self._ahead.get(indices), strict=True):
            if mark != mark_of(self._files[index]):  # changed since it was read ahead
                _, found = self._read_one(index)
            if isinstance(found, _WhiteUnknownError):
                if found.kind not in self._whites:
                    self._find_whites([self._files[index]])
                _, found = self._read_one(index)
            if isinstance(found, Exception):
                self.skipped[str(self._files[index])] = f"{type(found).__name__}: {found}"
            yield index, None if isinstance(found, Exception) else found

    def _read_one(self, index: int) -> tuple[Mark | None, np.ndarray | Exception]:
        """What a file looked like, and its image or why it cannot be read.

        Threads do this side by side: it leaves nothing but what is kept.
        """
        file = self._files[index]
        # Before it is read: if it is changed meanwhile, this is noticed.
        mark = mark_of(file)
        if self._kept is not None and mark is not None:
            image = self._kept.get(index, mark)
            if image is not None:
                return mark, image
        try:
            image = self._load(file)
        except (MemoryError, DataError):
            raise
        except Exception as error:
            return mark, error
        if self._kept is not None and mark is not None and image.dtype == np.uint8:
            self._kept.put(index, mark, image)
        return mark, image

    def _load(self, file: Path) -> np.ndarray:
        image_module, image_ops = pillow()
        with open_image(file) as opened:
            kind, white = kind_of_values(opened), stated_white(opened)
            is_inverted = lowest_is_white(opened)
            turned = orientation(opened)
            if self._decoding != "full":
                pixels = self._reduced(opened, file, turned)
                if pixels is not None:
                    return pixels
            image = upright(image_ops, opened, turned)
            if kind is None:
                image = self._in_mode(image).resize(self._size[::-1], image_module.Resampling.BILINEAR)
                return np.asarray(image).reshape(self._shape)
            values = values_of(image)
        image = image_module.fromarray(self._to_levels(values, kind, white, file, is_inverted))
        resized = np.asarray(image.resize(self._size[::-1], image_module.Resampling.BILINEAR), dtype=np.float32)
        channels = [resized] * (1 if self._mode == "L" else 3)
        return np.stack([*channels, np.full_like(resized, 255)] if self._mode == "RGBA" else channels, axis=-1)

    def _reduced(self, opened: Any, file: Path, turned: int) -> np.ndarray | None:
        """A JPEG that is decoded at a part of its size; `None` for what is not."""
        image_module, image_ops = pillow()
        own, size = opened.size, self._size if turned >= ON_ITS_SIDE else self._size[::-1]
        drafted = opened.draft(None, size)
        if self._decoding == "opencv" and self._mode == opened.mode == "RGB" and opened.format in _JPEG_FORMATS:
            pixels = decode_jpeg(file, own, round(own[0] / opened.size[0]), turned, self._size)
            if pixels is not None:
                return pixels
        if opened.size == own:
            return None
        # Of 3 pixels that 5 were decoded to the image fills 2.5.
        image = upright(
            image_ops, self._in_mode(opened).resize(size, image_module.Resampling.BILINEAR, drafted[1]), turned
        )
        # Damaged tags may keep it on its side.
        return np.asarray(image).reshape(self._shape) if image.size == self._size[::-1] else None

    def _in_mode(self, image: Any) -> Any:
        image = image.convert("RGBA") if image.mode == "P" else image
        return image if image.mode == self._mode else image.convert(self._mode)

    def _to_levels(
        self, values: np.ndarray, kind: str, white: float | None, file: Path, is_inverted: bool
    ) -> np.ndarray:
        """Values of more than 8 bits to 0 to 255."""
        if self._as_stored:
            return values
        if white is None:
            if kind not in self._whites:
                raise _WhiteUnknownError(kind)
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
        ends: dict[str, tuple[float, float]] = {}
        for file in files:
            try:
                with open_image(file) as opened:
                    kind = kind_of_values(opened)
                    if kind is None or stated_white(opened) is not None:
                        continue
                    values = values_of(opened)
            except MemoryError:
                raise
            except Exception:  # `read` says so of it
                continue
            least, most = ends.get(kind, (math.inf, -math.inf))
            ends[kind] = min(least, float(values.min())), max(most, float(values.max()))
        for kind, (least, most) in ends.items():
            what = "floating-point images" if kind == "F" else "images of 16 or 32 bits a value"
            self._whites[kind] = find_white(least, most, what, slack=_slack(kind))


def _slack(kind: str) -> float:
    return SLACK if kind == "F" else 0.0


def _digest(file: Path) -> bytes:
    try:
        with check_regular(file).open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").digest()
    except (OSError, ValueError):  # FileErrors are ValueErrors, and so is what Python says of a name that no file has
        return bytes(hashlib.sha256().digest_size)


def check_reading(decoding: str, workers: int | None, cache: str) -> None:
    """Makes sure that images can be read so; see `ImageReader`.

    Raises:
        DataError: If not.
    """
    for name, value, known in (("decoding", decoding, DECODINGS), ("cache", cache, CACHES)):
        if value not in known:
            raise DataError(f"Expected `{name}` to be one of {', '.join(known)}. Received: {value!r}.")
    if workers is not None and (not isinstance(workers, int) or isinstance(workers, bool) or workers < 1):
        raise DataError(f"Expected `workers` to be a whole number from 1 up. Received: {workers!r}.")


def _of_8_bits(image: np.ndarray | None) -> np.ndarray | None:
    return image if image is not None and image.dtype == np.uint8 else None
