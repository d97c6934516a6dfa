"""Images of more than 8 bits a value become 0 to 255, from files and arrays, or are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_remos.data.datasets import Dataset
from keras_remos.data.from_disk import open_dataset
from keras_remos.errors import DataError

image_module = pytest.importorskip("PIL.Image")

# From black to white, as shares of white.
SHARES = np.linspace(0, 1, 16).reshape(4, 4)
NEEDS = {"image_size": (4, 4), "seed": None}


def folder_of(path: Path, *images: np.ndarray, ending: str = "tif") -> Path:
    """A folder with two classes: each image is in both."""
    for name in "ab":
        (path / name).mkdir(parents=True)
        for number, image in enumerate(images):
            image_module.fromarray(image).save(path / name / f"{number}.{ending}")
    return path


def pixels(dataset: Dataset) -> np.ndarray:
    return np.concatenate([x for x, _ in dataset])


def packed(values: np.ndarray) -> bytes:
    """Numbers of 12 bits, two in three bytes."""
    pairs = values.reshape(-1, 2).tolist()
    return b"".join(bytes([one >> 4, (one & 15) << 4 | other >> 8, other & 255]) for one, other in pairs)


def write_tiffs(folder: Path, raw: bytes, *, bits: int, photometric: int = 1, form: int = 1) -> None:
    """Writes a TIFF of 4 x 4 values for each of two classes, of kinds that Pillow reads and does not write."""
    tags = {256: 4, 257: 4, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: 4, 279: len(raw), 339: form}
    directory = len(tags).to_bytes(2, "little")
    for tag, value in tags.items():
        directory += tag.to_bytes(2, "little") + b"\4\0" + b"\1\0\0\0" + value.to_bytes(4, "little")
    for name in "ab":
        (folder / name).mkdir()
        start = (8 + len(raw)).to_bytes(4, "little")
        (folder / name / "x.tif").write_bytes(b"II*\0" + start + raw + directory + bytes(4))


@pytest.mark.parametrize(
    ("white", "dtype", "ending"),
    [
        (1, np.float32, "tif"),
        (255, np.float32, "tif"),
        (65535, np.float32, "tif"),
        (255, np.int32, "tif"),
        (65535, np.int32, "tif"),
        (255, np.uint16, "tif"),
        (65535, np.uint16, "tif"),
        (65535, np.uint16, "png"),
        (255, np.uint8, "png"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_whatever_the_file_holds_black_is_0_and_white_255(
    tmp_path: Path, white: int, dtype: Any, ending: str, channels: int
) -> None:
    values = (SHARES * white).astype(dtype)
    x = pixels(open_dataset(folder_of(tmp_path, values, ending=ending), channels=channels, **NEEDS))
    assert x.shape == (2, 4, 4, channels) and x.dtype == np.float32 and x.min() == 0 and x.max() == 255
    for channel in range(min(channels, 3)):
        np.testing.assert_allclose(x[0, ..., channel], values / white * 255, atol=1e-3)
    assert channels < 4 or (x[..., 3] == 255).all()


def test_a_file_that_says_its_bits_is_taken_at_its_word(tmp_path: Path) -> None:
    dark = np.rint(SHARES * 1000).astype(int)
    write_tiffs(tmp_path, packed(dark), bits=12)
    x = pixels(open_dataset(tmp_path, channels=1, **NEEDS))
    np.testing.assert_allclose(x[0, ..., 0], dark / 4095 * 255, atol=1e-3)


def test_a_pgm_says_what_white_is(tmp_path: Path) -> None:
    values = np.rint(SHARES * 1023).astype(">u2")
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.pgm").write_bytes(b"P5 4 4 1023\n" + (values // 2).astype(">u2").tobytes())
    x = pixels(open_dataset(tmp_path, channels=1, **NEEDS))
    np.testing.assert_allclose(x[0, ..., 0], values // 2 / 1023 * 255, atol=0.01)


def test_a_tiff_whose_lowest_value_is_white_is_turned_round(tmp_path: Path) -> None:
    write_tiffs(tmp_path, SHARES.astype("<f4").tobytes(), bits=32, photometric=0, form=3)
    x = pixels(open_dataset(tmp_path, channels=1, **NEEDS))
    np.testing.assert_allclose(x[0, ..., 0], (1 - SHARES) * 255, atol=1e-3)


@pytest.mark.parametrize(
    ("white", "dtype"),
    [(4095, np.uint16), (1023, np.int32), (16383, np.uint16), (300, np.float32), (16, np.float32), (100000, np.int32)],
)
def test_where_white_cannot_be_told_images_are_refused(tmp_path: Path, white: int, dtype: Any) -> None:
    values = (SHARES * white).astype(dtype)
    folder = folder_of(tmp_path, values)
    with pytest.raises(DataError, match=f"known what is white.*values from 0 to {white:g}.*pixel_range"):
        open_dataset(folder, channels=1, **NEEDS)
    x = pixels(open_dataset(folder, channels=1, pixel_range=(0, white), **NEEDS))
    np.testing.assert_allclose(x[0, ..., 0], values, rtol=1e-6)


def test_values_below_black_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="values from -1 to 1"):
        open_dataset(folder_of(tmp_path, (SHARES * 2 - 1).astype(np.float32)), **NEEDS)


def test_all_images_of_a_set_have_one_white(tmp_path: Path) -> None:
    dark, bright = (SHARES * 0.5).astype(np.float32), (SHARES * 255).astype(np.float32)
    x = pixels(open_dataset(folder_of(tmp_path / "both", dark, bright), channels=1, **NEEDS))
    np.testing.assert_allclose(x[0, ..., 0], dark, atol=1e-6)
    np.testing.assert_allclose(x[1, ..., 0], bright, rtol=1e-6)
    # Too late to be looked at, and beyond the white of all others: what was read of those was wrong.
    images = [dark] * 40
    images[4] = bright
    dataset = open_dataset(folder_of(tmp_path / "late", *images), channels=1, **NEEDS)
    with pytest.raises(DataError, match=r"from 0 to 1 in .*4\.tif, as in others"):
        pixels(dataset)


def test_resampling_may_pass_white_by_a_little(tmp_path: Path) -> None:
    values = (SHARES * 1.012 - 0.005).astype(np.float32)
    x = pixels(open_dataset(folder_of(tmp_path, values), channels=1, **NEEDS))
    np.testing.assert_allclose(x[0, ..., 0], np.clip(values, 0, 1) * 255, atol=1e-3)


def test_a_damaged_image_of_many_bits_is_left_out(tmp_path: Path) -> None:
    values = SHARES.astype(np.float32)
    broken = values.copy()
    broken[1, 1] = np.nan
    dataset = open_dataset(folder_of(tmp_path, values, broken), channels=1, **NEEDS)
    assert len(pixels(dataset)) == 2
    assert [(Path(path).name, reason) for path, reason in dataset.skipped] == [
        ("1.tif", "ValueError: NaN or infinity among the values")
    ] * 2


def test_a_table_of_images_reads_as_a_folder_does(tmp_path: Path) -> None:
    folder_of(tmp_path, (SHARES * 65535).astype(np.uint16))
    (tmp_path / "set.csv").write_text("path,label\na/0.tif,0\nb/0.tif,1\n")
    np.testing.assert_array_equal(
        pixels(open_dataset(tmp_path / "set.csv", **NEEDS)), pixels(open_dataset(tmp_path, **NEEDS))
    )


# --- arrays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.int64, np.float32])
@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (2, 3, 4, 4)])
def test_arrays_of_16_bits_reach_255_and_no_more(tmp_path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
    values = np.linspace(0, 65535, 96).reshape(shape).astype(dtype)
    np.savez(tmp_path / "set.npz", x=values, y=[0, 1])
    x = pixels(open_dataset(tmp_path / "set.npz", seed=None))
    assert x.dtype == np.float32 and x.max() == 255
    np.testing.assert_allclose(x, values / 65535 * 255, atol=1e-3)
    as_stored = open_dataset(tmp_path / "set.npz", pixel_range=(0, 65535), seed=None)
    np.testing.assert_array_equal(pixels(as_stored), values)


@pytest.mark.parametrize(
    "values", [np.arange(96) % 256, np.linspace(0, 1, 96), np.linspace(-300, 300, 96), np.linspace(0, 16, 96)]
)
def test_arrays_of_other_ranges_stay_as_they_are(tmp_path: Path, values: np.ndarray) -> None:
    x = values.reshape(2, 4, 4, 3)
    np.savez(tmp_path / "set.npz", x=x, y=[0, 1])
    np.testing.assert_array_equal(pixels(open_dataset(tmp_path / "set.npz", seed=None)), x.astype(np.float32))


def test_bands_that_are_no_colours_stay_as_they_are(tmp_path: Path) -> None:
    bands = np.arange(2 * 5 * 5 * 12).reshape(2, 5, 5, 12).astype(np.uint16) * 20
    np.savez(tmp_path / "set.npz", x=bands, y=[0, 1])
    np.testing.assert_array_equal(pixels(open_dataset(tmp_path / "set.npz", image_size=(5, 5), seed=None)), bands)


def test_arrays_of_which_white_cannot_be_told_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", x=np.linspace(0, 4095, 96).reshape(2, 4, 4, 3).astype(np.uint16), y=[0, 1])
    with pytest.raises(DataError, match=r"'x' of .*set\.npz with values from 0 to 4095"):
        open_dataset(tmp_path / "set.npz")
