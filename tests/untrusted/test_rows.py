"""Rows in a file: read and written as those of an array are, and nothing beyond what the file holds."""

import errno
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_remos.errors import FileError
from keras_remos.saving import write_archive, write_arrays
from keras_remos.untrusted import Rows, open_rows, read_archive, read_archive_in_parts, rows, rows_head
from keras_remos.untrusted.containers import read_in_parts

pytestmark = pytest.mark.once
ARRAY = np.random.default_rng(0).integers(0, 256, (7, 2, 3)).astype("uint8")


def kept(array: np.ndarray = ARRAY, *, marked: bool = False) -> Rows:
    made = Rows(io.BytesIO(b"head"), array.shape, array.dtype, offset=4, marked=marked)
    made[:] = array
    return made


@given(
    index=st.one_of(
        st.slices(7),
        st.integers(-7, 6),
        st.lists(st.integers(-7, 6), max_size=9),
        st.lists(st.booleans(), min_size=7, max_size=7),
    ),
    marked=st.booleans(),
)
def test_they_are_sliced_as_an_array_is(index: Any, marked: bool) -> None:
    index = np.array(index, bool if index and isinstance(index[0], bool) else int) if isinstance(index, list) else index
    found = kept(marked=marked)[index]
    np.testing.assert_array_equal(found, ARRAY[index])
    assert found.dtype == ARRAY.dtype and found.shape == ARRAY[index].shape


@pytest.mark.parametrize("index", [7, -8, [0, 7], [[0]], [0.5], np.ones(6, bool)])
def test_rows_that_are_not_there(index: Any) -> None:
    with pytest.raises(IndexError):
        kept()[index]


def test_they_are_written_by_their_numbers() -> None:
    made, expected = kept(marked=True), ARRAY.copy()
    for index in ([5, 0, 1], slice(2, 4), np.arange(7) == 6):
        made[index] = 9
        expected[index] = 9
    np.testing.assert_array_equal(made[:], expected)
    assert made.whole_rows(made.size + 4) == 7 and made.whole_rows(made.size + 3) == 6


@pytest.mark.skipif(not hasattr(os, "preadv"), reason="no reading at a place here")
def test_the_place_at_which_a_file_is_read_is_left_alone(tmp_path: Path) -> None:
    """Processes that were forked share it."""
    (tmp_path / "rows").write_bytes(ARRAY.tobytes())
    file = (tmp_path / "rows").open("r+b", buffering=0)
    found = Rows(file, ARRAY.shape, "uint8")
    file.seek(1)
    np.testing.assert_array_equal(found[[5, 2]], ARRAY[[5, 2]])
    found[[3]] = ARRAY[[0]]
    assert file.tell() == 1
    np.testing.assert_array_equal(found[3], ARRAY[0])


def test_numbers_of_rows_may_be_of_a_small_type() -> None:
    np.testing.assert_array_equal(rows.numbered(np.array([1, 2], np.uint8), 300), [1, 2])
    with pytest.raises(IndexError):
        rows.numbered(np.array([2**64 - 1], np.uint64), 300)


def test_a_disk_that_gives_no_room_beforehand_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "IN_MEMORY", 0)

    def unsupported(*_: Any) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported, raising=False)
    made = rows.room_for(ARRAY.shape, "uint8")
    made[2:4] = ARRAY[2:4]
    np.testing.assert_array_equal(made[2:4], ARRAY[2:4])


def test_a_file_that_becomes_shorter_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(ARRAY.tobytes())
    found = Rows((tmp_path / "rows").open("r+b", buffering=0), ARRAY.shape, "uint8", name="rows")
    np.testing.assert_array_equal(found[3], ARRAY[3])
    (tmp_path / "rows").write_bytes(ARRAY.tobytes()[:-1])
    with pytest.raises(FileError, match="rows has become shorter while it was read"):
        found[:]
    found.close()
    with pytest.raises(ValueError, match="closed"):
        found[0]


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(rows, "IN_MEMORY", 0)
    arrays = {"levels": ARRAY, "other": ARRAY, "order": np.asfortranarray(ARRAY), "wide": ARRAY.astype(">f4")}
    write_archive(tmp_path / "a.npz", "attack", {}, {**arrays, "texts": np.array(["a", "bc"])}, compress=False)
    return tmp_path / "a.npz"


