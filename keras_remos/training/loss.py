"""What every student is trained to lower, and its accuracy, of whichever labels come."""

from __future__ import annotations

from collections.abc import Callable

import keras
from keras import ops

from keras_remos.models.kernels import Tensor


def cross_entropy(label_smoothing: float, *, from_logits: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of every method: cross-entropy of class ids or one-hot rows.

    Args:
        label_smoothing: Share of each label that is spread over all classes.
        from_logits: Whether the student returns logits; else probabilities.

    Returns:
        From labels and what the student returns to a loss for each sample.
    """

    def of_batch(y_true: Tensor, y_pred: Tensor) -> Tensor:
        classes = y_pred.shape[-1]
        is_one_hot = _is_one_hot(y_true, y_pred)
        if not is_one_hot and not label_smoothing:
            return keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=from_logits)
        targets = y_true if is_one_hot else ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), classes)
        return keras.losses.categorical_crossentropy(
            targets, y_pred, from_logits=from_logits, label_smoothing=label_smoothing
        )

    return of_batch


def accuracy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """The metric: for each sample whether it is right, of class ids or one-hot rows.

    Keras' own settles on one of them by the first batch, and validation data may bring the other.
    """
    if _is_one_hot(y_true, y_pred):
        return keras.metrics.categorical_accuracy(y_true, y_pred)
    return keras.metrics.sparse_categorical_accuracy(y_true, y_pred)


def _is_one_hot(y_true: Tensor, y_pred: Tensor) -> bool:
    return len(y_true.shape) == 2 and y_true.shape[-1] == y_pred.shape[-1]
