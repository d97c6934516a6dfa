"""A tensor of activations, seen as samples x positions x neurons, and what criteria ask of it.

Everything here runs on the device and under any backend's tracing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import keras
from keras import ops

from keras_remos.coverage.per_backend import at_a_time, sum_of_samples, sum_over
from keras_remos.models.kernels import Tensor

Positions = int | Tensor
"""How many positions count: of every sample so many, or of each, shape `(batch,)`, int32."""


class Padding:
    """Which positions of a batch of sequences count. What follows from that is worked out once for all their tensors.

    Args:
        mask: Shape `(batch, length)`, boolean: `False` where a position is padding.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        self._weights: dict[str, Tensor] = {}
        self._divisors: dict[str, Tensor] = {}
        self._factors: dict[tuple[str, float], Tensor] = {}

    @cached_property
    def lengths(self) -> Tensor:
        """How many positions of each sample count, shape `(batch,)`, int32."""
        return ops.sum(ops.cast(self.mask, "int32"), axis=1)

    def weights(self, dtype: str) -> Tensor:
        """The mask as a factor of sequences, shape `(batch, 1, length)`."""
        if dtype not in self._weights:
            self._weights[dtype] = ops.cast(self.mask, dtype)[:, None]
        return self._weights[dtype]

    def divisor(self, dtype: str) -> Tensor:
        """What turns a sum over a sample's positions into their mean, shape `(batch, 1)`; 1 if there are none."""
        if dtype not in self._divisors:
            self._divisors[dtype] = ops.cast(ops.maximum(self.lengths, 1), dtype)[:, None]
        return self._divisors[dtype]

    def factor(self, dtype: str, share: float) -> Tensor:
        """What turns it into a share of their mean."""
        if (dtype, share) not in self._factors:
            self._factors[dtype, share] = share / self.divisor(dtype)
        return self._factors[dtype, share]

    def along(self, tensor: Tensor) -> Tensor:
        """The mask, shaped to be broadcast to a tensor `(batch, length, ...)`."""
        return self.mask[(..., *[None] * (len(tensor.shape) - 2))]

    def __getitem__(self, samples: slice) -> Padding:
        return Padding(self.mask[samples])


