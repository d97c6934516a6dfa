"""What is refused before Keras opens it: pickles, damaged files, and models that carry code or name other files."""

from __future__ import annotations

import copy
import io
import itertools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from keras_remos.errors import FileError, TeacherError
from keras_remos.models.layers import TooLargeError, outline
from keras_remos.untrusted import HEADER, complete, is_unicode, raised_as
from keras_remos.untrusted.containers import opened_zip, parse_json, read_member
from keras_remos.untrusted.weights import Holding, check_hdf5, check_safetensors, named_in

PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy"}
CONFIG = "config.json"
# Where a serialized model may carry code of its own, or a path to a program.
CODE_CARRIERS = frozenset({"Lambda", "__lambda__", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "TFSMLayer"})
# Parts of Keras that build no model: they open files, download, or change what the process allows.
_NO_LAYERS = frozenset(
    {"backend", "callbacks", "config", "datasets", "distribution", "export", "preprocessing", "saving", "utils"}
)
# Neither does a function of these, though they have layers.
_NO_FUNCTIONS = frozenset({"applications"})
_NO_LAYERS_EITHER = frozenset({"load_model", "model_from_json", "save_model", "clone_model"})
# Arguments of layers and tokenizers that are opened as files where they are text.
_OPENED = frozenset(
    {"vocabulary", "merges", "proto", "filepath", "vocabulary_path", "special_tokens", "language_tokens"}
)
# No path is longer: it is what SentencePiece's model is written as.
_LONGEST_PATH = 4096
# Layers, initializers, tensors and the like, in one configuration: the largest models have ten thousands.
MOST_OBJECTS = 200_000
# A model's room: values for each byte of its weights, variables for each array, and so many of both in any case.
# Some formats pack two values into a byte, and some converted layers hold one array as several.
_VALUES_A_BYTE, _VARIABLES_AN_ARRAY = 2, 8
_FEW_VALUES, _FEW_VARIABLES = 2**24, 1000
# Arguments that say how many layers, or groups of them, a part of KerasHub or of transformers makes.
_COUNTED = re.compile(
    r"^(num|n)_\w*(layer|block|stage|expert|group|level|quantizer|repetition)s?$|layers$|depths?$|repeats$"
    r"|(layer|block|group)_num$"
)
_DAMAGED = "truncated or damaged"
_AGAIN = "Download it again."


def refuse_unless(allowed: bool, message: str) -> None:
    """Stops where something unsafe was not asked for."""
    if not allowed:
        raise TeacherError(f"{message} To open it all the same, at your own risk: `allow_unsafe_deserialization`.")


def refuse_foreign(source: Path, magic: bytes) -> None:
    """Stops at a file that is no Keras model, and says what it is."""
    if magic[:1] == b"\x80" or source.suffix in PICKLES:
        raise TeacherError(
            f"{source} is a pickle or holds one: opening it would run its code, so it is refused. "
            "Ask for safetensors or a .keras file."
        )
    raise TeacherError(
        f"{source} is no .keras file, or damaged at its start. Expected a .keras file or a preset folder; "
        "download it again."
    )


def check_archive(source: Path, allow_unsafe: bool) -> tuple[Any, Holding]:
    """Refuses, before Keras opens it, a zip that is damaged, holds no Keras model, carries code or names other files.

    Returns:
        The configuration, and how much there is of weights.
    """
    with raised_as(TeacherError), complete(source, _DAMAGED, _AGAIN), opened_zip(source) as archive:
        names = archive.namelist()
        damaged = archive.testzip()
        if damaged is not None:
            raise FileError(f"{source} is damaged: {damaged!a} in it has a wrong checksum. {_AGAIN}")
        if f"{HEADER}.npy" in names:
            raise FileError(f"{source} is no model, but a profile, slice or attack of keras-remos.")
        if names and all(name.endswith(".npy") for name in names):
            raise FileError(f"{source} is no model, but arrays of NumPy: data, perhaps.")
        if any(Path(name).suffix in PICKLES for name in names):
            raise FileError(f"{source} holds a pickle: opening it would run its code, so it is refused.")
        if CONFIG not in names:
            raise FileError(f"{source} is a zip, but no .keras model: it has no {CONFIG}.")
        escaping = [name for name in names if name.startswith(("/", "\\")) or ".." in Path(name).parts]
        if escaping:
            raise FileError(f"{source} holds {escaping[0]!a}, which is outside of it: it is refused.")
        config = parse_json(read_member(archive, CONFIG))
        held = Holding(len(names), sum(member.file_size for member in archive.infolist()))
        for name in names:
            if name.endswith((".h5", ".hdf5")):
                content = archive.read(name)
                held += Holding(check_hdf5(io.BytesIO(content), len(content)).arrays)
    check_config(source, config, allow_unsafe)
    return config, held


def check_configs(files: Sequence[Path], allow_unsafe: bool) -> list[Any]:
    """Refuses a preset whose configurations are damaged, carry code or name other files; returns them."""
    configs = []
    for file in files:
        with raised_as(TeacherError), complete(file, "damaged", _AGAIN):
            config = parse_json(file.read_bytes())
        check_config(file, config, allow_unsafe)
        configs.append(config)
    return configs


def check_weights(files: Sequence[Path]) -> Holding:
    """Refuses weights of a preset that are damaged, or whose content is in other files.

    Args:
        files: Of a folder: HDF5, safetensors, and indexes of these. What is neither is passed over.

    Returns:
        How much they hold together.
    """
    held = Holding()
    for file in files:
        with raised_as(TeacherError), complete(file, _DAMAGED, _AGAIN):
            if file.name.endswith((".safetensors.index.json", ".weights.json")):
                named_in(file)
            elif file.suffix == ".safetensors":
                held += check_safetensors(file)
            elif file.suffix in (".h5", ".hdf5"):
                with file.open("rb") as opened:
                    held += check_hdf5(opened, file.stat().st_size)
    return held


