"""Writes files whole or not at all: the one place that does.

What is to become a file grows in a hidden folder beside it, which only its writer may open, and takes the file's place
once it is complete and on the disk. The folder's name follows from the file's, and a lock lies in it: a second writer
of the same file is refused, and what a writer that was killed left behind goes when the next one comes.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import shutil
import stat
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from keras_remos.errors import FileError
from keras_remos.untrusted import PathLike

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


HIDDEN = ".keras-remos"
"""How the names of hidden folders begin, in which files grow."""
_PREFIX = f"{HIDDEN}-"
# Where there are no locks, or the folder of that name is somebody else's. Nobody can tell whether its writer lives: it
# is never taken over, and never cleaned.
_PREFIX_WITHOUT_LOCKS = f"{HIDDEN}."
_LOCK = "lock"
# Whoever looks whether a writer lives holds its lock for a moment.
_TRIES, _PAUSE = 10, 0.02
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

_numbers = itertools.count()
# The files that this process has reserved, and the folders in which they grow.
_reserved: dict[Path, Path] = {}


def check_writable(path: PathLike, *, overwrite: bool = False) -> None:
    """Makes sure, before any work is done, that a file may be written.

    A symbolic link stands for what it leads to, as everywhere in the shell: that is written, and the link stays.

    Raises:
        FileError: If it exists and may not be replaced, or is a device, a pipe or the like; if its name is too long, or
            its folder is missing or closed to writing.
    """
    target = _resolved(path)
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


@contextmanager
def reserved(path: PathLike, *, overwrite: bool = False) -> Iterator[None]:
    """Keeps a file that is to be written from every other writer until the block ends.

    Args:
        path: The file. `replacing` writes it, in this process, as often as it is asked to.
        overwrite: Whether an existing file may be replaced.

    Raises:
        FileError: If another writer has it; see also `check_writable`.
    """
    target = _resolved(path)
    _sweep(target.parent)
    check_writable(path, overwrite=overwrite)
    if target in _reserved:
        raise FileError(f"{path} is to be written twice in this run: choose another name for one of the two.")
    with _naming(path):
        folder, lock = _take(path, target)
    _reserved[target] = folder
    try:
        yield
    finally:
        del _reserved[target]
        _give_up(folder, lock)


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
    target = _resolved(path)
    with contextlib.ExitStack() as stack:
        if target in _reserved:
            check_writable(path, overwrite=overwrite)
        else:
            stack.enter_context(reserved(path, overwrite=overwrite))
        # Keras goes by the ending of a file's name, and puts files of its own beside it where memory is short.
        temporary = _reserved[target] / f"{next(_numbers)}.keras"
        try:
            with _naming(path):
                yield temporary
                _put_in_place(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)


def check_replaceable(path: PathLike, *, is_ours: Callable[[Path], bool], overwrite: bool = False) -> None:
    """Makes sure, before any work is done, that a folder may be written. For the arguments see `replacing_folder`.

    Raises:
        FileError: If not.
    """
    target = _resolved(path)
    if os.path.lexists(target):
        if not target.is_dir() or (any(target.iterdir()) and not is_ours(target)):
            raise FileError(f"{path} exists already and is no folder that could be replaced: choose another name.")
        if any(target.iterdir()) and not overwrite:
            raise FileError(f"{path} exists already. Choose another name, or let it be replaced (`overwrite=True`).")
    check_folder(path, "What is written")


@contextmanager
def replacing_folder(path: PathLike, *, is_ours: Callable[[Path], bool], overwrite: bool = False) -> Iterator[Path]:
    """Gives a folder that becomes `path` when the block ends well, and vanishes when it fails.

    Args:
        path: The folder to be written.
        is_ours: Whether a folder that is there may be replaced at all: another's never is.
        overwrite: Whether an existing folder may be replaced.

    Raises:
        FileError: If something is there that may not be replaced, or the folder cannot be written.
    """
    check_replaceable(path, is_ours=is_ours, overwrite=overwrite)
    target = _resolved(path)
    with _naming(path):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=_PREFIX_WITHOUT_LOCKS, dir=target.parent) as hidden:
            made = Path(hidden, "made")
            made.mkdir()
            yield made
            before = Path(hidden, "before")
            if target.is_dir():
                target.rename(before)
            try:
                made.rename(target)
            except OSError:
                if before.is_dir():
                    before.rename(target)
                raise


def _resolved(path: PathLike) -> Path:
    return Path(os.path.realpath(path))


@contextmanager
def _naming(path: PathLike) -> Iterator[None]:
    """Errors of the system say which file could not be written."""
    try:
        yield
    except OSError as error:
        _let_go(error)
        # HDF5 has the system's words in a long text of its own.
        said = [os.strerror(code) for code in _FULL if code == error.errno or os.strerror(code) in str(error)]
        reason = said[0] if said else error.strerror or " ".join(str(error).split())
        way_out = "Make room, or choose another place." if said else "Choose another place."
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
    with temporary.open("r+b") as file:
        os.fsync(file.fileno())
    with contextlib.suppress(FileNotFoundError):
        before = target.stat()
        if hasattr(os, "chown"):
            with contextlib.suppress(OSError):  # only root may give files away
                os.chown(temporary, before.st_uid, before.st_gid)
        temporary.chmod(stat.S_IMODE(before.st_mode))
    temporary.replace(target)
    with contextlib.suppress(OSError):  # not every system opens folders
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


# --- the hidden folder ------------------------------------------------------------------------------------------------


def _take(path: PathLike, target: Path) -> tuple[Path, int | None]:
    """Makes a file's hidden folder, or takes over a dead writer's; returns it, and the lock if there are locks."""
    folder = target.parent / f"{_PREFIX}{hashlib.sha256(os.fsencode(target.name)).hexdigest()[:16]}"
    for _ in range(_TRIES):
        try:
            try:
                folder.mkdir(mode=0o700)
                is_ours = True
            except FileExistsError:
                is_ours = _is_ours(folder)
            found = _lock(folder, create=True) if is_ours else None
        except FileNotFoundError:
            continue  # its last writer has just removed it
        except BlockingIOError:
            time.sleep(_PAUSE)
            continue
        if found is None:
            if is_ours:
                with contextlib.suppress(OSError):
                    folder.rmdir()
            return Path(tempfile.mkdtemp(prefix=_PREFIX_WITHOUT_LOCKS, dir=target.parent)), None
        _empty(folder)
        return folder, found
    raise FileError(f"{path} is being written by another run: wait for it, or choose another name.")


def _lock(folder: Path, *, create: bool) -> int | None:
    """Locks a hidden folder; `None` where this system or disk has no locks.

    Raises:
        BlockingIOError: If its writer lives.
        FileNotFoundError: If it has gone meanwhile.
    """
    if fcntl is None:
        return None
    place = folder / _LOCK
    handle = os.open(place, os.O_RDWR | os.O_NOFOLLOW | (os.O_CREAT if create else 0), 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between opening and locking, a writer that has ended may have removed it.
        if not os.path.samestat(os.fstat(handle), os.lstat(place)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(place))
    except (BlockingIOError, FileNotFoundError):
        os.close(handle)
        raise
    except OSError:  # no locks on this disk
        os.close(handle)
        if create:
            with contextlib.suppress(OSError):
                place.unlink()
        return None
    return handle


def _is_ours(folder: Path) -> bool:
    """Whether nobody else can put anything into a hidden folder that is there already."""
    found = os.lstat(folder)
    return stat.S_ISDIR(found.st_mode) and (not hasattr(os, "geteuid") or found.st_uid == os.geteuid())


def _give_up(folder: Path, lock: int | None) -> None:
    """Removes a hidden folder whose lock is held, and the lock last."""
    _empty(folder)
    with contextlib.suppress(OSError):
        (folder / _LOCK).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody may just have locked it anew
        folder.rmdir()
    if lock is not None:
        os.close(lock)


def _empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for place in folder.iterdir():
            if place.name == _LOCK:
                continue
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)
            else:
                place.unlink(missing_ok=True)


def _sweep(parent: Path) -> None:
    """Removes what writers left in a folder that were killed; a living one's lock is held."""
    with contextlib.suppress(OSError):
        for folder in [Path(entry.path) for entry in os.scandir(parent) if entry.name.startswith(_PREFIX)]:
            with contextlib.suppress(OSError):
                _sweep_one(folder)


def _sweep_one(folder: Path) -> None:
    if not _is_ours(folder):
        return
    try:
        lock = _lock(folder, create=False)
    except FileNotFoundError:
        folder.rmdir()  # killed before there was a lock, or just made: empty, and made anew if its writer lives
        return
    if lock is not None:
        _give_up(folder, lock)
