"""How the axes of a kernel map to input and output neurons, for each kind of layer that can be sliced."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import keras
import numpy as np
from keras import layers as kl

from keras_remos.models.adapters import has_adapter

Tensor = Any
Side = Literal["input", "hidden", "output"]

CONVOLUTIONS = (kl.Conv1D, kl.Conv2D, kl.Conv3D)
TRANSPOSED_CONVOLUTIONS = (kl.Conv1DTranspose, kl.Conv2DTranspose, kl.Conv3DTranspose)
DEPTHWISE_CONVOLUTIONS = (kl.DepthwiseConv1D, kl.DepthwiseConv2D)
SEPARABLE_CONVOLUTIONS = (kl.SeparableConv1D, kl.SeparableConv2D)
RECURRENT_GATES = {kl.LSTM: 4, kl.GRU: 3, kl.SimpleRNN: 1}


@dataclass(frozen=True, eq=False)
class Kernel:
    """One weight of a layer and what its axes mean.

    Args:
        name: The weight's name in the layer, e.g. `"kernel"`.
        variable: The Keras variable.
        view: A shape with as many elements as the variable, in which the axes below are counted. It differs from
            the variable's own shape where one axis holds two things (groups and channels, gates and units).
        input_axes: Axes of `view` that index input neurons.
        output_axes: Axes of `view` that index output neurons. An axis may be in both (a depthwise channel).
            An axis in neither is a tap: all taps of a pair of neurons share its coverage.
        initializer: Makes fresh values for the weight: Keras' own, or a function of shape and type.
        reads: Where in the layer its input neurons are.
        writes: Where in the layer its output neurons are.
    """

    name: str
    variable: keras.Variable
    view: tuple[int, ...]
    input_axes: tuple[int, ...]
    output_axes: tuple[int, ...]
    initializer: keras.initializers.Initializer | Callable[..., Tensor]
    reads: Side = "input"
    writes: Side = "output"

    def fresh_values(self, seed: int) -> np.ndarray:
        """Values as the layer's own initializer draws them, with another seed: in the shape and type of the weight."""
        initializer = self.initializer
        if isinstance(initializer, keras.initializers.Initializer):
            # The layer's own object carries the layer's seed: two layers with one seed would get equal values.
            config = {**initializer.get_config()}
            if "seed" in config:
                config["seed"] = for_keras(seed)
            initializer = type(initializer).from_config(config)
        drawn = initializer(tuple(self.variable.shape), dtype=keras.config.floatx())
        return np.asarray(keras.ops.convert_to_numpy(drawn)).astype(self.variable.dtype)


@dataclass(frozen=True, eq=False)
class SliceableLayer:
    """A layer that can be sliced.

    Args:
        path: Where it is in the model: the names of the layers around it and its own, joined by `/`.
        layer: The Keras layer whose calls show its neurons.
        kernels: Its weights. Empty for an embedding.
        neuron_axes: For each side, the tensor's axes that index neurons, in the order of the kernel's axes.
            All axes but these and the batch axis 0 are positions.
        table: An embedding's table; its rows are tokens. `None` for every other layer.
        hidden: Computes the neurons between two kernels of one layer from its input.
    """

    path: str
    layer: keras.Layer
    kernels: tuple[Kernel, ...] = ()
    neuron_axes: dict[Side, tuple[int, ...]] = field(default_factory=dict)
    table: Kernel | None = None
    hidden: Callable[[Tensor], Tensor] | None = None

    @property
    def weights(self) -> tuple[Kernel, ...]:
        """Every weight that a slice may mask."""
        return self.kernels if self.table is None else (self.table,)


def describe(layer: keras.Layer, path: str = "") -> SliceableLayer | None:
    """What can be sliced in one layer, or `None`."""
    if layer.quantization_mode is not None or has_adapter(layer) or not layer.built:
        return None
    if layer._remat_mode is not None:
        return None
    how = next((how for kinds, how in _DESCRIPTIONS if isinstance(layer, kinds)), None)
    return how(path, layer) if how else None


def _channel_axes(layer: keras.Layer) -> dict[Side, tuple[int, ...]]:
    # Counted from the end, so that a wrapper may put axes in front.
    axis = (-1,) if layer.data_format == "channels_last" else (-(layer.rank + 1),)
    return {"input": axis, "hidden": axis, "output": axis}


def _describe_dense(path: str, layer: keras.layers.Dense) -> SliceableLayer:
    variable = layer._kernel
    kernel = Kernel("kernel", variable, tuple(variable.shape), (0,), (1,), initializer=layer.kernel_initializer)
    return SliceableLayer(path, layer, (kernel,), {"input": (-1,), "output": (-1,)})


