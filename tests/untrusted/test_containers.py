"""Zips, arrays and JSON of strangers: bounds come before memory, and one error names the file."""

import json
import os
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_remos.errors import FileError
from keras_remos.untrusted import check_regular, complete, containers, read_archive, read_record

pytestmark = pytest.mark.once


def archive(path: Path, header: Any = None, **arrays: np.ndarray) -> Path:
    text = json.dumps({"kind": "slice", "format": 1} if header is None else header).encode()
    np.savez(path, header=np.frombuffer(text, np.uint8), **arrays)
    return path


def zipped(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as made:
        for name, content in members.items():
            made.writestr(name, content)
    return path


def array(shape: str, descr: str = "<f4", data: bytes = b"") -> bytes:
    head = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head) + 1) + head + b"\n" + data


def damaged(path: Path, match: str = "damaged or no keras-remos file") -> None:
    start = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(FileError, match=match) as caught:
            read_archive(path)
        assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start < 5
    assert path.name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_ways_of_compressing_that_are_not_read(method: int, tmp_path: Path) -> None:
    damaged(zipped(tmp_path / "a.npz", {"header.npy": b"x" * 99}, method), "compressed in a way")


def test_encrypted_members(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz")
    raw = bytearray(path.read_bytes())
    raw[raw.find(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)
    damaged(path, "encrypted")


def test_members_that_overlap_or_come_twice(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", {"a.npy": b"x" * 1000, "b.npy": b"y" * 1000})
    raw = path.read_bytes()
    second = raw.find(b"PK\x01\x02", raw.find(b"PK\x01\x02") + 1)
    path.write_bytes(raw[: second + 42] + struct.pack("<I", 0) + raw[second + 46 :])
    damaged(path, "overlap")
    zipped(path, {"a.npy": b"x", "b.npy": b"y"})
    path.write_bytes(path.read_bytes().replace(b"b.npy", b"a.npy"))
    damaged(path, "two members")


def test_a_zip_of_zeros_is_not_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "ALWAYS_EXPANDED", 2**20)
    damaged(zipped(tmp_path / "a.npz", {"header.npy": b"\0" * 2**24}, zipfile.ZIP_DEFLATED), "expands to")


def test_a_record_larger_than_json_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MOST_JSON", 1000)
    path = zipped(tmp_path / "a.keras", {"keras_remos/record.json": b" " * 2000}, zipfile.ZIP_DEFLATED)
    with pytest.raises(FileError, match="more than 1,000"):
        read_record(path)


@pytest.mark.parametrize(
    "content",
    [
        array("(99999999999,)"),
        array("(99999999999, 0)"),
        array("(-4,)", data=b"\0" * 16),
        array("(4,)", "|O", b"\x80\x04K\x01." * 8),
        array("(99999999999,)", "|V0"),
        array("(99999999999,)", "<U0"),
        array("(1,)", "<U1", b"\xff\xff\xff\xff"),
        array("(4,)", data=b"\0" * 15),
        array("(4,)", data=b"\0" * 17),
        array("(True,)", data=b"\0" * 4),
        array("5"),
        array("(1,)", "[('a', '<i4')]"),
        b"",
        b"\x93NUMPY\x03\x00" + b"\0" * 100,
    ],
)
def test_arrays_that_say_more_than_they_hold(content: bytes, tmp_path: Path) -> None:
    damaged(zipped(tmp_path / "a.npz", {"header.npy": content}), "damaged or no keras-remos file")


def test_a_flipped_bit_is_seen(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.npz", x=np.arange(1000))
    raw = bytearray(path.read_bytes())
    place = raw.find(np.arange(500, 502).tobytes())
    raw[place] ^= 1
    path.write_bytes(raw)
    damaged(path, "CRC")


@pytest.mark.parametrize(
    "header",
    [
        {},
        [],
        None,
        5,
        {"kind": "slice"},
        {"kind": 5, "format": 1},
        {"kind": "slice", "format": "1"},
        {"kind": "slice", "format": True},
        {"kind": "slice", "format": float("nan")},
        {"kind": None, "format": 1},
    ],
)
def test_headers_that_are_none(header: Any, tmp_path: Path) -> None:
    damaged(archive(tmp_path / "a.npz", header if header is not None else "null"))


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"a":' * 100_000, "{}".encode("utf-16"), b"\xff", b"1" * 5000, b"{", b"NaN"]
)
def test_json_that_is_none_or_nested_without_end(text: bytes, tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", header=np.frombuffer(text, np.uint8))
    damaged(tmp_path / "a.npz")


def test_values_are_counted_before_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MOST_VALUES", 6)
    assert containers.parse_json(b'[[],{"a":[1,2]}]') == [[], {"a": [1, 2]}]
    monkeypatch.setattr("json.loads", lambda _: pytest.fail("it was read"))
    for text in (b"[[],[],[],[]]", b"{},{},{},{}", b'["a,b,c,d,e,f,g"]'):
        with pytest.raises(ValueError, match=r"JSON of \d+ values, more than 6"):
            containers.parse_json(text)


def test_depth_and_marks_of_byte_order() -> None:
    nested = "[" * containers.DEEPEST + "]" * containers.DEEPEST
    with pytest.raises(ValueError, match="nested deeper"):
        containers.parse_json(f"[{nested}]".encode())
    assert containers.parse_json(f"[{nested[1:-1]}]".encode())
    assert containers.parse_json(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_only_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "pipe", "is a pipe"),
        (tmp_path / "link", "is a pipe"),
        (Path("/dev/zero"), "a device"),
        (tmp_path, "is a folder"),
        (tmp_path / "none", "There is no file"),
    ):
        with pytest.raises(FileError, match=message):
            check_regular(path)
    (tmp_path / "file").write_text("")
    (tmp_path / "to a file").symlink_to(tmp_path / "file")
    assert check_regular(tmp_path / "to a file") == tmp_path / "to a file"


@pytest.mark.parametrize(
    "fault", [RecursionError("deep"), OverflowError(), NotImplementedError("later"), RuntimeError("a\nb"), OSError("x")]
)
def test_whatever_goes_wrong_is_one_line(fault: Exception) -> None:
    with pytest.raises(FileError, match=f"^a.npz is damaged.*{type(fault).__name__}[^\n]*$"):
        with complete("a.npz"):
            raise fault


def test_what_is_no_damage_stays() -> None:
    with pytest.raises(MemoryError), complete("a.npz"):
        raise MemoryError
    with pytest.raises(FileError, match="cannot be read .No such"), complete("a.npz"):
        Path("none.npz").read_bytes()


def test_files_of_another_kind(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.npz", {"header.npy": array("(4,)", "|u1", b"null")})
    damaged(path, "header")
    (tmp_path / "b.npz").write_bytes(array("(1,)", data=b"\0" * 4))  # an array that is named as several
    damaged(tmp_path / "b.npz", "BadZipFile")
