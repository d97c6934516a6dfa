"""The one place that opens containers: zips, `.npz` arrays and JSON.

All bounds are checked before anything is allocated, and whatever a damaged file makes a library stumble over becomes
one `FileError` that names the file.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from keras_remos.errors import FileError, RemosError
from keras_remos.untrusted.rows import Rows, fits_memory

PathLike = str | os.PathLike[str]

# Members of a zip, and objects in an HDF5 file: a model of a thousand layers has some thousands.
MOST_MEMBERS = 100_000
# What a container may expand to, in bytes: so much in any case, and so many times its own size.
ALWAYS_EXPANDED = 2**30
MOST_EXPANSION = 100
# A model's configuration, a header or a record, in bytes of JSON, in values, and how deep it may be nested. An empty
# list is three bytes in a file and two hundred once Keras has read it.
MOST_JSON = 2**26
MOST_VALUES = 4_000_000
DEEPEST = 200
_ENCRYPTED = 0x1
_LOCAL_HEADER = 30
# Where in it the lengths of name and extra field stand, which lie between it and the content.
_LENGTHS = slice(26, 30)
# Of NumPy's types: numbers and strings.
_KINDS = "biufcSU"
_LAST_CHARACTER = 0x10FFFF


def check_regular(path: PathLike) -> Path:
    """Makes sure that a path leads to a regular file: pipes, sockets and devices may never end.

    Raises:
        FileError: If there is nothing, or something else.
    """
    source = Path(path)
    with complete(source):
        if source.is_file():
            return source
        if source.is_dir():
            raise FileError(f"{source} is a folder, expected a file.")
        if not source.exists():
            raise FileError(f"There is no file {source}.")
        raise FileError(f"{source} is a pipe, a socket or a device, expected a file. Save its content first.")


def digest_of(path: PathLike) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def complete(
    path: PathLike, what: str = "damaged or no keras-remos file", way_out: str = "Make it anew."
) -> Iterator[None]:
    """Turns whatever goes wrong while a file is read into one error that names the file.

    Args:
        path: The file.
        what: What it is then said to be.
        way_out: What to do.

    Raises:
        FileError: If anything is missing, damaged or of another form.
    """
    try:
        yield
    except (FileError, MemoryError):
        raise
    except OSError as error:
        if error.errno is None:
            raise _as_file_error(path, what, error, way_out) from error
        raise FileError(f"{path} cannot be read ({error.strerror}).") from error
    except Exception as error:  # every library that reads a file has its own
        raise _as_file_error(path, what, error, way_out) from error


def _as_file_error(path: PathLike, what: str, error: Exception, way_out: str) -> FileError:
    said = " ".join(str(error).split())[:200]
    return FileError(f"{path} is {what} ({type(error).__name__}{f': {said}' if said else ''}). {way_out}")


@contextmanager
def raised_as(kind: type[RemosError]) -> Iterator[None]:
    """Gives on errors of files as those that the caller promises: of a teacher, of a data set."""
    try:
        yield
    except FileError as error:
        raise kind(str(error)) from error


def most_expanded(size: int) -> int:
    """What a container of so many bytes may expand to, in bytes."""
    return max(ALWAYS_EXPANDED, MOST_EXPANSION * size)


@contextmanager
def opened_zip(source: Path | IO[bytes]) -> Iterator[zipfile.ZipFile]:
    """Opens a zip whose members are stored or deflated, do not overlap, and expand to what `most_expanded` allows.

    Args:
        source: A regular file, or what has been read of one.

    Raises:
        Exception: Whatever damage makes of it; to be used within `complete`.
    """
    with source.open("rb") if isinstance(source, Path) else source as file:
        size = file.seek(0, io.SEEK_END)
        with zipfile.ZipFile(file) as archive:
            _check_members(archive, size)
            yield archive


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    members = archive.infolist()
    if len(members) > MOST_MEMBERS:
        raise ValueError(f"it has {len(members):,} members, more than {MOST_MEMBERS:,}")
    if len({member.filename for member in members}) < len(members):
        raise ValueError("it has two members of one name")
    end = 0
    for member in sorted(members, key=lambda member: member.header_offset):
        if member.flag_bits & _ENCRYPTED:
            raise ValueError("it is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{member.filename!a} in it is compressed in a way that is not read")
        if member.header_offset < end or member.compress_size < 0:
            raise ValueError("members of it overlap")
        end = member.header_offset + _LOCAL_HEADER + member.compress_size
    expanded = sum(member.file_size for member in members)
    if end > size or expanded > most_expanded(size):
        raise ValueError(f"it says that it expands to {expanded:,} bytes, more than {most_expanded(size):,}")


def read_members(path: PathLike, names: Collection[str]) -> dict[str, bytes]:
    """Reads members of a `.keras` file, those that it has.

    Args:
        path: A `.keras` file; anything else, such as a preset folder or no file at all, has no members.
        names: Of the members.

    Raises:
        FileError: If the file is a damaged zip, or a member is larger than JSON may be.
    """
    source = Path(path)
    if not source.is_file() or not zipfile.is_zipfile(source):
        return {}
    with complete(source), opened_zip(source) as archive:
        return {name: read_member(archive, name) for name in names if name in archive.namelist()}


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """A member that is to be parsed.

    Raises:
        ValueError: If it is larger than that may be.
    """
    size = archive.getinfo(name).file_size
    if size > MOST_JSON:
        raise ValueError(f"{name} in it has {size:,} bytes, more than {MOST_JSON:,}")
    return archive.read(name)


def parse_json(raw: bytes) -> Any:
    """JSON in UTF-8, of no more than `MOST_VALUES` values (commas in texts count), nested no deeper than `DEEPEST`.

    Raises:
        Exception: Whatever damage makes of it; to be used within `complete`.
    """
    if len(raw) > MOST_JSON:
        raise ValueError(f"JSON of {len(raw):,} bytes, more than {MOST_JSON:,}")
    values = sum(raw.count(sign) for sign in (b",", b"[", b"{"))
    if values > MOST_VALUES:
        raise ValueError(f"JSON of {values:,} values, more than {MOST_VALUES:,}")
    value = json.loads(raw.decode("utf-8-sig"))
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        level = [inner for outer in level if isinstance(outer, (dict, list)) for inner in _inside(outer)]
        if not level:
            return value
    raise ValueError(f"JSON that is nested deeper than {DEEPEST}")


def _inside(node: dict[str, Any] | list[Any]) -> Collection[Any]:
    return node.values() if isinstance(node, dict) else node


def read_arrays(source: Path | IO[bytes], names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The plain arrays of an `.npz`. Nothing is unpickled.

    Args:
        source: A regular file, or what has been read of one.
        names: Those that are wanted, of which some may be missing; `None` for all.

    Raises:
        Exception: Whatever damage makes of it; to be used within `complete`.
    """
    with opened_zip(source) as archive:
        found = {name.removesuffix(".npy"): name for name in archive.namelist()}
        return {
            name: _read_array(archive, found[name]) for name in (found if names is None else names) if name in found
        }


