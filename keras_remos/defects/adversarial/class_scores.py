"""What a classifier says of each class before a softmax rounds it away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_remos.errors import DataError
from keras_remos.models import layers as kinds
from keras_remos.models.gradients import compiled
from keras_remos.models.heads import are_probabilities
from keras_remos.models.kernels import Tensor
from keras_remos.models.taps import capture

# Far below what a float32 softmax gives to a class that is not the largest: only its zeros are kept from the logarithm.
TINY = 1e-30


class ClassScores:
    """Gives a classifier's logits: what enters its softmax, or what it returns where it has none.

    A softmax that is sure rounds to exactly 0 and 1, in half precision soon, and then has no gradient; its input has.

    Args:
        model: A built classifier that returns `(batch, classes)`.
        example: A batch of its inputs.

    Attributes:
        of_probabilities: Whether it returns probabilities and nothing that enters a softmax could be found: the scores
            are their logarithms, which differ from logits by the same for all classes, but only as far as they are
            not rounded to 0 and 1.

    Raises:
        DataError: If it does not return a number for each class.
    """

    def __init__(self, model: keras.Model, example: Any) -> None:
        self.model = model
        self._layer: keras.Layer | None = None
        layers = [layer for _, layer in kinds.visible(model) if not isinstance(layer, keras.Model)]
        order: list[int] = []

        def run(x: Any) -> tuple[Any, list[Tensor]]:
            with _before_activations(layers, model) as seen:
                outputs = model(x, training=False)
            check_scores(outputs)
            found = {key: tensor for key, tensor in seen.items() if tuple(tensor.shape) == tuple(outputs.shape)}
            order[:] = found
            return outputs, list(found.values())

        outputs, found = keras.tree.map_structure(_numpy, compiled(run, model)(example))
        self.of_probabilities = are_probabilities(outputs)
        if self.of_probabilities:
            by_id = {id(layer): layer for layer in layers}
            # The last one: a softmax forgets what is added to all classes, and several tensors may lead to one.
            enters = [key for key, scores in zip(order, found, strict=True) if _softmax_makes(scores, outputs)]
            self._layer = by_id[enters[-1]] if enters else None
            self.of_probabilities = self._layer is None

    def __call__(self, x: Any) -> Tensor:
        """The scores of a batch, `(batch, classes)`, float32: no more than what is added to all classes is open."""
        with _before_activations([] if self._layer is None else [self._layer], self.model) as seen:
            outputs = self.model(x, training=False)
        scores = ops.cast(outputs if self._layer is None else seen[id(self._layer)], "float32")
        # Not as Keras' own loss does: it cuts probabilities at 1e-7, beyond which the gradient would be 0.
        return ops.log(ops.maximum(scores, TINY)) if self.of_probabilities else scores


def check_scores(outputs: Any) -> None:
    """Makes sure that a model returns class scores.

    Args:
        outputs: What it returns, or would: a tensor or a structure of some.

    Raises:
        DataError: If it does not return a number for each class.
    """
    shapes = [tuple(tensor.shape) for tensor in keras.tree.flatten(outputs)]
    if len(shapes) != 1 or len(shapes[0]) != 2 or shapes[0][1] < 2:
        received = f"shape {shapes[0]}" if len(shapes) == 1 else f"{len(shapes)} outputs"
        raise DataError(
            "Cross-entropy needs a classifier that returns a number for each class: (batch, classes). Received: "
            f"{received}. Give the attacker data (`attacker_data`) of the students' classes: the copy that is trained "
            "on them gets a head."
        )


@contextmanager
def _before_activations(layers: list[keras.Layer], model: keras.Model) -> Iterator[dict[int, Tensor]]:
    """Collects by their ids what layers return, or would without their own activation: the last to be called last.

    Of a layer that returns several tensors it is the first.
    """
    seen: dict[int, Tensor] = {}
    own = {id(layer): activation for layer in layers if (activation := _own_activation(layer)) is not None}

    def keep(layer: keras.Layer, tensor: Tensor) -> None:
        seen.pop(id(layer), None)
        seen[id(layer)] = tensor

    def listen(layer: keras.Layer, entered: Tensor, left: Tensor, kwargs: dict[str, Any]) -> None:
        if id(layer) not in own:
            keep(layer, entered if isinstance(layer, keras.layers.Softmax) else left)

    def watched(layer: keras.Layer, activation: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def activate(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            keep(layer, x)
            return activation(x, *args, **kwargs)

        return activate

    watchable = [layer for layer in layers if id(layer) in own]
    try:
        for layer in watchable:
            vars(layer)["activation"] = watched(layer, own[id(layer)])
        with capture(layers, listen, model=model):
            yield seen
    finally:
        for layer in watchable:
            vars(layer)["activation"] = own[id(layer)]


def _own_activation(layer: keras.Layer) -> Callable[..., Tensor] | None:
    """The function that a layer applies last. One that is a layer shows itself."""
    activation = vars(layer).get("activation")
    return activation if callable(activation) and not isinstance(activation, keras.Layer) else None


def _numpy(tensor: Tensor) -> np.ndarray:
    return ops.convert_to_numpy(ops.cast(tensor, "float32")).astype(np.float64)


def _softmax_makes(scores: np.ndarray, probabilities: np.ndarray) -> bool:
    """Whether probabilities are the softmax of scores, but for what half precision rounds off."""
    if not np.isfinite(scores).all() or are_probabilities(scores):
        return False
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.allclose(exponentials / exponentials.sum(axis=-1, keepdims=True), probabilities, rtol=0.1, atol=1e-4)
