"""One toy for every kind of layer that can be sliced, in a model that reads it: the layer, its head, nothing else."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras import layers as kl
from oracle import Site, neurons
from toys import fill, run

Axes = tuple[int, ...]
FIRST = "channels_first"


@dataclass(frozen=True)
class LayerToy:
    """A layer and the axes that index neurons in what it reads and writes.

    Args:
        make: Makes the layer.
        shape: Of one sample.
        reads: Axes of the input.
        writes: Axes of the output.
        kernel: The weight's name.
        path: The layer's path in the model.
        more: What other kernels see: `(layer, x, y)` to sites.
    """

    make: Callable[[], keras.Layer]
    shape: tuple[int, ...]
    reads: Axes = (-1,)
    writes: Axes = (-1,)
    kernel: str = "kernel"
    path: str = "layer"
    more: Callable[[Any, np.ndarray, np.ndarray], list[Site]] = field(default=lambda layer, x, y: [])

    @property
    def channels_first(self) -> bool:
        return self.reads == (1,)

    def build(self) -> keras.Model:
        x = keras.Input(self.shape)
        layer = self.make()
        h = kl.Flatten(name="flatten")(layer(x))
        return fill(keras.Model(x, kl.Dense(2, activation="softmax", name="head")(h)), seed=3)

    def sites(self, model: keras.Model, x: np.ndarray) -> list[Site]:
        layer = model.layers[1]
        y = run(layer, x)
        written = neurons(y, self.writes)
        return [Site(f"{self.path}/{self.kernel}", neurons(x, self.reads), written, written), *self.more(layer, x, y)]


def recurrent(layer: Any, x: np.ndarray, y: np.ndarray) -> list[Site]:
    """The recurrent kernel reads and writes the same neurons: the layer's units."""
    seen = neurons(y)
    return [Site("layer/recurrent_kernel", seen, seen, seen)]


@dataclass(frozen=True)
class Separable(LayerToy):
    """Between its two kernels it has neurons that it never shows: a depthwise layer of the same weights does."""

    def sites(self, model: keras.Model, x: np.ndarray) -> list[Site]:
        layer = model.layers[1]
        kind = kl.DepthwiseConv1D if isinstance(layer, kl.SeparableConv1D) else kl.DepthwiseConv2D
        first = kind(
            layer.kernel_size,
            strides=layer.strides,
            padding=layer.padding,
            dilation_rate=layer.dilation_rate,
            depth_multiplier=layer.depth_multiplier,
            data_format=layer.data_format,
            use_bias=False,
        )
        first.build(x.shape)
        first.kernel.assign(layer.depthwise_kernel)
        hidden = neurons(run(first, x), self.writes)
        output = neurons(run(layer, x), self.writes)
        return [
            Site("layer/depthwise_kernel", neurons(x, self.reads), hidden, hidden),
            Site("layer/pointwise_kernel", hidden, output, output),
        ]


@dataclass(frozen=True)
class TwoWay(LayerToy):
    """A bidirectional layer: its neurons are those of its two parts, not the merged output."""

    def sites(self, model: keras.Model, x: np.ndarray) -> list[Site]:
        layer = model.layers[1]
        found = []
        for part in (layer.forward_layer, layer.backward_layer):
            seen = neurons(run(part, x))
            found.append(Site(f"layer/{part.name}/kernel", neurons(x), seen, seen))
            found.append(Site(f"layer/{part.name}/recurrent_kernel", seen, seen, seen))
        return found


def two_way(make: Callable[[], keras.Layer], **options: Any) -> TwoWay:
    return TwoWay(lambda: kl.Bidirectional(make(), name="layer", **options), (4, 3))


def plain(kind: Any, *args: Any, shape: tuple[int, ...], **options: Any) -> LayerToy:
    """Neurons on the channel axis, wherever the data format puts it."""
    axes = (1,) if options.get("data_format") == FIRST else (-1,)
    return LayerToy(lambda: kind(*args, name="layer", **options), shape, axes, axes)


def separable(kind: Any, *args: Any, shape: tuple[int, ...], **options: Any) -> LayerToy:
    axes = (1,) if options.get("data_format") == FIRST else (-1,)
    return Separable(lambda: kind(*args, name="layer", **options), shape, axes, axes)


def rnn(kind: Any, **options: Any) -> LayerToy:
    return LayerToy(lambda: kind(4, name="layer", **options), (5, 3), more=recurrent)


def einsum(equation: str, output: Any, shape: tuple[int, ...], reads: Axes, writes: Axes) -> LayerToy:
    return LayerToy(lambda: kl.EinsumDense(equation, output, bias_axes=None, name="layer"), shape, reads, writes)


