"""One forward pass as a chain of layer calls: who makes and who takes which tensor. Nothing is computed."""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import keras

from keras_remos.errors import RemosError
from keras_remos.models import layers as kinds
from keras_remos.models.gradients import data_flow
from keras_remos.models.kernels import SliceableLayer, Tensor
from keras_remos.models.taps import capture

# The traced batch is of such a size: a prime that no other axis is a multiple of, so that the batch shows.
_BATCHES = (13, 17, 19, 23, 29, 31, 37, 41, 43, 47)

# Keras prints the last part of its errors in bold.
_COLOURS = re.compile(r"\x1b\[\d*m")

Leading = Literal["samples", "parts", "constant", "mixed"]
"""What axis 0 of a tensor is: the batch; the batch times some parts of each sample, one behind the other (windows,
frames); something else, the same for every batch, as the tensor is made of weights and shapes alone; or something that
mixes samples."""


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
    """One call of a tapped layer.

    Args:
        layer: The layer.
        inputs: The first tensor that it was given.
        outputs: The first that it returned.
        kwargs: The keyword arguments.
        within: The operation of Keras, such as `scan`, that made it within a function of its own; `None` where the
            model did. No tensor of it can leave that function.
    """

    layer: keras.Layer
    inputs: Passing
    outputs: Passing
    kwargs: dict[str, Any]
    within: str | None = None


@dataclass(frozen=True)
class Pass:
    """One forward pass.

    Args:
        calls: The calls of the tapped layers, in the order in which they end.
        inputs: The tensors that the model takes.
        outputs: The tensors that the model returns.
        sources: For the key of each tensor, layers' or not, the keys of those that it is computed from.
    """

    calls: list[Call]
    inputs: list[Passing]
    outputs: list[Passing]
    sources: Mapping[Any, set[Any]]

    def leading(self, tensor: Passing) -> Leading:
        """What axis 0 of a tensor is."""
        batch, size = self.inputs[0].shape[0], tensor.shape[0] if tensor.shape else 0
        if size == batch:
            return "samples"
        if size and batch > 1 and size % batch == 0:
            return "parts"
        if not self.upstream([tensor.key]) & {each.key for each in self.inputs}:
            return "constant"
        return "parts" if batch == 1 else "mixed"

    @property
    def out_of_sight(self) -> dict[int, str]:
        """The operation that calls it within itself, for each such layer by its `id`."""
        return {id(call.layer): call.within for call in self.calls if call.within is not None}

    def in_sight(self) -> Pass:
        """The same pass without the calls of layers that are out of sight."""
        hidden = self.out_of_sight
        return replace(self, calls=[call for call in self.calls if id(call.layer) not in hidden])

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


def at_guessed_sizes(model: keras.Model, done: str, run: Callable[[Any], Any]) -> Any:
    """What a function returns for symbolic inputs of the first guessed sizes that a model takes.

    Args:
        model: A built model.
        done: What it does with them, in words.
        run: The function.

    Raises:
        RemosError: If there are none, or the model was not built from symbolic inputs.
    """
    inputs = kinds.symbolic_inputs(model)
    if inputs is None:
        raise RemosError(f"{type(model).__name__} {model.name!r} has no symbolic inputs: pass a batch as example.")
    said: list[str] = []
    for sizes in kinds.GUESSED_SIZES:
        try:
            return run(kinds.symbolic_batch(inputs, sizes))
        except RemosError:
            raise
        except Exception as error:  # whatever a user's layers raise for a guessed size
            lines = [line.strip() for line in _COLOURS.sub("", str(error)).splitlines() if line.strip()]
            said.append(f"{type(error).__name__}: {lines[0] if lines else ''}")
    raise RemosError(
        f"Model {model.name!r} cannot be {done} without an example of its inputs ({said[0]}): pass a batch of them, or "
        "profile it on data."
    )


