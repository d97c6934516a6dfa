"""What a teacher may be called: a file, a folder, or the name that it is published under. Told without Keras."""

from __future__ import annotations

import os
import re
from pathlib import Path

from keras_remos.errors import FileError, TeacherError
from keras_remos.untrusted import PathLike

SCHEMES = ("hf", "kaggle", "modelscope", "gs")
APPLICATIONS = "keras.applications/"
EXPECTED = (
    f"expected a .keras file, a preset folder, or the name of a published model ({APPLICATIONS}ResNet50; of KerasHub "
    "bert_tiny_en_uncased, hf://OWNER/NAME, kaggle://OWNER/MODEL/keras/NAME)"
)
# What ends so was meant as a file.
_MODELS = (".keras", ".h5", ".hdf5", ".zip")
_ARCHIVES = (".npz",)


def as_typed(path: PathLike) -> str:
    """A name as it was before a `Path` was made of it: `hf://` has two slashes."""
    return re.sub(rf"^({'|'.join(SCHEMES)}):/(?=[^/])", r"\1://", os.fspath(path).replace(os.sep, "/"))


def is_handle(name: str) -> bool:
    """Whether a name begins with a place to download from."""
    scheme, handle, _ = name.partition("://")
    return bool(handle) and scheme in SCHEMES


def may_be_preset(name: str) -> bool:
    """Whether a preset of KerasHub may be called so."""
    return "/" not in name and not name.endswith((*_MODELS, *_ARCHIVES))


def check_there(path: PathLike) -> None:
    """Makes sure, before Keras is there, that a path leads somewhere, or may be the name of a published model.

    Raises:
        TeacherError: If it does not, and cannot be.
        FileError: If it was not meant as a model.
    """
    name = as_typed(path)
    if Path(path).exists() or is_handle(name) or may_be_preset(name):
        return
    if name.endswith(_ARCHIVES):
        raise FileError(f"There is no file {name}.")
    # A slip in a published name is told by whoever knows these names.
    if name.endswith(_MODELS) or not name.lower().startswith("keras"):
        raise TeacherError(f"There is no teacher at {name}: {EXPECTED}.")
