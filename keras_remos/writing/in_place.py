"""`reserved` and `replacing`, for files and for folders: one writer at a time, and whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from keras_remos.errors import FileError
from keras_remos.untrusted import PathLike
from keras_remos.writing.checks import check_folder, check_writable, resolved
from keras_remos.writing.hidden import BEFORE, empty, give_up, sweep, take

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_numbers = itertools.count()
# What this process has reserved, files and folders, and the hidden folders in which they grow.
_reserved: dict[Path, Path] = {}


def reserved(path: PathLike, *, overwrite: bool = False, again: bool = False) -> AbstractContextManager[None]:
    """Keeps a file that is to be written from every other writer until the block ends.

    Args:
        path: The file. `replacing` writes it, in this process, as often as it is asked to.
        overwrite: Whether an existing file may be replaced.
        again: Whether whoever called may have reserved it already.

    Raises:
        FileError: If another writer has it; see also `check_writable`.
    """
    return _alone(path, lambda: check_writable(path, overwrite=overwrite), again=again)


@contextmanager
def replacing(path: PathLike, *, overwrite: bool = False) -> Iterator[Path]:
    """Gives a path that becomes `path` when the block ends well, and vanishes when it fails.

    Args:
        path: The file to be written. One that is there keeps its permissions.
        overwrite: Whether an existing file may be replaced.

    Raises:
        FileError: If it cannot be written, as on a full disk: what was there before is still whole. If another writer
            has it; see also `check_writable`.
    """
    target = resolved(path)
    with reserved(path, overwrite=overwrite, again=True):
        # Keras goes by the ending of a file's name, and puts files of its own beside it where memory is short.
        temporary = _reserved[target] / f"{next(_numbers)}.keras"
        try:
            with _naming(path):
                yield temporary
                _put_in_place(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def reserved_folder(
    path: PathLike, *, is_ours: Callable[[Path], bool], overwrite: bool = False, again: bool = False
) -> AbstractContextManager[None]:
    """Keeps a folder that is to be written from every other writer until the block ends.

    Args:
        path: The folder. Those that it is to lie in are made.
        is_ours: Whether a folder that is there may be replaced at all: another's never is.
        overwrite: Whether an existing folder may be replaced.
        again: Whether whoever called may have reserved it already.

    Raises:
        FileError: If something is there that may not be replaced, another writer has it, or it cannot be written.
    """
    return _alone(path, lambda: _check_replaceable(path, is_ours, overwrite), again=again)


@contextmanager
def replacing_folder(path: PathLike, *, is_ours: Callable[[Path], bool], overwrite: bool = False) -> Iterator[Path]:
    """Gives a folder that becomes `path` when the block ends well, and vanishes when it fails.

    Args:
        path: The folder to be written. One that is there keeps its permissions.
        is_ours: See `reserved_folder`.
        overwrite: Whether an existing folder may be replaced.

    Raises:
        FileError: If it cannot be written, as on a full disk: what was there before is still whole. If another writer
            has it; see also `reserved_folder`.
    """
    target = resolved(path)
    with reserved_folder(path, is_ours=is_ours, overwrite=overwrite, again=True), _naming(path):
        hidden = _reserved[target]
        made = hidden / str(next(_numbers))
        made.mkdir()
        try:
            yield made
            for file in made.rglob("*"):
                if file.is_file():
                    _to_disk(file)
            # Its writer took a while, and anybody may have put something into it meanwhile.
            _check_replaceable(path, is_ours, overwrite)
            if target.is_dir():
                _like(made, target)
                (hidden / BEFORE).mkdir()
                target.rename(hidden / BEFORE / target.name)
            made.rename(target)
            _names_to_disk(target.parent)
        finally:
            empty(hidden)


def _check_replaceable(path: PathLike, is_ours: Callable[[Path], bool], overwrite: bool) -> None:
    target = resolved(path)
    is_another = os.path.lexists(target) and not target.is_dir()
    if not is_another:
        check_folder(path, "Several files")
    is_full = target.is_dir() and any(target.iterdir())
    if is_another or (is_full and not is_ours(target)):
        raise FileError(f"{path} exists already and is no folder that could be replaced: choose another name.")
    if is_full and not overwrite:
        raise FileError(f"{path} exists already. Choose another name, or let it be replaced (`overwrite=True`).")


def full_disk(error: Exception) -> str | None:
    """The system's words for a full disk, if that is what an error means.

    HDF5 and TensorFlow have them in a long text of their own, and in an error that need not be the system's.
    """
    number = error.errno if isinstance(error, OSError) else None
    return next((os.strerror(code) for code in _FULL if code == number or os.strerror(code) in str(error)), None)


@contextmanager
def _alone(path: PathLike, check: Callable[[], None], *, again: bool) -> Iterator[None]:
    """Keeps a name from every other writer, unless this process has it already and may have."""
    target = resolved(path)
    is_known = target in _reserved
    if not is_known:
        sweep(target.parent)
    check()
    if is_known:
        if not again:
            raise FileError(f"{path} is to be written twice in this run: choose another name for one of the two.")
        yield
        return
    with _naming(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        hidden, lock = take(path, target)
    _reserved[target] = hidden
    try:
        check()  # another writer may have ended just now
        yield
    finally:
        del _reserved[target]
        give_up(hidden, lock)


@contextmanager
def _naming(path: PathLike) -> Iterator[None]:
    """Errors of the system say which file could not be written."""
    try:
        yield
    except OSError as error:
        _let_go(error)
        full = full_disk(error)
        reason = full or error.strerror or " ".join(str(error).split())
        way_out = "Make room, or choose another place." if full else "Choose another place."
        raise FileError(f"{path} cannot be written ({reason}). {way_out} Nothing was replaced.") from error


def _let_go(error: BaseException | None) -> None:
    """Has what failed close its files now: later it would look for those that are gone by then, and complain.

    Keras takes its own frames out of a traceback; those that are left lead back to them.
    """
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            with contextlib.suppress(RuntimeError):  # the first that is still running
                for caller, _ in traceback.walk_stack(frame):
                    caller.clear()
        error = error.__context__


def _put_in_place(temporary: Path, target: Path) -> None:
    """Gives a complete file its name: from one moment to the next, also where the power fails."""
    _to_disk(temporary)
    with contextlib.suppress(FileNotFoundError):
        _like(temporary, target)
    temporary.replace(target)
    _names_to_disk(target.parent)


def _like(new: Path, old: Path) -> None:
    """Gives what is new the owner and the permissions of what it takes the place of."""
    before = old.stat()
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):  # only root may give files away
            os.chown(new, before.st_uid, before.st_gid)
    new.chmod(stat.S_IMODE(before.st_mode))


def _to_disk(path: Path) -> None:
    with path.open("r+b") as file:
        os.fsync(file.fileno())


def _names_to_disk(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every system opens folders
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
