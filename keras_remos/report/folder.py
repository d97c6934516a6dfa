"""Whose a folder is: what can be told of an audit's before anything is computed, and without Keras."""

from __future__ import annotations

from pathlib import Path

from keras_remos.errors import FileError
from keras_remos.untrusted import PathLike
from keras_remos.writing import HIDDEN, check_folder

# Says that a folder is of ours, and of which audit.
MARK = "audit.json"


def check_audit_folder(path: PathLike) -> None:
    """Makes sure, before any work is done, that a folder can be that of an audit. Makes none.

    Raises:
        FileError: If it holds other files, or cannot be written to.
    """
    check_folder(path, "An audit's files")
    folder = Path(path)
    # What a killed writer left is hidden, and goes with the next one.
    others = [each for each in folder.iterdir() if not each.name.startswith(HIDDEN)] if folder.is_dir() else []
    if others and not (folder / MARK).is_file():
        raise FileError(f"{path} holds other files, and is no audit's folder: choose an empty one, or a new name.")
