"""Parts of a data set that are set aside: to tune on, or for an attacker."""

from __future__ import annotations

from typing import Any

import numpy as np

from keras_remos.data.arrays import kind_of, map_arrays
from keras_remos.data.datasets import Dataset
from keras_remos.data.streams import as_arrays, is_array_data
from keras_remos.errors import DataError, RemosError
from keras_remos.untrusted import check_seed


def can_be_parted(data: Any, share: float) -> bool:
    """Whether `set_aside` can part the data: arrays or a `Dataset`, with labels, and samples for two parts."""
    if isinstance(data, Dataset):
        return data.labels is not None and _for_two(_chosen(data.labels, share, 0))
    if not (isinstance(data, tuple) and is_array_data(data)):
        return False
    y = as_arrays(data)[1]
    return isinstance(y, np.ndarray) and _for_two(_chosen(_ids(y), share, 0))


def set_aside(data: Any, share: float, *, seed: int) -> tuple[Any, Any]:
    """Parts data in two, class by class.

    Args:
        data: Arrays `(x, y)` or `(x, y, sample_weight)`, or a `Dataset` with labels.
        share: How much is set aside, above 0 and below 1: of every class the same, as far as whole samples go. A class
            of two or more samples is in both parts.
        seed: Decides which samples.

    Returns:
        `(rest, aside)`, in the form of the data.

    Raises:
        RemosError: If the share or the seed is out of range.
        DataError: If the data have no labels or cannot be parted, or one part would be empty.
    """
    if not 0 < share < 1:
        raise RemosError(f"`share` must be above 0 and below 1, received {share!r}.")
    check_seed(seed)
    if isinstance(data, Dataset):
        if data.labels is None:
            raise DataError(f"{data.description}: there are no labels, by which to set a part aside.")
        chosen = _checked(_chosen(data.labels, share, seed), share)
        return data.part(np.flatnonzero(~chosen), "the rest of"), data.part(np.flatnonzero(chosen), "a part of")
    if not (isinstance(data, tuple) and is_array_data(data)):
        raise DataError(
            f"A part can be set aside of arrays (x, y) and of a Dataset. Received: {kind_of(data)}. Part the data "
            "yourself and pass both."
        )
    parts = as_arrays(data)
    if parts[1] is None or not isinstance(parts[1], np.ndarray):
        raise DataError("Expected labels y, one array of class ids, by which to set a part aside. Received: none.")
    chosen = _checked(_chosen(_ids(parts[1]), share, seed), share)

    def taken(rows: np.ndarray) -> Any:
        return tuple(part for part in map_arrays(lambda leaf: leaf[rows], parts) if part is not None)

    return taken(np.flatnonzero(~chosen)), taken(np.flatnonzero(chosen))


def _chosen(labels: np.ndarray, share: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng([seed, len(labels)])
    chosen = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        count = round(share * len(rows))
        if len(rows) > 1:
            count = min(max(count, 1), len(rows) - 1)
        chosen[rows[:count]] = True
    return chosen


def _ids(y: np.ndarray) -> np.ndarray:
    return y.argmax(axis=1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(-1)


def _for_two(chosen: np.ndarray) -> bool:
    return bool(chosen.any() and not chosen.all())


def _checked(chosen: np.ndarray, share: float) -> np.ndarray:
    if not _for_two(chosen):
        raise DataError(
            f"Expected samples for two parts. Received: {len(chosen)}, too few to set {share:g} of each class aside. "
            "Take two or more of a class, or part the data yourself and pass both."
        )
    return chosen
