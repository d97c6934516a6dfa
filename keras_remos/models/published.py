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
from keras_remos.models.hub import HUB_MISSING, SCHEMES, load_handle, preset_names

APPLICATIONS = "keras.applications/"
EXPECTED = (
    f"expected a .keras file, a preset folder, or the name of a published model ({APPLICATIONS}ResNet50; of KerasHub "
    "bert_tiny_en_uncased, hf://OWNER/NAME, kaggle://OWNER/MODEL/keras/NAME)"
)
# What ends so was meant as a file.
_FILES = (".keras", ".h5", ".hdf5", ".npz", ".zip")


def load_published(name: str, allow_unsafe: bool) -> keras.Model:
    """Opens a published model.

    Args:
        name: `keras.applications/NAME`, a preset of KerasHub, or a handle that begins with one of `SCHEMES`.
        allow_unsafe: See `load_teacher`.

    Raises:
        TeacherError: If there is none of that name, or it cannot be downloaded.
        ImportError: If it needs KerasHub and that is not installed.
    """
    if name in applications():
        # Its head is kept, as a teacher's is: it tells the classes of ImageNet apart.
        return _downloaded(name, lambda: applications()[name](weights="imagenet"))
    scheme, handle, _ = name.partition("://")
    if handle and scheme in SCHEMES:
        return _downloaded(name, lambda: load_handle(name, allow_unsafe))
    presets = [] if "/" in name or name.endswith(_FILES) else preset_names()
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
