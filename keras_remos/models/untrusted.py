"""What is refused before Keras opens it: pickles, damaged files, and models that carry code."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from keras_remos.errors import TeacherError
from keras_remos.saving import HEADER

PICKLES = {".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy"}
# Where a serialized model may carry code of its own.
CODE_CARRIERS = ("Lambda", "__lambda__", "TorchModuleWrapper", "JaxLayer")


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


def check_archive(source: Path, allow_unsafe: bool) -> None:
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
        refuse_foreign(source, b"\x80")
    if config is None:
        raise TeacherError(f"{source} is a zip, but no .keras model: it has no config.json.")
    _check_config(source, config, allow_unsafe)


def check_configs(files: list[Path], allow_unsafe: bool) -> None:
    """Refuses a preset whose configurations are damaged or carry code."""
    for file in files:
        try:
            config = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise TeacherError(f"{file} is damaged: {error}. Download it again.") from error
        _check_config(file, config, allow_unsafe)


def _check_config(source: Path, config: Any, allow_unsafe: bool) -> None:
    carriers = sorted({name for name in _class_names(config) if name in CODE_CARRIERS})
    if carriers:
        refuse_unless(allow_unsafe, f"{source} carries code of its own ({', '.join(carriers)}).")


def _class_names(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("class_name"), str):
            yield node["class_name"]
        for value in node.values():
            yield from _class_names(value)
    elif isinstance(node, list):
        for value in node:
            yield from _class_names(value)
