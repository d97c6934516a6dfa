"""One forward pass as a chain of layer calls: who makes and who takes which tensor. Nothing is computed."""

from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_remos.models import layers as kinds
from keras_remos.models.gradients import data_flow
from keras_remos.models.kernels import SliceableLayer, Tensor
from keras_remos.models.taps import capture


@dataclass(frozen=True)
class Passing:
    """A tensor of a forward pass.

    Args:
        key: The same for two tensors that differ in nothing but their type: a cast links as if it were not there.
        shape: Its shape, the batch included.
    """

    key: Any
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a tapped layer: its first input and output, and the keyword arguments."""

    layer: keras.Layer
    inputs: Passing
    outputs: Passing
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class Pass:
    """One forward pass.

    Args:
        calls: The calls of the tapped layers, in the order in which they end.
        outputs: The tensors that the model returns.
        sources: For the key of each tensor, layers' or not, the keys of those that it is computed from.
    """

    calls: list[Call]
    outputs: list[Passing]
    sources: Mapping[Any, set[Any]]

    def upstream(self, keys: Iterable[Any], *, stop: Container[Any] = ()) -> set[Any]:
        """The keys of some tensors and of all that they are computed from, no further back than those of `stop`."""
        passed: set[Any] = set()
        ahead = list(keys)
        while ahead:
            key = ahead.pop()
            if key not in passed:
                passed.add(key)
                ahead += () if key in stop else self.sources.get(key, ())
        return passed


def trace_pass(model: keras.Model, taps: list[keras.Layer], example: Any) -> Pass:
    """Traces a forward pass without computing anything.

    Args:
        model: A built model.
        taps: The layers to listen to.
        example: A batch of inputs: a structure of arrays or symbolic tensors.
    """
    runs: list[Pass] = []

    class Probe(keras.Layer):
        def __init__(self) -> None:
            super().__init__(autocast=False)
            self.built = True

        def call(self, inputs: Any) -> Any:
            seen: list[tuple[keras.Layer, tuple[int, ...], tuple[int, ...], dict[str, Any]]] = []
            returned: list[tuple[int, ...]] = []

            def run(x: Any, mark: Callable[[Tensor], Any]) -> None:
                seen.clear()
                returned.clear()

                def listen(layer: keras.Layer, entered: Tensor, left: Tensor, kwargs: dict[str, Any]) -> None:
                    mark(entered)
                    mark(left)
                    seen.append((layer, tuple(entered.shape), tuple(left.shape), kwargs))

                # The model is reached through the closure: a probe that held it would add to the model's life, and a
                # layer attribute would be tracked.
                with capture(taps, listen, model=model):
                    for tensor in keras.tree.flatten(model(x, training=False)):
                        mark(tensor)
                        returned.append(tuple(tensor.shape))

            keys, sources = data_flow(run, inputs)
            calls = [
                Call(layer, Passing(keys[2 * index], entered), Passing(keys[2 * index + 1], left), kwargs)
                for index, (layer, entered, left, kwargs) in enumerate(seen)
            ]
            outputs = [Passing(*pair) for pair in zip(keys[2 * len(calls) :], returned, strict=True)]
            runs.append(Pass(calls, outputs, sources))
            return inputs

    def symbolic(array: Any) -> keras.KerasTensor:
        return keras.KerasTensor(array.shape, dtype=keras.backend.standardize_dtype(array.dtype))

    Probe()(keras.tree.map_structure(symbolic, example))
    return runs[-1]


class Trace:
    """Who makes and who takes which tensor in one forward pass."""

    def __init__(self, calls: list[Call], sliceable: dict[int, SliceableLayer]) -> None:
        self.calls = calls
        self.sliceable = sliceable
        self.consumers: dict[Any, list[int]] = {}
        self.makers: dict[Any, int] = {}
        for index, call in enumerate(calls):
            self.consumers.setdefault(call.inputs.key, []).append(index)
            # A dropout at rest returns what it was given: it made nothing. Of calls inside calls the inner one did.
            if call.outputs.key != call.inputs.key:
                self.makers.setdefault(call.outputs.key, index)

    def follow(self, index: int, through: tuple[type, ...]) -> list[int]:
        """The calls that a call's output passes through, starting with the call itself."""
        chain = [index]
        while True:
            taken_by = self.consumers.get(self.calls[chain[-1]].outputs.key, [])
            following = next((i for i in taken_by if i > chain[-1] and self._is(i, through)), None)
            if following is None:
                return chain
            chain.append(following)

    def activations(self, chain: list[int]) -> list[str]:
        names = [kinds.activation_name(self.calls[index].layer) for index in chain]
        return [name for name in names if name is not None]

    def ends_at_merge(self, chain: list[int]) -> bool:
        """Whether the last tensor of a chain goes into a merge: a merging layer, or an operator no tap can see."""
        taken_by = [i for i in self.consumers.get(self.calls[chain[-1]].outputs.key, []) if i > chain[-1]]
        if not taken_by:
            # The unseen operator behind an einsum projection is the product of attention.
            return not isinstance(self.calls[chain[0]].layer, keras.layers.EinsumDense)
        return all(self._is(i, kinds.MERGES) for i in taken_by)

    def comes_from_relu(self, tensor: Passing) -> bool:
        """Whether a ReLU made a tensor, but for padding and dropout."""
        while (index := self.makers.get(tensor.key)) is not None and self._is(index, kinds.KEEP_SIGNS):
            tensor = self.calls[index].inputs
        return index is not None and kinds.activation_name(self.calls[index].layer) in kinds.RELUS

    def _is(self, index: int, types: tuple[type, ...]) -> bool:
        return isinstance(self.calls[index].layer, types) and id(self.calls[index].layer) not in self.sliceable
