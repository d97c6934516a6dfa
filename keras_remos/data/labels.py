"""Class labels: read in one way whatever the format, checked, and numbered as a model numbers them."""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from keras_remos.data.arrays import to_numpy
from keras_remos.data.other_tasks import other_task, refuse_other_tasks
from keras_remos.errors import DataError

# `1` and `1.0` are one number. `01`, `+1` and `1_0` are names: a file that writes them means more than the number.
_WHOLE = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.0*)?")
_NUMBER = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf|infinity)", re.IGNORECASE)
_DIGITS = re.compile(r"[+-]?[0-9]+")
_BOOLEANS = {"false": "0", "true": "1"}
# From here on floating-point numbers are whole by rounding, and are written with an exponent, as quantities are.
_LEAST_WITH_EXPONENT = 1e16
# Class ids are below it: a larger one is no number of a class, and a head for so many would take all memory.
MOST_CLASSES = 1_000_000

# How classes are numbered, to follow "Classes are numbered".
ALPHABETICALLY = "in alphabetical order"
AS_NUMBERS = "as numbers, 2 before 10"
BY_FILE = "as the names in the file are"
BY_NAMES_GIVEN = "as the given class names are"


def read_labels(cells: Iterable[Any], place: Callable[[int], str]) -> np.ndarray:
    """Reads labels, of any format, in one way.

    Whole numbers are numbers however they are written (`1`, `1.0`), and booleans are 0 and 1. If there is anything else
    among them, all labels are names: text without the spaces around it.

    Args:
        cells: The labels: strings, whole numbers (floats too) or booleans.
        place: Where a label stands, by its number from 0, for messages.

    Returns:
        int64 if all are whole numbers (which fit), else `str`; shape `(n,)`.

    Raises:
        OtherTaskError: If all are numbers, and some not whole, or one is a list or a mapping.
        DataError: If one is missing (empty, `NaN` or null) or is no label, or booleans and numbers are mixed.
    """
    known: dict[tuple[type, Any], str] = {}
    texts: list[str] = []
    first: dict[str, int] = {}
    for number, cell in enumerate(cells):
        key = (type(cell), cell if isinstance(cell, (str, bytes, bool, int, float, np.generic)) else id(cell))
        if key not in known:
            known[key] = _text(cell, place(number))
        texts.append(known[key])
        first.setdefault(known[key], number)
    _check_numbers(first, place)
    spelled = dict(zip(first, canonical_names(list(first)), strict=True))
    if all(_is_canonical(name) for name in spelled.values()):
        try:
            return np.array([int(spelled[text]) for text in texts], dtype=np.int64)
        except (OverflowError, ValueError):  # Python itself reads no number of thousands of digits
            pass
    return np.array([spelled[text] for text in texts], dtype=np.str_)


def canonical_names(names: Sequence[str]) -> list[str]:
    """The names of classes as `read_labels` has them: numbers in one spelling, and booleans, if all are, as 0 and 1."""
    if names and all(name.lower() in _BOOLEANS for name in names):
        return [_BOOLEANS[name.lower()] for name in names]
    matches = [_WHOLE.fullmatch(name) for name in names]
    return [
        name if match is None else match[2] if match[2] == "0" else match[1] + match[2]
        for name, match in zip(names, matches, strict=True)
    ]


def in_order(names: Iterable[str]) -> list[str]:
    """Puts the names of classes in order: by number if all are whole numbers (2, 10), else alphabetically."""
    found = sorted(names)
    return sorted(found, key=int) if are_numbers(found) else found


def are_numbers(names: Sequence[str]) -> bool:
    """Whether all names are whole numbers, `01` and `+1` included."""
    # Python itself refuses to read a number of thousands of digits.
    return bool(names) and all(len(name) < 1000 and _DIGITS.fullmatch(name) for name in names)


