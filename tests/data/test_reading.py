"""Images from files: the same batches with any number of workers, whatever is kept, and whatever is wrong with them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_remos.data import PixelSpace, TrainingData, open_dataset
from keras_remos.data.datasets import Dataset
from keras_remos.data.images import ImageReader
from keras_remos.data.twins import Twins
from keras_remos.errors import DataError

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")

pytestmark = pytest.mark.once

RNG = np.random.default_rng(0)
SIZE = (16, 12)


def photograph(height: int, width: int) -> Any:
    small = Image.fromarray(RNG.integers(0, 256, (height // 10 + 2, width // 10 + 2, 3), dtype=np.uint8))
    noise = RNG.normal(0, 6, (height, width, 1))
    smooth = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC))
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """JPEGs and PNGs of two classes; one is cut off, one is empty, and two of 16 bits come late."""
    for number in range(24):
        file = tmp_path / "set" / "ab"[number % 2] / f"{number:02}.{'png' if number % 5 == 0 else 'jpg'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        photograph(40 + number, 70 - number).save(file)
    cut = tmp_path / "set" / "a" / "06.jpg"
    cut.write_bytes(cut.read_bytes()[:-200])
    (tmp_path / "set" / "b" / "13.jpg").write_bytes(b"")
    return tmp_path / "set"


def opened(folder: Path, **options: Any) -> Dataset:
    return open_dataset(folder, image_size=SIZE, **{"batch_size": 5, **options})


def all_of(batches: Any) -> list[np.ndarray]:
    return [part for batch in batches for part in batch]


def assert_same(found: list[np.ndarray], expected: list[np.ndarray]) -> None:
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("options", [{}, {"workers": 2}, {"workers": 5, "max_queue_size": 0}, {"cache": "memory"}])
def test_batches_are_the_same_with_any_number_of_workers(folder: Path, options: dict[str, Any]) -> None:
    alone, dataset = opened(folder, workers=1, cache="none"), opened(folder, **{"workers": 3, **options})
    for _ in range(3):
        assert_same(all_of(dataset), all_of(alone))
        # As `fit` asks for them, and in another order.
        assert_same(all_of(dataset[i] for i in range(5)), all_of(alone[i] for i in range(5)))
        assert_same(all_of(dataset[i] for i in (3, 0, 1, 4)), all_of(alone[i] for i in (3, 0, 1, 4)))
    assert dataset.skipped == alone.skipped
    assert [(Path(path).name, reason.split(":")[0]) for path, reason in alone.skipped] == [
        ("06.jpg", "OSError"),
        ("13.jpg", "UnidentifiedImageError"),
    ]
    assert "truncated" in alone.skipped[0][1]


@pytest.mark.parametrize("cache", ["none", "auto"])
@pytest.mark.parametrize("share", [None, 0.4])
def test_order_and_augmentation_follow_from_seed_and_epoch_with_any_number_of_workers(
    folder: Path, share: float | None, cache: str
) -> None:
    levels = RNG.integers(0, 256, (24, *SIZE, 3), dtype=np.uint8)
    twins = None if share is None else Twins(levels, np.arange(24) % 3 > 0, PixelSpace(), share)
    read = []
    for workers in (1, 2, 4):
        data = TrainingData(opened(folder, workers=workers, cache=cache), num_classes=2, batch_size=4, seed=3)
        data = data if twins is None else data.with_twins(twins)
        read.append([])
        for epoch in (0, 1, 2, 7, 2):
            data.epoch = epoch
            read[-1] += all_of(data[index] for index in range(len(data)))
    assert_same(read[1], read[0])
    assert_same(read[2], read[0])


def test_in_fit_each_image_is_read_once_an_epoch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    load = ImageReader._load

    def counted(reader: ImageReader, file: Path) -> np.ndarray:
        calls.append(file.name)
        return load(reader, file)

    monkeypatch.setattr(ImageReader, "_load", counted)
    model = keras.Sequential([keras.Input((*SIZE, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = TrainingData(opened(folder, workers=3, cache="none"), num_classes=2, batch_size=4)
    model.fit(data, epochs=1, verbose=0, shuffle=False)
    # Keras looks at the first batches once before, earlier versions at four of them: not at what would follow.
    version = tuple(map(int, keras.__version__.split(".")[:2]))
    most = 4 if keras.backend.backend() != "tensorflow" and version >= (3, 15) else 16
    assert 24 <= len(calls) <= 24 + most
    for file in set(calls):
        assert calls.count(file) <= 1 + most // 8 + 1


def test_what_is_white_is_found_in_the_order_of_the_files(tmp_path: Path) -> None:
    """Those that were not looked at decide when they are read: the first of them, whoever reads it first."""
    for number in range(70):
        file = tmp_path / "ab"[number % 2] / f"{number:02}.png"
        file.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(file)
    for name, most in (("a/01.tif", 1.0), ("b/03.tif", 200.0)):
        Image.fromarray(np.linspace(0, most, 16, dtype=np.float32).reshape(4, 4)).save(tmp_path / name)
    for workers in (1, 2, 6):
        dataset = open_dataset(tmp_path, image_size=(4, 4), batch_size=100, seed=None, workers=workers)
        with pytest.raises(DataError, match=r"from 0 to 1 in .*03\.tif, as in others"):
            dataset[0]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("cache", ["none", "memory"])
def test_a_folder_that_shrinks_while_it_is_read(folder: Path, workers: int, cache: str) -> None:
    dataset = opened(folder, workers=workers, cache=cache)
    assert sum(len(x) for x, _ in dataset) == 22
    passing = iter(dataset)
    next(passing)
    gone = sorted(folder.glob("b/*.jpg"))
    for file in gone:
        file.unlink()
    list(passing)
    assert sum(len(x) for x, _ in dataset) == 22 - len(gone) + 1
    named = {path: reason for path, reason in dataset.skipped if Path(path) in gone}
    assert set(named) == set(map(str, gone)) and all("There is no file" in reason for reason in named.values())


@pytest.mark.parametrize(("option", "value"), [("workers", 0), ("workers", 1.5), ("max_queue_size", -1)])
def test_bad_numbers_are_refused(folder: Path, option: str, value: Any) -> None:
    with pytest.raises(DataError, match=f"`{option}`.*{value}"):
        opened(folder, **{option: value})


@pytest.mark.parametrize("option", ["cache", "decoding"])
def test_unknown_choices_are_refused(folder: Path, option: str) -> None:
    with pytest.raises(DataError, match=f"`{option}` to be one of .*'never'"):
        opened(folder, **{option: "never"})


# --- reduced scale ----------------------------------------------------------------------------------------------------


def one_class_each(tmp_path: Path, write: Callable[[Path], None], count: int = 2) -> Path:
    for number in range(count):
        file = tmp_path / "ab"[number % 2] / f"{number}.jpg"
        file.parent.mkdir(exist_ok=True)
        write(file)
    return tmp_path


def pixels(folder: Path, size: tuple[int, int], **options: Any) -> np.ndarray:
    return open_dataset(folder, image_size=size, seed=None, **options).read_all()[0]


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(100, 130), (201, 333), (90, 62)])
def test_large_jpegs_are_decoded_at_a_part_of_their_size_to_about_the_same_pixels(
    tmp_path: Path, height: int, width: int, channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = one_class_each(tmp_path, lambda file: photograph(height, width).save(file, quality=90))
    decoded = []
    resize = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda im, *args: (decoded.append(im.size), resize(im, *args))[1])
    reduced, full = (pixels(folder, (30, 40), channels=channels, decoding=how) for how in ("reduced", "full"))
    part = max(part for part in (1, 2, 4, 8) if part <= min(height // 30, width // 40))
    assert set(decoded[: len(decoded) // 2]) == {(-(-width // part), -(-height // part))}
    assert set(decoded[len(decoded) // 2 :]) == {(width, height)}
    # Of photographs of few colours; where a JPEG is not twice as large they are the same.
    assert np.abs(reduced - full).mean() < (6 if part > 1 else 1e-9)


def test_a_large_jpeg_on_its_side_stays_large_enough(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    picture = photograph(80, 240)
    folder = one_class_each(tmp_path, lambda file: picture.save(file, quality=95, exif=exif))
    upright = picture.transpose(Image.Transpose.ROTATE_270)
    expected = np.asarray(upright.resize((40, 60), Image.Resampling.BILINEAR), np.float32)
    for decoding in ("reduced", "full"):
        assert np.abs(pixels(folder, (60, 40), decoding=decoding)[0] - expected).mean() < 6


def test_how_images_were_decoded_is_part_of_what_data_hold(tmp_path: Path) -> None:
    folder = one_class_each(tmp_path, lambda file: photograph(100, 100).save(file))
    marks = {
        how: TrainingData(open_dataset(folder, image_size=(20, 20), decoding=how), num_classes=2).fingerprint()
        for how in ("reduced", "full")
    }
    assert marks["reduced"] != marks["full"]


def test_opencv_reads_almost_what_pillow_reads_and_leaves_out_the_same(tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="needs OpenCV")
    sides = [(100, 100), (120, 60), (300, 260), (31, 41), (33, 200), (20, 20)]
    for number, (height, width) in enumerate(sides * 2):
        file = tmp_path / "ab"[number % 2] / f"{number}.jpg"
        file.parent.mkdir(exist_ok=True)
        photograph(height, width).save(file, quality=90, exif=turned(8 if number > 5 else 1))
    photograph(90, 90).convert("L").save(tmp_path / "a" / "grey.jpg")
    photograph(90, 90).save(tmp_path / "b" / "other.png")
    reduced, fast = (pixels(tmp_path, (30, 40), decoding=how) for how in ("reduced", "opencv"))
    assert fast.dtype == np.float32 and fast.shape == reduced.shape
    apart = np.abs(fast - reduced)
    assert 0 < apart.mean() < 1 and apart.max() < 30
    cut = tmp_path / "a" / "0.jpg"
    for kept in (-1, -2, -300, 200):
        cut.write_bytes(cut.read_bytes()[:kept])
        told = [open_dataset(tmp_path, image_size=(30, 40), decoding=how) for how in ("reduced", "opencv")]
        assert len({len(dataset.read_all()[0]) for dataset in told}) == 1
        assert told[0].skipped == told[1].skipped


XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:De'
XMP += b'scription xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>'


def turned(how: int) -> Any:
    exif = Image.Exif()
    exif[274] = how
    return exif


@pytest.mark.parametrize("decoding", ["reduced", "opencv"])
def test_images_are_turned_in_each_way_that_there_is(decoding: str, tmp_path: Path) -> None:
    if decoding == "opencv":
        pytest.importorskip("cv2", reason="needs OpenCV")
    ways: list[dict[str, Any]] = [{"exif": turned(way)} for way in (1, 2, 3, 4, 5, 6, 7, 8, 9)]
    for number, way in enumerate([*ways, {"xmp": XMP}]):
        file = tmp_path / "ab"[number % 2] / f"{number}.jpg"
        file.parent.mkdir(exist_ok=True)
        photograph(80, 120).save(file, quality=95, **way)
    found, expected = (pixels(tmp_path, (40, 40), decoding=how) for how in (decoding, "full"))
    assert np.abs(found - expected).mean(axis=(1, 2, 3)).max() < 4


@pytest.mark.parametrize("mode", ["CMYK", "L", "P", "LA", "RGBA", "1"])
def test_images_of_other_colours_are_the_same_reduced(mode: str, tmp_path: Path) -> None:
    suffix = "jpg" if mode in ("CMYK", "L") else "png"
    folder = one_class_each(
        tmp_path, lambda file: photograph(80, 120).convert(mode).save(file.with_suffix(f".{suffix}"))
    )
    found, expected = (pixels(folder, (40, 40), decoding=how) for how in ("reduced", "full"))
    assert found.shape[-1] == 3 and np.abs(found - expected).mean() < 4


@pytest.mark.parametrize("workers", [1, 3])
def test_what_was_read_ahead_of_a_file_that_changes_is_not_given_out(workers: int, tmp_path: Path) -> None:
    files = [tmp_path / "ab"[number % 2] / f"{number}.png" for number in range(8)]
    for value, folder in ((10, None), (200, tmp_path)):
        for file in files:
            file.parent.mkdir(exist_ok=True)
            Image.new("RGB", (4 + value // 100, 4), (value, value, value)).save(file)
        if folder is None:
            dataset = open_dataset(tmp_path, image_size=(4, 4), batch_size=2, workers=workers, cache="none")
            next(iter(dataset))
            time.sleep(0.2)
    assert {float(x) for batch, *_ in dataset for x in batch.ravel()} == {200.0}


def test_what_is_no_file_has_a_digest(tmp_path: Path) -> None:
    place = tmp_path / "pipe.jpg"
    os.mkfifo(place)
    reader = ImageReader([place, Path("a\0b.jpg"), tmp_path / "none.jpg"], (4, 4), 3)
    assert reader.digest(np.arange(3)) == bytes(96)


def test_without_opencv_the_error_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match=r"keras-remos\[opencv\]"):
        opened(folder, decoding="opencv")


# --- interrupts -------------------------------------------------------------------------------------------------------

SLOW_TRAINING = """
import atexit, signal, sys, threading, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what it runs in the background
import keras
from keras_remos.data import TrainingData, open_dataset
from keras_remos.data.images import ImageReader

