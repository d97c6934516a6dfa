"""Opens data sets on disk: image folders, `.npz` files and tables."""

import mimetypes
import os
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from keras_remos.data.datasets import MAX_QUEUE_SIZE, ArrayReader, Dataset, Split
from keras_remos.data.images import Decoding, ImageReader, check_reading
from keras_remos.data.kept import Cache
from keras_remos.data.labels import class_ids, flat_labels, how_numbered, in_order, number
from keras_remos.data.npz import CLASS_NAME_KEYS, check_inputs, load_npz, to_levels
from keras_remos.data.other_tasks import OtherTaskError
from keras_remos.data.pillow import IMAGE_SUFFIXES, is_image
from keras_remos.data.tables import TABLE_SUFFIXES, Table, read_table
from keras_remos.errors import DataError
from keras_remos.untrusted import check_regular, raised_as

TEXT_COLUMNS = ("text", "sentence", "review", "content")
LABEL_COLUMNS = ("label", "labels", "class", "target", "y")
PATH_COLUMNS = ("path", "file", "image", "filename")

_SPLIT_NAMES = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}


def open_dataset(
    path: str | os.PathLike[str],
    *,
    split: Split | None = None,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    pixel_range: tuple[float, float] | None = None,
    batch_size: int = 32,
    text_column: str | None = None,
    pair_column: str | None = None,
    label_column: str | None = None,
    path_column: str | None = None,
    class_names: Sequence[str] | None = None,
    strict: bool = False,
    seed: int | None = 0,
    workers: int | None = None,
    max_queue_size: int = MAX_QUEUE_SIZE,
    cache: Cache = "auto",
    decoding: Decoding = "reduced",
) -> Dataset:
    """Opens a data set on disk.

    Args:
        path: A folder with one sub-folder of images a class; an `.npz` file with `x` and `y` (or `x_train` and
            `y_train`, or `images` and `labels`); or a `.csv`, `.tsv` or `.jsonl` table with a column of texts or image
            paths, and labels.
        split: `"train"` or `"test"`: the sub-folder of that name, or those arrays of an `.npz` file.
        image_size: `(height, width)` in pixels, to which images are resized (bilinear). Needed for images.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); 3 when not given.
        pixel_range: What black and white are, where the data are to be left as they are stored. Without it images of
            more than 8 bits a value are brought to 0 to 255: for how white is found, see `ImageReader`.
        batch_size: Samples in a batch.
        text_column: Column of texts. Default: the first of text, sentence, review, content.
        pair_column: Column of the second text of a pair; `x` is then a list of two arrays.
        label_column: Column of labels. Default: the first of label, labels, class, target, y, if there is one.
        path_column: Column of image files, relative to the table. Default: the first of path, file, image, filename.
        class_names: The classes that a model tells apart, in its order. The data set's classes are numbered as there,
            found by their names; it may lack some, and have no others.
        strict: Decode every image now and refuse the data set if one is damaged, instead of leaving it out.
        seed: Seed of the order of the samples; `None` keeps the order on disk.
        workers: How many threads read images at a time, the one that asks being one of them; `None`: one a core, and
            no more than 8. Batches are the same with any number.
        max_queue_size: How many batches of images are read ahead while a device computes.
        cache: Where decoded images of 8 bits are kept: `"memory"`, `"disk"` (in the folder of Keras, for this data set
            at this size; files that have changed are noticed), `"none"`, or `"auto"`: in memory, from the second time
            on that one is read, if all of them take no more than 256 MB.
        decoding: `"reduced"`: a JPEG that is at least twice as large as `image_size` is decoded at 1/2, 1/4 or 1/8 of
            its size, never below `image_size`. `"full"`: at its own size, which takes longer.

    Returns:
        A `Dataset`. Labels of another task than telling one of several classes are left out: see `unread`.

    Raises:
        DataError: If the data are missing, damaged, empty, of one class only, or do not fit `image_size`, `channels`
            and `class_names`; if it cannot be told which value is white; or if one of the last four makes no sense.
        ImportError: If images are to be read and Pillow is not installed.
    """
    source = Path(path)
    if batch_size < 1:
        raise DataError(f"Expected `batch_size` to be a whole number from 1 up. Received: {batch_size!r}.")
    if not isinstance(max_queue_size, int) or max_queue_size < 0:
        raise DataError(f"Expected `max_queue_size` to be a whole number from 0 up. Received: {max_queue_size!r}.")
    check_reading(decoding, workers, cache)
    options: dict[str, Any] = {"batch_size": batch_size, "seed": seed, "max_queue_size": max_queue_size}
    as_stored = pixel_range is not None

    def reader_of(files: list[Path]) -> ImageReader:
        how: dict[str, Any] = {"as_stored": as_stored, "workers": workers, "cache": cache, "decoding": decoding}
        return ImageReader(files, image_size, channels, **how)

    if source.is_dir():
        source = source if split is None else source / split
    if source.is_dir():
        return _open_folder(source, reader_of, class_names, strict, options)
    if not source.exists():
        raise DataError(f"Expected a data set at {source}. Received: nothing there. Check the path.")
    with raised_as(DataError):
        check_regular(source)
    if source.suffix.lower() == ".npz":
        return _open_npz(source, split, image_size, channels, as_stored, class_names, options)
    if split is not None:
        raise DataError(f"A table has no parts: give the file of the {split} data itself. Received: {source}.")
    if source.suffix.lower() in TABLE_SUFFIXES:
        table = read_table(source)
        images_in = image_column(table, path_column, text_column, wants_images=image_size is not None)
        labels: np.ndarray | None = None
        names: list[str] = []
        with _other_tasks(options):
            labels, names = _table_labels(table, label_column, class_names)
            options["numbering"] = how_numbered(names, class_names) if labels is not None else ""
        if images_in is not None:
            files = [table.path.parent / cell for cell in table.texts(images_in)]
            return _open_image_table(table, images_in, reader_of(files), labels, names, strict, options)
        return open_text_table(table, text_column, pair_column, labels, names, options)
    raise DataError(
        f"Expected a folder of images, or a .npz, .csv, .tsv or .jsonl file. Received: {source}. "
        "Put images into one sub-folder a class."
    )


