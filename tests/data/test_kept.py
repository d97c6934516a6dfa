"""Decoded images that are kept: never others than those of the files as they are now, and all of them or none."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from faults import disk_full_at

from keras_remos.data import images, kept, open_dataset
from keras_remos.data.images import ImageReader
from keras_remos.data.kept import KeptImages, record_of
from keras_remos.errors import FileError
from keras_remos.writing import HIDDEN

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")

pytestmark = pytest.mark.once

SIZE = (6, 4)


def write(file: Path, value: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (9, 9), (value, 0, 255 - value)).save(file)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve images, one of which is damaged and one of 16 bits."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    for number in range(12):
        write(tmp_path / "set" / "ab"[number % 2] / f"{number}.png", 10 * number)
    (tmp_path / "set" / "a" / "4.png").write_bytes(b"no image")
    Image.fromarray(np.full((9, 9), 30000, np.uint16)).save(tmp_path / "set" / "b" / "5.png")
    return tmp_path / "set"


def read(folder: Path, **options: Any) -> Any:
    return open_dataset(folder, image_size=SIZE, batch_size=5, **options)


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The files that are decoded in the block."""
    calls: list[str] = []
    load = ImageReader._load

    def loaded(reader: ImageReader, file: Path) -> np.ndarray:
        calls.append(file.name)
        return load(reader, file)

    with monkeypatch.context() as context:
        context.setattr(ImageReader, "_load", loaded)
        yield calls


def cache_of(folder: Path) -> list[Path]:
    return [path for path in (folder.parent / "home").rglob("*") if path.is_file()]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("cache", ["auto", "memory", "disk"])