load = ImageReader._load

def slowly(reader, file):
    time.sleep(0.2)
    return load(reader, file)

ImageReader._load = slowly
# Threads are joined before that, and what the backend does to end comes after it.
atexit.register(lambda: print(time.monotonic(), threading.active_count(), flush=True))
dataset = open_dataset(sys.argv[1], image_size=(16, 12), batch_size=8, workers=4, cache="none")
print("begins", flush=True)
model = keras.Sequential([keras.Input((16, 12, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
model.fit(TrainingData(dataset, num_classes=2, batch_size=8), epochs=1000, verbose=0, shuffle=False)
"""


def test_an_interrupt_of_a_training_ends_the_program_within_two_seconds(folder: Path) -> None:
    command = [sys.executable, "-c", SLOW_TRAINING, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begins\n"
        time.sleep(1)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        told, errors = process.communicate(timeout=60)
    assert errors.strip().endswith("KeyboardInterrupt") and process.returncode == -signal.SIGINT
    ended, count = told.split()
    assert float(ended) - begun < 2 and int(count) == 1


def test_keras_starts_no_threads_of_its_own(folder: Path) -> None:
    """They would outlive an interrupt, and read before an epoch begins."""
    dataset = opened(folder, workers=4)
    assert dataset.workers == TrainingData(dataset, num_classes=2).workers == 1
    assert dataset.max_queue_size == 2 and opened(folder, max_queue_size=5).max_queue_size == 5
