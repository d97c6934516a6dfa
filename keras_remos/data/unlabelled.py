"""Opens what is to be classified: image files, folders of images at any depth, tables and arrays, without labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_remos.data.datasets import ArrayReader, Dataset, Kind, Reader
from keras_remos.data.from_disk import image_column, image_files, open_text_table
from keras_remos.data.images import ImageReader
from keras_remos.data.npz import check_inputs, load_npz, to_levels
from keras_remos.data.pillow import is_image
from keras_remos.data.tables import TABLE_SUFFIXES, read_table
from keras_remos.errors import DataError
from keras_remos.untrusted import check_regular, raised_as

Transform = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Unlabelled:
    """Samples of one kind, in the order in which they were named.

    Args:
        dataset: Gives batches without labels, in that order.
        names: What each sample is called: its file, or the line of its table.
    """

    dataset: Dataset
    names: tuple[str, ...]


def open_unlabelled(
    paths: Iterable[str | os.PathLike[str]],
    *,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    pixel_range: tuple[float, float] | None = None,
    of_levels: bool = True,
    data_format: str = "channels_last",
    batch_size: int = 32,
    text_column: str | None = None,
    pair_column: str | None = None,
    path_column: str | None = None,
    strict: bool = False,
) -> list[Unlabelled]:
    """Opens samples that nobody has labelled; labels that are there all the same are not read.

    Args:
        paths: Image files; folders, whose images are read at any depth; `.csv`, `.tsv` or `.jsonl` tables of texts or
            image paths; `.npz` files of arrays.
        image_size: See `open_dataset`, as for the others.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA).
        pixel_range: What black and white are, where the data are to be left as they are stored. Without it images are
            brought to 0 to 255.
        of_levels: Whether arrays of floats from 0 to 1 are brought there, too: not for a model that takes them as they
            are.
        data_format: How images come out, `"channels_last"` or `"channels_first"`. Arrays may be stored either way then.
        batch_size: Samples in a batch.
        text_column: Column of texts.
        pair_column: Column of the second text of a pair.
        path_column: Column of image files.
        strict: Refuse damaged images instead of leaving them out.

    Returns:
        One for all images that follow each other, and one for each table and `.npz`.

    Raises:
        DataError: If something is missing, damaged or empty, or is nothing that is read.
        ImportError: If images are to be read and Pillow is not installed.
    """
    how = _How(image_size, channels, pixel_range is not None, of_levels, data_format, strict, batch_size)
    found: list[Unlabelled] = []
    files: list[Path] = []
    left_out: dict[str, str] = {}

    def end_of_images() -> None:
        if files:
            found.append(_images(files, how, left_out))
            files.clear()
            left_out.clear()

    for path in map(Path, paths):
        if path.is_dir():
            inside = image_files(path, left_out)
            if not inside:
                raise DataError(f"Expected images in {path}. Received: none, at any depth.")
            files += sorted(inside, key=lambda file: file.as_posix())
            continue
        with raised_as(DataError):
            check_regular(path)
        suffix = path.suffix.lower()
        if suffix in TABLE_SUFFIXES or suffix == ".npz":
            end_of_images()
            columns = (text_column, pair_column, path_column)
            found.append(_arrays(path, how) if suffix == ".npz" else _table(path, columns, how))
        elif is_image(path):
            files.append(path)
        else:
            raise DataError(f"Expected an image, a folder of images, a table or an .npz. Received: {path}.")
    end_of_images()
    if not found:
        raise DataError("Expected at least one path of what is to be classified. Received: none.")
    return found


@dataclass(frozen=True)
class _How:
    """How samples are read."""

    image_size: tuple[int, int] | None
    channels: int | None
    as_stored: bool
    of_levels: bool
    data_format: str
    strict: bool
    batch_size: int

    def dataset(self, reader: Reader, kind: Kind, description: str, transform: Transform | None = None) -> Dataset:
        """Unlabelled samples in their order, channels where they are wanted."""
        made = Dataset(
            reader, None, kind=kind, batch_size=self.batch_size, seed=None, description=description, transform=transform
        )
        return made.map(lambda x: np.moveaxis(x, -1, 1)) if kind == "image" and self.in_front else made

    @property
    def in_front(self) -> bool:
        return self.data_format == "channels_first"


def _images(files: Sequence[Path], how: _How, left_out: Mapping[str, str], where: str = "") -> Unlabelled:
    # They are read once.
    reader = ImageReader(list(files), how.image_size, how.channels, as_stored=how.as_stored, cache="none")
    reader.skipped.update(left_out)
    if how.strict:
        reader.check_all()
    return Unlabelled(how.dataset(reader, "image", f"{len(reader)} images{where}"), tuple(map(str, files)))


def _table(path: Path, columns: tuple[str | None, str | None, str | None], how: _How) -> Unlabelled:
    text_column, pair_column, path_column = columns
    table = read_table(path)
    of_images = image_column(table, path_column, text_column, wants_images=how.image_size is not None)
    if of_images is not None:
        files = [path.parent / cell for cell in table.texts(of_images)]
        return _images(files, how, {}, f" named in column {of_images!r} of {path}")
    options = {"batch_size": how.batch_size, "seed": None}
    dataset = open_text_table(table, text_column, pair_column, None, [], options)
    return Unlabelled(dataset, tuple(f"{path}:{line}" for line, _ in table.rows))


def _arrays(path: Path, how: _How) -> Unlabelled:
    arrays, key, _ = load_npz(path)
    what = f"{key!r} of {path}"
    x = arrays[key]
    if x.ndim == 0 or not len(x):
        raise DataError(f"Expected samples in {what}. Received: an array of shape {x.shape}.")
    if how.in_front and x.ndim == 4 and x.shape[1:] == (how.channels, *(how.image_size or x.shape[2:])):
        x = np.moveaxis(x, 1, -1)
    x, kind = check_inputs(x, what, how.image_size, how.channels)
    transform = to_levels(x, what) if kind == "image" and not how.as_stored else None
    are_shares = how.of_levels and x.dtype.kind == "f" and x.min() >= 0 and x.max() <= 1
    if kind == "image" and not how.as_stored and are_shares:
        transform = _of_shares
    reader = ArrayReader(x, dtype=np.float32 if kind == "image" or x.dtype.kind == "f" else None)
    dataset = how.dataset(reader, kind, f"{len(x)} samples of {what}", transform)
    return Unlabelled(dataset, tuple(f"{path}[{number}]" for number in range(len(x))))


def _of_shares(x: np.ndarray) -> np.ndarray:
    return x * np.float32(255)
