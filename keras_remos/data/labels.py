"""Class labels: checked, and numbered as a model numbers them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_remos.data.arrays import leaves
from keras_remos.errors import DataError


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


def check_labels(labels: Any, num_classes: int) -> np.ndarray:
    """Turns labels into class ids.

    Args:
        labels: Class ids of shape `(n,)` or `(n, 1)`, or one-hot rows of shape `(n, num_classes)`.
        num_classes: How many classes there are.

    Returns:
        int32, shape `(n,)`.

    Raises:
        DataError: If there are none, they are of another form, of one class only, or not below `num_classes`.
    """
    if labels is None or any(path for path, _ in leaves(labels)):
        raise DataError("Expected labels y, one array of class ids. Received: none, or several.")
    y = np.asarray(labels)
    if not len(y):
        raise DataError("Expected at least one sample. Received: none.")
    if y.ndim == 2 and y.shape[1] == num_classes and num_classes > 1:
        if not (np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()):
            raise DataError("Expected class ids or one-hot rows as labels. Received: rows that are not one-hot.")
        y = y.argmax(axis=1)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1 or y.dtype.kind not in "biuf" or (y.dtype.kind == "f" and not (y == np.floor(y)).all()):
        raise DataError(
            f"Expected class ids as labels: whole numbers from 0 to {num_classes - 1}, or one-hot rows of that length. "
            f"Received: {y.dtype} of shape {y.shape}."
        )
    low, high = int(y.min()), int(y.max())
    if low < 0 or high >= num_classes:
        raise DataError(
            f"Expected labels from 0 to {num_classes - 1}, as num_classes={num_classes} says. Received: {low} to "
            f"{high}. Count the classes again, or number them from 0."
        )
    if low == high:
        raise DataError(f"Expected samples of two or more classes. Received: {len(y)} of class {low} only.")
    return y.astype(np.int32)


def count_label_classes(y: np.ndarray) -> int:
    """How many classes labels are of: as many as one-hot rows have columns, else one more than the largest id.

    Raises:
        DataError: If they are no numbers.
    """
    if y.dtype.kind not in "biuf" or not np.isfinite(y).all():
        raise DataError(
            f"Expected class ids as labels: whole numbers from 0. Received: {y.dtype} of shape {y.shape}"
            f"{'' if y.dtype.kind not in 'f' else ', with NaN or infinity'}."
        )
    return y.shape[1] if y.ndim == 2 and y.shape[1] > 1 else int(np.max(y, initial=0)) + 1
