"""Functions of texts: what a classifier says, checked, and KerasHub models as classifiers and encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_remos.errors import DataError, RemosError, TeacherError
from keras_remos.models.gradients import compiled
from keras_remos.models.kernels import Tensor
from keras_remos.models.layers import symbolic_inputs, symbolic_outputs
from keras_remos.models.tokenizers import check_tokenizer, tokenize

# One text, or the two of a pair.
Text = str | tuple[str, str]
Predict = Callable[[Sequence[Text]], np.ndarray]
# Lengths in tokens are this, or twice, four times ... as much: each costs some backends a compilation.
SHORTEST = 16
# A batch that is filled up to this part of a full one at most is run as a batch of that size.
SMALL_BATCH = 8


class TextFunction:
    """A KerasHub model as a function of texts, which it tokenizes itself.

    Padding is cut off up to the longest text of a batch, and batches come in two sizes, so that little is computed in
    vain and little is compiled.

    Args:
        model: A task with its preprocessor, such as a text classifier. It is not modified.
        batch_size: How many texts the model gets at once.

    Raises:
        TeacherError: If the model brings no tokenizer.
        MismatchError: If its tokenizer knows more tokens than the model.
    """

    def __init__(self, model: keras.Model, batch_size: int = 64) -> None:
        check_tokenizer(model)
        if batch_size < 1:
            raise RemosError(f"`batch_size` must be a whole number of at least 1, received {batch_size!r}.")
        self.model = model
        self.batch_size = batch_size
        self._sizes = (max(batch_size // SMALL_BATCH, 1), batch_size)
        taken = _tensors(symbolic_inputs(model))
        self._any_length = bool(taken) and all(len(t.shape) == 2 and t.shape[1] is None for t in taken)
        self._run = compiled(self.of_tokens, model)

    @property
    def sequence_length(self) -> int | None:
        """How many tokens the model reads of a text at most, if its preprocessor says so."""
        length = getattr(self.model.preprocessor, "sequence_length", None)
        return None if length is None else int(length)

    def of_tokens(self, tokens: dict[str, Tensor]) -> Tensor:
        """The result for a batch of tokens, `(texts, columns)`: traced by the backend."""
        raise NotImplementedError

    def __call__(self, texts: Sequence[Text] | np.ndarray) -> np.ndarray:
        """The result for texts, or for pairs of texts: float32 of shape `(texts, columns)`."""
        starts = range(0, len(texts), self.batch_size)
        return np.concatenate([self._batch(texts[start : start + self.batch_size]) for start in starts])

    def _batch(self, texts: Sequence[Text] | np.ndarray) -> np.ndarray:
        tokens = self._cut(tokenize(self.model, np.array(texts)))
        size = min(size for size in self._sizes if size >= len(texts))
        filled = {
            name: np.concatenate([array, np.repeat(array[-1:], size - len(texts), axis=0)])
            for name, array in tokens.items()
        }
        return np.asarray(ops.convert_to_numpy(self._run(filled)), np.float32)[: len(texts)]

    def _cut(self, tokens: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if "padding_mask" not in tokens or not self._any_length:
            return tokens
        used = np.flatnonzero(tokens["padding_mask"].any(axis=0))
        length = SHORTEST
        while len(used) and length <= used[-1]:
            length *= 2
        return {name: array[:, :length] for name, array in tokens.items()}


class TextClassifier(TextFunction):
    """The probabilities that a KerasHub text classifier gives to its classes.

    Args:
        model: A text classifier with its preprocessor; its last activation is a softmax or none.
        batch_size: How many texts it gets at once.

    Raises:
        TeacherError: If the model is no text classifier.

    Example:
    ```python
    classify = TextClassifier(load_teacher("bert"))
    classify(["A fine film.", "A dull one."])           # (2, classes)
    ```
    """

    def __init__(self, model: keras.Model, batch_size: int = 64) -> None:
        super().__init__(model, batch_size)
        shapes = [tuple(tensor.shape) for tensor in _tensors(symbolic_outputs(model))]
        if len(shapes) != 1 or len(shapes[0]) != 2 or (shapes[0][1] or 0) < 2:
            raise TeacherError(
                f"Model {model.name!r} is no classifier: expected one output of shape (batch, classes) with two or "
                f"more classes, received {' and '.join(map(str, shapes)) or 'none'}. Give it a head with one output "
                "for each class."
            )
        activation = keras.activations.get(getattr(model, "activation", None))
        if activation not in (keras.activations.linear, keras.activations.softmax):
            raise TeacherError(
                f"Model {model.name!r} ends in {getattr(activation, '__name__', activation)}: expected logits (no "
                "activation) or a softmax."
            )
        self._is_softmax = activation is keras.activations.softmax
        self.num_classes: int = shapes[0][1]

    def of_tokens(self, tokens: dict[str, Tensor]) -> Tensor:
        outputs = ops.cast(self.model(tokens, training=False), "float32")
        return outputs if self._is_softmax else ops.softmax(outputs)


class TextEncoder(TextFunction):
    """A vector for each text: the mean of its tokens' last hidden states.

    Args:
        model: Any KerasHub task with a text backbone and a preprocessor.
        batch_size: How many texts it gets at once.

    Note:
        Sentence encoders such as MiniLM are trained for this mean; the pooled output of a BERT that is no sentence
        encoder says less about meaning.
    """

    def __init__(self, model: keras.Model, batch_size: int = 64) -> None:
        super().__init__(model, batch_size)
        self.name = f"TextEncoder({model.name})"

    def of_tokens(self, tokens: dict[str, Tensor]) -> Tensor:
        backbone: Any = self.model.backbone
        outputs = backbone(tokens, training=False)
        states = ops.cast(outputs["sequence_output"] if isinstance(outputs, dict) else outputs, "float32")
        mask = ops.cast(tokens["padding_mask"], "float32")[:, :, None]
        return ops.sum(states * mask, axis=1) / ops.maximum(ops.sum(mask, axis=1), 1.0)


def probabilities(predict: Predict, last_class: int, texts: Sequence[Text]) -> np.ndarray:
    """What a classifier says of a batch of texts, once it has been seen to be probabilities.

    Args:
        predict: The classifier.
        last_class: The largest label.
        texts: The batch.

    Raises:
        DataError: If it says something else, or knows fewer classes.
    """
    scores = np.asarray(predict(texts))
    sums = scores.sum(axis=-1) if scores.ndim == 2 and scores.dtype.kind == "f" else np.zeros(1)
    if len(scores) != len(texts) or scores.min() < 0 or not np.allclose(sums, 1, atol=1e-3):
        raise DataError(
            f"Expected probabilities of shape ({len(texts)}, classes) that add up to 1 for each text, received shape "
            f"{scores.shape} of {scores.dtype}. Put a softmax behind logits."
        )
    if scores.shape[1] <= last_class:
        raise DataError(
            f"The classifier tells {scores.shape[1]} classes apart, and there are labels up to {last_class}. Attack a "
            "classifier of this task."
        )
    return scores


def _tensors(structure: Any) -> list[Any]:
    return [] if structure is None else keras.tree.flatten(structure)
