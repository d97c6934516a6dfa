"""What to read in a forward pass of a model, so that every neuron of a kernel that can be sliced is seen."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras

from keras_remos.errors import TeacherError
from keras_remos.models import layers as kinds
from keras_remos.models.heads import heads_in
from keras_remos.models.kernels import SliceableLayer, Tensor
from keras_remos.models.placement import NeuronSite, Reading, place_readings
from keras_remos.models.sliceable import find_sliceable, what_it_holds, wide_variables
from keras_remos.models.trace import Call, Pass, Trace, trace_pass


@dataclass(frozen=True)
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
    readings: list[Reading]
    kernels: dict[str, tuple[list[int], list[int]]]
    layers: dict[str, SliceableLayer]
    skipped: list[tuple[str, str]]
    heads: list[str]
    num_calls: int

    def neurons(self, reading: Reading, inputs: Tensor, outputs: Tensor, samples: int) -> Tensor:
        """The tensor of a reading, float32 and without its `relu`.

        Args:
            reading: One of the readings.
            inputs: What its call received.
            outputs: What its call returned.
            samples: How many there are in the batch.

        Returns:
            Shape `(samples, ...)`; `(1, ...)` where it is the same for every sample.
        """
        seen = outputs if reading.side == "output" else inputs
        if reading.side == "hidden":
            found = next(found for found in self.layers.values() if found.path == reading.layer and found.hidden)
            assert found.hidden is not None
            seen = found.hidden(inputs)
        return reading.by_sample(keras.ops.cast(seen, "float32"), samples)


def plan_readings(
    model: keras.Model,
    example: Any,
    *,
    on: NeuronSite = "activation",
    selected: Callable[[str, keras.Layer], bool] | None = None,
    head: str | None = None,
    may_be_empty: bool = False,
) -> ReadingPlan:
    """Traces one forward pass without computing anything and finds where the neurons of each layer show.

    Layers are linked by the tensor that one returns and the next receives, be it in another type.

    Args:
        model: A built model.
        example: A batch of its inputs: a structure of arrays, of which only shapes and dtypes are used.
        on: `"activation"` follows a layer's output through batch normalization, activation, padding and dropout up to
            the next merge or weighted layer; in a network of ReLUs only (and no transformer), a chain that meets no
            activation before a merge is read as if the ReLU behind the merge stood before it. `"output"` is what the
            layer returns.
        selected: Called with path and layer; `False` leaves the layer whole.
        head: The path of the layer that is the head; found where it is not given.
        may_be_empty: Whether a model will do in which nothing can be sliced.

    Raises:
        TeacherError: If the model has not been built, or nothing in it can be sliced.
        RemosError: If no layer has the path of the head.
    """
    if not kinds.is_built(model):
        raise TeacherError(
            f"Model {model.name!r} has no weights yet: it has not been built. Call it once on a batch of data "
            "(or give it an Input layer) before slicing it."
        )
    sliceable, skipped = find_sliceable(model)
    by_layer = {id(found.layer): found for found in sliceable}
    paths = {
        id(layer): path
        for path, layer in kinds.visible(model)
        if kinds.is_leaf(layer) or id(layer) in by_layer or kinds.holds_kernel(layer)
    }
    leaves = [layer for _, layer in kinds.visible(model) if id(layer) in paths]
    whole_pass = trace_pass(model, leaves, example)
    heads = heads_in(model, whole_pass, paths, head)
    seen, hidden = whole_pass.in_sight(), whole_pass.out_of_sight
    leaves = [layer for layer in leaves if id(layer) not in hidden]
    trace = Trace(seen, by_layer)
    left_whole = {}

    def mixes_samples(call: Call) -> bool:
        return any(seen.leading(tensor) == "mixed" for tensor in (call.inputs, call.outputs))

    called = {id(call.layer) for call in seen.calls}
    for found in sliceable:
        if any(f"{found.path}/".startswith(f"{head}/") for head in heads):
            left_whole[id(found)] = "head: replaced or kept as it is, never sliced"
            continue
        if selected is not None and not selected(found.path, found.layer):
            left_whole[id(found)] = "filtered"
        elif id(found.layer) in hidden:
            left_whole[id(found)] = f"called within ops.{hidden[id(found.layer)]}, out of sight"
        elif id(found.layer) not in called:
            left_whole[id(found)] = "never called when the model runs"
        elif any(call.layer is found.layer and kinds.is_tied_call(call.layer, call.kwargs) for call in seen.calls):
            left_whole[id(found)] = "tied: the table is the output projection too"
        elif any(call.layer is found.layer and mixes_samples(call) for call in seen.calls):
            left_whole[id(found)] = "axis 0 of what it sees is not the batch: samples cannot be told apart"
    calls = {paths[id(call.layer)]: call for call in seen.calls}
    skipped = [(path, (path in calls and _role(calls[path], seen, reason)) or reason) for path, reason in skipped]
    skipped = [*skipped, *((found.path, left_whole[id(found)]) for found in sliceable if id(found) in left_whole)]
    placement = place_readings(trace, {id(f.layer): f for f in sliceable if id(f) not in left_whole}, on)
    if not placement.kernels and not may_be_empty:
        reasons = "; ".join(f"{path}: {reason}" for path, reason in skipped[:5]) or "it holds no weights"
        raise TeacherError(f"Nothing in model {model.name!r} can be sliced ({reasons}).")
    return ReadingPlan(
        taps=leaves,
        readings=placement.readings,
        kernels=placement.kernels,
        layers=placement.layers,
        skipped=skipped,
        heads=heads,
        num_calls=len(seen.calls),
    )


def _role(call: Call, seen: Pass, reason: str) -> str | None:
    """What the weights of a layer are that is of no kind that is known, by one of its calls; `None` if that is open."""
    tables = wide_variables(call.layer)
    if not tables or reason != what_it_holds(call.layer):
        return None
    inputs = {tensor.key for tensor in seen.inputs}
    if not inputs & seen.upstream([call.outputs.key]):
        return "no kernel: what it returns is the same for every input, as of a table of positions"
    sample = call.outputs.shape[1:]
    if call.inputs.shape == call.outputs.shape and all(
        _without_ones(variable.shape) in (_without_ones(sample[axis:]) for axis in range(len(sample)))
        for variable in tables
    ):
        return "no kernel: it has a weight for each element of what it returns, as of a table of positions"
    return None


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(side for side in shape if side != 1)
