"""Damage, by seed: of bytes, of zips and their members, of JSON, and of arrays."""

import copy
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_remos.untrusted.archives import ROWS

Rng = np.random.Generator
WEIRD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1,
    2**31,
    10**30,
    -(10**30),
    0.5,
    1e308,
    float("nan"),
    float("-inf"),
    "",
    "x",
    "\ud800",
    "\x1b[2J\x1b]52;c;aGk=\x07",
    "a\nb: verified clean",
    "../../etc/passwd",
    "/etc/passwd",
    "x" * 10_000,
    [],
    {},
    [[]],
    [None],
    {"": None},
    [1, 2, 3],
)


def damage(raw: bytes, rng: Rng) -> bytes:
    """The content of a file of any kind, with something in it changed."""
    if raw[:2] == b"PK" and rng.random() < 0.75:
        return _in_zip(raw, rng)
    if raw.startswith(ROWS) and rng.random() < 0.75:
        return _in_rows(raw, rng)
    if raw[8:9] == b"{" and rng.random() < 0.75:
        return _in_safetensors(raw, rng)
    if raw[:1] in b"{[" and rng.random() < 0.75:
        return _in_json(raw, rng)
    return _in_bytes(raw, rng)


def _in_bytes(raw: bytes, rng: Rng) -> bytes:
    data = bytearray(raw)
    for _ in range(int(rng.integers(1, 5))):
        if not data:
            break
        start = int(rng.integers(0, len(data)))
        end = min(start + int(2 ** rng.uniform(0, 10)), len(data))
        kind = int(rng.integers(0, 7))
        if kind == 0:
            data[start] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del data[start:]
        elif kind == 2:
            del data[start:end]
        elif kind == 3:
            data[start:end] = rng.bytes(end - start)
        elif kind == 4:
            data[start:start] = data[start:end]
        elif kind == 5:
            data[start:end] = bytes([int(rng.choice([0, 0xFF, 0x80, 0x22, 0x0A]))]) * (end - start)
        else:
            size = int(rng.choice([1, 2, 4, 8]))
            value = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF])) << (8 * (size - 1))
            data[start : start + size] = value.to_bytes(size, "little")
    return bytes(data)


def _in_rows(raw: bytes, rng: Rng) -> bytes:
    """A file of rows: its header says something else, or there are other rows."""
    return ROWS + _behind_a_header(raw[len(ROWS) :], rng)


def _in_safetensors(raw: bytes, rng: Rng) -> bytes:
    """The same of tensors; or the header is as long as it likes."""
    if rng.random() < 0.1:
        return int(rng.choice([0, 7, 2**31, 2**63])).to_bytes(8, "little") + raw[8:]
    return _behind_a_header(raw, rng)


def _behind_a_header(raw: bytes, rng: Rng) -> bytes:
    end = 8 + int.from_bytes(raw[:8], "little")
    header, content = raw[8:end], raw[end:]
    if rng.random() < 0.3:
        content = _in_bytes(content, rng)
    else:
        header = _in_json(header, rng)
    return len(header).to_bytes(8, "little") + header + content


def _in_json(raw: bytes, rng: Rng) -> bytes:
    try:
        value = json.loads(raw)
    except ValueError:  # one value a line
        return _in_bytes(raw, rng)
    if rng.random() < 0.05:
        return b'{"a":' * 3000 + raw + b"}" * 3000
    if rng.random() < 0.05:
        return raw.decode().encode(str(rng.choice(["utf-16", "utf-8-sig", "utf-32"])))
    for _ in range(int(rng.integers(1, 3))):
        value = _changed(value, rng)
    return json.dumps(value).encode()


def _changed(value: Any, rng: Rng) -> Any:
    """A JSON value with one of its nodes replaced, left out or given twice."""
    places: list[tuple[Any, Any]] = []
    waiting = [value]
    while waiting:
        node = waiting.pop()
        inner = (
            list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
        )
        places += [(node, key) for key, _ in inner]
        waiting += [item for _, item in inner]
    weird = copy.deepcopy(WEIRD[int(rng.integers(0, len(WEIRD)))])
    if not places or rng.random() < 0.02:
        return weird
    # What stands further out decides more.
    node, key = places[int(len(places) * rng.random() ** 2)]
    kind = rng.random()
    if kind < 0.2:
        del node[key]
    elif kind < 0.3 and isinstance(node, list):
        node.append(node[key])
    elif kind < 0.4:
        other, place = places[int(rng.integers(0, len(places)))]
        node[key] = json.loads(json.dumps(other[place]))
    else:
        node[key] = weird
    return value


