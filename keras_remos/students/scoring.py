"""The probabilities that a classifier gives to its classes, whatever it takes and however it ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import keras
import numpy as np
from keras import ops

from keras_remos.data.pixels import PREPROCESSOR, PixelSpace
from keras_remos.errors import RemosError
from keras_remos.evaluation.predictions import check_fits
from keras_remos.models.ends import applies_sigmoid
from keras_remos.models.gradients import compiled
from keras_remos.models.heads import returns_probabilities
from keras_remos.models.inputs import preprocessed, strings_as_tensors, takes_strings
from keras_remos.models.kernels import Tensor
from keras_remos.models.text_models import TextClassifier


class Scorer:
    """A classifier as a function of samples. Compiled once, asked as often as there are batches.

    Args:
        model: The classifier.
        name: What to call it in a message.
    """

    def __init__(self, model: keras.Model, name: str) -> None:
        self.model = model
        self.name = name
        self._reader: TextClassifier | None = None

    def __call__(self, x: np.ndarray, space: PixelSpace | None, size: int) -> np.ndarray:
        """Probabilities, float32 of shape `(n, classes)`.

        Args:
            x: Texts, strings of shape `(n,)`, pairs `(n, 2)`; or pixels, shape `(n, ...)`.
            space: How the model's inputs come from pixels; `None` for texts.
            size: Of a full batch: a smaller one is filled up, as one program is compiled for all.

        Raises:
            DataError: If they do not fit the model.
            RemosError: If the model is no classifier, or returns NaN.
        """
        if takes_strings(self.model):
            rows = x[:, np.newaxis] if x.ndim == 1 and len(self.model.inputs[0].shape) == 2 else x
            scores = self._probabilities(self.model(strings_as_tensors(rows), training=False))
        elif space is None:
            check_fits(self.model, x, PixelSpace(PREPROCESSOR), self.name)
            self._reader = self._reader or TextClassifier(self.model, size)
            scores = self._reader(x)
        else:
            check_fits(self.model, x, space, self.name)
            scores = self._of_pixels(x, space, size)
        if not np.isfinite(scores).all():
            raise RemosError(
                f"{self.name} returns NaN or infinity: it has diverged, or its inputs are scaled in another way. Check "
                "the scaling and the training."
            )
        return scores

    def _of_pixels(self, x: np.ndarray, space: PixelSpace, size: int) -> np.ndarray:
        rows = np.minimum(np.arange(max(size, len(x))), len(x) - 1)
        filled = x[rows].astype(np.float32)
        given = preprocessed(self.model, filled) if space.scaling == PREPROCESSOR else space.scale(filled)
        return self._probabilities(self._run(given))[: len(x)]

    @cached_property
    def _run(self) -> Callable[..., Tensor]:
        return compiled(lambda x: self.model(x, training=False), self.model)

    def _probabilities(self, outputs: Tensor) -> np.ndarray:
        scores = self._end(ops.cast(outputs, "float32"))
        return np.asarray(ops.convert_to_numpy(scores), np.float32)

    @cached_property
    def _end(self) -> Callable[[Tensor], Tensor]:
        return as_probabilities(self.model)


def as_probabilities(model: keras.Model) -> Callable[[Tensor], Tensor]:
    """What turns a classifier's outputs into probabilities: nothing where they are, a softmax where they are not.

    What ends in a sigmoid says yes or no of each class by itself: such probabilities stay, and do not add up to 1.
    """
    if applies_sigmoid(model) or returns_probabilities(model):
        return lambda outputs: outputs
    return lambda outputs: ops.softmax(outputs, axis=-1)
