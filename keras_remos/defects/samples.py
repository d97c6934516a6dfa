"""Checks of samples, labels and targets, before any work is done on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_remos.data.labels import check_largest_id
from keras_remos.data.pixels import PixelSpace
from keras_remos.data.samples import AnySamples
from keras_remos.errors import DataError
from keras_remos.models.layers import symbolic_inputs


def check_samples(
    model: keras.Model, space: PixelSpace, x: AnySamples, y: np.ndarray, class_names: Sequence[str]
) -> None:
    """Makes sure that samples fit a model, and labels the samples.

    Raises:
        DataError: If not; says what was expected.
    """
    space.check(x)
    taken = symbolic_inputs(model)
    wanted = None if taken is None else keras.tree.flatten(taken)[0].shape
    if wanted is not None and (
        len(wanted) != x.ndim or any(w not in (None, got) for w, got in zip(wanted[1:], x.shape[1:], strict=True))
    ):
        raise DataError(f"Model {model.name!r} takes batches of shape {tuple(wanted)}, the data have {x.shape}.")
    if y.shape != x.shape[:1] or y.dtype.kind not in "iu":
        raise DataError(
            f"Expected the class of each of {len(x)} samples as a whole number, received labels of shape {y.shape} and "
            f"type {y.dtype}."
        )
    check_largest_id(y)
    if y.min() < 0 or (class_names and y.max() >= len(class_names)):
        raise DataError(
            f"Labels range from {y.min()} to {y.max()}, and {len(class_names)} classes are named: expected 0 to "
            f"{len(class_names) - 1}."
        )


def check_classes(texts: np.ndarray, y: Any, class_names: Sequence[str] = ()) -> np.ndarray:
    """Makes sure that each text has a class, and one of those that are named if any are.

    Args:
        texts: As `as_texts` returns them.
        y: Their classes.
        class_names: May be empty.

    Returns:
        int32, shape `(n,)`.

    Raises:
        DataError: If not; says what was expected.
    """
    labels = np.asarray(y)
    if labels.shape != texts.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise DataError(
            f"Expected the class of each of {len(texts)} texts as a whole number from 0, received labels of shape "
            f"{labels.shape} and type {labels.dtype}."
        )
    check_largest_id(labels)
    if class_names and labels.max() >= len(class_names):
        raise DataError(
            f"There are labels up to {labels.max()}, and {len(class_names)} classes are named: expected labels from 0 "
            f"to {len(class_names) - 1}."
        )
    return labels.astype(np.int32)


def check_target(target: int, num_classes: int) -> None:
    """Makes sure that the attacker's data have the class that the attacker wants.

    Raises:
        DataError: If not.
    """
    if target >= num_classes:
        raise DataError(
            f"There is no target class {target}: the attacker's data have the classes 0 to {num_classes - 1}. Choose "
            "one of those."
        )
