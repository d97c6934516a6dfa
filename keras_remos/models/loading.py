"""`load_teacher`: opens a downloaded model without running code that came with it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from keras_remos.errors import TeacherError
from keras_remos.models.hub import keras_hub, load_folder
from keras_remos.models.inputs import takes_strings
from keras_remos.models.layers import TooLargeError
from keras_remos.models.names import as_typed
from keras_remos.models.origin import Origin, missing_objects, named, own_objects, remember
from keras_remos.models.published import load_published
from keras_remos.models.untrusted import (
    check_archive,
    check_room,
    check_weights,
    outlined,
    reason_of,
    refuse_foreign,
    refuse_unless,
)
from keras_remos.untrusted import PathLike, check_regular, complete, raised_as
from keras_remos.untrusted.weights import Holding

HDF5_MAGIC = b"\x89HDF"


def load_teacher(
    path: PathLike,
    *,
    custom_objects: Mapping[str, Any] | None = None,
    allow_unsafe_deserialization: bool = False,
) -> keras.Model:
    """Opens a pretrained model from an untrusted file or folder, or by the name that it is published under.

    Args:
        path: A `.keras` file, a KerasHub preset folder, or a Hugging Face folder that KerasHub can convert
            (`config.json` and safetensors). Where there is no such file or folder, the name of a published model, which
            Keras downloads into its own cache: `"keras.applications/ResNet50"`, with the weights and the head for
            ImageNet; a preset of KerasHub, `"bert_tiny_en_uncased"`; or a handle that it takes,
            `"hf://OWNER/NAME"`, `"kaggle://OWNER/MODEL/keras/NAME"`. From a folder or a preset comes a text or image
            classifier where KerasHub has one for the architecture, else the backbone; one that holds no classifier's
            head gives a fresh one with two classes, always the same.
        custom_objects: Classes and functions that the model is made of, by name, if they are not Keras' own or
            registered. They are remembered with this model alone, and its copies are made of them.
        allow_unsafe_deserialization: Opens files that carry code (Lambda layers) or use the `.h5` format. The
            file can then do anything that you can.

    Returns:
        An uncompiled model.

    Raises:
        TeacherError: If there is nothing at the path and no model of that name, or it cannot be downloaded, is damaged,
            carries code, or is a pickle.
        ImportError: If it needs KerasHub and that is not installed.

    Note:
        Safe loading keeps a file from running code. It says nothing about how the model behaves: that is what a slice
        is for.
    """
    source, name = Path(path), as_typed(path)
    with keras.saving.custom_object_scope(dict(custom_objects or {})):
        if source.is_dir():
            model = load_folder(source, allow_unsafe_deserialization)
        elif source.exists():
            with raised_as(TeacherError):
                model = _load_checked(check_regular(source), allow_unsafe_deserialization)
        else:
            model = load_published(name, allow_unsafe_deserialization)
    return remember(model, Origin(source.absolute().name if source.exists() else name, named(custom_objects)))


def _load_checked(source: Path, allow_unsafe: bool) -> keras.Model:
    with complete(source), source.open("rb") as file:
        magic = file.read(4)
    if magic == HDF5_MAGIC or source.suffix in (".h5", ".hdf5"):
        refuse_unless(
            allow_unsafe,
            f"{source} is an HDF5 file, a format that can carry code. Ask for a .keras file, or convert it in a "
            "sandbox: keras.models.load_model(...).save('teacher.keras').",
        )
        check_weights([source])
        return _load_file(source, None, allow_unsafe)
    if magic != b"PK\x03\x04":
        refuse_foreign(source, magic)
    config, held = check_archive(source, allow_unsafe)
    if "keras_hub" in json.dumps(config):
        keras_hub()
    return _load_file(source, config, allow_unsafe, held)


def check_model(model: Any) -> None:
    """Makes sure that something is a model, and one that Keras runs on this backend.

    Raises:
        TeacherError: If it is not: a path, for example; or if it takes strings, elsewhere than on TensorFlow.
    """
    if not isinstance(model, keras.Model):
        is_path = isinstance(model, (str, os.PathLike))
        received = f"{str(model)!r}: open it with keras_remos.load_teacher" if is_path else f"a {type(model).__name__}"
        raise TeacherError(f"Expected a Keras model. Received: {received}.")
    backend = keras.backend.backend()
    if takes_strings(model) and backend != "tensorflow":
        raise TeacherError(
            f"Model {model.name!r} takes strings. Keras runs such models on TensorFlow only, not on {backend}: set "
            "KERAS_BACKEND=tensorflow, or take a model that starts behind the layer that reads the strings."
        )


def _check_room(config: Any, held: Holding) -> None:
    try:
        check_room(lambda: keras.saving.deserialize_keras_object(outlined(config)), [config], held)
    except TooLargeError:
        raise
    except Exception:
        # The user's own classes may need values to be built: they are no stranger's.
        if not own_objects(config):
            raise


def _load_file(source: Path, config: Any, allow_unsafe: bool, held: Holding | None = None) -> keras.Model:
    try:
        if held is not None and not allow_unsafe:
            _check_room(config, held)
        model = keras.models.load_model(source, compile=False, safe_mode=not allow_unsafe)
    except ImportError:
        raise
    except TooLargeError as error:
        raise TeacherError(f"{source} is refused: {error}.") from error
    except Exception as error:  # whatever an untrusted file makes Keras stumble over
        missing = missing_objects(config, {})
        if missing:
            given = ", ".join(f"{name!r}: {name}" for name in missing)
            raise TeacherError(
                f"{source} cannot be loaded: it is made of {', '.join(missing)}, which Keras does not know. In a "
                f"script, pass what is missing: load_teacher(path, custom_objects={{{given}}}). The shell has no "
                "option for it: its commands run no code but their own."
            ) from error
        raise TeacherError(
            f"{source} cannot be loaded: {reason_of(error)} If it was saved by another Keras, update Keras."
        ) from error
    if not isinstance(model, keras.Model):
        raise TeacherError(f"{source} holds a {type(model).__name__}, expected a model.")
    return model