def how_numbered(names: Sequence[str], known: Sequence[str] | None) -> str:
    """How classes were numbered, in words.

    Args:
        names: Their names, in the order of their ids.
        known: See `number`.
    """
    if known is not None:
        return BY_NAMES_GIVEN
    if list(names) == sorted(names):
        return ALPHABETICALLY
    return AS_NUMBERS if list(names) == in_order(names) else BY_FILE


def _text(cell: Any, place: str) -> str:
    """One label as text; whole floats as whole numbers."""
    if isinstance(cell, bytes):
        try:
            cell = cell.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"Expected text in UTF-8 in {place}. Received other bytes ({error.reason}).") from error
    cell = cell.item() if isinstance(cell, np.generic) else cell
    if isinstance(cell, float) and abs(cell) < _LEAST_WITH_EXPONENT and cell.is_integer():
        return str(int(cell))
    text = cell.strip() if isinstance(cell, str) else str(cell)
    if cell is None or not text or text.lower() == "nan":
        received = "an empty cell" if cell is None or not text else f"{text}, a missing value"
        raise DataError(f"Expected a value in {place}. Received: {received}. Fill it or remove the line.")
    if isinstance(cell, (list, dict)):
        raise other_task(f"{text[:60]} in {place}, as for several labels a sample")
    if not isinstance(cell, (str, int, float)):
        raise DataError(
            f"Expected class labels: a whole number or a word in {place}. Received: {text[:60]}. Number the classes, "
            "or name them."
        )
    return text


def _check_numbers(first: dict[str, int], place: Callable[[int], str]) -> None:
    """Refuses what can be no classes, from each label and the number of the first that is so written."""
    booleans = [text for text in first if text.lower() in _BOOLEANS]
    numbers = [text for text in first if _NUMBER.fullmatch(text)]
    if len(booleans) + len(numbers) < len(first):
        return
    if booleans and numbers:
        later = max(booleans[0], numbers[0], key=lambda text: first[text])
        raise DataError(
            f"Expected labels that are all numbers or all true and false. Received: {booleans[0]} and {numbers[0]}, "
            f"the latter of them first in {place(first[later])}. Write them in one way."
        )
    for text in numbers:
        if text.lower().lstrip("+-").startswith("inf"):
            raise DataError(
                f"Expected class labels: whole numbers or names. Received: {text} in {place(first[text])}. "
                "Number the classes, or name them."
            )
        if not (_WHOLE.fullmatch(text) or _DIGITS.fullmatch(text)):
            raise other_task(f"{text} in {place(first[text])}, as of a regression")


def _is_canonical(name: str) -> bool:
    match = _WHOLE.fullmatch(name)
    return match is not None and match[1] + match[2] == name


def flat_labels(y: np.ndarray, what: str) -> np.ndarray:
    """Labels of shape `(n, 1)` or one-hot ones to shape `(n,)`, then as `read_labels` has them.

    Raises:
        OtherTaskError: If they are of another task.
        DataError: If they are no class labels for any other reason.
    """
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim > 1:
        refuse_other_tasks(y, what)
        y = _of_one_hot(y)
    if y.ndim != 1 or y.dtype.kind not in "biufSU":
        raise DataError(
            f"Expected class labels in {what}: whole numbers or names of shape (n,), or one-hot rows. "
            f"Received: shape {y.shape}, dtype {y.dtype}."
        )
    # Each label once: there may be millions of them.
    values, places, inverse = np.unique(y, return_index=True, return_inverse=True)
    read = read_labels(values.tolist(), lambda number: f"sample {places[number]} of {what}")
    return read[inverse.reshape(-1)]


def _of_one_hot(y: np.ndarray) -> np.ndarray:
    """The class of each row, if they are rows of finite numbers: those of other tasks are refused by then."""
    is_rows = y.ndim == 2 and y.dtype.kind in "biuf" and np.isfinite(y).all()
    return y.argmax(axis=1) if is_rows else y


