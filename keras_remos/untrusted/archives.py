"""What our own files hold, read back: `.npz` of plain arrays and a JSON header, and the records of `.keras` files."""

from __future__ import annotations

import io
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypedDict

import numpy as np

from keras_remos.errors import FileError
from keras_remos.untrusted.containers import (
    MOST_JSON,
    PathLike,
    check_regular,
    complete,
    parse_json,
    read_arrays,
    read_in_parts,
    read_members,
)
from keras_remos.untrusted.rows import Rows
from keras_remos.untrusted.schema import Count, Figure, Marks, Seed, Share, check

FORMAT_VERSION = 1
# Of kinds that have moved on. Since format 2 a checkpoint knows the content of the data that it was trained on; in an
# attack set 8 bits are levels of an image file, whatever the range of the pixels, and can be read in parts; and the
# unfinished part of one that is of pixels is no archive, but a file to which rows are added.
LATER_FORMATS = {"checkpoint": 2, "attack": 2, "partial attack": 2}
HEADER = "header"
# How a file of rows begins: this, the length of its JSON header in eight bytes, and the header.
ROWS = b"keras-remos rows"
# Beyond the header, rows begin where a processor likes to find them.
_ALIGNED = 64
# Beside Keras' own members of the zip, which Keras does not look at.
RECORD = "keras_remos/record.json"


class Space(TypedDict, total=False):
    """A `PixelSpace`."""

    scaling: str
    low: Figure
    high: Figure
    data_format: str


class _OfRows(TypedDict):
    shape: list[Count]
    dtype: Literal["|u1", "<f4"]


class Record(TypedDict, total=False):
    """How a model says it was made: a student, or a teacher with a backdoor. It may say more."""

    attacker_data: str
    attacker_share: Share
    class_names: list[str]
    command: str
    cost: dict[str, Any] | None
    data: list[str]
    defect: str
    hardening: dict[str, Any]
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
    _check_header(header, source, kind, expected)
    return header, arrays


def read_archive_in_parts(
    path: PathLike, kind: str, expected: type[Any], names: Collection[str], *, only: bool = False
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same, some arrays being left in the file if they are large, and the others left out if these are `only`."""
    source = check_regular(path)
    with complete(source):
        header = parse_json(read_arrays(source, [HEADER])[HEADER].tobytes())
        _check_header(header, source, kind, expected)
        arrays = read_in_parts(source, names, only=only)
    return header, arrays


def read_header(path: PathLike) -> dict[str, Any]:
    """What the header of an archive, or of a file of rows, says; what else is in it is not read.

    Raises:
        FileError: If it is missing, damaged, no keras-remos file, or of a newer format.
    """
    source = check_regular(path)
    with complete(source):
        if holds_rows(source):
            with source.open("rb") as file:
                header = _read_head(file)
        else:
            header = parse_json(read_arrays(source, [HEADER])[HEADER].tobytes())
    _check_header(header, source, None, None)
    return dict(header)


def rows_head(kind: str, header: Mapping[str, Any], shape: tuple[int, ...], dtype: Any) -> bytes:
    """How a file of rows begins. See `open_rows`."""
    rows = {"shape": list(shape), "dtype": np.dtype(dtype).str}
    raw = json.dumps({"kind": kind, "format": format_of(kind), "rows": rows, **header}, sort_keys=True).encode()
    begin = len(ROWS) + 8
    raw += b" " * (-(begin + len(raw)) % _ALIGNED)
    return ROWS + len(raw).to_bytes(8, "little") + raw


def holds_rows(path: PathLike) -> bool:
    """Whether a file is one of rows, by how it begins."""
    source = check_regular(path)
    with complete(source), source.open("rb") as file:
        return file.read(len(ROWS)) == ROWS


def open_rows(
    path: PathLike, kind: str, expected: type[Any], *, writable: bool = False
) -> tuple[dict[str, Any], Rows, int]:
    """Opens a file of rows, each followed by its checksum, to which rows are added.

    Args:
        path: The file.
        kind: What it must hold.
        expected: A `TypedDict` of what its header must hold.
        writable: Whether rows are to be written.

    Returns:
        Its header, the rows, of which some are not there yet, and how many are, from the first on.

    Raises:
        FileError: If it is damaged, or of another kind.
    """
    source = check_regular(path)
    with complete(source):
        file: BinaryIO = source.open("r+b" if writable else "rb", buffering=0)
        try:
            header = _read_head(file)
            _check_header(header, source, kind, expected)
            check(header.get("rows"), _OfRows, f"{HEADER}.rows")
            shape = tuple(header["rows"]["shape"])
            if not shape:
                raise ValueError("it says that it has no rows")
            rows = Rows(file, shape, header["rows"]["dtype"], offset=file.tell(), marked=True, name=str(source))
            return header, rows, rows.whole_rows(file.seek(0, io.SEEK_END))
        except BaseException:
            file.close()
            raise


def _read_head(file: BinaryIO) -> Any:
    size = int.from_bytes(file.read(len(ROWS) + 8)[len(ROWS) :], "little")
    if size > MOST_JSON:
        raise ValueError(f"a header of {size:,} bytes, more than {MOST_JSON:,}")
    return parse_json(file.read(size))


def _check_header(header: Any, source: Path, kind: str | None, expected: type[Any] | None) -> None:
    with complete(source):
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
