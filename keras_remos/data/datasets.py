"""Data sets on disk: image folders, `.npz` files and tables, as a `keras.utils.PyDataset`."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import keras
import numpy as np

from keras_remos.data.images import IMAGE_SUFFIXES, ImageReader
from keras_remos.data.npz import CLASS_NAME_KEYS, Kind, Split, check_inputs, class_ids, flat_labels, load_npz
from keras_remos.data.tables import TABLE_SUFFIXES, Table, read_table
from keras_remos.errors import DataError

TEXT_COLUMNS = ("text", "sentence", "review", "content")
LABEL_COLUMNS = ("label", "labels", "class", "target", "y")
PATH_COLUMNS = ("path", "file", "image", "filename")

_SPLIT_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}


class Reader(Protocol):
    """What a `Dataset` reads its samples from."""

    skipped: dict[str, str]

    def __len__(self) -> int:
        """Number of samples listed."""
        ...

    def read(self, indices: np.ndarray) -> tuple[Any, np.ndarray]:
        """Returns the inputs of those samples that can be read, and their indices."""
        ...


class Dataset(keras.utils.PyDataset):
    """`(x, y)` batches from disk; `y` are int32 class ids, and absent where the source has no labels.

    Samples come in one fixed, shuffled order, so that the first batches are a fair sample of all classes. A sample
    that cannot be read is left out and listed in `skipped`. `fit` asks for batches by number and must get something:
    a batch of which nothing can be read is replaced by the next one there. Iteration (and `batches`) leaves it out,
    so that no sample is counted twice.

    Attributes:
        kind: "image" (float32, 0 to 255, shape `(batch, height, width, channels)`), "array" or "text" (`str` arrays).
        class_names: Name of each class id; empty without labels.
        num_classes: Number of classes, or `None` without labels.
        labels: The class id of each sample in the order on disk, or `None`.
        num_samples: Samples listed, those that turn out unreadable included.
        description: What was read, in words.
    """

    def __init__(
        self,
        reader: Reader,
        labels: np.ndarray | None,
        *,
        kind: Kind,
        class_names: Sequence[str] = (),
        batch_size: int = 32,
        seed: int | None = 0,
        description: str = "",
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.class_names = list(class_names)
        self.num_classes = len(class_names) if labels is not None else None
        self.num_samples = len(reader)
        self.batch_size = batch_size
        self.description = description
        self._reader = reader
        self.labels = labels
        self._seed = seed
        self._transform = transform
        order = np.arange(len(reader))
        self._order = order if seed is None else np.random.default_rng(seed).permutation(order)

    def __len__(self) -> int:
        return math.ceil(self.num_samples / self.batch_size)

    def __getitem__(self, index: int) -> Any:
        """Returns batch `index`, or the next one of which something can be read.

        Raises:
            DataError: If no sample of the whole data set can be read.
        """
        for offset in range(len(self)):
            batch = self._read((index + offset) % len(self))
            if batch is not None:
                return batch
        raise self._nothing_readable()

    def __iter__(self) -> Iterator[Any]:
        """Yields each sample that can be read exactly once.

        Raises:
            DataError: If no sample can be read.
        """
        empty = True
        for index in range(len(self)):
            batch = self._read(index)
            if batch is not None:
                empty = False
                yield batch
        if empty:
            raise self._nothing_readable()

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """What was left out so far: `(path, reason)`. Unreadable files are found when they are read."""
        return sorted(self._reader.skipped.items())

    def read_all(self) -> tuple[np.ndarray, np.ndarray]:
        """Reads the whole data set into memory, in its order.

        Returns:
            `(x, y)`: all inputs in one array, and their class ids, shape `(n,)`, int32.

        Raises:
            DataError: If nothing can be read, there are no labels, or a sample has several inputs.
        """
        if self.labels is None:
            raise DataError(
                f"{self.description}: there are no labels. Put images into one sub-folder a class, or add y."
            )
        pairs = [keras.utils.unpack_x_y_sample_weight(batch)[:2] for batch in self]
        if not isinstance(pairs[0][0], np.ndarray):
            raise DataError(f"{self.description}: expected one input a sample, received several.")
        return np.concatenate([x for x, _ in pairs]), np.concatenate([y for _, y in pairs])

    def map(self, transform: Callable[[Any], Any]) -> "Dataset":
        """Returns the same data set with a function applied to the inputs of each batch (scaling, tokenizing).

        Args:
            transform: From the inputs `x` of a batch to the new inputs; applied after those of earlier `map` calls.

        Returns:
            A new `Dataset`; it shares the samples and the `skipped` list with this one.
        """
        before = self._transform
        return Dataset(
            self._reader,
            self.labels,
            kind=self.kind,
            class_names=self.class_names,
            batch_size=self.batch_size,
            seed=self._seed,
            description=self.description,
            transform=transform if before is None else lambda x: transform(before(x)),
        )

    def _read(self, index: int) -> Any:
        start = index * self.batch_size
        return self.take(self._order[start : start + self.batch_size])

    def take(self, indices: np.ndarray) -> Any:
        """Returns a batch of those samples (numbers in the order on disk) that can be read; `None` if none can."""
        x, indices = self._reader.read(indices)
        if not len(indices):
            return None
        if self._transform is not None:
            x = self._transform(x)
        # Two inputs without labels must not look like (x, y): pack them.
        return keras.utils.pack_x_y_sample_weight(x, None if self.labels is None else self.labels[indices])

    def _nothing_readable(self) -> DataError:
        examples = "; ".join(f"{path}: {reason}" for path, reason in self.skipped[:3])
        return DataError(f"Expected readable samples. Received: none of {self.num_samples} can be read ({examples}).")


def open_dataset(
    path: str | os.PathLike[str],
    *,
    split: Split | None = None,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    batch_size: int = 32,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    path_column: str | None = None,
    strict: bool = False,
    seed: int | None = 0,
) -> Dataset:
    """Opens a data set on disk.

    Args:
        path: A folder with one sub-folder of images a class; an `.npz` file with `x` and `y` (or `x_train` and
            `y_train`, or `images` and `labels`); or a `.csv`, `.tsv` or `.jsonl` table with a column of texts or image
            paths, and labels.
        split: `"train"` or `"test"`: the sub-folder of that name, or those arrays of an `.npz` file.
        image_size: `(height, width)` in pixels, to which images are resized (bilinear). Needed for images.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); 3 when not given.
        batch_size: Samples in a batch.
        text_column: Column of texts. Default: the first of text, sentence, review, content.
        pair_column: Column of the second text of a pair; `x` is then a list of two arrays.
        label_column: Column of labels. Default: the first of label, labels, class, target, y, if there is one.
        path_column: Column of image files, relative to the table. Default: the first of path, file, image, filename.
        strict: Decode every image now and refuse the data set if one is damaged, instead of leaving it out.
        seed: Seed of the order of the samples; `None` keeps the order on disk.

    Returns:
        A `Dataset`.

    Raises:
        DataError: If the data are missing, damaged, empty, of one class only, or do not fit `image_size` and
            `channels`.
        ImportError: If images are to be read and Pillow is not installed.
    """
    source = Path(path)
    if batch_size < 1:
        raise DataError(f"Expected `batch_size` to be a whole number from 1 up. Received: batch_size={batch_size!r}.")
    options: dict[str, Any] = {"batch_size": batch_size, "seed": seed}
    if source.is_dir():
        source = source if split is None else source / split
    if source.is_dir():
        return _open_folder(source, image_size, channels, strict, options)
    if not source.exists():
        raise DataError(f"Expected a data set at {source}. Received: nothing there. Check the path.")
    if source.suffix.lower() == ".npz":
        return _open_npz(source, split, image_size, channels, options)
    if split is not None:
        raise DataError(f"A table has no parts: give the file of the {split} data itself. Received: {source}.")
    if source.suffix.lower() in TABLE_SUFFIXES:
        table = read_table(source)
        image_column = _image_column(table, path_column, text_column, wants_images=image_size is not None)
        if image_column is not None:
            return _open_image_table(table, image_column, label_column, image_size, channels, strict, options)
        return _open_text_table(table, text_column, pair_column, label_column, options)
    raise DataError(
        f"Expected a folder of images, or a .npz, .csv, .tsv or .jsonl file. Received: {source}. "
        "Put images into one sub-folder a class."
    )


# --- folders of images ------------------------------------------------------------------------------------------------


def _open_folder(
    folder: Path, image_size: tuple[int, int] | None, channels: int | None, strict: bool, options: dict[str, Any]
) -> Dataset:
    children = sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    folders = [child for child in children if child.is_dir()]
    loose = [child for child in children if child.suffix.lower() in IMAGE_SUFFIXES and child.is_file()]
    files = {child.name: _image_files(child) for child in folders}
    class_names = [name for name, found in files.items() if found]
    _check_classes_of_folder(folder, class_names, len(loose), files)

    reader = ImageReader([file for name in class_names for file in files[name]], image_size, channels)
    reader.skipped.update({str(folder / name): "no image in this folder" for name in files if not files[name]})
    reader.skipped.update({str(file): "not in the folder of a class" for file in loose})
    if strict:
        reader.check_all()
    labels = np.repeat(np.arange(len(class_names)), [len(files[name]) for name in class_names]).astype(np.int32)
    description = f"{len(reader)} images of {len(class_names)} classes in {folder}"
    return Dataset(reader, labels, kind="image", class_names=class_names, description=description, **options)


def _image_files(folder: Path) -> list[Path]:
    found = []
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in files if not name.startswith(".")]
    return sorted((file for file in found if file.suffix.lower() in IMAGE_SUFFIXES), key=lambda file: file.as_posix())


def _check_classes_of_folder(folder: Path, class_names: list[str], loose: int, files: dict[str, list[Path]]) -> None:
    layout = f"Put images into one sub-folder a class: {folder}/CLASS/*.jpg."
    suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
    if not class_names and loose:
        raise DataError(
            f"Expected a sub-folder for each class in {folder}. Received: {loose} images and none. {layout}"
        )
    if not class_names:
        raise DataError(f"Expected images ({suffixes}) in the sub-folders of {folder}. Received: none. {layout}")
    if {name.lower() for name in class_names} <= _SPLIT_NAMES:
        splits = ", ".join(class_names)
        raise DataError(
            f"Expected a sub-folder for each class in {folder}. Received: {splits}, which look like the "
            f"parts of a data set. Give one of them: {folder / class_names[0]}."
        )
    if len(class_names) == 1:
        listed = f"only {class_names[0]!r} (with {len(files[class_names[0]])} images)"
        raise DataError(f"Expected two or more classes in {folder}: a student needs them. Received: {listed}. {layout}")


# --- .npz -------------------------------------------------------------------------------------------------------------


class ArrayReader:
    """Samples of an array in memory, or of several of one length."""

    def __init__(self, *arrays: np.ndarray | list[str], dtype: Any = None) -> None:
        self.skipped: dict[str, str] = {}
        self._arrays = arrays
        self._dtype = dtype

    def __len__(self) -> int:
        return len(self._arrays[0])

    def read(self, indices: np.ndarray) -> tuple[Any, np.ndarray]:
        """Returns the samples, and the same indices."""
        parts = [self._take(array, indices) for array in self._arrays]
        return (parts[0] if len(parts) == 1 else parts), indices

    def _take(self, array: np.ndarray | list[str], indices: np.ndarray) -> np.ndarray:
        if isinstance(array, list):
            return np.array([array[index] for index in indices], dtype=np.str_)
        taken: np.ndarray = array[indices].astype(self._dtype or array.dtype, copy=False)
        return taken


def _open_npz(
    path: Path,
    split: Split | None,
    image_size: tuple[int, int] | None,
    channels: int | None,
    options: dict[str, Any],
) -> Dataset:
    arrays, key, label_key = load_npz(path, split)
    x = arrays[key]
    if x.ndim == 0 or not len(x):
        raise DataError(f"Expected samples in {key!r} of {path}. Received: an array of shape {x.shape}.")
    x, kind = check_inputs(x, f"{key!r} of {path}", image_size, channels)
    labels: np.ndarray | None = None
    names: list[str] = []
    if label_key is not None:
        what = f"{label_key!r} of {path}"
        given = next((arrays[name] for name in CLASS_NAME_KEYS if name in arrays), None)
        labels, names = class_ids(flat_labels(arrays[label_key], what), what, given)
        if len(labels) != len(x):
            raise DataError(
                f"Expected a label for each sample in {path}. Received: {len(x)} samples, {len(labels)} labels."
            )
    dtype = np.float32 if kind == "image" or x.dtype.kind == "f" else None
    taken = key if label_key is None else f"{key} and {label_key}"
    description = f"{taken} of {path}: {len(x)} samples" + (f" of {len(names)} classes" if names else ", no labels")
    return Dataset(
        ArrayReader(x, dtype=dtype), labels, kind=kind, class_names=names, description=description, **options
    )


# --- tables -----------------------------------------------------------------------------------------------------------


def _image_column(table: Table, path_column: str | None, text_column: str | None, *, wants_images: bool) -> str | None:
    """The column of image files, if it is a table of images: named, or there and no text asked for or found."""
    if path_column is not None:
        return table.require(path_column, "path_column")
    if text_column is not None:
        return None
    found = table.first(PATH_COLUMNS)
    return found if wants_images or table.first(TEXT_COLUMNS) is None else None


def _open_image_table(
    table: Table,
    image_column: str,
    label_column: str | None,
    image_size: tuple[int, int] | None,
    channels: int | None,
    strict: bool,
    options: dict[str, Any],
) -> Dataset:
    files = [table.path.parent / cell for cell in table.texts(image_column)]
    labels, names = _table_labels(table, label_column)
    reader = ImageReader(files, image_size, channels)
    if strict:
        reader.check_all()
    description = f"{len(files)} images named in column {image_column!r} of {table.path}"
    return Dataset(reader, labels, kind="image", class_names=names, description=description, **options)


def _open_text_table(
    table: Table, text_column: str | None, pair_column: str | None, label_column: str | None, options: dict[str, Any]
) -> Dataset:
    if text_column is None:
        column = table.first(TEXT_COLUMNS)
        if column is None:
            raise DataError(
                f"Expected a column of texts ({', '.join(TEXT_COLUMNS)}) or image paths ({', '.join(PATH_COLUMNS)}) "
                f"in {table.path}. Received columns: {', '.join(table.columns)}. Name one (text_column, path_column)."
            )
    else:
        column = table.require(text_column, "text_column")
    columns = [column] if pair_column is None else [column, table.require(pair_column, "pair_column")]
    labels, names = _table_labels(table, label_column)
    reader = ArrayReader(*[table.texts(name) for name in columns])
    description = f"{len(reader)} texts of column {' and '.join(map(repr, columns))} of {table.path}"
    return Dataset(reader, labels, kind="text", class_names=names, description=description, **options)


def _table_labels(table: Table, label_column: str | None) -> tuple[np.ndarray | None, list[str]]:
    column = table.first(LABEL_COLUMNS) if label_column is None else table.require(label_column, "label_column")
    if column is None:
        return None, []
    return class_ids(table.labels(column), f"column {column!r} of {table.path}", None)
