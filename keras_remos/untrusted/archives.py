"""What our own files hold, read back: `.npz` of plain arrays and a JSON header, and the records of `.keras` files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np

from keras_remos.errors import FileError
from keras_remos.untrusted.containers import (
    PathLike,
    check_regular,
    complete,
    parse_json,
    read_arrays,
    read_members,
)
from keras_remos.untrusted.schema import Count, Figure, Marks, Seed, check

FORMAT_VERSION = 1
# Of kinds that have moved on: since format 2 a checkpoint knows the content of the data that it was trained on.
LATER_FORMATS = {"checkpoint": 2}
HEADER = "header"
# Beside Keras' own members of the zip, which Keras does not look at.
RECORD = "keras_remos/record.json"


class Space(TypedDict, total=False):
    """A `PixelSpace`."""

    scaling: str
    low: Figure
    high: Figure
    data_format: str


class Record(TypedDict, total=False):
    """How a model says it was made: a student, or a teacher with a backdoor. It may say more."""

    class_names: list[str]
    command: str
    cost: dict[str, Any] | None
    data: list[str]
    defect: str
    history: dict[str, list[float]]
    image_size: tuple[Count, Count]
    method: str
    num_classes: Count | None
    options: dict[str, Any]
    recipe: dict[str, str | float | bool | None]
    seed: Seed
    slice: dict[str, Any]
    source: Marks
    space: Space
    target: Count
    teacher: Marks
    teacher_name: str
    text_trigger: dict[str, Any]
    versions: dict[str, str]


def format_of(kind: str) -> int:
    """The version of the format in which files of a kind are written."""
    return LATER_FORMATS.get(kind, FORMAT_VERSION)


def read_archive(
    path: PathLike, kind: str | None = None, expected: type[Any] | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Reads what `write_archive` wrote.

    Args:
        path: The file.
        kind: What it must be, or `None` for any.
        expected: A `TypedDict` of what its header must hold.

    Returns:
        The header and the arrays.

    Raises:
        FileError: If it is missing, damaged, no keras-remos file, of another kind, or of a newer format.
    """
    source = check_regular(path)
    with complete(source):
        arrays = read_arrays(source)
        header = parse_json(arrays.pop(HEADER).tobytes())
        check(header, dict[str, Any], HEADER)
        check(header.get("kind"), str, "kind")
        check(header.get("format"), Count, "format")
    found, version = header["kind"], header["format"]
    if version > format_of(found):
        raise FileError(
            f"{source} has format {version}; this version reads up to {format_of(found)}: update keras-remos."
        )
    if kind is not None and found != kind:
        raise FileError(f"{source} holds {_a(found)}, expected {_a(kind)}.")
    if expected is not None:
        with complete(source):
            check(header, expected, HEADER)
    return header, arrays


def _a(kind: str) -> str:
    return f"{'an' if kind[:1] in 'aeiou' else 'a'} {kind[:40]}"


def read_record(path: PathLike) -> dict[str, Any]:
    """How a model says it was made; empty for models that say nothing.

    Raises:
        FileError: If the record is damaged.
    """
    members = read_members(path, [RECORD])
    with complete(path):
        record = parse_json(members.get(RECORD, b"{}"))
        check(record, Record, "record")
        return dict(record)


def read_own_arrays(path: PathLike, name: str) -> Mapping[str, np.ndarray] | None:
    """The arrays of an `.npz` that is a member of a `.keras` file, if it is there.

    Raises:
        FileError: If it is damaged.
    """
    members = read_members(path, [name])
    with complete(path):
        return read_arrays(io.BytesIO(members[name])) if name in members else None