def _in_zip(raw: bytes, rng: Rng) -> bytes:
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    names = list(members)
    name = names[int(rng.integers(0, len(names)))]
    if rng.random() < 0.5:  # the ones that are parsed
        parsed = [each for each in names if each.endswith(".json") or each == "header.npy"]
        name = parsed[int(rng.integers(0, len(parsed)))] if parsed else name
    kind = rng.random()
    # Large arrays are read where they lie, if they are not compressed.
    method = zipfile.ZIP_DEFLATED if rng.random() < 0.5 else zipfile.ZIP_STORED
    if kind < 0.1:
        del members[name]
    elif kind < 0.15:
        members[f"{name}x"] = members.pop(name)
    elif kind < 0.2:
        method = int(rng.choice([zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))
    elif kind < 0.3:
        members[name] = members[names[int(rng.integers(0, len(names)))]]
    else:
        members[name] = _member(name, members[name], rng)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for each, content in members.items():
            archive.writestr(each, content)
        if rng.random() < 0.02:
            archive.writestr("config.json ", b"{}")
    made = out.getvalue()
    if rng.random() < 0.05:  # encrypted, or of a version to come
        place = made.find(b"PK\x01\x02") + (8 if rng.random() < 0.5 else 6)
        made = made[:place] + bytes([made[place] | (1 if made[place] % 2 == 0 else 0x3F)]) + made[place + 1 :]
    return made


def _member(name: str, content: bytes, rng: Rng) -> bytes:
    if name == "header.npy" and rng.random() < 0.9:
        text = np.load(io.BytesIO(content)).tobytes()
        return _npy(np.frombuffer(_in_json(text, rng), np.uint8))
    if name.endswith(".json") and rng.random() < 0.9:
        return _in_json(content, rng)
    if name.endswith(".npy") and rng.random() < 0.7:
        return _npy(_array(np.load(io.BytesIO(content)), rng), rng)
    if name.endswith(".npz"):
        return _in_zip(content, rng)
    return _in_bytes(content, rng)


def _array(array: np.ndarray, rng: Rng) -> np.ndarray:
    ways: list[Callable[[], Any]] = [
        lambda: array[:0],
        lambda: array[..., np.newaxis],
        lambda: array.reshape(-1)[:-1],
        lambda: np.array(7),
        lambda: np.array(["x", "\x1b[2J"]),
        lambda: np.array([b"\xff\xfe"]),
        lambda: array.astype("S8"),
        lambda: array.astype(bool),
        lambda: np.full(array.shape, -1),
        lambda: np.full(array.shape, 2**62),
        lambda: np.full(array.shape, np.nan),
        lambda: np.full(array.shape, np.inf, np.float16),
        lambda: array.astype(np.complex64),
        lambda: np.zeros(array.shape, [("a", "i4")]),
        lambda: array.astype(">f8"),
        lambda: np.asfortranarray(array),
        lambda: np.zeros((0, 3), array.dtype),
        lambda: np.array([["2020-01-01"]], "datetime64[D]"),
    ]
    try:
        return np.asarray(ways[int(rng.integers(0, len(ways)))]())
    except (ValueError, TypeError, IndexError):
        return array[:0] if array.ndim else np.array("")


def _npy(array: np.ndarray, rng: Rng | None = None) -> bytes:
    out = io.BytesIO()
    np.lib.format.write_array(out, array, allow_pickle=False)
    raw = out.getvalue()
    if rng is not None and rng.random() < 0.2:
        shape = rng.choice(["(99999999999,)", "(-1,)", "(0, 99999999999)", "()", "(True,)", "[1]", "(1e3,)"])
        raw = raw.replace(f"'shape': {array.shape}".encode(), f"'shape': {shape}".encode(), 1)
    if rng is not None and rng.random() < 0.1:
        kind = rng.choice([b"|O", b"|V0", b"<U0", b"<U99999999", b"<f3", b"|S0"])
        raw = raw.replace(array.dtype.str.encode(), bytes(kind), 1)
    return raw
