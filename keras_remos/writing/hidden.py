"""The hidden folders in which files and folders grow: taken by one writer at a time, and swept when that has died."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
import tempfile
import time
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
"""How the names of hidden folders begin."""
BEFORE = "before"
"""In a hidden folder: holds the folder that is being replaced, under its own name."""
_PREFIX = f"{HIDDEN}-"
# Where there are no locks, or the folder of that name is somebody else's. Nobody can tell whether its writer lives: it
# is never taken over, and never cleaned.
_PREFIX_WITHOUT_LOCKS = f"{HIDDEN}."
_LOCK = "lock"
# Whoever looks whether a writer lives holds its lock for a moment.
_TRIES, _PAUSE = 10, 0.02


def take(path: PathLike, target: Path) -> tuple[Path, int | None]:
    """Makes the hidden folder of what is to be written, or takes over a dead writer's.

    Args:
        path: As the user calls it: for the message.
        target: The same, with no links in it.

    Returns:
        The folder, and the lock if there are locks.

    Raises:
        FileError: If another writer has it.
    """
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
        empty(folder)
        return folder, found
    raise FileError(f"{path} is being written by another run: wait for it, or choose another name.")


def give_up(folder: Path, lock: int | None) -> None:
    """Removes a hidden folder whose lock is held, and the lock last."""
    empty(folder)
    with contextlib.suppress(OSError):
        (folder / _LOCK).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # somebody may just have locked it anew
        folder.rmdir()
    if lock is not None:
        os.close(lock)


def empty(folder: Path) -> None:
    """Removes what is in a hidden folder whose lock is held, but for the lock."""
    with contextlib.suppress(OSError):
        _put_back(folder)
        for place in folder.iterdir():
            if place.name == _LOCK:
                continue
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place, ignore_errors=True)
            else:
                place.unlink(missing_ok=True)


def sweep(parent: Path) -> None:
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
        give_up(folder, lock)


def _put_back(folder: Path) -> None:
    """Gives what was to be replaced its place again if nothing has taken that; else it is to be removed."""
    before = folder / BEFORE
    if not os.path.lexists(before) or not _is_ours(before):
        return
    for old in before.iterdir():
        place = folder.parent / old.name
        if os.path.lexists(place):
            # What was removed by half must not come back: it goes out of the way first.
            place = Path(tempfile.mkdtemp(dir=folder), old.name)
        old.rename(place)


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