def trace_pass(model: keras.Model, taps: list[keras.Layer], example: Any) -> Pass:
    """Traces a forward pass without computing anything.

    Args:
        model: A built model.
        taps: The layers to listen to.
        example: A batch of inputs: a structure of arrays or symbolic tensors. Unless the model takes batches of one
            size only, it is traced with another number of samples, which shows where they are.
    """
    odd = _odd_batch(model, example)
    if odd is not None:
        try:
            return _trace(model, taps, example, odd)
        except Exception:  # whatever the layers of a model raise that takes one size only, and does not say so
            pass
    return _trace(model, taps, example, None)


def _trace(model: keras.Model, taps: list[keras.Layer], example: Any, batch: int | None) -> Pass:
    """See `trace_pass`: with so many samples, or as many as the example has."""
    runs: list[Pass] = []
    tapped = {id(layer) for layer in taps}
    lookups = [
        layer for _, layer in kinds.visible(model) if isinstance(layer, kinds.LOOKUPS) and id(layer) not in tapped
    ]

    class Probe(keras.Layer):
        def __init__(self) -> None:
            super().__init__(autocast=False)
            self.built = True

        def call(self, inputs: Any) -> Any:
            seen: list[tuple[keras.Layer, tuple[int, ...], tuple[int, ...], dict[str, Any], str | None]] = []
            returned: list[tuple[int, ...]] = []

            def run(x: Any, mark: Callable[[Tensor], Any]) -> None:
                seen.clear()
                returned.clear()

                def listen(layer: keras.Layer, entered: Tensor, left: Tensor, kwargs: dict[str, Any]) -> None:
                    if isinstance(layer, kinds.LOOKUPS) and left.shape[0] is None and hasattr(left, "set_shape"):
                        # Where TensorFlow splits strings it loses how many samples there are.
                        left.set_shape((entered.shape[0], *left.shape[1:]))
                    if id(layer) not in tapped:
                        return
                    mark(entered)
                    mark(left)
                    seen.append((layer, tuple(entered.shape), tuple(left.shape), kwargs, kinds.operation_around()))

                # The model is reached through the closure: a probe that held it would add to the model's life, and a
                # layer attribute would be tracked.
                for tensor in keras.tree.flatten(x):
                    mark(tensor)
                with capture([*taps, *lookups], listen, model=model):
                    for tensor in keras.tree.flatten(model(x, training=False)):
                        mark(tensor)
                        returned.append(tuple(tensor.shape))

            marked, sources = data_flow(run, inputs)
            keys = iter(marked)
            taken = [Passing(next(keys), tuple(tensor.shape)) for tensor in keras.tree.flatten(inputs)]
            calls = [
                Call(layer, Passing(next(keys), entered), Passing(next(keys), left), kwargs, within)
                for layer, entered, left, kwargs, within in seen
            ]
            outputs = [Passing(next(keys), shape) for shape in returned]
            runs.append(Pass(calls, taken, outputs, sources))
            return inputs

    def symbolic(array: Any) -> keras.KerasTensor:
        shape = array.shape if batch is None else (batch, *array.shape[1:])
        is_text = getattr(array.dtype, "kind", None) in ("O", "U", "S")
        return keras.KerasTensor(shape, dtype="string" if is_text else keras.backend.standardize_dtype(array.dtype))

    with kinds.unchanged_tensors(model):
        Probe()(keras.tree.map_structure(symbolic, example))
    return runs[-1]


def _odd_batch(model: keras.Model, example: Any) -> int | None:
    """How many samples to trace a model with: a number that is no axis by itself. `None`: as many as there are."""
    symbolic = keras.tree.flatten(kinds.symbolic_inputs(model))
    if any(tensor is not None and tensor.shape[0] is not None for tensor in symbolic):
        return None
    shapes = [array.shape[1:] for array in keras.tree.flatten(example)] + [weight.shape for weight in model.weights]
    sizes = {size for shape in shapes for size in shape if size is not None}
    return next((batch for batch in _BATCHES if all(size % batch for size in sizes)), None)


class Trace:
    """Who makes and who takes which tensor in one forward pass."""

    def __init__(self, seen: Pass, sliceable: dict[int, SliceableLayer]) -> None:
        calls = seen.calls
        self.calls = calls
        self.leading = seen.leading
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
