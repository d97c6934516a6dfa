"""Twins stand in for a share of each batch, with the labels of the samples whose place they take."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_remos.data import PixelSpace, TrainingData, open_dataset
from keras_remos.data.twins import Twins
from keras_remos.errors import RemosError

N = 10
# A sample says its number in each pixel, its twin 100 more.
X = np.tile(np.arange(N, dtype="float32").reshape(N, 1, 1, 1), (1, 8, 8, 3))
Y = np.arange(N) % 3


def hardened(share: float = 0.5, present: Any = None, weights: Any = None, **options: Any) -> TrainingData:
    source = (X, Y) if weights is None else (X, Y, weights)
    data = TrainingData(source, num_classes=3, **{"batch_size": 4, "augment": "none", **options})
    return data.with_twins(twins(share, present))


def twins(share: float = 0.5, present: Any = None) -> Twins:
    known = np.ones(N, bool) if present is None else present
    return Twins((X + 100).astype("uint8"), known, PixelSpace("none"), share)


def numbers(x: np.ndarray) -> np.ndarray:
    return x[:, 0, 0, 0].astype(int)


def test_each_batch_has_its_share_and_labels_stay() -> None:
    data = hardened()
    seen = []
    for epoch in range(6):
        data.epoch = epoch
        batches = [data[index] for index in range(len(data))]
        assert [len(x) for x, _ in batches] == [4, 4, 2]
        assert [np.count_nonzero(numbers(x) >= 100) for x, _ in batches] == [2, 2, 1]
        x, y = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        assert sorted(numbers(x) % 100) == list(range(N))
        np.testing.assert_array_equal(y, Y[numbers(x) % 100])
        seen.append(frozenset(numbers(x)[numbers(x) >= 100]))
    # Another half in each epoch.
    assert len(set(seen)) == 6


def test_the_samples_come_in_the_order_that_they_have_without() -> None:
    plain, other = TrainingData((X, Y), num_classes=3, batch_size=4), hardened(augment="flip-crop")
    for index in range(3):
        assert set(numbers(plain[index][0])) == set(numbers(other[index][0]) % 100)


def test_none_is_bit_for_bit_what_there_was() -> None:
    plain = TrainingData((X, Y), num_classes=3, batch_size=4)
    for index in range(3):
        for ours, theirs in zip(hardened(0.0, augment="flip-crop")[index], plain[index], strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_what_is_measured_has_no_twins() -> None:
    for data in (hardened().plain(), hardened().unaugmented()):
        assert all(numbers(data[index][0]).max() < 100 for index in range(len(data)))


def test_only_samples_that_have_one_give_way() -> None:
    data = hardened(0.9, present=np.arange(N) < 2)
    found = np.concatenate([numbers(data[index][0]) for index in range(len(data))])
    assert set(found[found >= 100]) == {100, 101}


def test_weights_go_with_them() -> None:
    data = hardened(weights=np.arange(N) / 10)
    for index in range(len(data)):
        x, _, weights = data[index]
        np.testing.assert_allclose(weights, (numbers(x) % 100) / 10)


def test_a_twin_is_scaled_as_the_model_takes_it() -> None:
    space = PixelSpace("imagenet", low=0.0, high=1.0)
    made = Twins(np.full((2, 4, 4, 3), 51, "uint8"), np.ones(2, bool), space, 0.5)
    np.testing.assert_allclose(
        made.inputs(np.array([1])), space.scale(np.full((1, 4, 4, 3), 0.2, "float32")), atol=1e-5
    )


def test_a_checkpoint_of_other_twins_is_another_run() -> None:
    marks = {TrainingData((X, Y), num_classes=3).fingerprint()}
    marks |= {hardened(share).fingerprint() for share in (0.3, 0.5)} | {
        hardened(present=np.arange(N) < 5).fingerprint()
    }
    assert len(marks) == 4


def test_images_on_disk_that_cannot_be_read_are_missing(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for number in range(N):
        folder = tmp_path / f"class{number % 2}"
        folder.mkdir(exist_ok=True)
        image.fromarray(np.full((8, 8, 3), number, "uint8")).save(folder / f"{number}.png")
    (tmp_path / "class1" / "3.png").write_bytes(b"not an image")
    data = TrainingData(open_dataset(tmp_path, image_size=(8, 8)), num_classes=2, batch_size=4, augment="none")
    rows, x = data.read(np.arange(N))
    assert len(rows) == N - 1 and len(x) == N - 1
    levels = np.zeros((N, 8, 8, 3), "uint8")
    levels[rows] = x + 100
    present = np.zeros(N, bool)
    present[rows] = True
    mixed = data.with_twins(Twins(levels, present, PixelSpace("none"), 0.5))
    found = np.concatenate([numbers(mixed[index][0]) for index in range(len(mixed))])
    assert sorted(found % 100) == [0, 1, 2, 4, 5, 6, 7, 8, 9] and (found >= 100).sum() >= 4


@pytest.mark.parametrize("share", [-0.1, 1, 2])
def test_a_share_out_of_range(share: float) -> None:
    with pytest.raises(RemosError, match="share"):
        twins(share)


@given(
    limits=st.sampled_from([(0.0, 255.0), (0.0, 1.0), (-1.0, 1.0)]),
    epsilon=st.floats(1, 40),
    seed=st.integers(0, 1000),
    whole=st.booleans(),
    towards=st.booleans(),
)
def test_rounding_leaves_nobody_outside_the_ball(
    limits: tuple[float, float], epsilon: float, seed: int, whole: bool, towards: bool
) -> None:
    space = PixelSpace("none", *limits)
    rng = np.random.default_rng(seed)
    levels = rng.uniform(0, 255, 50)
    clean = space.from_levels(np.rint(levels)) if whole else (levels * space.epsilon(1) + limits[0]).astype("float32")
    moved = np.clip(clean + space.epsilon(epsilon) * rng.uniform(-1, 1, 50).astype("float32"), *limits)
    rounded = space.from_levels(space.to_levels(moved, near=clean, within=epsilon, towards=towards))
    slack = 1e-4 * space.epsilon(1)
    assert np.abs(rounded - clean).max() <= space.epsilon(epsilon) + slack
    assert rounded.min() >= limits[0] - slack and rounded.max() <= limits[1] + slack
    assert np.abs(rounded - moved).max() <= space.epsilon(1) + slack
    if whole and towards:
        assert np.all(np.abs(rounded - clean) <= np.abs(moved - clean) + slack)
