"""Labels mean the same in every format and every type, and classes get the number that a model gives them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from keras_remos.data.datasets import Dataset
from keras_remos.data.from_disk import open_dataset
from keras_remos.data.labels import (
    MOST_CLASSES,
    check_labels,
    count_label_classes,
    in_order,
    number,
    read_labels,
)
from keras_remos.errors import DataError

FORMATS = ("csv", "tsv", "jsonl", "jsonl-typed", "npz", "npz-typed")
drawn = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def opened(folder: Path, labels: list[Any], how: str, **options: Any) -> Dataset:
    """The same labels in a file of some format: as text, or with the types that they have."""
    form, _, typed = how.partition("-")
    path = folder / f"set.{form}"
    texts = [str(label) for label in labels]
    if form == "npz":
        np.savez(path, x=np.zeros((len(labels), 2)), y=np.array(labels if typed else texts))
    elif form == "jsonl":
        rows = [json.dumps({"text": "x", "label": label}) for label in (labels if typed else texts)]
        path.write_text("\n".join(rows), encoding="utf-8")
    else:
        between = "," if form == "csv" else "\t"
        path.write_text("".join(f"{a}{between}{b}\n" for a, b in [("text", "label"), *(("x", t) for t in texts)]))
    return open_dataset(path, seed=None, **options)


@pytest.mark.parametrize("how", FORMATS)
@pytest.mark.parametrize(
    ("labels", "ids", "names"),
    [
        ([1, 0, 1], [1, 0, 1], ["0", "1"]),
        ([1.0, 0.0, 1.0], [1, 0, 1], ["0", "1"]),  # pandas' floats
        ([True, False, True], [1, 0, 1], ["0", "1"]),
        ([10, 2, 1], [2, 1, 0], ["1", "2", "10"]),
        ([-1, 1, 0], [0, 2, 1], ["-1", "0", "1"]),
        (["b", "a", "b"], [1, 0, 1], ["a", "b"]),
    ],
)
def test_labels_read_the_same_in_every_format(
    tmp_path: Path, how: str, labels: list[Any], ids: list[int], names: list[str]
) -> None:
    dataset = opened(tmp_path, labels, how)
    assert dataset.labels is not None and dataset.labels.tolist() == ids
    assert dataset.class_names == names


@pytest.mark.parametrize("how", ["csv", "tsv", "jsonl", "npz"])
@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["1.0", "0", "1"], ["0", "1"]),
        (["01", "1", "2"], ["01", "1", "2"]),
        (["1_0", "10", "9"], ["10", "1_0", "9"]),
        (["true", "FALSE", "True"], ["0", "1"]),
        (["10", "9", "x"], ["10", "9", "x"]),
        (["00010", "00009", "100000"], ["00009", "00010", "100000"]),
        (["+1", "-1", "0"], ["-1", "0", "+1"]),
        (["1.5", "beta", "1.0"], ["1", "1.5", "beta"]),
        (["true", "maybe", "false"], ["false", "maybe", "true"]),
        (["9" * 30, "8", "7"], ["7", "8", "9" * 30]),
    ],
)
def test_texts_are_numbers_only_where_they_are_written_as_numbers(
    tmp_path: Path, how: str, labels: list[str], names: list[str]
) -> None:
    assert opened(tmp_path, labels, how).class_names == names


@pytest.mark.parametrize("how", FORMATS)
@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1.0, float("nan"), 0.0], "nan, a missing value"),
        ([1.5, 0.0, 1.0], "whole number.*regression"),
        ([1.5e-7, 0.0, 1.0], "whole number.*regression"),
        ([float("inf"), 0.0, 1.0], "whole number"),
        (["cat", "NaN", "dog"], "NaN, a missing value"),
        (["cat", "", "dog"], "empty cell"),
    ],
)
def test_what_is_no_label_is_refused_in_every_format(tmp_path: Path, how: str, labels: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        opened(tmp_path, labels, how).required_labels()
    wrong = next(place for place, label in enumerate(labels) if str(label) not in ("1.0", "0.0", "cat", "dog"))
    place = f"sample {wrong} of" if how.startswith("npz") else f"line {wrong + (1 if 'jsonl' in how else 2)} of"
    assert place in str(raised.value)


@pytest.mark.parametrize("how", ["csv", "tsv", "jsonl", "jsonl-typed"])
def test_booleans_among_numbers_are_refused(tmp_path: Path, how: str) -> None:
    with pytest.raises(DataError, match="all true and false.*True and 1.*line"):
        opened(tmp_path, [True, 1, 0], how)


@drawn
@given(
    labels=st.one_of(
        st.lists(st.integers(-50, 50), min_size=2, max_size=12),
        st.lists(st.integers(-50, 50).map(float), min_size=2, max_size=12),
        st.lists(st.booleans(), min_size=2, max_size=12),
        st.lists(st.text("ab01.+-_ é", min_size=1, max_size=4).map(str.strip), min_size=2, max_size=12),
    ).filter(lambda labels: len({str(label) for label in labels}) > 1 and all(str(label) for label in labels))
)
@example(labels=["0", "00."])
@example(labels=["0", ".1"])
def test_any_column_reads_the_same_in_every_format_or_is_refused_in_all(tmp_path: Path, labels: list[Any]) -> None:
    found = []
    for how in FORMATS:
        try:
            dataset = opened(tmp_path, labels, how)
            found.append((dataset.required_labels().tolist(), dataset.class_names))
        except DataError:  # quantities too, which a file may hold beside what is sliced
            found.append(([], []))
    assert all(result == found[0] for result in found)


@drawn
@given(st.lists(st.text("ab019.+-_é", min_size=1, max_size=4), min_size=2, max_size=12))
def test_labels_that_are_written_alike_are_one_class_and_no_others(labels: list[str]) -> None:
    try:
        read = read_labels(labels, str).tolist()
    except DataError:
        return
    for one, first in zip(labels, read, strict=True):
        for other, second in zip(labels, read, strict=True):
            both_plain = all(label.strip("-").replace(".", "", 1).isascii() for label in (one, other))
            is_number = both_plain and all(_is_plain_number(label) for label in (one, other))
            assert (first == second) == (float(one) == float(other) if is_number else one == other)


def _is_plain_number(text: str) -> bool:
    """Digits and a point, without a needless zero, a plus or an underscore."""
    whole, _, fraction = text.removeprefix("-").partition(".")
    return whole.isdigit() and not fraction.strip("0") and (whole == "0" or whole[0] != "0")


# --- numbering --------------------------------------------------------------------------------------------------------


def images_in(folder: Path, names: list[str]) -> Path:
    image = pytest.importorskip("PIL.Image")
    for place, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        image.new("L", (4, 4), place).save(folder / name / "x.png")
    return folder


def test_folders_named_by_numbers_are_numbered_as_numbers(tmp_path: Path) -> None:
    names = [str(name) for name in range(12)]
    dataset = open_dataset(images_in(tmp_path, names), image_size=(4, 4), channels=1, seed=None)
    assert dataset.class_names == names
    x, y = dataset.read_all()
    np.testing.assert_array_equal(x[:, 0, 0, 0], y)
    # As the same classes are in an array.
    np.savez(tmp_path / "set.npz", x=x, y=np.arange(12))
    assert open_dataset(tmp_path / "set.npz").class_names == names
    assert dataset.numbering == "as numbers, 2 before 10"
    assert dataset.map(lambda x: x).numbering == dataset.numbering


def test_a_data_set_says_how_its_classes_are_numbered(tmp_path: Path) -> None:
    folder = images_in(tmp_path / "images", ["b", "a", "10"])
    assert open_dataset(folder, image_size=(4, 4)).numbering == "in alphabetical order"
    given = open_dataset(folder, image_size=(4, 4), class_names=["b", "a", "10"], seed=None)
    assert given.numbering == "as the given class names are" and given.class_names == ["b", "a", "10"]
    assert given.labels is not None and given.labels.tolist() == [2, 1, 0]
    np.savez(tmp_path / "named.npz", x=np.zeros((2, 2)), y=[0, 1], classes=["b", "a"])
    assert open_dataset(tmp_path / "named.npz").numbering == "as the names in the file are"
    np.savez(tmp_path / "none.npz", x=np.zeros((2, 2)))
    assert open_dataset(tmp_path / "none.npz").numbering == ""


def test_students_of_before_number_folders_as_they_did(tmp_path: Path) -> None:
    names = [str(name) for name in range(12)]
    dataset = open_dataset(images_in(tmp_path, names), image_size=(4, 4), class_names=sorted(names), seed=None)
    assert dataset.class_names == sorted(names)
    assert dataset.labels is not None and [dataset.class_names[label] for label in dataset.labels] == names


@pytest.mark.parametrize("known", [["0.0", "1.0"], ["False", "True"], ["1", "0"]])
def test_a_model_that_spells_its_numbers_in_another_way_still_knows_them(tmp_path: Path, known: list[str]) -> None:
    dataset = opened(tmp_path, [0, 1, 1], "csv", class_names=known)
    assert dataset.class_names == known
    wanted = [known.index("0"), known.index("1")] if "0" in known else [0, 1]
    assert dataset.labels is not None and dataset.labels.tolist() == [wanted[0], wanted[1], wanted[1]]


@drawn
@given(st.sets(st.text("ab0123456789 -é", min_size=1, max_size=4).map(str.strip).filter(bool), min_size=2, max_size=15))
def test_any_folders_are_numbered_in_one_order(names: set[str]) -> None:
    ordered = in_order(names)
    assert set(ordered) == names and ordered == in_order(reversed(ordered))
    if all(name.removeprefix("-").isdigit() for name in names):
        assert [int(name) for name in ordered] == sorted(int(name) for name in names)
    else:
        assert ordered == sorted(names)


@drawn
@given(st.sets(st.integers(0, 200), min_size=2, max_size=12), st.data())
def test_a_part_of_the_classes_is_numbered_as_the_model_numbers_all(classes: set[int], data: st.DataObject) -> None:
    known = in_order(map(str, classes))
    part = data.draw(st.lists(st.sampled_from(known), min_size=1, unique=True))
    names = in_order(part)
    ids, found = number(np.arange(len(names), dtype=np.int32), names, known, "it")
    assert found == known and [known[place] for place in ids] == names


# --- arrays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 0.5])
def test_labels_that_are_no_whole_numbers_are_named(wrong: float) -> None:
    with pytest.raises(DataError, match=f"whole numbers.*Received: {wrong}"):
        check_labels(np.array([0.0, 1.0, wrong]), 3)


@pytest.mark.parametrize("label", [1e16, 1e30])
def test_a_number_that_is_whole_by_rounding_alone_is_no_class(tmp_path: Path, label: float) -> None:
    for how in ("npz-typed", "jsonl-typed", "csv"):
        found = opened(tmp_path, [0.0, 1.0, label, 1.0], how)
        assert found.labels is None
        assert "as of a regression" in found.unread
        exact = opened(tmp_path, [0.0, 1.0, 2.0**53, 1.0], how)
        assert exact.class_names == ["0", "1", str(2**53)]


def test_a_number_that_python_does_not_read_is_a_name(tmp_path: Path) -> None:
    """Of more than 4,300 digits."""
    for how in ("csv", "jsonl", "npz"):
        assert opened(tmp_path, ["7" * 5_000, "2", "10"], how).class_names == ["10", "2", "7" * 5_000]


@pytest.mark.parametrize("largest", [MOST_CLASSES, 2**40, 1e30])
def test_a_class_id_beyond_all_reason_is_refused_before_a_head_is_made_for_it(largest: float) -> None:
    y = np.array([0, 1, largest, 1])
    with pytest.raises(DataError, match="class ids below 1,000,000"):
        count_label_classes(y)
    assert count_label_classes(np.array([0, MOST_CLASSES - 1])) == MOST_CLASSES
