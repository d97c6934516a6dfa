"""Arrays and labels of a data set in an `.npz` file, checked before any work is spent on them."""

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from keras_remos.errors import DataError

Kind = Literal["image", "array", "text"]

Split = Literal["train", "test"]

NPZ_KEYS = (("x", "y"), ("x_train", "y_train"), ("images", "labels"))
CLASS_NAME_KEYS = ("class_names", "classes")


def load_npz(path: Path, split: Split | None = None) -> tuple[dict[str, np.ndarray], str, str | None]:
    """Reads the arrays that are used, and only those.

    Args:
        path: The `.npz` file.
        split: Takes `x_train` and `y_train`, or `x_test` and `y_test`, whatever else the file holds.

    Returns:
        The arrays by name, the name of the inputs, and the name of the labels if there are any.

    Raises:
        DataError: If the file is damaged, holds Python objects, or has no array of a known name.
    """
    keys = NPZ_KEYS if split is None else ((f"x_{split}", f"y_{split}"),)
    try:
        with np.load(path, allow_pickle=False) as file:
            found = next((pair for pair in keys if pair[0] in file.files), None)
            if found is None:
                pairs = ", ".join(f"{x} and {y}" for x, y in keys)
                raise DataError(f"Expected one of {pairs} in {path}. Received: {', '.join(file.files) or 'no array'}.")
            wanted = [name for name in (*found, *CLASS_NAME_KEYS) if name in file.files]
            return ({name: file[name] for name in wanted}, found[0], found[1] if found[1] in wanted else None)
    except DataError:
        raise
    except ValueError as error:
        # NumPy refuses to unpickle: what is in there would run code.
        raise DataError(f"Expected plain arrays in {path}. Received: {error} Save numbers or strings.") from error
    except (OSError, EOFError, KeyError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"Expected an .npz file at {path}. Received a damaged one: {error}. Write it anew.") from error


def check_inputs(
    x: np.ndarray, what: str, image_size: tuple[int, int] | None, channels: int | None
) -> tuple[np.ndarray, Kind]:
    """Checks the inputs against what the model takes, and tells what they are.

    Args:
        x: The inputs, shape `(n, ...)`.
        what: What to call them in a message.
        image_size: `(height, width)` that the model takes, if it takes images.
        channels: How many channels it takes.

    Returns:
        The inputs (grey images with a channel axis, bytes as strings) and "image", "array" or "text".

    Raises:
        DataError: If the shape does not fit, or a value is NaN or infinite.
    """
    if x.dtype.kind in "US":
        return np.char.decode(x, "utf-8") if x.dtype.kind == "S" else x, "text"
    if x.dtype.kind not in "biuf":
        raise DataError(f"Expected numbers or strings in {what}. Received: dtype {x.dtype}.")
    _check_finite(x, what)
    if image_size is None:
        is_image = x.ndim == 4 and x.shape[-1] in (1, 3, 4)
        return x, "image" if is_image else "array"
    if x.ndim == 3 and channels == 1:
        x = x[..., np.newaxis]
    expected = (*image_size, x.shape[-1] if channels is None else channels)
    if x.shape[1:] != expected:
        raise DataError(
            f"Expected samples of shape {expected} in {what}, as the model takes them. Received: {x.shape[1:]}. "
            "Resize the images, or give them as a folder: those are resized here."
        )
    return x, "image"


def _check_finite(x: np.ndarray, what: str) -> None:
    if x.dtype.kind != "f":
        return
    for start in range(0, len(x), 1024):  # in pieces: no second array of that size
        bad = ~np.isfinite(x[start : start + 1024])
        if bad.any():
            first = start + int(np.argwhere(bad)[0][0])
            raise DataError(f"Expected finite numbers in {what}. Received: NaN or infinity in sample {first}.")


def flat_labels(y: np.ndarray, what: str) -> np.ndarray:
    """Labels of shape `(n, 1)` or one-hot ones to shape `(n,)`; whole floats to ints; bytes to strings."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    elif y.ndim == 2 and y.dtype.kind in "biuf" and np.array_equal(np.sort(y, axis=1)[:, -2:], [[0, 1]] * len(y)):
        y = y.argmax(axis=1)
    if y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8")
    if y.ndim == 1 and y.dtype.kind == "f" and np.array_equal(y, np.round(y)):
        y = y.astype(np.int64)
    if y.ndim != 1 or y.dtype.kind not in "biuU":
        raise DataError(
            f"Expected class labels in {what}: whole numbers or names of shape (n,), or one-hot rows. "
            f"Received: shape {y.shape}, dtype {y.dtype}."
        )
    return y


def class_ids(
    values: np.ndarray, what: str, names: np.ndarray | None, known: Sequence[str] | None = None
) -> tuple[np.ndarray, list[str]]:
    """Numbers the classes of labels.

    Ids 0 to n-1 stay as they are; other numbers and names become their place in sorted order.

    Args:
        values: The labels.
        what: Where they come from, for messages.
        names: The classes' names in the order of their ids, if the source tells.
        known: See `number`.

    Returns:
        int32 ids, and the name of each.

    Raises:
        DataError: If there are no two classes and none are known, or one is unknown.
    """
    classes, ids = np.unique(values, return_inverse=True)
    if len(classes) < (1 if known else 2):
        only = f"only {classes[0]}" if len(classes) else "none"
        raise DataError(f"Expected two or more classes in {what}: a student needs them. Received: {only}.")
    is_number = values.dtype.kind in "biu"
    if names is not None and names.ndim == 1 and is_number and classes[0] >= 0 and classes[-1] < len(names):
        return number(values.astype(np.int32), [str(name) for name in names], known, what)
    found = [str(int(name) if is_number else name) for name in classes]
    return number(ids.reshape(-1).astype(np.int32), found, known, what)


def number(ids: np.ndarray, names: list[str], known: Sequence[str] | None, what: str) -> tuple[np.ndarray, list[str]]:
    """Numbers classes as a model that knows them does: a data set may lack some, and would shift the others.

    Args:
        ids: Class ids, as the data set by itself numbers them.
        names: The name of each.
        known: The names of the classes that a model tells apart, in its order; `None` leaves everything as it is.
        what: Where they come from, for messages.

    Returns:
        int32 ids, and the name of each.

    Raises:
        DataError: If the data set has a class that the model does not know.
    """
    if known is None:
        return ids, names
    present = [names[place] for place in np.unique(ids)]
    unknown = [name for name in present if name not in known]
    if unknown:
        raise DataError(
            f"Expected no other classes in {what} than the student was trained on: {', '.join(known)}. Received also: "
            f"{', '.join(unknown[:5])}."
        )
    places = np.array([known.index(name) if name in present else -1 for name in names], dtype=np.int32)
    return places[ids], list(known)
