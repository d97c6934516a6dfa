"""Whether something may be written, asked before any work is done."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from keras_remos.errors import FileError
from keras_remos.untrusted import PathLike


def check_writable(path: PathLike, *, overwrite: bool = False) -> None:
    """Makes sure, before any work is done, that a file may be written.

    A symbolic link stands for what it leads to, as everywhere in the shell: that is written, and the link stays.

    Raises:
        FileError: If it exists and may not be replaced, or is a device, a pipe or the like; if its name is too long, or
            its folder is missing or closed to writing.
    """
    target = resolved(path)
    try:
        kind = os.lstat(target).st_mode
    except (FileNotFoundError, NotADirectoryError):
        kind = 0
    except OSError as error:
        raise FileError(f"{path} cannot be written ({error.strerror}): choose another name.") from error
    if stat.S_ISDIR(kind):
        raise FileError(f"{path} is a folder, expected the name of a file to write.")
    if kind and not stat.S_ISREG(kind):
        what = "a link that leads in a circle" if stat.S_ISLNK(kind) else "a device, a pipe or a socket"
        raise FileError(f"{path} is {what}, no file that could be replaced: choose another name.")
    if kind and not overwrite:
        raise FileError(f"{path} exists already. Choose another name, or let it be replaced (`overwrite=True`).")
    if not target.parent.is_dir():
        raise FileError(f"The folder {target.parent} does not exist: create it, or choose another place.")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise FileError(f"The folder {target.parent} is closed to writing: choose another place.")


def check_folder(path: PathLike, what: str) -> None:
    """Makes sure, before any work is done, that a folder is there or can be made, and written to. Makes none.

    Args:
        path: The folder.
        what: What needs it: for the message.

    Raises:
        FileError: If not.
    """
    folder = Path(path).absolute()
    try:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(folder)
    except OSError as error:  # too long a name, for one
        raise FileError(f"{what} need a folder, and {path} cannot be one ({error.strerror}).") from error
    nearest = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    if not nearest.is_dir():
        raise FileError(f"{what} need a folder, and {path} cannot be one ({nearest} is none).")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise FileError(f"{what} need a folder, and {path} cannot be one ({nearest} is closed to writing).")


def resolved(path: PathLike) -> Path:
    """What a path stands for in the end, which is what is written."""
    return Path(os.path.realpath(path))
