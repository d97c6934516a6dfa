"""Training data: order and augmentation come from the seed and the epoch alone, and nothing wrong gets through."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_remos.data import TrainingData, batches, open_dataset, training_data
from keras_remos.data.training_data import flip_crop
from keras_remos.errors import DataError

X = np.arange(10 * 8 * 8 * 3, dtype="float32").reshape(10, 8, 8, 3)
Y = np.arange(10) % 3


def read(data: TrainingData, epoch: int = 0) -> tuple[np.ndarray, np.ndarray]:
    data.epoch = epoch
    pairs = [data[index] for index in range(len(data))]
    return np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs])


def wrap(data: Any = (X, Y), **options: Any) -> TrainingData:
    return TrainingData(data, num_classes=3, **{"batch_size": 4, "augment": "none", **options})


def test_every_epoch_holds_each_sample_once_with_its_label_in_another_order() -> None:
    data = wrap()
    orders = []
    for epoch in range(3):
        x, y = read(data, epoch)
        samples = (x[:, 0, 0, 0] / X[0].size).astype(int)
        assert sorted(samples) == list(range(10))
        np.testing.assert_array_equal(y, Y[samples])
        np.testing.assert_array_equal(x, X[samples])
        orders.append(tuple(samples))
    assert len(set(orders)) == 3
    assert len(data) == 3


@pytest.mark.parametrize("augment", ["none", "flip-crop", lambda x, rng: x + rng.normal(size=x.shape)])
def test_seed_and_epoch_decide_and_nothing_else(augment: Any) -> None:
    one, other = wrap(augment=augment, seed=3), wrap(augment=augment, seed=3)
    first = read(one, 5)[0]
    # Epochs may be skipped, and batches read in any order.
    other.epoch = 5
    backwards = [other[index] for index in reversed(range(len(other)))]
    np.testing.assert_array_equal(first, np.concatenate([x for x, _ in reversed(backwards)]))
    assert (first != read(wrap(augment=augment, seed=4), 5)[0]).any()
    assert (first != read(one, 6)[0]).any()


def test_the_batch_size_changes_neither_order_nor_augmentation() -> None:
    small, large = (read(wrap(augment="flip-crop", batch_size=size), 2) for size in (3, 10))
    np.testing.assert_array_equal(small[0], large[0])
    np.testing.assert_array_equal(small[1], large[1])


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_flip_crop_equals_padding_cutting_and_mirroring(data_format: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 16, 24, 3)).astype("float32")
    mirrored, places = rng.random(6) < 0.5, rng.random((6, 2))
    wanted = []
    for image, mirror, (down, right) in zip(x, mirrored, places, strict=True):
        padded = np.pad(image, ((2, 2), (3, 3), (0, 0)), mode="reflect")
        top, left = int(down * 5), int(right * 7)
        cut = padded[top : top + 16, left : left + 24]
        wanted.append(cut[:, ::-1] if mirror else cut)
    given = np.moveaxis(x, -1, 1) if data_format == "channels_first" else x
    found = flip_crop(given, mirrored, places, data_format=data_format)
    np.testing.assert_array_equal(np.moveaxis(found, 1, -1) if data_format == "channels_first" else found, wanted)


def test_what_is_no_image_is_not_augmented() -> None:
    flat = X[:, 0, :, 0]
    x, _ = read(wrap((flat, Y), augment="flip-crop"))
    assert {tuple(row) for row in x} == {tuple(row) for row in flat}


def test_plain_data_are_the_source_as_it_is() -> None:
    data = wrap(augment="flip-crop", transform=lambda x: x / 2)
    x, y = read(data.plain(), 4)
    np.testing.assert_array_equal(x, X / 2)
    np.testing.assert_array_equal(y, Y)
    assert (read(data, 4)[0] != x).any()
    np.testing.assert_array_equal(np.concatenate([b for b, _, _ in batches(data.plain())]), X / 2)


def test_a_data_set_on_disk_is_wrapped_and_what_cannot_be_read_left_out(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for index in range(12):
        folder = tmp_path / "ab"[index % 2]
        folder.mkdir(exist_ok=True)
        image.new("RGB", (8, 8), (index * 10, 0, 0)).save(folder / f"{index:02}.png")
    (tmp_path / "a" / "00.png").write_bytes(b"broken")
    dataset = open_dataset(tmp_path, image_size=(8, 8)).map(lambda x: x / 10)
    data = training_data(dataset, num_classes=2, batch_size=5, augment="flip-crop")
    x, y = read(data)
    reds = np.round(x[:, 0, 0, 0]).astype(int)
    assert sorted(reds) == list(range(1, 12))
    np.testing.assert_array_equal(y, reds % 2)


def test_a_data_set_on_disk_has_to_have_all_classes_and_no_more(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=X % 256, y=Y)
    for num_classes in (2, 4):
        with pytest.raises(DataError, match=f"Expected a data set of {num_classes} classes.*with 3"):
            training_data(open_dataset(tmp_path / "set.npz"), num_classes=num_classes)


def test_sample_weights_and_several_inputs_follow_their_samples() -> None:
    weights = np.linspace(0, 1, 10)
    data = wrap(({"a": X, "b": Y * 1.0}, Y, weights), augment="flip-crop")
    x, y, sample_weight = data[0]
    samples = (x["a"][:, 0, 0, 0] / X[0].size).astype(int)
    np.testing.assert_array_equal(x["a"], X[samples])
    np.testing.assert_array_equal(x["b"], Y[samples])
    np.testing.assert_array_equal(sample_weight, weights[samples])
    np.testing.assert_array_equal(y, Y[samples])


def test_memory_maps_are_read_in_the_drawn_order(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    np.testing.assert_array_equal(read(wrap((mapped, Y)), 1)[0], read(wrap(), 1)[0])
    assert wrap((mapped, Y)).fingerprint() == wrap().fingerprint()


def test_an_iterator_that_fit_does_not_take_passes_untouched() -> None:
    stream = iter([(X, Y)])
    assert training_data(stream, num_classes=3) is stream


@pytest.mark.parametrize("labels", [Y, Y[:, None], np.eye(3)[Y], Y.astype("float64"), Y.astype("uint8")])
def test_labels_of_any_form_become_class_ids(labels: np.ndarray) -> None:
    data = wrap((X, labels))
    np.testing.assert_array_equal(data.labels, Y)
    assert data[0][1].dtype == np.int32
    assert data.fingerprint() == wrap().fingerprint()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X, Y + 1), "num_classes=3"),
        ((X, Y - 1), "Received: -1 to 1"),
        ((X, Y * 0), "Received: 10 of class 0 only"),
        ((X[:0], Y[:0]), "at least one sample"),
        ((X, Y[:5]), "arrays of one length"),
        ((X, None), "Expected labels"),
        ((X,), "Expected labels"),
        (X, "as a tuple"),
        ((X, Y + 0.5), "whole numbers"),
        ((X, np.full((10, 3), 0.3)), "one-hot"),
        ((X, np.array(list("abcabcabca"))), "whole numbers"),
        ((X, [Y, Y]), "or several"),
    ],
)
def test_wrong_labels_are_refused(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        training_data(data, num_classes=3)


def test_the_fingerprint_tells_data_apart() -> None:
    marks = {wrap().fingerprint(), wrap((X + 1, Y)).fingerprint(), wrap((X, (Y + 1) % 3)).fingerprint()}
    assert len(marks) == 3
    assert wrap(seed=9, batch_size=2).fingerprint() in marks
    weighed = {wrap((X, Y, np.full(10, weight))).fingerprint() for weight in (0.5, 1.0)}
    assert len(weighed | marks) == 5
    assert wrap(transform=lambda x: x * 2).fingerprint() not in marks


def test_a_folders_fingerprint_is_of_its_files_and_not_of_their_place(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    for number, name in enumerate("aabbcc"):
        (tmp_path / "one" / name).mkdir(parents=True, exist_ok=True)
        image.fromarray(np.full((4, 4, 3), 9 * number, np.uint8)).save(tmp_path / "one" / name / f"{number}.png")

    def mark(folder: str, size: int = 8) -> str:
        return wrap(open_dataset(tmp_path / folder, image_size=(size, size))).fingerprint()

    whole = mark("one")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    assert mark("other") == whole
    assert mark("other", size=4) != whole
    file = tmp_path / "other" / "b" / "3.png"
    before = file.stat()
    # Of the same size, and as old.
    image.fromarray(np.full((4, 4, 3), 28, np.uint8)).save(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    changed = mark("other")
    file.write_bytes(b"")
    broken = mark("other")
    assert len({whole, changed, broken}) == 3
    opened = open_dataset(tmp_path / "one", image_size=(8, 8))
    parts = [wrap(opened.part(np.array(rows), "a part of")) for rows in ([0, 2, 4], [1, 2, 4])]
    assert parts[0].fingerprint() != parts[1].fingerprint()


def test_a_tables_fingerprint_is_of_its_texts(tmp_path: Path) -> None:
    marks = set()
    for texts in ("abc", "abc", "abd"):
        rows = [f"{text},{label}" for text, label in zip(texts, "xyz", strict=True)]
        (tmp_path / "t.csv").write_text("\n".join(["text,label", *rows]))
        marks.add(wrap(open_dataset(tmp_path / "t.csv")).fingerprint())
    assert len(marks) == 2
