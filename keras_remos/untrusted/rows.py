"""`Rows`: an array in a file, of which some rows at a time are read or written, so that it need not fit the memory."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import tempfile
import threading
import weakref
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, cast

import numpy as np

from keras_remos.errors import FileError

IN_MEMORY = 2**24
"""Bytes of an array up to which it is kept in memory: a run may hold some dozens of them."""
PIECE = 2**24
"""Bytes that are read or written at a time where a whole array is gone through."""
_MARK = 4


class Rows:
    """The rows of an array in a file, sliced as an array is: by a slice, numbers, or booleans.

    By plain reads: pages of a mapped file count as resident memory.

    Args:
        file: Opened without a buffer. It is closed when nothing refers to the rows any more.
        shape: Of the array, `(n, ...)`.
        dtype: Of the array.
        offset: Where in the file the first row begins.
        marked: Whether each row is followed by its checksum (CRC-32, four bytes).
        name: What to call the file in a message.
    """

    def __init__(
        self,
        file: BinaryIO,
        shape: tuple[int, ...],
        dtype: Any,
        *,
        offset: int = 0,
        marked: bool = False,
        name: str = "a temporary file",
    ) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.name = name
        self._file = file
        self._offset = offset
        row = np.dtype((self.dtype, shape[1:]))
        self._kept = np.dtype([("row", row), ("mark", "<u4")] if marked else [("row", row)])
        self._marked = marked
        # Backends read ahead in threads of their own, and a file has one place at which it is read: also in a fork.
        self._lock = threading.Lock()
        self._descriptor = file.fileno() if hasattr(os, "preadv") and not isinstance(file, io.BytesIO) else None
        self._finalizer = weakref.finalize(self, file.close)

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def size(self) -> int:
        """Bytes that all rows take in the file."""
        return len(self) * self._kept.itemsize

    def __getitem__(self, rows: Any) -> np.ndarray:
        """Reads rows; one number gives one row.

        Raises:
            IndexError: If there is no such row.
            FileError: If the file ends before it.
        """
        if isinstance(rows, slice) and rows.step in (None, 1):
            start, stop, _ = rows.indices(len(self))
            return self._read(start, max(stop - start, 0))
        numbers = numbered(rows, len(self))
        if numbers.ndim == 0:
            return self._read(int(numbers), 1)[0]
        made = np.empty((len(numbers), *self.shape[1:]), self.dtype)
        for places, start in _runs(numbers):
            made[places] = self._read(start, places.stop - places.start)
        return made

    def __setitem__(self, rows: Any, values: np.ndarray) -> None:
        """Writes rows.

        Raises:
            OSError: If the disk is full.
        """
        numbers = numbered(rows, len(self))
        values = np.broadcast_to(values, (len(numbers), *self.shape[1:]))
        for places, start in _runs(numbers):
            self._write(start, values[places])

    def close(self) -> None:
        """Closes the file. Nothing can be read any more."""
        self._finalizer()

    def whole_rows(self, length: int) -> int:
        """How many rows a file of so many bytes holds whole, from the first on: of marked ones, as their marks say."""
        count = min(max(length - self._offset, 0) // self._kept.itemsize, len(self))
        for piece in pieces(self, count):
            found = self._raw(piece.start, piece.stop - piece.start)
            if self._marked and (wrong := np.flatnonzero(_marks(found["row"]) != found["mark"])).size:
                return piece.start + int(wrong[0])
        return count

    def checksum(self, total: int = 0) -> int:
        """The CRC-32 of all rows, and of what comes before them if that has the one that is given."""
        for piece in pieces(self):
            total = zlib.crc32(self._raw(piece.start, piece.stop - piece.start).tobytes(), total)
        return total

    def _read(self, start: int, count: int) -> np.ndarray:
        return np.ascontiguousarray(self._raw(start, count)["row"])

    def _raw(self, start: int, count: int) -> np.ndarray:
        made = np.empty(count, self._kept)
        view, place = made.view(np.uint8).data, self._offset + start * self._kept.itemsize
        while view:
            read = self._read_at(place, view)
            if not read:
                raise FileError(f"{self.name} has become shorter while it was read: leave it alone meanwhile.")
            view, place = view[read:], place + read
        return made

    def _write(self, start: int, values: np.ndarray) -> None:
        made = np.empty(len(values), self._kept)
        made["row"] = values
        if self._marked:
            made["mark"] = _marks(made["row"])
        view, place = made.view(np.uint8).data, self._offset + start * self._kept.itemsize
        while view:
            # What is written in one go may be less than all of it: the next one says why.
            written = self._write_at(place, view)
            view, place = view[written:], place + written

    def _read_at(self, place: int, view: memoryview) -> int:
        if self._descriptor is not None and not self._file.closed:
            return os.preadv(self._descriptor, [view], place)
        with self._lock:
            self._file.seek(place)
            return int(self._file.readinto(view))  # type: ignore[attr-defined]

    def _write_at(self, place: int, view: memoryview) -> int:
        if self._descriptor is not None and not self._file.closed:
            return os.pwrite(self._descriptor, view, place)
        with self._lock:
            self._file.seek(place)
            return self._file.write(view)


def fits_memory(size: int) -> bool:
    """Whether an array of so many bytes is kept in memory."""
    return size <= IN_MEMORY


def room_for(shape: tuple[int, ...], dtype: Any) -> np.ndarray | Rows:
    """An array to be written row by row: in memory, or if it is large in a file that goes with it.

    Args:
        shape: Of the array.
        dtype: Of the array.

    Raises:
        FileError: If the disk has no room for all of it.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if fits_memory(size):
        return np.zeros(shape, dtype)
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (the rows close it)
    made = Rows(cast(BinaryIO, file), shape, dtype)
    try:
        file.truncate(size)
        if hasattr(os, "posix_fallocate"):
            # All of it now: hours later the disk may be full.
            with _where_it_can_be_done():
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        raise FileError(
            f"What is made of all samples takes {size / 1e9:.1f} GB in {tempfile.gettempdir()}, which cannot be had "
            f"({error.strerror}). Make room, or name another folder by TMPDIR."
        ) from error
    return made


