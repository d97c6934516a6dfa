"""`Partial`: the finished part of a long attack on disk, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from keras_remos.errors import FileError, MismatchError
from keras_remos.untrusted import PathLike, Rows, complete, holds_rows, open_rows, read_archive, room_for, rows_head
from keras_remos.writing import replacing, reserved

KIND = "partial attack"
# Seconds between two writes of an attack on texts, which writes all that it has.
INTERVAL = 30.0
LONGEST_NAME = 255


class Whole(TypedDict):
    """What the header of a partial file must hold."""

    whole: dict[str, Any]


class Partial:
    """The rows of an array that are finished: in a file, or in memory if nobody names one and they are few.

    Each batch is written to the file when it is finished, with a checksum after each row: whenever a run is killed,
    what it has finished is there.

    Args:
        path: The file; without one, what does not fit the memory goes to a temporary file.
        whole: What is to be made: every option that has a say in the result, as plain values for JSON.
        shape: Of the finished array.
        dtype: Of the finished array: uint8 or float32.

    Attributes:
        rows: The array.
        done: How many of its rows are finished.

    Raises:
        FileError: If the file is damaged or of another kind.
        MismatchError: If it is the part of something else.
    """

    def __init__(self, path: PathLike | None, whole: Mapping[str, Any], shape: tuple[int, ...], dtype: Any) -> None:
        self.path = None if path is None else Path(path)
        self.whole = dict(whole)
        self.done = 0
        self.rows: np.ndarray | Rows = np.empty((0,))
        if self.path is None:
            self.rows = room_for(shape, dtype)
            return
        if self.path.exists() and not holds_rows(self.path):
            # As earlier versions wrote it, with all rows in an archive: they were not rounded.
            check_whole(self.path, self.whole, read_archive(self.path, KIND, Whole)[0]["whole"], fits=False)
        if not self.path.exists():
            with replacing(self.path) as temporary:
                temporary.write_bytes(rows_head(KIND, {"whole": self.whole}, shape, dtype))
        header, self.rows, self.done = open_rows(self.path, KIND, Whole, writable=True)
        fits = (self.rows.shape, self.rows.dtype) == (tuple(shape), np.dtype(dtype))
        try:
            check_whole(self.path, self.whole, header["whole"], fits=fits)
        except MismatchError:
            self.rows.close()
            raise

    @contextmanager
    def being_made(self) -> Iterator[None]:
        """Keeps the file from other runs until the block ends. It goes if nothing was finished by then."""
        if self.path is None:
            yield
            return
        with reserved(self.path, overwrite=True):
            try:
                yield
            finally:
                if not self.done and isinstance(self.rows, Rows):
                    self.rows.close()
                    self.path.unlink(missing_ok=True)

    def add(self, rows: np.ndarray) -> None:
        """Adds the next finished rows.

        Raises:
            FileError: If the disk is full; what was added before is still there.
        """
        try:
            self.rows[self.done : self.done + len(rows)] = rows
        except OSError as error:
            kept = " What is finished is in it, and the next run goes on from there." if self.path and self.done else ""
            raise FileError(
                f"{self.path or tempfile.gettempdir()} cannot be written ({error.strerror}). Make room.{kept}"
            ) from error
        self.done += len(rows)


def describe_partial(path: PathLike) -> dict[str, Any]:
    """How much of an attack is finished, and of which, as plain values for JSON.

    Raises:
        FileError: If the file is damaged, or of another kind.
    """
    if holds_rows(path):
        header, kept, done = open_rows(path, KIND, Whole)
        kept.close()
        return {"finished": done, "whole": header["whole"]}
    header, arrays = read_archive(path, KIND, Whole)
    # Attacks on texts keep what their searches came to; earlier versions kept pixels in this way, too.
    with complete(path):
        return {"finished": len(arrays["rows"] if "rows" in arrays else header["outcomes"]), "whole": header["whole"]}


def partial_beside(path: PathLike) -> Path:
    """The file of partial results that goes with the file of a whole attack."""
    whole = Path(path)
    name = f"{whole.stem}.partial.npz"
    # As long as names may be, in bytes.
    if len(os.fsencode(name)) > LONGEST_NAME:
        name = f"{hashlib.sha256(os.fsencode(whole.name)).hexdigest()[:16]}.partial.npz"
    return whole.with_name(name)


def check_whole(path: Path, expected: Mapping[str, Any], found: Mapping[str, Any], *, fits: bool = True) -> None:
    """Makes sure that a file is the unfinished part of what is being made.

    Args:
        path: The file.
        expected: What is being made.
        found: What the file says that it is part of.
        fits: Whether its arrays have the right shapes.

    Raises:
        MismatchError: If not; names the options that differ.
    """
    different = sorted(name for name, value in expected.items() if found.get(name) != value)
    if different or not fits:
        raise MismatchError(
            f"{path} is the unfinished part of another attack ({', '.join(different) or 'shape'} differ). Name "
            "another file, or remove it to start anew."
        )
