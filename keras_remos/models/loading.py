"""`load_teacher`: opens a downloaded model without running code that came with it."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_remos.errors import TeacherError
from keras_remos.models.layers import own_variables, walk, weight_holders
from keras_remos.saving import HEADER, PathLike

PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy"}
HDF5_MAGIC = b"\x89HDF"
# Where a serialized model may carry code of its own.
CODE_CARRIERS = ("Lambda", "__lambda__", "TorchModuleWrapper", "JaxLayer")
HUB_MISSING = 'This teacher needs KerasHub, which is not installed: pip install "keras-remos[hub]".'


def load_teacher(
    path: PathLike,
    *,
    custom_objects: Mapping[str, Any] | None = None,
    allow_unsafe_deserialization: bool = False,
) -> keras.Model:
    """Opens a pretrained model from an untrusted file or folder.

    Args:
        path: A `.keras` file, a KerasHub preset folder, or a Hugging Face folder that KerasHub can convert
            (`config.json` and safetensors). From a folder comes a text or image classifier where KerasHub has one for
            the architecture, else the backbone; a folder that holds no classifier's head gives a fresh one with two
            classes, always the same.
        custom_objects: Classes that the model is made of, by name, if they are not Keras' own or registered.
        allow_unsafe_deserialization: Opens files that carry code (Lambda layers) or use the `.h5` format. The
            file can then do anything that you can.

    Returns:
        An uncompiled model.

    Raises:
        TeacherError: If there is nothing at the path, it is damaged, carries code, or is a pickle.
        ImportError: If it needs KerasHub and that is not installed.

    Note:
        Safe loading keeps a file from running code. It says nothing about how the model behaves: that is what a slice
        is for.
    """
    source = Path(path)
    if source.is_dir():
        return _load_folder(source, allow_unsafe_deserialization)
    if not source.is_file():
        raise TeacherError(f"There is no teacher at {source}: expected a .keras file or a preset folder.")
    with source.open("rb") as file:
        magic = file.read(4)
    if magic == HDF5_MAGIC or source.suffix in (".h5", ".hdf5"):
        _refuse_unless(
            allow_unsafe_deserialization,
            f"{source} is an HDF5 file, a format that can carry code. Ask for a .keras file, or convert it in a "
            "sandbox: keras.models.load_model(...).save('teacher.keras').",
        )
    elif magic != b"PK\x03\x04":
        _refuse_foreign(source, magic)
    else:
        _check_archive(source, allow_unsafe_deserialization)
    return _load_file(source, dict(custom_objects or {}), allow_unsafe_deserialization)


def _refuse_unless(allowed: bool, message: str) -> None:
    if not allowed:
        raise TeacherError(f"{message} To open it all the same, at your own risk: `allow_unsafe_deserialization`.")


def _refuse_foreign(source: Path, magic: bytes) -> None:
    if magic[:1] == b"\x80" or source.suffix in PICKLES:
        raise TeacherError(
            f"{source} is a pickle or holds one: opening it would run its code, so it is refused. "
            "Ask for safetensors or a .keras file."
        )
    raise TeacherError(
        f"{source} is no .keras file, or damaged at its start. Expected a .keras file or a preset folder; "
        "download it again."
    )


def _check_archive(source: Path, allow_unsafe: bool) -> None:
    """Refuses, before Keras opens it, a zip that is damaged, holds no Keras model or carries code."""
    try:
        with zipfile.ZipFile(source) as archive:
            names = archive.namelist()
            damaged = archive.testzip()
            config = json.loads(archive.read("config.json")) if "config.json" in names else None
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError) as error:
        raise TeacherError(f"{source} is truncated or damaged ({error}). Download it again.") from error
    if damaged is not None:
        raise TeacherError(f"{source} is damaged: {damaged} in it has a wrong checksum. Download it again.")
    if f"{HEADER}.npy" in names:
        raise TeacherError(f"{source} is no model, but a profile, slice or attack of keras-remos.")
    if any(Path(name).suffix in PICKLES for name in names):
        _refuse_foreign(source, b"\x80")
    if config is None:
        raise TeacherError(f"{source} is a zip, but no .keras model: it has no config.json.")
    _check_config(source, config, allow_unsafe)


def _check_config(source: Path, config: Any, allow_unsafe: bool) -> None:
    carriers = sorted({name for name in _class_names(config) if name in CODE_CARRIERS})
    if carriers:
        _refuse_unless(allow_unsafe, f"{source} carries code of its own ({', '.join(carriers)}).")


def _class_names(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("class_name"), str):
            yield node["class_name"]
        for value in node.values():
            yield from _class_names(value)
    elif isinstance(node, list):
        for value in node:
            yield from _class_names(value)


def check_model(model: Any) -> None:
    """Makes sure that something is a model.

    Raises:
        TeacherError: If it is not: a path, for example.
    """
    if not isinstance(model, keras.Model):
        is_path = isinstance(model, (str, os.PathLike))
        received = f"{str(model)!r}: open it with keras_remos.load_teacher" if is_path else f"a {type(model).__name__}"
        raise TeacherError(f"Expected a Keras model. Received: {received}.")


def _load_file(source: Path, custom_objects: dict[str, Any], allow_unsafe: bool) -> keras.Model:
    if source.suffix not in (".h5", ".hdf5") and "keras_hub" in _config_text(source):
        _keras_hub()
    try:
        model = keras.models.load_model(
            source, custom_objects=custom_objects, compile=False, safe_mode=not allow_unsafe
        )
    except ImportError:
        raise
    except Exception as error:  # whatever an untrusted file makes Keras stumble over
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise TeacherError(
            f"{source} cannot be loaded: {reason} If it uses classes of its own, open it in Python, with "
            "`custom_objects`; if it was saved by another Keras, update Keras."
        ) from error
    if not isinstance(model, keras.Model):
        raise TeacherError(f"{source} holds a {type(model).__name__}, expected a model.")
    return model


def _config_text(source: Path) -> str:
    if not zipfile.is_zipfile(source):
        return ""
    with zipfile.ZipFile(source) as archive:
        return archive.read("config.json").decode()


def _keras_hub() -> Any:
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(f"{HUB_MISSING} ({error})") from error
    return keras_hub


def _load_folder(source: Path, allow_unsafe: bool) -> keras.Model:
    config_file = source / "config.json"
    if not config_file.is_file():
        raise TeacherError(
            f"{source} is no preset folder: it has no config.json. Expected a KerasHub preset or a Hugging Face folder "
            "(config.json and safetensors)."
        )
    try:
        for file in sorted(source.glob("*.json")):
            _check_config(file, json.loads(file.read_text(encoding="utf-8")), allow_unsafe)
    except ValueError as error:
        if isinstance(error, TeacherError):
            raise
        raise TeacherError(f"{file} is damaged: {error}. Download it again.") from error
    weights = [*source.glob("*.safetensors"), *source.glob("*.weights.h5"), *source.glob("*.weights.json")]
    if not weights:
        pickled = sorted(file.name for file in source.iterdir() if file.suffix in PICKLES)
        found = f"only pickles ({', '.join(pickled)}), which are refused" if pickled else "none"
        raise TeacherError(f"{source} must hold weights as safetensors or *.weights.h5; found {found}.")
    hub = _keras_hub()
    folder = str(source.resolve())
    errors = []
    has_head = (source / "task.json").is_file()
    for task in (hub.models.TextClassifier, hub.models.ImageClassifier):
        try:
            # Without a head of its own the folder's classifier gets one, which the student replaces anyway.
            model = task.from_preset(folder) if has_head else task.from_preset(folder, num_classes=2)
        except Exception as error:
            errors.append(error)
            continue
        if not has_head:
            _seed_head(model)
        _limit_sequence_length(model)
        return model
    try:
        return hub.models.Backbone.from_preset(folder)
    except Exception as error:
        raise TeacherError(f"{source} cannot be loaded by KerasHub: {errors[0]}; {error}") from error


def _seed_head(model: keras.Model) -> None:
    backbone = {id(layer) for _, layer in [("", model.backbone), *walk(model.backbone)]}
    for number, (_, layer) in enumerate(weight_holders(model)):
        if id(layer) not in backbone:
            rng = np.random.default_rng(number)
            for variable in own_variables(layer):
                # The same on every backend: files say by their digests whose weights they were made from.
                if len(variable.shape) > 1:
                    variable.assign(rng.normal(scale=0.02, size=variable.shape))


def _limit_sequence_length(model: keras.Model) -> None:
    longest = getattr(model.backbone, "max_sequence_length", None)
    wanted = getattr(model.preprocessor, "sequence_length", None)
    if longest is not None and wanted is not None:
        model.preprocessor.sequence_length = int(np.minimum(longest, wanted))