def class_ids(
    values: np.ndarray, what: str, names: np.ndarray | None, known: Sequence[str] | None = None
) -> tuple[np.ndarray, list[str]]:
    """Numbers the classes of labels.

    Ids 0 to n-1 stay as they are; other numbers and names become their place in order (see `in_order`).

    Args:
        values: The labels, as `read_labels` gives them.
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
    ordered = in_order(found)
    places = {name: place for place, name in enumerate(ordered)}
    return number(np.array([places[name] for name in found], np.int32)[ids.reshape(-1)], ordered, known, what)


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
    if not set(present) <= set(known):
        # What wrote them may have spelled numbers and booleans in another way: 1.0, True.
        spelled = dict(zip(canonical_names(list(known)), known, strict=True))
        names = [spelled.get(other, name) for name, other in zip(names, canonical_names(names), strict=True)]
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
    """Turns all labels of a data set into class ids.

    Args:
        labels: Class ids of shape `(n,)` or `(n, 1)`, or one-hot rows of shape `(n, num_classes)`.
        num_classes: How many classes there are.

    Returns:
        int32, shape `(n,)`.

    Raises:
        DataError: If there are none, they are of another form, of one class only, or not below `num_classes`.
    """
    y = batch_ids(labels, num_classes)
    if not len(y):
        raise DataError("Expected at least one sample. Received: none.")
    if y.min() == y.max():
        raise DataError(f"Expected samples of two or more classes. Received: {len(y)} of class {y[0]} only.")
    return y


def is_one_hot(y: np.ndarray, num_classes: int) -> bool:
    """Whether labels have the shape of one-hot rows."""
    return y.ndim == 2 and y.shape[1] == num_classes and num_classes > 1


def batch_ids(labels: Any, num_classes: int) -> np.ndarray:
    """Turns the labels of a batch, which may be of one class, into class ids; see `check_labels`."""
    if labels is None:
        raise DataError("Expected labels y, one array of class ids. Received: none.")
    refuse_other_tasks(labels)
    y = to_numpy(labels)
    if is_one_hot(y, num_classes):
        y = _of_one_hot(y)
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1 or y.dtype.kind not in "biuf":
        raise _no_ids(f"{y.dtype} of shape {y.shape}", num_classes)
    if y.dtype.kind == "f" and not (np.isfinite(y) & (y == np.floor(y))).all():
        raise _no_ids(f"{y[~np.isfinite(y) | (y != np.floor(y))][0]}", num_classes)
    if len(y) and not 0 <= y.min() <= y.max() < num_classes:
        raise DataError(
            f"Expected labels from 0 to {num_classes - 1}, as `num_classes={num_classes}` says. Received: "
            f"{int(y.min())} to {int(y.max())}. Count the classes again, or number them from 0."
        )
    return y.astype(np.int32)


def _no_ids(received: str, num_classes: int) -> DataError:
    return DataError(
        f"Expected class ids as labels: whole numbers from 0 to {num_classes - 1}, or one-hot rows of that length. "
        f"Received: {received}."
    )


def check_largest_id(y: np.ndarray) -> None:
    """Makes sure that no class id is beyond all reason.

    Args:
        y: Finite numbers, any shape.

    Raises:
        DataError: If one is not below `MOST_CLASSES`.
    """
    largest = y.max(initial=0)
    if largest >= MOST_CLASSES:
        raise DataError(
            f"Expected class ids below {MOST_CLASSES:,}. Received: {largest:g}. Number the classes from 0, or give "
            "them names."
        )


def count_label_classes(y: np.ndarray) -> int:
    """How many classes labels are of: as many as one-hot rows have columns, else one more than the largest id.

    Raises:
        OtherTaskError: If they are of another task.
        DataError: If they are no numbers.
    """
    refuse_other_tasks(y)
    if y.dtype.kind not in "biuf" or not np.isfinite(y).all():
        raise DataError(
            f"Expected class ids as labels: whole numbers from 0. Received: {y.dtype} of shape {y.shape}"
            f"{'' if y.dtype.kind not in 'f' else ', with NaN or infinity'}."
        )
    check_largest_id(y)
    return y.shape[1] if y.ndim == 2 and y.shape[1] > 1 else int(np.max(y, initial=0)) + 1