@contextmanager
def _other_tasks(options: dict[str, Any]) -> Iterator[None]:
    """Leaves out labels of another task: a slice needs none, and whoever needs them is told why there are none."""
    try:
        yield
    except OtherTaskError as error:
        options["unread"] = str(error)


# --- folders of images ------------------------------------------------------------------------------------------------


def _open_folder(
    folder: Path,
    reader_of: Callable[[list[Path]], ImageReader],
    known: Sequence[str] | None,
    strict: bool,
    options: dict[str, Any],
) -> Dataset:
    children = sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    folders = [child for child in children if child.is_dir()]
    loose = [child for child in children if child.is_file() and is_image(child)]
    files: dict[str, list[Path]] = {}
    left_out: dict[str, str] = {str(file): "not in the folder of a class" for file in loose}
    for child in folders:
        # One name may be written in two ways: in one as macOS does.
        name = unicodedata.normalize("NFC", child.name)
        files[name] = sorted([*files.get(name, []), *image_files(child, left_out)], key=lambda file: file.as_posix())
    class_names = in_order(name for name, found in files.items() if found)
    _check_classes_of_folder(folder, class_names, len(loose), files, fewest=1 if known else 2)

    reader = reader_of([file for name in class_names for file in files[name]])
    reader.skipped.update({str(folder / name): "no image in this folder" for name in files if not files[name]})
    reader.skipped.update(left_out)
    if strict:
        reader.check_all()
    labels = np.repeat(np.arange(len(class_names)), [len(files[name]) for name in class_names]).astype(np.int32)
    labels, class_names = number(labels, class_names, known, str(folder))
    options["numbering"] = how_numbered(class_names, known)
    description = f"{len(reader)} images of {len(class_names)} classes in {folder}"
    return Dataset(reader, labels, kind="image", class_names=class_names, description=description, **options)


def image_files(folder: Path, left_out: dict[str, str]) -> list[Path]:
    """The images in a folder and below it. Linked folders, and images of other kinds, go to `left_out`."""

    def refuse(error: OSError) -> None:
        raise DataError(f"Expected a folder that can be read at {error.filename}. Received: {error}.") from error

    found = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [Path(parent, name) for name in folders if Path(parent, name).is_symlink()]
        left_out.update({str(link): "a link to a folder, which is not followed" for link in links})
        for file in (Path(parent, name) for name in files if not name.startswith(".")):
            if is_image(file):
                found.append(file)
            elif (mimetypes.guess_type(file.name)[0] or "").startswith("image/"):
                left_out[str(file)] = f"images of {file.suffix} are not read"
    return found


