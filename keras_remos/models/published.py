"""Published models by their names: those of `keras.applications`, and the presets of KerasHub.

Keras downloads them once and keeps them in its own cache.
"""

from __future__ import annotations

import contextlib
import difflib
import socket
import sys
from collections.abc import Callable, Iterator

import keras

from keras_remos.errors import TeacherError
from keras_remos.models.hub import HUB_MISSING, load_handle, preset_names
from keras_remos.models.names import APPLICATIONS, EXPECTED, is_handle, may_be_preset


def load_published(name: str, allow_unsafe: bool) -> keras.Model:
    """Opens a published model.

    Args:
        name: `keras.applications/NAME`, a preset of KerasHub, or a handle that begins with one of `names.SCHEMES`.
        allow_unsafe: See `load_teacher`.

    Raises:
        TeacherError: If there is none of that name, or it cannot be downloaded.
        ImportError: If it needs KerasHub and that is not installed.
    """
    if name in applications():
        # Its head is kept, as a teacher's is: it tells the classes of ImageNet apart.
        return _downloaded(name, lambda: applications()[name](weights="imagenet"))
    if is_handle(name):
        return _downloaded(name, lambda: load_handle(name, allow_unsafe))
    presets = preset_names() if may_be_preset(name) else []
    if name in presets:
        return _downloaded(name, lambda: load_handle(name, allow_unsafe))
    close = _close(name, [*applications(), *presets])
    near = f" Close to it: {', '.join(close)}." if close else ""
    unknown = f" If it is a preset: {HUB_MISSING}" if not presets and not close and "." not in name else ""
    raise TeacherError(f"There is no teacher at {name}: {EXPECTED}.{near}{unknown}")


def applications() -> dict[str, Callable[..., keras.Model]]:
    """The functions of `keras.applications` that build models, by the names that teachers are loaded by."""
    found = vars(keras.applications)
    return {f"{APPLICATIONS}{name}": found[name] for name in sorted(found) if name[0].isupper()}


def _close(name: str, known: list[str]) -> list[str]:
    """Names that somebody may have meant: upper case, and where they are from, are easily forgotten."""
    plain = {each.removeprefix(APPLICATIONS).lower(): each for each in known}
    wanted = name.rpartition("/")[2].lower() if name.lower().startswith("keras") else name.lower()
    return [plain[each] for each in difflib.get_close_matches(wanted, plain, cutoff=0.7)]


def _downloaded(name: str, load: Callable[[], keras.Model]) -> keras.Model:
    try:
        # Keras prints the progress of downloads to stdout, which is for results.
        with contextlib.redirect_stdout(sys.stderr):
            return load()
    except (TeacherError, ImportError):
        raise
    except Exception as error:  # each service and its client have their own
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        offline = any(isinstance(each, (socket.gaierror, ConnectionError, TimeoutError)) for each in _chain(error))
        why = "is not in the cache, and there is no network to download it from" if offline else "cannot be loaded"
        raise TeacherError(
            f"{name} {why}: {reason.rstrip('.')}. To do without the download, load it on another machine, "
            "and bring a file of it: model.save('teacher.keras')."
        ) from error


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
