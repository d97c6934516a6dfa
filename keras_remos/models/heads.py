"""Which layers of a model are its heads: the weights that make its outputs, never sliced, and replaced in a student."""

from __future__ import annotations

from typing import Any

import keras

from keras_remos.errors import RemosError
from keras_remos.models import layers as kinds
from keras_remos.models.kernels import SliceableLayer, Tensor
from keras_remos.models.trace import Trace, trace_calls

# What an axis of unknown size is taken for where no example is given.
_IMAGE_SIDE, _SEQUENCE_LENGTH = 64, 4


def heads_of(trace: Trace, outputs: list[Tensor]) -> list[SliceableLayer]:
    """The layers whose outputs are, but for activations, reshaping and pooling, what the model returns."""
    wanted = {id(tensor) for tensor in outputs if len(tensor.shape) == 2}
    found: dict[int, SliceableLayer] = {}
    for index, call in enumerate(trace.calls):
        layer = trace.sliceable.get(id(call.layer))
        if layer is not None and layer.table is None:
            chain = trace.follow(index, kinds.AFTER_HEAD)
            if any(id(trace.calls[i].outputs) in wanted for i in chain):
                found[id(layer)] = layer
    return list(found.values())


def find_heads(model: keras.Model, example: Any = None) -> tuple[str, ...]:
    """Finds the layers that make a model's outputs: what a student's head takes the place of.

    Args:
        model: A built model.
        example: See `find_features`.

    Returns:
        Their paths; none for a feature extractor.
    """
    return tuple(Forward(model, example).heads)


def returns_probabilities(model: keras.Model, example: Any = None) -> bool:
    """Whether a classifier ends in a softmax, and not in logits.

    Args:
        model: A built model.
        example: See `find_features`.
    """
    return "softmax" in Forward(model, example).behind_head()


class Forward:
    """The layer calls of one forward pass, up to the head.

    Args:
        model: A built model.
        example: A batch of its inputs, or `None` where it was built from symbolic ones.

    Attributes:
        trace: The whole pass.
        heads: Paths of the layers that make the model's outputs.
        calls: The calls before the first head's.
        paths: Of each layer that is called, by its `id`.
        channels_first: Whether the maps in the model have their channels on axis 1.

    Raises:
        RemosError: If the model cannot be traced without an example.
    """

    def __init__(self, model: keras.Model, example: Any) -> None:
        self.channels_first = kinds.is_channels_first(model)
        # A nested model only repeats what its last layer returns.
        taps = [(path, layer) for path, layer in kinds.visible(model) if not isinstance(layer, keras.Model)]
        self.paths = {id(layer): path for path, layer in taps}
        try:
            calls, outputs = trace_calls(model, [layer for _, layer in taps], _example(model, example))
        except Exception as error:  # whatever a user's layers raise for a guessed size
            if example is not None:
                raise
            raise RemosError(
                f"Model {model.name!r} cannot be traced without an example of its inputs "
                f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}): pass a batch of them."
            ) from error
        sliceable = {id(found.layer): found for found in kinds.find_sliceable(model)[0]}
        self.trace = Trace(calls, sliceable)
        found_heads = heads_of(self.trace, outputs)
        self.heads = [found.path for found in found_heads]
        heads = {id(found.layer) for found in found_heads}
        self.head_at = next((index for index, call in enumerate(calls) if id(call.layer) in heads), len(calls))
        self.calls = calls[: self.head_at]

    def behind_head(self) -> list[str]:
        """The nonlinearities between the head's weights and the model's output."""
        return self.trace.activations(self.trace.follow(self.head_at, kinds.AFTER_HEAD)) if self.heads else []


def _example(model: keras.Model, example: Any) -> Any:
    if example is not None:
        return example
    inputs = kinds.symbolic_inputs(model)
    if inputs is None:
        raise RemosError(f"{type(model).__name__} {model.name!r} has no symbolic inputs: pass a batch as example.")

    def sized(tensor: keras.KerasTensor) -> keras.KerasTensor:
        batch, *axes = tensor.shape
        unknown = _IMAGE_SIDE if len(axes) >= 3 else _SEQUENCE_LENGTH
        return keras.KerasTensor((batch or 2, *(axis or unknown for axis in axes)), dtype=tensor.dtype)

    return keras.tree.map_structure(sized, inputs)