@dataclass(frozen=True)
class Activations:
    """One tensor of activations, seen as samples x positions x neurons.

    Args:
        tensor: Shape `(batch, ...)`, any float dtype.
        neuron_axes: The axes that index neurons, in the order in which they are wanted. All others but 0 are
            positions (pixels, tokens, time steps).
        padding: `None`, or which positions of axis 1 count.
        relu: See the tensor as if a ReLU followed.
        nonnegative: Nothing in it is below 0, which saves looking.
    """

    tensor: Tensor
    neuron_axes: tuple[int, ...]
    padding: Padding | None = None
    relu: bool = False
    nonnegative: bool = False

    @cached_property
    def position_axes(self) -> tuple[int, ...]:
        """The axes that index positions."""
        rank = len(self.tensor.shape)
        neurons = {axis % rank for axis in self.neuron_axes}
        return tuple(axis for axis in range(1, rank) if axis not in neurons)

    def merged(self) -> Activations:
        """The same with one axis of neurons, where theirs are the last ones, in order."""
        shape = ops.shape(self.tensor)
        axes = [axis % len(shape) for axis in self.neuron_axes]
        first = axes[0]
        if len(axes) == 1 or axes != list(range(first, len(shape))):
            return self
        flat = ops.reshape(self.tensor, (*shape[:first], math.prod(shape[first:])))
        return replace(self, tensor=flat, neuron_axes=(first,))

    def per_neuron(self, reduced: Tensor) -> Tensor:
        """Brings a tensor reduced over the position axes, `keepdims=True`, to shape `(batch, neurons)`."""
        rank, positions = len(self.tensor.shape), self.position_axes
        neurons = [axis % rank for axis in self.neuron_axes]
        # By index: `ops.reshape` looks through the shape for symbolic tensors first, which is slow on PyTorch.
        picked = reduced[tuple(0 if axis in positions else slice(None) for axis in range(rank))]
        if neurons != sorted(neurons):
            picked = ops.transpose(picked, (0, *(1 + sorted(neurons).index(axis) for axis in neurons)))
        return picked if len(neurons) == 1 else ops.reshape(picked, (ops.shape(picked)[0], -1))

    @cached_property
    def positions(self) -> Positions:
        """How many positions of each sample count: one number for all, or shape `(batch,)`, int32."""
        shape = ops.shape(self.tensor)
        if self.padding is None:
            return math.prod(shape[axis] for axis in self.position_axes)
        others = [shape[axis] for axis in self.position_axes if axis != 1]
        return self.padding.lengths * math.prod(others) if others else self.padding.lengths

    def mean(self) -> Tensor:
        """The mean over positions, shape `(batch, neurons)`."""
        if not self.position_axes:
            return self.per_neuron(self._values)
        total = self.per_neuron(self._total(self._values) if self.relu else self._sums)
        if self.padding is None:
            return total / max(self.positions, 1)
        if self.position_axes == (1,):
            return total / self.padding.divisor(_dtype(total))
        return total / ops.cast(ops.maximum(self.positions, 1), total.dtype)[:, None]

    def share_of_mean(self, share: float) -> Tensor:
        """A share of each sample's mean over all its neurons and positions, shape `(batch, 1)`."""
        if self.padding is None or self.relu or self.position_axes != (1,):
            return share * ops.mean(self.mean(), axis=-1, keepdims=True)
        # In as few operations: on a GPU each is a launch.
        mean = ops.mean(self.per_neuron(self._sums), axis=-1, keepdims=True)
        return mean * self.padding.factor(_dtype(mean), share)

    @cached_property
    def sizes(self) -> Activations:
        """The same neurons by the size of what they do, whatever its sign."""
        return replace(self, tensor=abs(self._values), relu=False, nonnegative=True)

    def check(self) -> Tensor:
        """A sum of each sample that is finite where all its activations are, unless it overflows, shape `(batch,)`."""
        # The sums of sizes tell as well, if a criterion has made them; but for what a ReLU hides.
        seen = self.sizes if "sizes" in vars(self) and not self.relu else self
        is_summed = seen.padding is not None or "_sums" in vars(seen)
        return sum_of_samples(seen._sums if is_summed else seen.tensor)

    def extremes(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of each sample over all its neurons and positions, each `(batch, 1)`."""
        low = high = self._values
        if self.padding is not None:
            # Over the neurons first: then the mask meets a small tensor.
            mask = self.padding.along(self.tensor)
            low = ops.where(mask, ops.min(low, axis=self.neuron_axes, keepdims=True), float("inf"))
            high = ops.where(mask, ops.max(high, axis=self.neuron_axes, keepdims=True), float("-inf"))
        axes = tuple(range(1, len(self.tensor.shape)))
        return ops.min(low, axis=axes)[:, None], ops.max(high, axis=axes)[:, None]

    def count_above(self, threshold: Tensor | None) -> Tensor:
        """At how many positions each neuron exceeds a threshold.

        Args:
            threshold: Of each sample, shape `(batch, 1)`; `None` for 0.

        Returns:
            Whole numbers, shape `(batch, neurons)`; exact for up to 2^24 positions a sample.
        """
        # Signs are the same as a comparison, which is slow on the CPU: XLA does not vectorize it, and PyTorch takes a
        # detour through booleans.
        if threshold is None:
            above = ops.sign(self.tensor)
            above = above if self.nonnegative else ops.relu(above)
        else:
            limit = threshold[(..., *[None] * (len(self.tensor.shape) - 2))]
            above = ops.relu(ops.sign(self._values - limit))
        return self.per_neuron(self._total(above))

    def pieces(self) -> Iterator[Activations]:
        """All samples, as many at a time as the backend counts fastest."""
        few = at_a_time(self.tensor)
        if few is None:
            yield self
            return
        for start in range(0, self.tensor.shape[0], few):
            chosen = slice(start, start + few)
            padding = None if self.padding is None else self.padding[chosen]
            yield replace(self, tensor=self.tensor[chosen], padding=padding)

    @cached_property
    def _values(self) -> Tensor:
        return ops.relu(self.tensor) if self.relu else self.tensor

    @cached_property
    def _sums(self) -> Tensor:
        """The sums over positions of the tensor as it is: `keepdims=True`."""
        return self._total(self.tensor)

    def _total(self, tensor: Tensor) -> Tensor:
        """The sum of a tensor over the positions that count, `keepdims=True`."""
        return self._sum(tensor) if self.padding is None else self._masked_sum(tensor, self.padding)

    def _sum(self, tensor: Tensor) -> Tensor:
        """The sum over positions of a tensor of this one's shape, `keepdims=True`."""
        return sum_over(tensor, self.position_axes) if self.position_axes else tensor

    def _masked_sum(self, tensor: Tensor, padding: Padding) -> Tensor:
        if self.position_axes != (1,) or len(self.neuron_axes) > 1:
            return self._sum(ops.where(padding.along(tensor), tensor, 0.0))
        # A product with the mask needs no masked copy.
        return padding.weights(_dtype(tensor)) @ tensor


def _dtype(tensor: Tensor) -> str:
    return keras.backend.standardize_dtype(tensor.dtype)
