"""What our files hold: `.npz` of plain arrays and one JSON header, and `.keras` models with a record.

Nothing in them is ever unpickled. What reads them is in `untrusted`.
"""

import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, ClassVar, Self, TypedDict

import keras
import numpy as np

from keras_remos.errors import FileError
from keras_remos.untrusted import HEADER, RECORD, Marks, PathLike, complete, format_of, pieces, read_archive
from keras_remos.version import __version__
from keras_remos.writing import replacing


def write_archive(
    path: PathLike,
    kind: str,
    header: Mapping[str, Any],
    arrays: Mapping[str, Any],
    *,
    overwrite: bool = False,
    compress: bool = True,
) -> None:
    """Writes arrays and a JSON header. The same content gives the same bytes.

    Args:
        path: The `.npz` file to write.
        kind: `"profile"`, `"slice"`, `"attack"`, `"partial attack"`, `"checkpoint"` or `"trials"`.
        header: What JSON can hold.
        arrays: By name; see `write_arrays`.
        overwrite: Whether an existing file may be replaced.
        compress: Weights hardly shrink, and take long to be compressed; what is compressed is read whole or not at all.

    Raises:
        FileError: If the file exists and may not be replaced.
    """
    text = json.dumps({"kind": kind, "format": format_of(kind), **header}, sort_keys=True)
    encoded = np.frombuffer(text.encode(), dtype=np.uint8)
    with replacing(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        write_arrays(file, {HEADER: encoded, **arrays}, compress=compress)


def write_arrays(file: IO[bytes], arrays: Mapping[str, Any], *, compress: bool = False) -> None:
    """Writes an `.npz` without pickling anything.

    Args:
        file: Where to.
        arrays: By name: arrays, or what has a shape and a type and is sliced as an array is. That is written piece by
            piece.
        compress: Whether to.

    Raises:
        ValueError: If an array holds Python objects.
    """
    how = zipfile.ZIP_DEFLATED if compress else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, array in arrays.items():
            # As NumPy does: before it is written, nobody says how large a member will be.
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                if isinstance(array, (np.ndarray, np.generic)):
                    np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
                    continue
                descr = np.lib.format.dtype_to_descr(np.dtype(array.dtype))
                np.lib.format.write_array_header_1_0(
                    member, {"descr": descr, "fortran_order": False, "shape": tuple(array.shape)}
                )
                for piece in pieces(array):
                    member.write(np.ascontiguousarray(array[piece], array.dtype).tobytes())


class Archived(ABC):
    """What is kept in an `.npz` file of plain arrays and a JSON header.

    Attributes:
        kind: What the file says that it holds.
        header: What its header must hold.
    """

    kind: ClassVar[str]
    header: ClassVar[type[Any]]

    @abstractmethod
    def to_archive(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The header, which JSON can hold, and the arrays."""

    @classmethod
    @abstractmethod
    def from_archive(cls, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Self:
        """Makes it anew from what `to_archive` gave and JSON made of it."""

    def save(self, path: PathLike, *, overwrite: bool = False) -> None:
        """Writes it to an `.npz` file. The same content gives the same bytes.

        Args:
            path: The file.
            overwrite: Whether an existing file may be replaced.

        Raises:
            FileError: If the file exists and may not be replaced.
        """
        header, arrays = self.to_archive()
        write_archive(path, self.kind, header, arrays, overwrite=overwrite)

    @classmethod
    def load(cls, path: PathLike) -> Self:
        """Reads what `save` wrote.

        Args:
            path: The file.

        Raises:
            FileError: If the file is missing, damaged or of another kind.
        """
        header, arrays = read_archive(path, cls.kind, cls.header)
        with complete(path):
            return cls.from_archive(header, arrays)


def save_model(
    model: keras.Model,
    path: PathLike,
    record: Mapping[str, Any],
    *,
    members: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
) -> None:
    """Writes a plain `.keras` file that also says how the model was made.

    Args:
        model: The model.
        path: A file that ends in `.keras`.
        record: What JSON can hold. Keras opens the file without it.
        members: More members of the zip, by name.
        overwrite: Whether an existing file may be replaced.

    Raises:
        FileError: If the file exists and may not be replaced, or has another ending.
    """
    if Path(path).suffix != ".keras":
        raise FileError(f"A model is saved as a .keras file, received {path}: choose a name that ends so.")
    with replacing(path, overwrite=overwrite) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a", zipfile.ZIP_DEFLATED) as archive:
            for name, content in (members or {}).items():
                archive.writestr(name, content)
            archive.writestr(RECORD, json.dumps(record, sort_keys=True, indent=1))


class OriginHeader(TypedDict):
    """What the header of a profile or slice must say of where it comes from."""

    skipped: list[tuple[str, str]]
    heads: list[str]
    teacher: Marks
    data: list[str]
    versions: dict[str, str]


ORIGIN = ("options", "skipped", "heads", "teacher", "data", "versions")


def origin_of(made: Any) -> dict[str, Any]:
    """What the header of a profile or slice says of where it comes from."""
    return {name: getattr(made, name) for name in ORIGIN}


def read_origin(header: Mapping[str, Any]) -> dict[str, Any]:
    """The same, read back: JSON makes lists of tuples."""
    return {
        "options": header["options"],
        "skipped": tuple((path, reason) for path, reason in header["skipped"]),
        "heads": tuple(header["heads"]),
        "teacher": tuple((path, digest) for path, digest in header["teacher"]),
        "data": tuple(header["data"]),
        "versions": header["versions"],
    }


def versions() -> dict[str, str]:
    """The library versions that a file records. Not the backend: the same input gives the same file on each."""
    return {"keras-remos": __version__, "keras": keras.__version__, "numpy": np.__version__}