LAYER_TOYS: dict[str, LayerToy] = {
    "dense": plain(kl.Dense, 4, shape=(6,), activation="sigmoid"),
    "dense_on_sequence": plain(kl.Dense, 4, shape=(5, 3)),
    "conv1d": plain(kl.Conv1D, 4, 3, shape=(8, 3)),
    "conv1d_causal_dilated": plain(kl.Conv1D, 4, 3, padding="causal", dilation_rate=2, shape=(8, 3)),
    "conv1d_first": plain(kl.Conv1D, 4, 3, data_format=FIRST, shape=(3, 8)),
    "conv2d_strided": plain(kl.Conv2D, 4, 3, strides=2, padding="same", shape=(7, 5, 3)),
    "conv2d_dilated": plain(kl.Conv2D, 4, 2, dilation_rate=2, shape=(6, 6, 3)),
    "conv2d_grouped": plain(kl.Conv2D, 6, 3, groups=2, shape=(5, 5, 4)),
    "conv2d_first": plain(kl.Conv2D, 4, 3, data_format=FIRST, shape=(3, 6, 5)),
    "conv3d": plain(kl.Conv3D, 3, 2, shape=(4, 4, 3, 2)),
    "conv3d_first": plain(kl.Conv3D, 3, 2, data_format=FIRST, shape=(2, 4, 4, 3)),
    "conv1d_transpose": plain(kl.Conv1DTranspose, 4, 3, strides=2, shape=(5, 3)),
    "conv2d_transpose": plain(kl.Conv2DTranspose, 4, 3, strides=2, padding="same", shape=(4, 3, 3)),
    "conv2d_transpose_first": plain(kl.Conv2DTranspose, 4, 3, data_format=FIRST, shape=(3, 4, 4)),
    "conv3d_transpose": plain(kl.Conv3DTranspose, 2, 2, shape=(3, 3, 3, 2)),
    "depthwise1d": plain(kl.DepthwiseConv1D, 3, depth_multiplier=2, shape=(7, 3)),
    "depthwise2d": plain(kl.DepthwiseConv2D, 3, depth_multiplier=2, strides=2, shape=(7, 7, 3)),
    "depthwise2d_first": plain(kl.DepthwiseConv2D, 3, depth_multiplier=2, data_format=FIRST, shape=(3, 6, 6)),
    "separable1d": separable(kl.SeparableConv1D, 4, 3, depth_multiplier=2, shape=(7, 3)),
    "separable1d_strided": separable(kl.SeparableConv1D, 4, 3, strides=2, padding="same", shape=(7, 3)),
    "separable2d": separable(kl.SeparableConv2D, 4, 3, depth_multiplier=2, padding="same", shape=(6, 5, 3)),
    "separable2d_dilated": separable(kl.SeparableConv2D, 4, 2, dilation_rate=2, shape=(6, 6, 3)),
    "separable2d_first": separable(kl.SeparableConv2D, 4, 3, data_format=FIRST, shape=(3, 6, 6)),
    "lstm": rnn(kl.LSTM),
    "lstm_sequences": rnn(kl.LSTM, return_sequences=True),
    "lstm_backwards_unrolled": rnn(kl.LSTM, go_backwards=True, unroll=True),
    "gru": rnn(kl.GRU),
    "gru_sequences": rnn(kl.GRU, return_sequences=True, reset_after=False),
    "simple_rnn": rnn(kl.SimpleRNN),
    "simple_rnn_sequences": rnn(kl.SimpleRNN, return_sequences=True),
    "bidirectional_lstm": two_way(lambda: kl.LSTM(3)),
    "bidirectional_gru_sequences": two_way(lambda: kl.GRU(3, return_sequences=True), merge_mode="sum"),
    "bidirectional_rnn": two_way(lambda: kl.SimpleRNN(3, return_sequences=True)),
    "time_distributed_dense": LayerToy(
        lambda: kl.TimeDistributed(kl.Dense(4, name="inner"), name="layer"), (5, 3), path="layer/inner"
    ),
    "time_distributed_conv": LayerToy(
        lambda: kl.TimeDistributed(kl.Conv2D(3, 2, name="inner"), name="layer"), (3, 4, 4, 2), path="layer/inner"
    ),
    "einsum_plain": einsum("ab,bc->ac", 4, (6,), (-1,), (-1,)),
    "einsum_ellipsis": einsum("...x,xy->...y", 4, (5, 3), (-1,), (-1,)),
    "einsum_heads_out": einsum("abc,cde->abde", (5, 2, 3), (5, 4), (-1,), (-2, -1)),
    "einsum_heads_in": einsum("abcd,cde->abe", (5, 4), (5, 2, 3), (-2, -1), (-1,)),
    "einsum_reversed_letters": einsum("abc,dcb->ad", 4, (5, 3), (2, 1), (-1,)),
    "einsum_batch_letter": einsum("abc,bcd->abd", (5, 4), (5, 3), (1, 2), (1, 2)),
    "einsum_ellipsis_behind": einsum("ab...,bc->ac...", 4, (3, 5, 2), (1,), (1,)),
}
