"""Samples that are read when they are asked for are those of an array, in whatever form they are kept."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_remos.data import PixelSpace, Samples, open_dataset
from keras_remos.data.samples import AsLevels, Levels, OfDataset, Pixels, as_samples, read_samples, same_samples
from keras_remos.errors import DataError
from keras_remos.untrusted import rows

LEVELS = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3)).astype("uint8")
SPACES = [PixelSpace(), PixelSpace(high=1.0), PixelSpace("none", -1.0, 1.0), PixelSpace("none", -0.1, 3.7)]


def on_disk(folder: Path, count: int = 9) -> None:
    image = pytest.importorskip("PIL.Image")
    for number in range(count):
        (folder / f"class{number % 3}").mkdir(exist_ok=True, parents=True)
        image.fromarray(LEVELS[number]).save(folder / f"class{number % 3}" / f"{number}.png")


def forms(space: PixelSpace) -> dict[str, Samples]:
    pixels = space.from_levels(LEVELS)
    made = {"levels": Levels(LEVELS, space), "pixels": Pixels(pixels, space)}
    if (space.low, space.high) == (-1, 1):
        made["rounded differently"] = Pixels(LEVELS.astype("float32") / np.float32(127.5) - np.float32(1), space)
    return made | ({"bytes": Pixels(LEVELS, space)} if space.high == 255 else {})


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_the_form_makes_no_difference(space: PixelSpace) -> None:
    made = forms(space)
    for name, samples in made.items():
        assert samples.are_levels, name
        assert samples.content == made["levels"].content, name
        np.testing.assert_array_equal(AsLevels(samples)[2:5], LEVELS[2:5])
        np.testing.assert_allclose(samples[[7, 1]], made["levels"][[7, 1]], atol=1e-5)
        assert samples[0].shape == (4, 4, 3) and samples[0].dtype == np.float32
        assert np.asarray(samples).shape == samples.shape == (9, 4, 4, 3)
        least, most = samples.limits
        assert least <= samples[:].min() and samples[:].max() <= most
        space.check(samples)


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_other_pixels_are_other_samples(space: PixelSpace) -> None:
    one, other = Levels(LEVELS, space), LEVELS.copy()
    other[4, 1, 2, 0] ^= 1
    assert not same_samples(one, Levels(other, space), space)
    between = space.from_levels(LEVELS)
    between[4, 1, 2, 0] += np.float32(space.epsilon(0.25 if LEVELS[4, 1, 2, 0] < 128 else -0.25))
    assert not Pixels(between, space).are_levels
    assert not same_samples(one, between, space) and same_samples(Pixels(between, space), between.copy(), space)
    assert not same_samples(one, one[:8], space)


def test_what_is_read_piece_by_piece_has_the_same_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = LEVELS.astype("float32")
    mixed[5] += 0.3
    whole = [Pixels(mixed, PixelSpace()).content, Levels(LEVELS, PixelSpace()).content]
    monkeypatch.setattr(rows, "PIECE", 1)
    assert whole == [Pixels(mixed, PixelSpace()).content, Levels(LEVELS, PixelSpace()).content]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 256, -1])
def test_pixels_that_are_none_are_refused(value: float) -> None:
    wrong = LEVELS.astype("float32")
    wrong[3, 0, 0, 0] = value
    with pytest.raises(DataError, match="Expected pixels from 0 to 255"):
        PixelSpace().check(Pixels(wrong, PixelSpace()))


@given(
    limits=st.tuples(st.floats(-10, 10), st.floats(0.001, 300)),
    levels=st.lists(st.integers(0, 255), min_size=1, max_size=9),
)
def test_levels_come_back_and_stay_in_the_range(limits: tuple[float, float], levels: list[int]) -> None:
    space = PixelSpace("none", limits[0], limits[0] + limits[1])
    given = np.array(levels, "uint8").reshape(-1, 1)
    pixels = space.from_levels(given)
    assert pixels.dtype == np.float32 and space.low <= float(pixels.min()) and float(pixels.max()) <= space.high
    found, _ = space.nearest_levels(pixels)
    # Where a range is narrow and far from 0, float32 has fewer numbers than there are levels.
    if limits[1] > 0.1:
        np.testing.assert_array_equal(found, given)


@pytest.mark.once
def test_a_data_set_is_read_in_its_order_without_what_cannot_be_read(tmp_path: Path) -> None:
    on_disk(tmp_path)
    (tmp_path / "class1" / "4.png").write_bytes(b"no image")
    dataset = open_dataset(tmp_path, image_size=(4, 4), batch_size=2)
    x, y = read_samples(dataset, PixelSpace())
    expected, labels = dataset.read_all()
    assert isinstance(x, OfDataset) and len(x) == 8 and y.dtype == np.int32
    np.testing.assert_array_equal(x[:], expected)
    np.testing.assert_array_equal(y, labels)
    np.testing.assert_array_equal(x[[5, 5, 0]], expected[[5, 5, 0]])
    assert same_samples(x, expected, PixelSpace()) and x.limits == (expected.min(), expected.max())
    assert [Path(path).name for path, _ in dataset.skipped] == ["4.png"]
    for limit in (1, 3, 8, 20):
        some, of_some = read_samples(dataset, PixelSpace(), limit=limit)
        np.testing.assert_array_equal(some[:], expected[:limit])
        np.testing.assert_array_equal(of_some, labels[:limit])


@pytest.mark.once
def test_the_shape_is_that_of_what_can_be_read(tmp_path: Path) -> None:
    on_disk(tmp_path)
    dataset = open_dataset(tmp_path, image_size=(4, 4), batch_size=8).map(lambda x: np.moveaxis(x, -1, 1))
    last = sorted(tmp_path.rglob("*.png"))[dataset.order[-1]]
    last.write_bytes(b"")
    x, _ = read_samples(open_dataset(tmp_path, image_size=(4, 4), batch_size=8).map(lambda x: x[:, :2]), PixelSpace())
    assert x.shape == x[:].shape == (8, 2, 4, 3)


@pytest.mark.once
def test_a_folder_that_shrinks_while_it_is_read_is_named(tmp_path: Path) -> None:
    on_disk(tmp_path)
    x, _ = read_samples(open_dataset(tmp_path, image_size=(4, 4), batch_size=2), PixelSpace())
    for file in (tmp_path / "class2").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="3 of the samples could be read before, and cannot be read any more"):
        x[:]
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="none of 6 can be read"):
        read_samples(open_dataset(tmp_path, image_size=(4, 4), class_names=["class0", "class1"]), PixelSpace())


def test_texts_stay_as_they_are() -> None:
    texts = np.array(["a", "b"])
    assert as_samples(texts, PixelSpace("preprocessor")) is texts
    assert same_samples(texts, texts.copy(), PixelSpace("preprocessor"))
    assert not same_samples(texts, np.array(["a", "c"]), PixelSpace("preprocessor"))
