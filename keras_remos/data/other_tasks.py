"""Tasks other than telling one of several classes: named where their labels are met, with the way out."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_remos.data.arrays import leaves, to_numpy
from keras_remos.errors import DataError

WAY_OUT = (
    "Students of other tasks are sliced here, not trained, attacked or measured: make one with "
    "RelevantSlicer(teacher).apply(data), which reads no labels, then compile and fit it yourself."
)


class OtherTaskError(DataError):
    """Labels are of another task than single-label classification."""


def refuse_other_tasks(labels: Any, where: str = "") -> None:
    """Makes sure that labels do not belong to a task that is not trained or measured here.

    What is wrong with labels in any other way is not looked at: too large, missing, no numbers.

    Args:
        labels: Of a data set or of a batch: an array, or a structure of several.
        where: See `other_task`.

    Raises:
        OtherTaskError: If each sample has several classes or none, a quantity, a class at every position, or several
            labels; says which.
    """
    received = None if labels is None else _several(labels) or _task_of(to_numpy(labels))
    if received is not None:
        raise other_task(received, where)


def other_task(received: str, where: str = "") -> OtherTaskError:
    """The error for labels of another task.

    Args:
        received: The labels in words, and of what task they are.
        where: Where they come from, to follow "labels y, one array of class ids".
    """
    return OtherTaskError(
        f"Expected labels y, one array of class ids (whole numbers, or one-hot rows){where and f' in {where}'}. "
        f"Received: {received}. {WAY_OUT}"
    )


def _several(labels: Any) -> str | None:
    if isinstance(labels, np.ndarray) and labels.dtype == object and not labels.ndim:
        labels = labels.item()  # what NumPy makes of a dict
    names = [path for path, leaf in leaves(labels) if path and np.ndim(leaf)]
    return several_outputs(names) if names else None


def several_outputs(names: Sequence[str]) -> str:
    """Several labels for each sample in words, by their names: for `other_task`."""
    return f"{len(names)} labels a sample ({', '.join(names[:5])}), as for several outputs"


def _task_of(y: np.ndarray) -> str | None:
    """What labels are of, if that is another task."""
    if y.dtype.kind not in "biuf" or not y.size or not np.isfinite(y).all():
        return None
    if y.ndim > 2:
        return f"a label at each of {' x '.join(map(str, y.shape[1:]))} positions, as in segmentation"
    whole = y == np.floor(y)
    if y.ndim == 2 and y.shape[1] > 1:
        rows = f"rows of {y.shape[1]} that are not one-hot"
        if np.isin(y, (0, 1)).all():
            is_one_hot = (y.sum(axis=1) == 1).all()
            return None if is_one_hot else f"{rows} but hold several 1s or none, as in multi-label classification"
        if (y >= 0).all() and np.allclose(y.sum(axis=1), 1, atol=1e-3):
            return f"{rows} but add up to 1, as of soft labels"
        return f"{rows}, as of {'tags of each position' if whole.all() else 'a regression'}"
    return None if whole.all() else f"{y[~whole][0]}, as of a regression"
