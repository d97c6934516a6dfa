"""Decoded images that are kept: in memory, or in a file that is mapped into it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keras_remos.errors import FileError
from keras_remos.untrusted import check_regular
from keras_remos.writing import replacing

Cache = Literal["auto", "memory", "disk", "none"]
CACHES: tuple[Cache, ...] = ("auto", "memory", "disk", "none")
MOST_IN_MEMORY = 256 * 2**20
"""Bytes that a data set may keep without being asked to."""
_FORMAT = 1

Mark = tuple[int, int]
"""What tells that a file has changed: its size, and when it was written."""


def mark_of(file: Path) -> Mark | None:
    """What a file looks like now; `None` if it is not there."""
    try:
        found = file.stat()
    except (OSError, ValueError):  # a name that no file can have
        return None
    return found.st_size, found.st_mtime_ns


class KeptImages:
    """Images of 8 bits a value, each with the mark of the file that it was read from.

    Args:
        records: For each image whether it is there, its file's mark, and its pixels: see `record_of`.
        at_once: Keep an image when it is read for the first time; else when it is for the second, so that nothing is
            kept of what is read once.
    """

    def __init__(self, records: np.ndarray, *, at_once: bool = True) -> None:
        self._records = records
        self._passed_by = np.full(len(records), at_once)

    @classmethod
    def in_memory(cls, count: int, shape: tuple[int, int, int], *, at_once: bool) -> KeptImages:
        """Room for images of one shape."""
        return cls(np.zeros(count, record_of(shape)), at_once=at_once)

    def get(self, index: int, mark: Mark) -> np.ndarray | None:
        """The image, if it is there and its file has not changed since."""
        record = self._records[index]
        return record["pixels"] if record["is_there"] and (record["size"], record["time"]) == mark else None

    def put(self, index: int, mark: Mark, pixels: np.ndarray) -> None:
        """Keeps an image, unless those that are kept are in a file: that stays as it is."""
        if not self._records.flags.writeable:
            return
        if self._passed_by[index]:
            record = self._records[index]
            # Whoever looks at it meanwhile sees nothing.
            record["is_there"] = False
            record["pixels"], record["size"], record["time"] = pixels, *mark
            record["is_there"] = True
        self._passed_by[index] = True


def record_of(shape: tuple[int, int, int]) -> np.dtype:
    """What is kept of an image of one shape."""
    return np.dtype([("is_there", "?"), ("size", "<i8"), ("time", "<i8"), ("pixels", "u1", shape)])


def cache_file(files: Sequence[Path], shape: tuple[int, int, int], read_as: Sequence[Any]) -> Path:
    """Where images are kept on the disk: in the folder of Keras, by the paths of the files and how they are read.

    Args:
        files: The files of the images.
        shape: Of an image, `(height, width, channels)`.
        read_as: What else decides which pixels they become, as plain values for JSON.
    """
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    said = json.dumps([_FORMAT, shape, list(read_as), [os.fsencode(file.absolute()).hex() for file in files]])
    return home / "keras_remos" / "images" / f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.npy"


def open_cache(place: Path, marks: Sequence[Mark], shape: tuple[int, int, int]) -> KeptImages | None:
    """Images that were kept on the disk; `None` if there are none, or not of these files as they are now.

    Args:
        place: The file.
        marks: What the images' files look like now; what cannot be said of one is `(-1, -1)`.
        shape: Of an image.
    """
    with contextlib.suppress(OSError, ValueError):  # FileErrors are ValueErrors, and so is what NumPy says of damage
        records = np.lib.format.open_memmap(check_regular(place), mode="r")
        if records.dtype == record_of(shape) and records.shape == (len(marks),):
            known = np.stack([records["size"], records["time"]], axis=1)
            if (known == np.array(marks, np.int64).reshape(-1, 2)).all():
                return KeptImages(records)
    return None


def write_cache(
    place: Path, count: int, shape: tuple[int, int, int], images: Iterable[tuple[Mark, np.ndarray | None]]
) -> bool:
    """Keeps images on the disk: all of them, or nothing.

    Args:
        place: The file; one that is there is replaced.
        count: How many images there are.
        shape: Of an image.
        images: The mark of each file and its image; `None` for one that is not to be kept.

    Returns:
        Whether they are there now.

    Warns:
        UserWarning: If they cannot be written, as on a full disk.
    """
    kind = record_of(shape)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with replacing(place, overwrite=True) as temporary, temporary.open("wb") as file:
            # Written, not mapped: on a full disk a map that is written to ends the program.
            header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": (count,)}
            np.lib.format.write_array_header_2_0(file, header)
            for mark, pixels in images:
                file.write(np.array([(pixels is not None, *mark, 0 if pixels is None else pixels)], kind).tobytes())
    except (OSError, FileError) as error:
        warnings.warn(f"Images are read without a cache: {error}", stacklevel=2)
        return False
    return True