def check_folder(folder: Path) -> None:
    """Refuses a folder with pipes, devices, or links that leave it.

    Links from a snapshot in the cache of Hugging Face, whose content is in `blobs` beside the snapshots, stay.
    """
    allowed = [folder.resolve()]
    if folder.resolve().parent.name == "snapshots":
        allowed.append(folder.resolve().parent.parent / "blobs")
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(parent, name) for name in (*folders, *files)):
            real = path.resolve()
            if not any(real.is_relative_to(home) for home in allowed):
                raise TeacherError(f"{path} is a link to {real}, outside of the folder: it is refused. Copy the file.")
            if not (real.is_file() or real.is_dir()):
                raise TeacherError(f"{path} is a pipe, a device, or a link to nothing: it is refused.")


def check_room(build: Callable[[], Any], configs: Sequence[Any], held: Holding) -> None:
    """Makes sure, before memory is taken, that a model has no more variables than its weights can fill.

    Args:
        build: What builds it.
        configs: What it is built from.
        held: How much there is of weights.

    Raises:
        TooLargeError: If it has.
        Exception: Whatever `build` raises.
    """
    most = _VARIABLES_AN_ARRAY * held.arrays + _FEW_VARIABLES
    for node in (node for config in configs for node in _objects(config)):
        for name, value in node.items():
            # Layers are made in a loop, and their variables when all are there.
            if _COUNTED.search(name) and _largest(value) > most:
                raise TooLargeError(f"its layers want {name} = {_largest(value):,}, for {held.arrays:,} arrays")
    outline(build, most_variables=most, most_values=_VALUES_A_BYTE * held.size + _FEW_VALUES)


def _largest(value: Any) -> int:
    if isinstance(value, list):
        return max(map(_largest, value), default=0)
    return value if isinstance(value, int) else 0


def reason_of(error: Exception) -> str:
    """What Keras means, out of the pages that it says."""
    said = str(error).rpartition("Exception encountered: ")[2]
    lines = [line.strip() for line in said.splitlines() if line.strip()] or [type(error).__name__]
    # The reason stands below the line that says that there is one.
    first = " ".join(lines[:2]) if "Example error" in lines[0] else lines[0]
    return f"{first[:400].rstrip('.')}."


def check_config(source: Path, config: Any, allow_unsafe: bool) -> None:
    """Refuses a configuration that carries code or names files to be opened."""
    carriers: dict[str, None] = {}
    for count, node in enumerate(_objects(config)):
        if count > MOST_OBJECTS:
            raise TeacherError(f"{source} is made of more than {MOST_OBJECTS:,} objects: it is refused.")
        for name, text in ((key, value) for key, value in node.items() if isinstance(value, str)):
            if not is_unicode(text) or not is_unicode(name):
                raise TeacherError(f"{source} is damaged: {name!a} holds half of a character. {_AGAIN}")
            if name in _OPENED and len(text) <= _LONGEST_PATH:
                refuse_unless(allow_unsafe, f"{source} names a file to be opened ({name}: {text[:80]!r}).")
        carriers.update(dict.fromkeys(_carried(node)))
    if carriers:
        refuse_unless(allow_unsafe, f"{source} carries code of its own ({', '.join(sorted(carriers))}).")


def code_in(config: Any) -> list[str]:
    """Where a model's configuration carries code, or uses a part of Keras that builds no model, in words."""
    found: dict[str, None] = {}
    for node in itertools.islice(_objects(config), MOST_OBJECTS):
        inner = node.get("config")
        name = inner.get("name") if isinstance(inner, dict) else node.get("name")
        found.update(dict.fromkeys(f"{what}{f' (layer {name!r})' if name else ''}" for what in _carried(node)))
    return sorted(found)


def outlined(config: Any) -> Any:
    """A copy of a model's configuration, of which Keras makes nothing that has values from the start."""
    copied = copy.deepcopy(config)
    for node in _objects(copied):
        node.pop("compile_config", None)
        inner = node.get("config")
        if isinstance(inner, dict) and "backbone" in inner and "preprocessor" in inner:
            inner["compile"] = False  # KerasHub's tasks compile themselves
        if "stateful" in node:
            node["stateful"] = False
    return copied


def _objects(config: Any) -> Iterator[dict[str, Any]]:
    waiting = [config]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            yield node
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


def _carried(node: dict[str, Any]) -> Iterator[str]:
    """What in an object is code, or a part of Keras that builds no model."""
    said = [node.get(key) for key in ("class_name", "registered_name", "spec_name")]
    if node.get("class_name") == "function":
        said.append(node.get("config"))
    names = [name.replace(">", ".").split(".")[-1] for name in said if isinstance(name, str)]
    yield from (name for name in names if name in CODE_CARRIERS or name in _NO_LAYERS_EITHER)
    module = node.get("module")
    if isinstance(module, str) and "class_name" in node:
        path = [*module.split("."), *str(node["class_name"]).split(".")[:-1]]
        if node["class_name"] == "function":
            # Of functions, Keras finds also those that are not public.
            path, refused = [name for name in path if name != "src"], _NO_LAYERS | _NO_FUNCTIONS
        else:
            refused = _NO_LAYERS
        if path[0] == "keras" and len(path) > 1 and path[1] in refused:
            yield f"{module}.{node['class_name']}"
