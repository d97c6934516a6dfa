"""`Partial`: the finished part of a long attack on disk, so that an interrupted one goes on where it stopped."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from keras_remos.errors import MismatchError
from keras_remos.saving import write_archive
from keras_remos.untrusted import PathLike, complete, read_archive

KIND = "partial attack"
# Seconds between two writes: a large set takes seconds to write.
INTERVAL = 30.0
LONGEST_NAME = 255


class Whole(TypedDict):
    """What the header of a partial file must hold."""

    whole: dict[str, Any]


class Partial:
    """The rows of an array that are finished, in memory and, from time to time, in a file.

    Args:
        path: The file, or `None` to keep nothing on disk.
        whole: What is to be made: every option that has a say in the result, as plain values for JSON.
        shape: Of the finished array.

    Raises:
        FileError: If the file is damaged or of another kind.
        MismatchError: If it is the part of something else.
    """

    def __init__(self, path: PathLike | None, whole: Mapping[str, Any], shape: tuple[int, ...]) -> None:
        self.path = None if path is None else Path(path)
        self.whole = dict(whole)
        self.rows = np.empty(shape, np.float32)
        self.done = 0
        self._written = time.monotonic()
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def _read(self, path: Path) -> None:
        header, arrays = read_archive(path, KIND, Whole)
        with complete(path):
            whole, rows = header["whole"], arrays["rows"]
            fits = rows.dtype == np.float32 and rows.shape[1:] == self.rows.shape[1:]
        check_whole(path, self.whole, whole, fits=fits and len(rows) <= len(self.rows))
        self.rows[: len(rows)] = rows
        self.done = len(rows)

    def add(self, rows: np.ndarray) -> None:
        """Adds the next finished rows; writes them if the last time is a while ago."""
        self.rows[self.done : self.done + len(rows)] = rows
        self.done += len(rows)
        if time.monotonic() - self._written >= INTERVAL:
            self.write()

    def write(self) -> None:
        """Writes what is finished."""
        if self.path is not None and self.done:
            write_archive(self.path, KIND, {"whole": self.whole}, {"rows": self.rows[: self.done]}, overwrite=True)
            self._written = time.monotonic()


def describe_partial(path: PathLike) -> dict[str, Any]:
    """How much of an attack is finished, and of which, as plain values for JSON.

    Raises:
        FileError: If the file is damaged, or of another kind.
    """
    header, arrays = read_archive(path, KIND, Whole)
    # Attacks on texts keep what their searches came to, others the inputs that are made.
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