@contextlib.contextmanager
def _where_it_can_be_done() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):  # some file systems give no room before
            raise


def pieces(samples: Any, count: int | None = None, *, size: int | None = None) -> Iterator[slice]:
    """Slices that go through samples.

    Args:
        samples: What has a shape and a type: an array, or rows of one.
        count: Of how many of them; all by default.
        size: Bytes of a slice, if a sample has no more; `PIECE` by default.
    """
    step = max((size or PIECE) // max(math.prod(samples.shape[1:]) * np.dtype(samples.dtype).itemsize, 1), 1)
    end = samples.shape[0] if count is None else count
    for start in range(0, end, step):
        yield slice(start, min(start + step, end))


def numbered(rows: Any, count: int) -> np.ndarray:
    """The numbers of rows, as a slice, numbers (below 0: from the end) or booleans name them.

    Raises:
        IndexError: If there is no such row.
    """
    if isinstance(rows, slice):
        return np.arange(count)[rows]
    numbers = np.asarray(rows)
    if numbers.dtype.kind == "b":
        if numbers.shape != (count,):
            raise IndexError(f"Expected {count} booleans, received shape {numbers.shape}.")
        return np.flatnonzero(numbers)
    if not numbers.size:
        return np.empty(0, np.int64)
    if numbers.dtype.kind not in "iu" or numbers.ndim > 1 or numbers.min() < -count or numbers.max() >= count:
        raise IndexError(f"Expected numbers of rows from 0 to {count - 1}, received {rows!r}.")
    numbers = numbers.astype(np.int64)  # `count` might not fit theirs
    return np.asarray(np.where(numbers < 0, numbers + count, numbers))


def _runs(numbers: np.ndarray) -> Iterator[tuple[slice, int]]:
    """Numbers that follow each other: where they stand, and the first of them."""
    if not numbers.size:
        return
    begins = np.flatnonzero(np.diff(numbers, prepend=-2) != 1).tolist()
    for begin, end in zip(begins, [*begins[1:], len(numbers)], strict=True):
        yield slice(begin, end), int(numbers[begin])


def _marks(rows: np.ndarray) -> np.ndarray:
    return np.array([zlib.crc32(row.tobytes()) for row in rows], np.uint32)
