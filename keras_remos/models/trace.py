"""One forward pass as a chain of layer calls: who makes and who takes which tensor. Nothing is computed."""

from dataclasses import dataclass
from typing import Any

import keras

from keras_remos.models import layers as kinds
from keras_remos.models.kernels import SliceableLayer, Tensor
from keras_remos.models.taps import capture


@dataclass(eq=False)
class Call:
    """One call of a tapped layer: its first input and output, and the keyword arguments."""

    layer: keras.Layer
    inputs: Tensor
    outputs: Tensor
    kwargs: dict[str, Any]


def trace_calls(model: keras.Model, taps: list[keras.Layer], example: Any) -> tuple[list[Call], list[Tensor]]:
    """Traces a forward pass without computing anything.

    Args:
        model: A built model.
        taps: The layers to listen to.
        example: A batch of inputs: a structure of arrays or symbolic tensors.

    Returns:
        The calls that it makes, in the order in which they end, and the tensors that it returns.
    """
    runs: list[tuple[list[Call], list[Tensor]]] = []

    class Probe(keras.Layer):
        def __init__(self) -> None:
            super().__init__(autocast=False)
            self.built = True

        def call(self, inputs: Any) -> Any:
            calls: list[Call] = []
            # The model is reached through the closure: a probe that held it would add to the model's life, and a
            # layer attribute would be tracked.
            with capture(taps, lambda *seen: calls.append(Call(*seen)), model=model):
                outputs = model(inputs, training=False)
            runs.append((calls, keras.tree.flatten(outputs)))
            return outputs

    def symbolic(array: Any) -> keras.KerasTensor:
        return keras.KerasTensor(array.shape, dtype=keras.backend.standardize_dtype(array.dtype))

    Probe()(keras.tree.map_structure(symbolic, example))
    return runs[-1]


class Trace:
    """Who makes and who takes which tensor in one forward pass."""

    def __init__(self, calls: list[Call], sliceable: dict[int, SliceableLayer]) -> None:
        self.calls = calls
        self.sliceable = sliceable
        self.consumers: dict[int, list[int]] = {}
        self.makers: dict[int, int] = {}
        for index, call in enumerate(calls):
            self.consumers.setdefault(id(call.inputs), []).append(index)
            # A dropout at rest returns what it was given: it made nothing. Of calls inside calls the inner one did.
            if call.outputs is not call.inputs:
                self.makers.setdefault(id(call.outputs), index)

    def follow(self, index: int, through: tuple[type, ...]) -> list[int]:
        """The calls that a call's output passes through, starting with the call itself."""
        chain = [index]
        while True:
            taken_by = self.consumers.get(id(self.calls[chain[-1]].outputs), [])
            following = next((i for i in taken_by if i > chain[-1] and self._is(i, through)), None)
            if following is None:
                return chain
            chain.append(following)

    def activations(self, chain: list[int]) -> list[str]:
        names = [kinds.activation_name(self.calls[index].layer) for index in chain]
        return [name for name in names if name is not None]

    def ends_at_merge(self, chain: list[int]) -> bool:
        """Whether the last tensor of a chain goes into a merge: a merging layer, or an operator no tap can see."""
        taken_by = [i for i in self.consumers.get(id(self.calls[chain[-1]].outputs), []) if i > chain[-1]]
        if not taken_by:
            # The unseen operator behind an einsum projection is the product of attention.
            return not isinstance(self.calls[chain[0]].layer, keras.layers.EinsumDense)
        return all(self._is(i, kinds.MERGES) for i in taken_by)

    def comes_from_relu(self, tensor: Tensor) -> bool:
        """Whether a ReLU made a tensor, but for padding and dropout."""
        while (index := self.makers.get(id(tensor))) is not None and self._is(index, kinds.KEEP_SIGNS):
            tensor = self.calls[index].inputs
        return index is not None and kinds.activation_name(self.calls[index].layer) in kinds.RELUS

    def _is(self, index: int, types: tuple[type, ...]) -> bool:
        return isinstance(self.calls[index].layer, types) and id(self.calls[index].layer) not in self.sliceable