def _describe_einsum_dense(path: str, layer: keras.layers.EinsumDense) -> SliceableLayer:
    variable = layer._kernel
    operands, result = layer.equation.replace(" ", "").replace("...", ".").split("->")
    inputs, letters = operands.split(",")

    def sides(spec: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        shared = [axis for axis, letter in enumerate(letters) if letter in spec]
        places = [spec.index(letters[axis]) for axis in shared]
        # An ellipsis stands for any number of axes: what is in front of it is counted from the front.
        ellipsis = spec.find(".")
        return tuple(shared), tuple(at if at < ellipsis else at - len(spec) for at in places)

    (input_axes, input_neurons), (output_axes, output_neurons) = sides(inputs), sides(result)
    kernel = Kernel(
        "kernel", variable, tuple(variable.shape), input_axes, output_axes, initializer=layer.kernel_initializer
    )
    return SliceableLayer(path, layer, (kernel,), {"input": input_neurons, "output": output_neurons})


def _describe_convolution(path: str, layer: Any) -> SliceableLayer:
    variable = layer._kernel
    *taps, inputs, outputs = variable.shape
    rank = len(taps)
    # Output channel o belongs to group o // (outputs / groups) and reads only that group's input channels.
    kernel = Kernel(
        "kernel",
        variable,
        (*taps, inputs, layer.groups, outputs // layer.groups),
        (rank + 1, rank),
        (rank + 1, rank + 2),
        initializer=layer.kernel_initializer,
    )
    return SliceableLayer(path, layer, (kernel,), _channel_axes(layer))


def _describe_transposed_convolution(path: str, layer: Any) -> SliceableLayer:
    return _describe_channels(path, layer, layer.kernel_initializer, inputs=(1,), outputs=(0,))


def _describe_depthwise_convolution(path: str, layer: Any) -> SliceableLayer:
    return _describe_channels(path, layer, layer.depthwise_initializer, inputs=(0,), outputs=(0, 1))


def _describe_channels(
    path: str, layer: Any, initializer: Any, *, inputs: tuple[int, ...], outputs: tuple[int, ...]
) -> SliceableLayer:
    """A convolution whose kernel is `(*taps, first, second)`, of which axes 0 and 1 are meant."""
    shape, rank = tuple(layer.kernel.shape), layer.rank
    sides = tuple(rank + axis for axis in inputs), tuple(rank + axis for axis in outputs)
    kernel = Kernel("kernel", layer.kernel, shape, *sides, initializer=initializer)
    return SliceableLayer(path, layer, (kernel,), _channel_axes(layer))


def _describe_separable_convolution(path: str, layer: Any) -> SliceableLayer:
    rank = layer.rank
    depthwise = Kernel(
        "depthwise_kernel",
        layer.depthwise_kernel,
        tuple(layer.depthwise_kernel.shape),
        (rank,),
        (rank, rank + 1),
        writes="hidden",
        initializer=layer.depthwise_initializer,
    )
    pointwise = Kernel(
        "pointwise_kernel",
        layer.pointwise_kernel,
        tuple(layer.pointwise_kernel.shape),
        (rank,),
        (rank + 1,),
        reads="hidden",
        initializer=layer.pointwise_initializer,
    )

    def hidden(inputs: Tensor) -> Tensor:
        return keras.ops.depthwise_conv(
            inputs,
            layer.depthwise_kernel,
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            data_format=layer.data_format,
        )

    return SliceableLayer(path, layer, (depthwise, pointwise), _channel_axes(layer), hidden=hidden)


def _describe_recurrent(path: str, layer: Any) -> SliceableLayer | None:
    gates = next(count for kind, count in RECURRENT_GATES.items() if isinstance(layer, kind))
    cell, units = layer.cell, layer.units
    if not cell.built:
        return None
    kernel = Kernel(
        "kernel",
        cell.kernel,
        (cell.kernel.shape[0], gates, units),
        (0,),
        (2,),
        initializer=cell.kernel_initializer,
    )
    recurrent = Kernel(
        "recurrent_kernel",
        cell.recurrent_kernel,
        (units, gates, units),
        (0,),
        (2,),
        reads="output",
        initializer=cell.recurrent_initializer,
    )
    return SliceableLayer(path, layer, (kernel, recurrent), {"input": (-1,), "output": (-1,)})


def _describe_embedding(path: str, layer: keras.layers.Embedding) -> SliceableLayer:
    variable = layer._embeddings
    table = Kernel("embeddings", variable, tuple(variable.shape), (0,), (1,), initializer=layer.embeddings_initializer)
    return SliceableLayer(path, layer, table=table)


_DESCRIPTIONS: list[tuple[Any, Callable[[str, Any], SliceableLayer | None]]] = [
    (kl.Embedding, _describe_embedding),
    (kl.Dense, _describe_dense),
    (kl.EinsumDense, _describe_einsum_dense),
    # The transposed and depthwise kinds are no subclasses of the plain ones.
    (CONVOLUTIONS, _describe_convolution),
    (TRANSPOSED_CONVOLUTIONS, _describe_transposed_convolution),
    (DEPTHWISE_CONVOLUTIONS, _describe_depthwise_convolution),
    (SEPARABLE_CONVOLUTIONS, _describe_separable_convolution),
    (tuple(RECURRENT_GATES), _describe_recurrent),
]


def for_keras(seed: int) -> int:
    """A seed as Keras' initializers take it on every backend: of 32 bits. What fits stays."""
    return seed if seed < 2**32 else int(np.random.SeedSequence(seed).generate_state(1)[0])


def reinitialize(layer: keras.Layer, seed: int) -> None:
    """Gives the kernels of a layer fresh values from its own initializers, if it is of a kind that can be sliced."""
    found = describe(layer)
    for kernel in found.kernels if found else ():
        kernel.variable.assign(kernel.fresh_values(seed))
