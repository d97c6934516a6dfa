"""What files of weights say that they hold: HDF5, safetensors, and indexes of several. No weight is read."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from keras_remos.untrusted.containers import MOST_MEMBERS, most_expanded, parse_json
from keras_remos.untrusted.schema import Count, check

_BITS = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16}


@dataclass(frozen=True)
class Holding:
    """How much a file of weights holds.

    Args:
        arrays: How many arrays.
        size: How many bytes they take.
    """

    arrays: int = 0
    size: int = 0

    def __add__(self, other: Holding) -> Holding:
        return Holding(self.arrays + other.arrays, self.size + other.size)


def check_hdf5(file: IO[bytes], size: int) -> Holding:
    """Refuses HDF5 whose content is elsewhere, or that expands to more than `most_expanded` allows.

    Args:
        file: The open file, at any place.
        size: How many bytes it has.

    Raises:
        Exception: Whatever damage makes of it; to be used within `complete`.
    """
    import h5py  # Keras brings it

    found = Holding()
    with h5py.File(file, "r") as opened:
        groups, seen = [opened], {h5py.h5o.get_info(opened.id).addr}
        while groups:
            group = groups.pop()
            for name in group:
                if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                    raise ValueError(f"{name!a} in it is a link to content elsewhere")
                node = group[name]
                address = h5py.h5o.get_info(node.id).addr
                if address in seen:
                    continue
                seen.add(address)
                if len(seen) > MOST_MEMBERS:
                    raise ValueError(f"it holds more than {MOST_MEMBERS:,} objects")
                if isinstance(node, h5py.Group):
                    groups.append(node)
                elif isinstance(node, h5py.Dataset):
                    if node.external or node.is_virtual:
                        raise ValueError(f"the content of {name!a} in it is in another file")
                    if node.dtype.hasobject:
                        raise ValueError(f"{name!a} in it holds no numbers")
                    found += Holding(1, math.prod(node.shape or ()) * node.dtype.itemsize)
    if found.size > most_expanded(size):
        raise ValueError(f"it says that it holds {found.size:,} bytes, more than {most_expanded(size):,}")
    return found


def check_safetensors(path: Path) -> Holding:
    """Refuses safetensors whose header says more than the file holds.

    Raises:
        Exception: Whatever damage makes of it; to be used within `complete`.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > size - 8:
            raise ValueError(f"it says that its header has {length:,} bytes")
        header = parse_json(file.read(length))
    check(header, dict[str, dict[str, Any]], "header")
    header.pop("__metadata__", None)
    found = Holding()
    for name, entry in header.items():
        check(entry.get("shape"), list[Count], name)
        check(entry.get("data_offsets"), tuple[Count, Count], name)
        start, end = entry["data_offsets"]
        bits = math.prod(entry["shape"]) * _BITS.get(entry.get("dtype", ""), 8)
        if not start <= end <= size - 8 - length or bits > 16 * (end - start):
            raise ValueError(f"{name!a} in it says that it holds more than there is")
        found += Holding(1, end - start)
    return found


def named_in(index: Path) -> list[str]:
    """The files that an index of weights names: plain names, of files beside it.

    Raises:
        Exception: Whatever damage makes of it; to be used within `complete`.
    """
    said = parse_json(index.read_bytes())
    check(said, dict[str, Any], "index")
    check(said.get("weight_map"), dict[str, str | list[str]], "weight_map")
    names = sorted(set(_flat(said["weight_map"].values())))
    for name in names:
        if Path(name).name != name or "\\" in name or name in ("", ".", ".."):
            raise ValueError(f"it names {name!a}, which is not a file beside it")
    return names


def _flat(values: Iterable[str | list[str]]) -> list[str]:
    return [name for value in values for name in ([value] if isinstance(value, str) else value)]
