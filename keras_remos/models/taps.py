"""Taps on the calls of layers in any Keras model, and where in a forward pass each neuron is to be read.

A submodel (`keras.Model(inputs, layer.output)`) cannot look inside composite, nested or subclassed layers. A tap sits
on the call of the layer object itself, so it sees every one, also while a backend traces or compiles the model.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Literal

import keras

from keras_remos import layers as kinds
from keras_remos.errors import TeacherError
from keras_remos.kernels import Side, SliceableLayer, Tensor

NeuronSite = Literal["activation", "output"]
Listener = Callable[[keras.Layer, Tensor, Tensor, dict[str, Any]], Any]


@contextmanager
def capture(layers: Iterable[keras.Layer], listener: Listener, *, model: keras.Model | None = None) -> Iterator[None]:
    """Calls `listener(layer, inputs, outputs, kwargs)` after every call of the given layers.

    `inputs` is the call's first tensor and `outputs` the first tensor that it returns. The listener runs inside
    whatever the backend is doing at that moment (tracing, compiling, running): what it computes must be returned
    through the traced function, never kept. What it returns, unless that is `None`, takes the place of `outputs`.

    Args:
        layers: The layer objects to listen to. A call by `layer(...)` or `layer.call(...)` is seen.
        listener: Called in the order in which the calls end.
        model: The model that is run. Needed for the two parts of a `Bidirectional` layer: on a GPU Keras runs them as
            one and calls neither, but inside this capture it calls both.

    Raises:
        RuntimeError: If one of the layers is being captured already.

    Example:
    ```python
    with capture([model.get_layer("conv1")], lambda layer, x, y, kwargs: print(layer.name, y.shape)):
        model(images, training=False)
    ```
    """
    tapped: list[keras.Layer] = []
    try:
        for layer in layers:
            if "call" in vars(layer):
                raise RuntimeError(f"Layer {layer.name!r} is being captured already: captures cannot be nested.")
            vars(layer)["call"] = _tapped_call(layer, listener)
            tapped.append(layer)
        with nullcontext() if model is None else kinds.unfused(model):
            yield
    finally:
        for layer in tapped:
            del vars(layer)["call"]


def _tapped_call(layer: keras.Layer, listener: Listener) -> Callable[..., Any]:
    call = layer.call

    def tapped(*args: Any, **kwargs: Any) -> Any:
        outputs = call(*args, **kwargs)
        tensors = keras.tree.flatten(args) or keras.tree.flatten(kwargs)
        first, *others = keras.tree.flatten(outputs)
        replacement = listener(layer, tensors[0], first, kwargs)
        if replacement is None:
            return outputs
        return keras.tree.pack_sequence_as(outputs, [replacement, *others])

    return tapped


@contextmanager
def substitute(layer: keras.Layer, replacement: Callable[[Any], Any]) -> Iterator[None]:
    """Gives a layer's callers something else than what it returns.

    Args:
        layer: The layer.
        replacement: Called with what the layer returns; its result takes the place of that.

    Raises:
        RuntimeError: If the layer is being captured already.
    """
    if "call" in vars(layer):
        raise RuntimeError(f"Layer {layer.name!r} is being captured already: captures cannot be nested.")
    call = layer.call
    vars(layer)["call"] = lambda *args, **kwargs: replacement(call(*args, **kwargs))
    try:
        yield
    finally:
        del vars(layer)["call"]


@dataclass(frozen=True)
class Reading:
    """One tensor to be read in a forward pass, and the neurons that it holds.

    Args:
        call: Which of the tapped calls, counted from 0.
        side: The call's input, its output, or the layer's hidden neurons.
        neuron_axes: The tensor's axes that index neurons. Empty for the tokens that enter an embedding.
        neurons: How many neurons that makes: the rows of the table for an embedding.
        relu: Read the tensor as if a ReLU followed.
        nonnegative: Nothing in it is ever below 0: it comes from a ReLU.
        layer: The path of the first layer that uses the reading: for messages.
    """

    call: int
    side: Side
    neuron_axes: tuple[int, ...]
    neurons: int
    relu: bool
    nonnegative: bool
    layer: str


@dataclass
class ReadingPlan:
    """What to read in a forward pass of a model, for every weight that can be sliced.

    Args:
        taps: The layers to listen to.
        readings: The tensors to read, in the order in which they appear.
        kernels: For each kernel, in the order in which they first run, the readings of its input neurons and of its
            output neurons (positions in `readings`): one of each for every time that the layer is called.
        layers: The layer that each kernel belongs to.
        skipped: `(path, reason)` for every layer with weights that is left whole.
        heads: Paths of the layers that make the model's outputs.
        num_calls: How many calls of the taps a forward pass makes.
    """

    taps: list[keras.Layer]
    readings: list[Reading] = field(default_factory=list)
    kernels: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)
    layers: dict[str, SliceableLayer] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    num_calls: int = 0

    def neurons(self, reading: Reading, inputs: Tensor, outputs: Tensor) -> Tensor:
        """The tensor of a reading, float32 and without its `relu`, from what its call received and what it returned."""
        seen = outputs if reading.side == "output" else inputs
        if reading.side == "hidden":
            found = next(found for found in self.layers.values() if found.path == reading.layer and found.hidden)
            assert found.hidden is not None
            seen = found.hidden(inputs)
        return keras.ops.cast(seen, "float32")


@dataclass(eq=False)
class Call:
    """One call of a tapped layer: its first input and output, and the keyword arguments."""

    layer: keras.Layer
    inputs: Tensor
    outputs: Tensor
    kwargs: dict[str, Any]


def plan_readings(
    model: keras.Model,
    example: Any,
    *,
    on: NeuronSite = "activation",
    selected: Callable[[str, keras.Layer], bool] | None = None,
) -> ReadingPlan:
    """Traces one forward pass without computing anything and finds where the neurons of each layer show.

    Layers are linked by the identity of the tensor that one returns and the next receives.

    Args:
        model: A built model.
        example: A batch of its inputs: a structure of arrays, of which only shapes and dtypes are used.
        on: `"activation"` follows a layer's output through batch normalization, activation, padding and dropout up to
            the next merge or weighted layer; in a network of ReLUs only (and no transformer), a chain that meets no
            activation before a merge is read as if the ReLU behind the merge stood before it. `"output"` is what the
            layer returns.
        selected: Called with path and layer; `False` leaves the layer whole.

    Raises:
        TeacherError: If the model has not been built, or nothing in it can be sliced.
    """
    if not kinds.is_built(model):
        raise TeacherError(
            f"Model {model.name!r} has no weights yet: it has not been built. Call it once on a batch of data "
            "(or give it an Input layer) before slicing it."
        )
    sliceable, skipped = kinds.find_sliceable(model)
    by_layer = {id(found.layer): found for found in sliceable}
    leaves = [layer for _, layer in kinds.visible(model) if kinds.is_leaf(layer) or id(layer) in by_layer]
    calls, outputs = trace_calls(model, leaves, example)
    plan = ReadingPlan(taps=leaves, skipped=list(skipped), num_calls=len(calls))
    trace = Trace(calls, by_layer)
    heads = trace.heads(outputs)
    reject = {id(found): "head: replaced or kept as it is, never sliced" for found in heads}
    plan.heads = [found.path for found in heads]
    called = {id(call.layer) for call in calls}
    for found in sliceable:
        if id(found) in reject:
            continue
        if selected is not None and not selected(found.path, found.layer):
            reject[id(found)] = "filtered"
        elif id(found.layer) not in called:
            reject[id(found)] = "never called when the model runs"
        elif any(call.layer is found.layer and kinds.is_tied_call(call.layer, call.kwargs) for call in calls):
            reject[id(found)] = "tied: the table is the output projection too"
    plan.skipped += [(found.path, reject[id(found)]) for found in sliceable if id(found) in reject]
    _place_readings(plan, trace, {id(f.layer): f for f in sliceable if id(f) not in reject}, on)
    if not plan.kernels:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in plan.skipped[:5]) or "it holds no weights"
        raise TeacherError(f"Nothing in model {model.name!r} can be sliced ({reasons}).")
    return plan


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

    def heads(self, outputs: list[Tensor]) -> list[SliceableLayer]:
        """The layers whose outputs are, but for activations, reshaping and pooling, what the model returns."""
        wanted = {id(tensor) for tensor in outputs if len(tensor.shape) == 2}
        found: dict[int, SliceableLayer] = {}
        for index, call in enumerate(self.calls):
            layer = self.sliceable.get(id(call.layer))
            if layer is not None and layer.table is None:
                chain = self.follow(index, kinds.AFTER_HEAD)
                if any(id(self.calls[i].outputs) in wanted for i in chain):
                    found[id(layer)] = layer
        return list(found.values())

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


def _place_readings(plan: ReadingPlan, trace: Trace, sliceable: dict[int, SliceableLayer], on: NeuronSite) -> None:
    chains = {
        index: trace.follow(index, kinds.FOLLOWED if on == "activation" else ())
        for index, call in enumerate(trace.calls)
        if id(call.layer) in sliceable
    }
    nonlinearities = {name for chain in chains.values() for name in trace.activations(chain)}
    # Behind the sums of a transformer stands a layer normalization, no ReLU.
    is_transformer = any(isinstance(call.layer, kinds.LAYER_NORMALIZATIONS) for call in trace.calls)
    only_relu = bool(nonlinearities) and nonlinearities <= kinds.RELUS and not is_transformer
    readings = _Readings(plan, trace)
    for index, chain in chains.items():
        found = sliceable[id(trace.calls[index].layer)]
        relu = on == "activation" and only_relu and not trace.activations(chain) and trace.ends_at_merge(chain)
        for weight in found.weights:
            name = f"{found.path}/{weight.name}"
            plan.layers[name] = found
            inputs, outputs = plan.kernels.setdefault(name, ([], []))
            if found.table is not None:
                if not kinds.is_reverse_call(trace.calls[index].kwargs):
                    inputs.append(readings.place(index, "input", (), weight.view[0], found.path))
                continue
            reads, writes = (found.neuron_axes[side] for side in (weight.reads, weight.writes))
            neurons = math.prod(weight.view[axis] for axis in weight.input_axes)
            inputs.append(readings.place(index, weight.reads, reads, neurons, found.path))
            # What a layer writes is read where the network uses it.
            at, clamp = (chain[-1], relu) if weight.writes == "output" else (index, False)
            neurons = math.prod(weight.view[axis] for axis in weight.output_axes)
            outputs.append(readings.place(at, weight.writes, writes, neurons, found.path, relu=clamp))


class _Readings:
    """Adds readings to a plan; one tensor is read once, at its first appearance, however many layers use it."""

    def __init__(self, plan: ReadingPlan, trace: Trace) -> None:
        self.plan = plan
        self.trace = trace
        self.known: dict[tuple[Any, ...], int] = {}

    def place(
        self, call: int, side: Side, axes: tuple[int, ...], neurons: int, layer: str, *, relu: bool = False
    ) -> int:
        seen = self.trace.calls[call]
        tensor = seen.outputs if side == "output" else seen.inputs
        key = (id(tensor), side == "hidden", tuple(axis % len(tensor.shape) for axis in axes), neurons, relu)
        if key not in self.known:
            self.known[key] = len(self.plan.readings)
            nonnegative = side != "hidden" and self.trace.comes_from_relu(tensor)
            self.plan.readings.append(Reading(call, side, axes, neurons, relu, nonnegative, layer))
        return self.known[key]