def read_in_parts(source: Path, names: Collection[str], *, only: bool = False) -> dict[str, np.ndarray | Rows]:
    """The plain arrays of an `.npz`, some of which are left in the file if they are large, to be read in parts.

    Args:
        source: A regular file.
        names: Which. They have to be written as they are: what is compressed comes whole.
        only: Whether the others are left out.

    Raises:
        Exception: Whatever damage makes of it, of these arrays too: all of the file is read once. To be used within
            `complete`.
    """
    made: dict[str, np.ndarray | Rows] = {}
    with opened_zip(source) as archive:
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            if only and name not in names:
                continue
            found = _find_rows(archive, source, member) if name in names else None
            made[name] = _read_array(archive, member) if found is None else found
    return made


def array_names(source: Path) -> list[str]:
    """The names of the arrays of an `.npz`.

    Raises:
        Exception: Whatever damage makes of it; to be used within `complete`.
    """
    with opened_zip(source) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def _read_array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    with archive.open(name) as file:
        dtype = _check_header(file, name, archive.getinfo(name).file_size)[2]
    with archive.open(name) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        file.read(1)  # at its end, the checksum is compared
    if dtype.kind == "U":
        array = array.astype(dtype.newbyteorder("="))
        if array.size and array.ravel().view(np.uint32).max() > _LAST_CHARACTER:
            raise ValueError(f"{name!a} in it holds what is no character")
    return array


def _check_header(file: IO[bytes], name: str, size: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and type of an array whose header is read next, and which takes so many bytes with it."""
    begin = file.tell()
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{name!a} in it is an array of format {version}")
    shape, is_fortran, dtype = readers[version](file)
    length = file.tell() - begin
    if dtype.hasobject:
        raise ValueError(f"{name!a} in it holds Python objects, which could run code: they are refused")
    if dtype.kind not in _KINDS or not dtype.itemsize:
        raise ValueError(f"{name!a} in it is an array of {dtype}")
    count = math.prod(shape)
    if min(shape, default=0) < 0 or length + count * dtype.itemsize != size or (not count and shape[0]):
        raise ValueError(f"{name!a} in it says that it has shape {shape}, and does not hold as much")
    return shape, is_fortran, dtype


def _find_rows(archive: zipfile.ZipFile, source: Path, name: str) -> Rows | None:
    """An array where it lies in a file; `None` if it is small, compressed, or not laid out row by row."""
    member = archive.getinfo(name)
    if member.compress_type != zipfile.ZIP_STORED or fits_memory(member.file_size):
        return None
    if member.compress_size != member.file_size:
        raise ValueError(f"{name!a} in it says that it has two sizes")
    file = source.open("rb", buffering=0)
    try:
        file.seek(member.header_offset)
        lengths = file.read(_LOCAL_HEADER)[_LENGTHS]
        begin = member.header_offset + _LOCAL_HEADER + sum(np.frombuffer(lengths, "<u2").tolist())
        if begin + member.file_size > os.fstat(file.fileno()).st_size:
            raise ValueError(f"{name!a} in it goes beyond its end")
        file.seek(begin)
        shape, is_fortran, dtype = _check_header(file, name, member.file_size)
        if not shape or not dtype.isnative or dtype.kind not in "uf" or (is_fortran and len(shape) > 1):
            file.close()
            return None
        offset = file.tell()
        file.seek(begin)
        # What is checked is what will be read, wherever the lengths above have led.
        before = zlib.crc32(file.read(offset - begin))
        found = Rows(file, shape, dtype, offset=offset, name=str(source))
        if found.checksum(before) != member.CRC:
            raise ValueError(f"{name!a} in it is not what its checksum says")
    except BaseException:
        file.close()
        raise
    return found