NAMES = ("levels", "order", "wide", "texts")


def test_arrays_are_left_where_they_lie(archive: Path) -> None:
    _, found = read_archive_in_parts(archive, "attack", dict, NAMES)
    whole = read_archive(archive)[1]
    assert isinstance(found["levels"], Rows)
    # What is laid out in another way comes whole, and so does what nobody asked for in parts.
    assert all(isinstance(found[name], np.ndarray) for name in ("other", "order", "wide", "texts", "header"))
    for name, array in whole.items():
        np.testing.assert_array_equal(found[name][:], array)


def test_what_is_written_in_parts_is_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PIECE", 10)
    files = []
    for compress in (False, True):
        for array in (ARRAY, kept()):
            file = io.BytesIO()
            write_arrays(file, {"a": array, "b": array}, compress=compress)
            files.append(file.getvalue())
    with np.load(io.BytesIO(files[0]), allow_pickle=False) as read:
        np.testing.assert_array_equal(read["b"], ARRAY)
    assert files[0] == files[1] and len({*map(len, files[2:])}) == 1


def test_damage_is_found_before_anything_is_used(archive: Path) -> None:
    raw = archive.read_bytes()
    with zipfile.ZipFile(archive) as opened:
        begin = opened.getinfo("levels.npy").header_offset
        end = opened.getinfo("other.npy").header_offset
    for place in range(begin, end):
        archive.write_bytes(raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :])
        try:
            found = read_archive_in_parts(archive, "attack", dict, NAMES)[1]["levels"]
        except FileError:
            continue
        # What stands twice in a zip, once for each way to read it, may be changed in one.
        np.testing.assert_array_equal(found[:], ARRAY)


def test_a_member_that_lies_about_where_it_is(archive: Path) -> None:
    raw = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as opened:
        begin = opened.getinfo("levels.npy").header_offset
    for length in (b"\xff\xff", b"\x00\x00", b"\x40\x00"):
        raw[begin + 28 : begin + 30] = length
        archive.write_bytes(bytes(raw))
        with pytest.raises(FileError):
            read_archive_in_parts(archive, "attack", dict, NAMES)


def test_small_and_compressed_arrays_come_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_archive(tmp_path / "small.npz", "attack", {}, {"levels": ARRAY}, compress=False)
    assert isinstance(read_in_parts(tmp_path / "small.npz", ("levels",))["levels"], np.ndarray)
    monkeypatch.setattr(rows, "IN_MEMORY", 0)
    write_archive(tmp_path / "packed.npz", "attack", {}, {"levels": ARRAY})
    assert isinstance(read_in_parts(tmp_path / "packed.npz", ("levels",))["levels"], np.ndarray)


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": {"shape": [], "dtype": "|u1"}},
        {"rows": {"shape": [2**40, 2**40], "dtype": "|u1"}},
        {"rows": {"shape": [4, -1], "dtype": "|u1"}},
        {"rows": {"shape": [4], "dtype": "|O"}},
        {"rows": None},
        {"kind": "attack"},
        {"format": 99},
    ],
)
def test_files_of_rows_that_say_what_cannot_be(tmp_path: Path, changes: dict[str, Any]) -> None:
    file = tmp_path / "rows"
    file.write_bytes(rows_head("partial attack", changes, (4, 3), "uint8") + bytes(64))
    with pytest.raises(FileError):
        open_rows(file, "partial attack", dict)
    for length in range(0, 40, 3):
        file.write_bytes(rows_head("partial attack", {}, (4, 3), "uint8")[:length])
        with pytest.raises(FileError):
            open_rows(file, "partial attack", dict)
