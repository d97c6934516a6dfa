"""Parts that are set aside: disjoint, together the whole, and of every class its share."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_remos.data import Dataset, open_dataset
from keras_remos.data.parts import set_aside
from keras_remos.errors import DataError, RemosError


@given(
    counts=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 100),
    one_hot=st.booleans(),
)
def test_every_class_gives_its_share(counts: list[int], share: float, seed: int, one_hot: bool) -> None:
    y = np.repeat(np.arange(len(counts)), counts)
    x = np.arange(len(y))
    labels = np.eye(max(len(counts), 2))[y] if one_hot else y
    try:
        parts = set_aside((x, labels), share, seed=seed)
    except DataError:
        assert max(counts) == 1  # else one sample of a class goes each way
        return
    rest, aside = (part[0] for part in parts)
    assert sorted([*rest, *aside]) == list(range(len(y))) and len(rest) and len(aside)
    for label, count in enumerate(counts):
        expected = round(share * count)
        found = np.sum(y[aside] == label)
        assert found == (min(max(expected, 1), count - 1) if count > 1 else expected)
    for samples, known in parts:
        np.testing.assert_array_equal(known, labels[samples])
    again = set_aside((x, labels), share, seed=seed)
    np.testing.assert_array_equal(again[1][0], aside)


def test_weights_go_with_their_samples() -> None:
    x, y = np.arange(10), np.arange(10) % 2
    rest, aside = set_aside((x, y, x / 10), 0.4, seed=1)
    for samples, _, weights in (rest, aside):
        np.testing.assert_allclose(weights, samples / 10)


def test_a_data_set_on_disk(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for number in range(12):
        folder = tmp_path / f"class{number % 2}"
        folder.mkdir(exist_ok=True)
        image.fromarray(np.full((4, 4, 3), number, "uint8")).save(folder / f"{number:02}.png")
    (tmp_path / "class1" / "05.png").write_bytes(b"no image")
    whole = open_dataset(tmp_path, image_size=(4, 4), batch_size=5).map(lambda x: x / 2)
    parts = set_aside(whole, 0.25, seed=3)
    found: list[int] = []
    for part, size in zip(parts, (8, 4), strict=True):
        assert isinstance(part, Dataset) and part.num_samples == size and part.num_classes == 2
        x, y = part.read_all()
        numbers = (2 * x[:, 0, 0, 0]).astype(int)
        np.testing.assert_array_equal(y, numbers % 2)
        found += numbers.tolist()
    assert sorted(found) == [number for number in range(12) if number != 5]
    assert parts[1].description.startswith("a part of ")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.arange(4), "arrays"),
        ((np.arange(4), None), "labels"),
        (iter([]), "Part the data yourself"),
        ((np.arange(2), np.arange(2)), "too few"),
    ],
)
def test_what_cannot_be_parted(data: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        set_aside(data, 0.1, seed=0)


@pytest.mark.parametrize("share", [0, 1, -0.5, 1.5])
def test_shares_that_leave_a_part_empty(share: float) -> None:
    with pytest.raises(RemosError, match="share"):
        set_aside((np.arange(4), np.arange(4) % 2), share, seed=0)