def test_what_is_kept_is_what_is_read(folder: Path, cache: str, workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = read(folder, cache="none", workers=1)
    dataset = read(folder, cache=cache, workers=workers)
    decoded = []
    for _ in range(4):
        with counted(monkeypatch) as calls:
            x, y = dataset.read_all()
        decoded.append(len(calls))
        np.testing.assert_array_equal(x, expected.read_all()[0])
        np.testing.assert_array_equal(y, expected.read_all()[1])
        assert x.dtype == np.float32 and len(x) == 11
    assert dataset.skipped == expected.skipped and len(dataset.skipped) == 1
    # The damaged one and that of 16 bits are read each time; images that are read once are not kept unasked.
    assert decoded == {"auto": [12, 12, 2, 2], "memory": [12, 2, 2, 2], "disk": [2, 2, 2, 2]}[cache]


def test_nothing_is_kept_unasked_of_what_may_not_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room = 12 * record_of((*SIZE, 3)).itemsize
    for most, decoded in ((room, 2), (room - 1, 12)):
        monkeypatch.setattr(images, "MOST_IN_MEMORY", most)
        dataset = read(folder)
        for _ in range(2):
            dataset.read_all()
        with counted(monkeypatch) as calls:
            dataset.read_all()
        assert len(calls) == decoded


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_files_that_change_are_noticed(folder: Path, cache: str) -> None:
    dataset = read(folder, cache=cache, seed=None, workers=2)
    before = dataset.read_all()[0]
    changed, touched, gone = (folder / name for name in ("a/2.png", "b/7.png", "b/9.png"))
    write(changed, 200)
    # Of the same size, at another time.
    write(touched, 71)
    stat = touched.stat()
    os.utime(touched, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
    gone.unlink()
    (folder / "a" / "8.png").write_bytes(b"no image any more")
    after = dataset.read_all()[0]
    assert len(before) == 11 and len(after) == 9
    assert [name for name in ("8.png", "9.png") if any(name in path for path, _ in dataset.skipped)] == [
        "8.png",
        "9.png",
    ]
    np.testing.assert_array_equal(after, read(folder, cache="none", seed=None).read_all()[0])
    assert {200, 71} <= set(after[:, 0, 0, 0])


def test_a_cache_on_the_disk_serves_other_runs_until_something_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read(folder, cache="disk").read_all()[0]
    [file] = cache_of(folder)
    made = file.stat().st_mtime_ns
    with counted(monkeypatch) as calls:
        np.testing.assert_array_equal(read(folder, cache="disk").read_all()[0], expected)
    assert len(calls) == 2 and file.stat().st_mtime_ns == made
    # Another size, and another way of decoding, have files of their own.
    open_dataset(folder, image_size=(4, 4), cache="disk")
    read(folder, cache="disk", decoding="full")
    assert len(cache_of(folder)) == 3
    write(folder / "a" / "2.png", 200)
    after = read(folder, cache="disk", seed=None).read_all()[0]
    assert 200 in after[:, 0, 0, 0]
    assert len(cache_of(folder)) == 3 and file.stat().st_mtime_ns != made


@pytest.mark.parametrize("damage", [lambda raw: raw[:-9], lambda raw: b"", lambda raw: b"x" * 99, lambda raw: raw[9:]])
def test_a_damaged_cache_is_made_anew(folder: Path, damage: Any) -> None:
    expected = read(folder, cache="disk").read_all()[0]
    [file] = cache_of(folder)
    raw = file.read_bytes()
    file.write_bytes(damage(raw))
    np.testing.assert_array_equal(read(folder, cache="disk").read_all()[0], expected)
    assert file.read_bytes() == raw


@pytest.mark.parametrize("share", [0, 0.3, 0.9])
def test_on_a_full_disk_images_are_read_without_a_cache(folder: Path, share: float) -> None:
    expected = read(folder, cache="none").read_all()[0]
    size = int(share * 12 * record_of((*SIZE, 3)).itemsize)
    with disk_full_at(size), pytest.warns(UserWarning, match=r"without a cache: .*\.npy cannot be written"):
        dataset = read(folder, cache="disk")
    np.testing.assert_array_equal(dataset.read_all()[0], expected)
    assert not cache_of(folder) and not list((folder.parent / "home").rglob(f"{HIDDEN}*"))


def test_a_cache_that_another_run_writes_is_done_without(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **options: Any) -> Any:
        raise FileError(f"{path} is being written by another run: wait for it, or choose another name.")

    monkeypatch.setattr(kept, "replacing", refuse)
    with pytest.warns(UserWarning, match="without a cache: .* is being written by another run"):
        dataset = read(folder, cache="disk")
    assert len(dataset.read_all()[0]) == 11


def test_a_cache_that_has_no_place_is_done_without(folder: Path) -> None:
    (folder.parent / "home").write_text("a file")
    with pytest.warns(UserWarning, match="without a cache: .*home"):
        dataset = read(folder, cache="disk")
    assert len(dataset.read_all()[0]) == 11


def test_nobody_knows_where_the_cache_would_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setattr(Path, "home", unknown)
    with pytest.warns(UserWarning, match="without a cache: Could not determine home"):
        dataset = read(folder, cache="disk")
    assert len(dataset.read_all()[0]) == 11


def test_an_interrupt_while_a_cache_is_written_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(reader: ImageReader, file: Path) -> np.ndarray:
        if file.name == "8.png":
            raise KeyboardInterrupt
        return load(reader, file)

    load = ImageReader._load
    monkeypatch.setattr(ImageReader, "_load", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read(folder, cache="disk", workers=1)
    assert not cache_of(folder) and not list((folder.parent / "home").rglob(f"{HIDDEN}*"))


def test_what_is_kept_has_the_mark_that_its_file_had_before_it_was_read() -> None:
    room = KeptImages.in_memory(3, (2, 2, 1), at_once=True)
    pixels = np.arange(4, dtype=np.uint8).reshape(2, 2, 1)
    assert room.get(1, (10, 20)) is None
    room.put(1, (10, 20), pixels)
    np.testing.assert_array_equal(room.get(1, (10, 20)), pixels)
    assert room.get(1, (10, 21)) is None and room.get(1, (11, 20)) is None and room.get(0, (0, 0)) is None
    room.put(1, (10, 21), pixels + 1)
    np.testing.assert_array_equal(room.get(1, (10, 21)), pixels + 1)