def _check_classes_of_folder(
    folder: Path, class_names: list[str], loose: int, files: dict[str, list[Path]], *, fewest: int
) -> None:
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
        # What a student may learn from, where it is there.
        one = next((name for name in class_names if name.lower().startswith("train")), class_names[0])
        raise DataError(
            f"Expected a sub-folder for each class in {folder}. Received: {splits}, which look like the "
            f"parts of a data set. Name one of them as the `split`, or give its folder: {folder / one}."
        )
    if len(class_names) < fewest:
        listed = f"only {class_names[0]!r} (with {len(files[class_names[0]])} images)"
        raise DataError(f"Expected two or more classes in {folder}: a student needs them. Received: {listed}. {layout}")


# --- .npz -------------------------------------------------------------------------------------------------------------


def _open_npz(
    path: Path,
    split: Split | None,
    image_size: tuple[int, int] | None,
    channels: int | None,
    as_stored: bool,
    known: Sequence[str] | None,
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
        count = len(np.atleast_1d(arrays[label_key]))
        if count != len(x):
            raise DataError(f"Expected a label for each sample in {path}. Received: {len(x)} samples, {count} labels.")
        with _other_tasks(options):
            labels, names = class_ids(flat_labels(arrays[label_key], what), what, given, known)
            options["numbering"] = how_numbered(names, known)
    if kind != "text" and not as_stored:
        options["transform"] = to_levels(x, f"{key!r} of {path}")
    dtype = np.float32 if kind == "image" or x.dtype.kind == "f" else None
    taken = key if label_key is None else f"{key} and {label_key}"
    labelled = f" of {len(names)} classes" if names else "" if label_key else ", no labels"
    description = f"{taken} of {path}: {len(x)} samples{labelled}"
    return Dataset(
        ArrayReader(x, dtype=dtype), labels, kind=kind, class_names=names, description=description, **options
    )


# --- tables -----------------------------------------------------------------------------------------------------------


def image_column(table: Table, path_column: str | None, text_column: str | None, *, wants_images: bool) -> str | None:
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
    reader: ImageReader,
    labels: np.ndarray | None,
    names: list[str],
    strict: bool,
    options: dict[str, Any],
) -> Dataset:
    if strict:
        reader.check_all()
    description = f"{len(reader)} images named in column {image_column!r} of {table.path}"
    return Dataset(reader, labels, kind="image", class_names=names, description=description, **options)


def open_text_table(
    table: Table,
    text_column: str | None,
    pair_column: str | None,
    labels: np.ndarray | None,
    names: list[str],
    options: dict[str, Any],
) -> Dataset:
    """Opens the texts of a table, or pairs of them; the column is found where it is not named.

    Raises:
        DataError: If there is no such column, or an empty text.
    """
    if text_column is None:
        column = table.first(TEXT_COLUMNS)
        if column is None:
            raise DataError(
                f"Expected a column of texts ({', '.join(TEXT_COLUMNS)}) or image paths ({', '.join(PATH_COLUMNS)}) "
                f"in {table.path}. Received columns: {', '.join(table.columns)}. Name one: "
                "`text_column`, `path_column`."
            )
    else:
        column = table.require(text_column, "text_column")
    columns = [column] if pair_column is None else [column, table.require(pair_column, "pair_column")]
    reader = ArrayReader(*[table.texts(name) for name in columns])
    description = f"{len(reader)} texts of column {' and '.join(map(repr, columns))} of {table.path}"
    return Dataset(reader, labels, kind="text", class_names=names, description=description, **options)


def _table_labels(
    table: Table, label_column: str | None, known: Sequence[str] | None
) -> tuple[np.ndarray | None, list[str]]:
    column = table.first(LABEL_COLUMNS) if label_column is None else table.require(label_column, "label_column")
    if column is None:
        return None, []
    return class_ids(table.labels(column), f"column {column!r} of {table.path}", None, known)
