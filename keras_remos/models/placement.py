"""Where in a forward pass the neurons on both sides of each kernel show.

Input neurons are read as the layer receives them. Output neurons are read where the network uses them: behind what
follows the layer and keeps the meaning of its channels, up to the next merge or weighted layer.

    conv ---> batch norm ---> ReLU ---> dropout ---> conv      the chain of the first conv
    ^ "output" reads here              ^ "activation" reads here

In a residual block of a network of ReLUs the chain of the last conv meets the merge before any activation:

    ... conv ---> batch norm --+
                 ^ read here,   +--> add ---> ReLU ---> ...
                   clamped at 0 |
    shortcut -------------------+

The ReLU behind the merge is read as if it stood before it (`Reading.relu`). Not so in a transformer, whose sums are
followed by a layer normalization, and not where any other nonlinearity is in use: there no sign says that a neuron is
off.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import keras

from keras_remos.models import layers as kinds
from keras_remos.models.kernels import Side, SliceableLayer, Tensor
from keras_remos.models.trace import Leading, Trace

NeuronSite = Literal["activation", "output"]


@dataclass(frozen=True)
class Reading:
    """One tensor to be read in a forward pass, and the neurons that it holds.

    Args:
        call: Which of the tapped calls, counted from 0.
        side: The call's input, its output, or the layer's hidden neurons.
        neuron_axes: The axes that index neurons in what `by_sample` returns. Empty for the tokens that enter an
            embedding.
        neurons: How many neurons that makes: the rows of the table for an embedding.
        leading: What axis 0 is in the pass.
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
    leading: Leading
    layer: str

    def by_sample(self, tensor: Tensor, samples: int) -> Tensor:
        """What was seen in a pass, with samples on axis 0: one that stands for all where it is the same for each."""
        if self.leading == "samples":
            return tensor
        return keras.ops.reshape(tensor, (samples if self.leading == "parts" else 1, -1, *keras.ops.shape(tensor)[1:]))


@dataclass
class Placement:
    """The readings of a model, each tensor once, and which of them show the neurons of which kernel.

    Args:
        readings: The tensors to read, in the order in which they appear.
        kernels: See `ReadingPlan`.
        layers: See `ReadingPlan`.
    """

    readings: list[Reading] = field(default_factory=list)
    kernels: dict[str, tuple[list[int], list[int]]] = field(default_factory=dict)
    layers: dict[str, SliceableLayer] = field(default_factory=dict)


def place_readings(trace: Trace, sliceable: dict[int, SliceableLayer], on: NeuronSite) -> Placement:
    """Finds where the neurons of each layer show.

    Args:
        trace: One forward pass.
        sliceable: The layers to be sliced, by the `id` of the Keras layer.
        on: `"activation"` or `"output"`: see above.
    """
    placement = Placement()
    readings = _Readings(placement.readings, trace)
    chains = {
        index: trace.follow(index, kinds.FOLLOWED if on == "activation" else ())
        for index, call in enumerate(trace.calls)
        if id(call.layer) in sliceable
    }
    clamps = on == "activation" and _only_relus(trace, chains)
    for index, chain in chains.items():
        found = sliceable[id(trace.calls[index].layer)]
        clamp = clamps and not trace.activations(chain) and trace.ends_at_merge(chain)
        for weight in found.weights:
            name = f"{found.path}/{weight.name}"
            placement.layers[name] = found
            inputs, outputs = placement.kernels.setdefault(name, ([], []))
            if found.table is not None:
                if not kinds.is_reverse_call(trace.calls[index].kwargs):
                    inputs.append(readings.place(index, "input", (), weight.view[0], found.path))
                continue
            reads, writes = (found.neuron_axes[side] for side in (weight.reads, weight.writes))
            neurons = math.prod(weight.view[axis] for axis in weight.input_axes)
            inputs.append(readings.place(index, weight.reads, reads, neurons, found.path))
            at, relu = (chain[-1], clamp) if weight.writes == "output" else (index, False)
            neurons = math.prod(weight.view[axis] for axis in weight.output_axes)
            outputs.append(readings.place(at, weight.writes, writes, neurons, found.path, relu=relu))
    return placement


def _only_relus(trace: Trace, chains: dict[int, list[int]]) -> bool:
    """Whether a model is a network of ReLUs and no transformer."""
    nonlinearities = {name for chain in chains.values() for name in trace.activations(chain)}
    if any(isinstance(call.layer, kinds.LAYER_NORMALIZATIONS) for call in trace.calls):
        return False
    return bool(nonlinearities) and nonlinearities <= kinds.RELUS


class _Readings:
    """Adds readings; one tensor is read once, at its first appearance, however many layers use it."""

    def __init__(self, readings: list[Reading], trace: Trace) -> None:
        self.readings = readings
        self.trace = trace
        self.known: dict[tuple[Any, ...], int] = {}

    def place(
        self, call: int, side: Side, axes: tuple[int, ...], neurons: int, layer: str, *, relu: bool = False
    ) -> int:
        """Where in the list a reading is, old or new."""
        seen = self.trace.calls[call]
        tensor = seen.outputs if side == "output" else seen.inputs
        key = (tensor.key, side == "hidden", tuple(axis % len(tensor.shape) for axis in axes), neurons, relu)
        if key not in self.known:
            self.known[key] = len(self.readings)
            nonnegative = side != "hidden" and self.trace.comes_from_relu(tensor)
            leading = self.trace.leading(tensor)
            if leading != "samples":
                axes = tuple(axis + (axis > 0) for axis in axes)
            self.readings.append(Reading(call, side, axes, neurons, relu, nonnegative, leading, layer))
        return self.known[key]
