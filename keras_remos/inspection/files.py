"""What can be told of a file without opening it: its size and digest, and whether it holds code and where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keras_remos.errors import FileError
from keras_remos.models.untrusted import CONFIG, PICKLES, code_in
from keras_remos.untrusted import complete, digest_of
from keras_remos.untrusted.containers import MOST_JSON, opened_zip, parse_json, read_member, read_members

METADATA = "metadata.json"
_HDF5 = b"\x89HDF"
_ZIP = b"PK\x03\x04"
_OF_METADATA = ("keras_version", "keras_hub_version", "date_saved")


def identity(path: Path) -> dict[str, Any]:
    """Size and SHA-256 of a file; of a folder, of each file right in it.

    Raises:
        FileError: If something cannot be read.
    """
    with complete(path):
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
            files = [{"name": file.name, **_of_file(file)} for file in inside]
            return {"bytes": sum(each["bytes"] for each in files), "files": files}
        return _of_file(path)


def _of_file(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": digest_of(path)}


def form_of(path: Path) -> str | None:
    """What a file is by its first bytes and its ending, as far as that tells: nothing is unpacked.

    Raises:
        FileError: If it cannot be read.
    """
    with complete(path), path.open("rb") as file:
        magic = file.read(4)
    if magic == _HDF5 or path.suffix.lower() in (".h5", ".hdf5"):
        return "HDF5 file"
    if magic == _ZIP:
        return ".npz file" if path.suffix.lower() == ".npz" else "zip"
    if magic[:1] == b"\x80" or path.suffix.lower() in PICKLES:
        return "pickle"
    return None


def code_of(path: Path, form: str | None) -> dict[str, Any]:
    """Whether a model holds code: `"no"`, `"yes"` or `"unknown"`; where; and which Keras wrote it.

    Returns:
        `code`, and what `metadata.json` says.
    """
    if form == "pickle":
        return {"code": {"holds": "yes", "where": ["a pickle is a program, which runs when it is opened"]}}
    if form == "HDF5 file":
        return {"code": {"holds": "unknown", "where": ["HDF5 models may carry code, and are not opened"]}}
    try:
        where = _in_folder(path) if path.is_dir() else _in_zip(path)
        return {"code": {"holds": "yes" if where else "no", "where": where}, **_metadata(path)}
    except FileError as error:
        return {"code": {"holds": "unknown", "where": [str(error)]}}


def _in_folder(path: Path) -> list[str]:
    found = []
    for file in sorted(path.iterdir()):
        if file.suffix in PICKLES:
            found.append(f"{file.name}: a pickle, which is not opened")
        elif file.suffix == ".json" and file.is_file():
            with complete(file):
                found += [f"{file.name}: {what}" for what in code_in(parse_json(_start(file)))]
    return found


def _in_zip(path: Path) -> list[str]:
    with complete(path), opened_zip(path) as archive:
        names = archive.namelist()
        pickles = [f"{name}: a pickle" for name in names if Path(name).suffix in PICKLES]
        if CONFIG not in names and not pickles:
            raise FileError(f"{path} is a zip without a {CONFIG}: it holds no model.")
        config = parse_json(read_member(archive, CONFIG)) if CONFIG in names else {}
    return [*pickles, *(f"{CONFIG}: {what}" for what in code_in(config))]


def _metadata(path: Path) -> dict[str, Any]:
    """Which Keras wrote a model, and when: as the file says."""
    if path.is_dir():
        raw = _start(path / METADATA) if (path / METADATA).is_file() else b"{}"
    else:
        raw = read_members(path, [METADATA]).get(METADATA, b"{}")
    with complete(path):
        said = parse_json(raw)
        found = said if isinstance(said, dict) else {}
    return {name: str(found[name])[:80] for name in _OF_METADATA if name in found}


def parsed(path: Path) -> dict[str, Any]:
    """A JSON object out of a file.

    Raises:
        FileError: If it is none.
    """
    with complete(path, "no result of keras-remos, or damaged"):
        found = parse_json(_start(path))
        if not isinstance(found, dict):
            raise ValueError(f"expected an object, received {json.dumps(found)[:60]}")
        return found


def _start(path: Path) -> bytes:
    """As much of a file as JSON may have, and a byte more, by which it is known to have too much."""
    with path.open("rb") as file:
        return file.read(MOST_JSON + 1)
