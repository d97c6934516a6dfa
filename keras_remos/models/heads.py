"""Which layers of a model are its heads: the weights that make its outputs, never sliced, and replaced in a student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_remos.models import layers as kinds
from keras_remos.models.ends import applies_softmax
from keras_remos.models.gradients import compiled
from keras_remos.models.sliceable import find_sliceable
from keras_remos.models.taps import layer_at
from keras_remos.models.trace import Call, Pass, Passing, Trace, at_guessed_sizes, trace_pass


def heads_of(seen: Pass, paths: Mapping[int, str]) -> list[str]:
    """The layers that make a model's outputs, but for operators and layers without a kernel.

    An output is followed back through whatever computes it, as far as the first kernels. They are heads, unless

    - one of them feeds another, as in a residual block: then the output is a sum of features;
    - a hidden nonlinearity, or for a map a normalization or a pooling, stands behind: what they return are features.
      (A convolution whose maps are pooled into a softmax is a head all the same.)

    Args:
        seen: A forward pass in which every layer of `paths` was tapped.
        paths: Of each layer by its `id`, outer layers first.

    Returns:
        Their paths, in the order in which they run. Where one layer wraps another, that of the outer one.
    """
    order = {id_: number for number, id_ in enumerate(paths)}
    kernels: dict[Any, Call] = {}
    for call in seen.calls:
        if kinds.holds_kernel(call.layer):
            known = kernels.get(call.outputs.key)
            if known is None or order[id(call.layer)] < order[id(known.layer)]:
                kernels[call.outputs.key] = call
    found: dict[str, None] = {}
    for output in seen.outputs:
        last, between = _last_kernels(seen, output, kernels)
        if not _feed_each_other(seen, last) and all(_is_head(call, output, between) for call in last):
            found.update(dict.fromkeys(paths[id(call.layer)] for call in last))
    return list(found)


def _last_kernels(seen: Pass, output: Passing, kernels: Mapping[Any, Call]) -> tuple[list[Call], list[keras.Layer]]:
    """The calls of the kernels that an output comes from without another in between, and the layers behind them."""
    passed = seen.upstream([output.key], stop=kernels)
    last = sorted((kernels[key] for key in passed & kernels.keys()), key=seen.calls.index)
    behind = [call.layer for call in seen.calls if call.outputs.key in passed and call.outputs.key not in kernels]
    return last, behind


def _feed_each_other(seen: Pass, calls: list[Call]) -> bool:
    keys = {call.outputs.key for call in calls}
    return any((keys - {key}) & seen.upstream(seen.sources.get(key, ())) for key in keys)


def _is_head(call: Call, output: Passing, behind: list[keras.Layer]) -> bool:
    """Whether a call of one of the last kernels makes class scores, and no features."""
    if isinstance(call.layer, (keras.layers.Embedding, keras.layers.RNN)):
        return False
    activations = {kinds.activation_name(_innermost(layer)) for layer in (call.layer, *behind)} - {None}
    if "softmax" in activations:
        return True
    if activations - kinds.ENDS:
        return False
    if len(call.outputs.shape) <= 2:
        return True
    positions = sum(size != 1 for size in call.outputs.shape[1:])
    if len(output.shape) <= 2 and positions > 1:
        return False
    return not any(isinstance(layer, (*kinds.NORMALIZATIONS, *kinds.POOLINGS)) for layer in behind)


def _innermost(layer: keras.Layer) -> keras.Layer:
    """The layer that wrappers are about: it applies the activation."""
    return _innermost(layer.layer) if isinstance(layer, keras.layers.Wrapper) else layer


def heads_in(model: keras.Model, seen: Pass, paths: Mapping[int, str], head: str | None) -> list[str]:
    """The head that somebody named, or else those that a pass shows. For the arguments see `heads_of`, `find_heads`."""
    return heads_of(seen, paths) if head is None else list(find_heads(model, head=head))


def find_heads(model: keras.Model, example: Any = None, *, head: str | None = None) -> tuple[str, ...]:
    """Finds the layers that make a model's outputs: what a student's head takes the place of.

    Args:
        model: A built model.
        example: See `find_features`.
        head: The path of the layer that is the head, where somebody said so.

    Returns:
        Their paths; none for a feature extractor.

    Raises:
        RemosError: If there is no layer of that path, or the model cannot be traced without an example.
    """
    if head is not None:
        layer_at(model, head)
        return (head,)
    return tuple(Forward(model, example).heads)


def returns_probabilities(model: keras.Model, example: Any = None) -> bool:
    """Whether a classifier returns probabilities, which are positive and add up to 1, and not logits.

    Args:
        model: A built model of one output.
        example: A batch of its inputs. Where it was built from symbolic ones, it may be left out.

    Raises:
        RemosError: If it cannot be run without an example.
    """
    known = applies_softmax(model)
    if known is not None:
        return known
    rng = np.random.default_rng(0)

    def values(tensor: Any) -> np.ndarray:
        if not isinstance(tensor, keras.KerasTensor):
            return tensor
        is_float = keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype))
        drawn = rng.normal(size=tensor.shape) if is_float else np.ones(tensor.shape)
        return drawn.astype(keras.backend.standardize_dtype(tensor.dtype) if not is_float else "float32")

    def run(given: Any) -> list[Any]:
        x = keras.tree.map_structure(values, given)
        return keras.tree.flatten(compiled(lambda x: model(x, training=False), model)(x))

    outputs = at_guessed_sizes(model, "run", run) if example is None else run(example)
    scores = keras.ops.convert_to_numpy(keras.ops.cast(outputs[0], "float32"))
    return len(outputs) == 1 and scores.ndim > 1 and scores.shape[-1] > 1 and are_probabilities(scores)


def are_probabilities(scores: np.ndarray) -> bool:
    """Whether rows of scores are positive and add up to 1, but for what half precision rounds off."""
    return bool(np.all(scores >= 0) and np.allclose(scores.sum(axis=-1), 1, atol=1e-2))


class Forward:
    """The layer calls of one forward pass, up to the head.

    Args:
        model: A built model.
        example: A batch of its inputs, or `None` where it was built from symbolic ones.
        head: The path of the layer that is the head, where somebody said so.

    Attributes:
        trace: The whole pass.
        heads: Paths of the layers that make the model's outputs.
        calls: The calls before the first head's.
        paths: Of each layer that is called, by its `id`.
        channels_first: Whether the maps in the model have their channels on axis 1.

    Raises:
        RemosError: If there is no layer of that path, or the model cannot be traced without an example.
    """

    def __init__(self, model: keras.Model, example: Any, *, head: str | None = None) -> None:
        self.channels_first = kinds.is_channels_first(model)
        # A nested model only repeats what its last layer returns.
        taps = [(path, layer) for path, layer in kinds.visible(model) if not isinstance(layer, keras.Model)]
        self.paths = {id(layer): path for path, layer in taps}

        def run(given: Any) -> Pass:
            return trace_pass(model, [layer for _, layer in taps], given)

        seen = at_guessed_sizes(model, "traced", run) if example is None else run(example)
        self.heads = heads_in(model, seen, self.paths, head)
        seen = seen.in_sight()
        self.trace = Trace(seen, {id(found.layer): found for found in find_sliceable(model)[0]})
        head_at = next(
            (index for index, call in enumerate(seen.calls) if self.paths[id(call.layer)] in self.heads),
            len(seen.calls),
        )
        self.calls = seen.calls[:head_at]
