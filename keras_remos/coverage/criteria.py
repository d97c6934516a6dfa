"""Coverage criteria: which neurons does a sample activate?

A criterion turns one tensor of activations into a count for every neuron, on the device and under any backend's
tracing. Nothing but these counts leaves the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import keras
from keras import ops

from keras_remos.errors import RemosError
from keras_remos.kernels import Tensor

# What a mean must exceed a relative threshold by, as a share of it: more than float32 rounds, less than data tell.
TIE_MARGIN = 1e-6
# Elements that PyTorch counts at once on a processor, so that what it writes down in between stays in its cache.
PIECE = 1 << 21


class Padding:
    """Which positions of a batch of sequences count. What follows from that is worked out once for all their tensors.

    Args:
        mask: Shape `(batch, length)`, boolean: `False` where a position is padding.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask
        self._weights: dict[str, Tensor] = {}
        self._divisors: dict[str, Tensor] = {}

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
    def positions(self) -> Tensor:
        """How many positions of each sample count, shape `(batch,)`, int32."""
        shape = ops.shape(self.tensor)
        if self.padding is None:
            # Not `ops.full`, with which PyTorch waits for the GPU.
            return ops.zeros((shape[0],), dtype="int32") + math.prod(shape[axis] for axis in self.position_axes)
        others = [shape[axis] for axis in self.position_axes if axis != 1]
        return self.padding.lengths * math.prod(others) if others else self.padding.lengths

    def mean(self) -> Tensor:
        """The mean over positions, shape `(batch, neurons)`."""
        if not self.position_axes:
            return self.per_neuron(self._values)
        total = self.per_neuron(self._total(self._values) if self.relu else self._sums)
        if self.padding is not None and self.position_axes == (1,):
            return total / self.padding.divisor(_dtype(total))
        return total / ops.cast(ops.maximum(self.positions, 1), total.dtype)[:, None]

    @cached_property
    def sizes(self) -> Activations:
        """The same neurons by the size of what they do, whatever its sign."""
        return replace(self, tensor=abs(self._values), relu=False, nonnegative=True)

    def check(self) -> Tensor:
        """A sum of each sample that is finite where all its activations are, unless it overflows, shape `(batch,)`."""
        # The sums of sizes tell as well, if a criterion has made them; but for what a ReLU hides.
        seen = self.sizes if "sizes" in vars(self) and not self.relu else self
        return ops.sum(seen._sums, axis=tuple(range(1, len(self.tensor.shape))))

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
            int32, shape `(batch, neurons)`; exact for up to 2^24 positions a sample.
        """
        # Signs are the same as a comparison, which is slow on the CPU: XLA does not vectorize it, and PyTorch takes a
        # detour through booleans.
        if threshold is None:
            above = ops.sign(self.tensor)
            above = above if self.nonnegative else ops.relu(above)
        else:
            limit = threshold[(..., *[None] * (len(self.tensor.shape) - 2))]
            above = ops.relu(ops.sign(self._values - limit))
        return ops.cast(self.per_neuron(self._total(above)), "int32")

    def pieces(self) -> Iterator[Activations]:
        """All samples; a few at a time where each step of a count is a tensor in memory, best kept in a cache."""
        cached = keras.backend.backend() == "torch" and self.tensor.device.type == "cpu"
        if not cached or math.prod(self.tensor.shape) <= PIECE:
            yield self
            return
        samples, *each = self.tensor.shape
        few = max(1, PIECE // math.prod(each))
        for start in range(0, samples, few):
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
        axes = self.position_axes
        if keras.backend.backend() != "tensorflow":
            return ops.sum(tensor, axis=axes, keepdims=True) if axes else tensor
        for axis in axes:
            # One after the other: TensorFlow is twice as slow at several.
            tensor = ops.sum(tensor, axis=axis, keepdims=True)
        return tensor

    def _masked_sum(self, tensor: Tensor, padding: Padding) -> Tensor:
        if self.position_axes != (1,) or len(self.neuron_axes) > 1:
            return self._sum(ops.where(padding.along(tensor), tensor, 0.0))
        # A product with the mask needs no masked copy.
        return padding.weights(_dtype(tensor)) @ tensor


def _dtype(tensor: Tensor) -> str:
    return keras.backend.standardize_dtype(tensor.dtype)


class Criterion:
    """Decides which neurons a sample covers."""

    name: ClassVar[str]

    def count(self, activations: Activations) -> tuple[Tensor, Tensor]:
        """Counts coverage, sample by sample.

        Returns:
            `(counts, positions)`: for each sample and neuron how often it is covered, `(batch, neurons)` int32; and
            out of how many times, `(batch,)` int32.
        """
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """The criterion's name and options, as `as_criterion()` takes them."""
        return {"name": self.name, **asdict(self)}  # type: ignore[call-overload]


@dataclass(frozen=True)
class NeuronCoverage(Criterion):
    """A neuron is covered when its activation exceeds a threshold (DeepXplore's NC; ReMoS section 4.2, Eq. 5).

    Args:
        threshold: The paper's alpha. A share of the tensor's range if `scale="minmax"`, a multiple of its mean size if
            `"absmean"`, else an activation.
        scale: `"minmax"` scales each sample's tensor to [0, 1] first, as the released code does; `"absmean"` compares
            the sizes of activations, whatever their sign, with the mean size in the sample's tensor; `"none"` compares
            activations as they are, as the paper's Eq. 5 reads.
        positions: `"mean"` averages over positions first and gives one answer a sample; `"share"` asks at every
            position, and counts positions instead of samples.

    Note:
        `"absmean"` is ours, for tensors in which no sign means that a neuron is off, as between the blocks of a
        transformer.

        A constant tensor covers nothing under `"absmean"` or `"minmax"`. (The released code divides by zero there, with
        the same effect.) Nor does a mean that lies at the threshold: a neuron that holds both the smallest and the
        largest of two values has a scaled mean of exactly one half, and must not be left to the rounding of a backend.
    """

    name: ClassVar[str] = "nc"
    threshold: float = 0.5
    scale: Literal["minmax", "absmean", "none"] = "minmax"
    positions: Literal["mean", "share"] = "mean"

    def __post_init__(self) -> None:
        _check_choice("scale", self.scale, ("minmax", "absmean", "none"))
        _check_choice("positions", self.positions, ("mean", "share"))
        if self.scale == "minmax" and not 0 <= self.threshold < 1:
            raise RemosError(f"threshold must be in [0, 1) with scale='minmax', received {self.threshold!r}.")
        if self.scale == "absmean" and not self.threshold > 0:
            raise RemosError(f"threshold must be above 0 with scale='absmean', received {self.threshold!r}.")
        if not math.isfinite(self.threshold):
            raise RemosError(f"threshold must be a finite number, received {self.threshold!r}.")

    def count(self, activations: Activations) -> tuple[Tensor, Tensor]:
        if self.positions == "share" and self.scale == "none" and self.threshold == 0:
            return activations.count_above(None), activations.positions
        if self.scale == "absmean":
            activations = activations.sizes
        means = activations.mean()
        if self.scale == "minmax":
            # mean(scaled x) > a is the same as mean(x) - min > a (max - min): no scaled copy is made.
            low, high = activations.extremes()
            limit = low + self.threshold * (1 + TIE_MARGIN) * (high - low)
            # A sample that is nothing but padding has no range, and nothing exceeds it.
            limit = ops.where(ops.isnan(limit), float("inf"), limit)
        elif self.scale == "absmean":
            limit = self.threshold * (1 + TIE_MARGIN) * ops.mean(means, axis=-1, keepdims=True)
        else:
            limit = ops.full((ops.shape(means)[0], 1), self.threshold, dtype=means.dtype)
        if self.positions == "share":
            return activations.count_above(limit), activations.positions
        return _once_a_sample(means > limit, activations)


@dataclass(frozen=True)
class TopKCoverage(Criterion):
    """A neuron is covered when it is among the `k` most active of its layer (DeepGauge's TKNC).

    Args:
        k: How many neurons of a layer a sample covers.

    Note:
        Neurons that tie with the k-th are covered too, so that the answer does not depend on the backend's sort; those
        at the layer's smallest activation never are, so that a dead layer covers nothing.
    """

    name: ClassVar[str] = "tknc"
    k: int = 10

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or self.k < 1:
            raise RemosError(f"k must be a whole number of at least 1, received {self.k!r}.")

    def count(self, activations: Activations) -> tuple[Tensor, Tensor]:
        means = activations.mean()
        kth = ops.top_k(means, min(self.k, means.shape[-1]))[0][:, -1:]
        above_floor = means > ops.min(means, axis=-1, keepdims=True)
        return _once_a_sample(ops.logical_and(means >= kth, above_floor), activations)


@dataclass(frozen=True)
class StrongCoverage(Criterion):
    """A neuron is covered when it lies in the top `1/k` of its layer's range of activations (SNAC).

    Args:
        k: The range of the neurons' mean activations is cut into `k` parts, of which the uppermost counts.

    Note:
        As the released code does it, within one layer and one sample. DeepGauge's SNAC takes the largest activation
        seen on the training set as the bound.
    """

    name: ClassVar[str] = "snac"
    k: float = 2.0

    def __post_init__(self) -> None:
        if not self.k > 1:
            raise RemosError(f"k must be greater than 1, received {self.k!r}.")

    def count(self, activations: Activations) -> tuple[Tensor, Tensor]:
        means = activations.mean()
        low = ops.min(means, axis=-1, keepdims=True)
        high = ops.max(means, axis=-1, keepdims=True)
        return _once_a_sample(means > high - (high - low) / self.k, activations)


def _once_a_sample(covered: Tensor, activations: Activations) -> tuple[Tensor, Tensor]:
    if activations.padding is not None:
        # A sample that is nothing but padding covers nothing.
        covered = ops.logical_and(covered, activations.positions[:, None] > 0)
    return ops.cast(covered, "int32"), ops.ones((ops.shape(covered)[0],), dtype="int32")


def count_tokens(tokens: Tensor, vocabulary: int, mask: Tensor | None, valid: Tensor) -> Tensor:
    """In how many samples each token occurs.

    Args:
        tokens: Token ids, shape `(batch, ...)`.
        vocabulary: How many tokens there are.
        mask: `None`, or boolean of the shape of `tokens`: `False` where a token is padding.
        valid: Which samples count, shape `(batch,)`, int32 of 0 and 1.

    Returns:
        Shape `(vocabulary,)`, int32.
    """
    batch = ops.shape(tokens)[0]
    flat = ops.reshape(ops.cast(tokens, "int32"), (batch, -1))
    counted = ops.ones_like(flat, dtype="bool") if mask is None else ops.reshape(mask, (batch, -1))
    # What must not count becomes a token past the end of the vocabulary.
    flat = ops.sort(ops.where(ops.logical_and(counted, valid[:, None] > 0), flat, vocabulary), axis=1)
    repeated = ops.concatenate([ops.zeros_like(flat[:, :1], dtype="bool"), flat[:, 1:] == flat[:, :-1]], axis=1)
    once = ops.reshape(ops.where(repeated, vocabulary, flat), (-1,))
    return ops.segment_sum(ops.ones_like(once), once, num_segments=vocabulary + 1)[:vocabulary]


CRITERIA: dict[str, type[Criterion]] = {kind.name: kind for kind in (NeuronCoverage, TopKCoverage, StrongCoverage)}


def as_criterion(config: str | Mapping[str, Any] | Criterion) -> Criterion:
    """A criterion from its name (`"nc"`, `"tknc"`, `"snac"`), its `get_config()`, or itself.

    Raises:
        RemosError: If there is no criterion of that name, or it has no such option.
    """
    if isinstance(config, Criterion):
        return config
    options = {"name": config} if isinstance(config, str) else dict(config)
    name = options.pop("name", None)
    if name not in CRITERIA:
        raise RemosError(f"Unknown coverage criterion {name!r}: expected one of {sorted(CRITERIA)}.")
    try:
        return CRITERIA[name](**options)
    except TypeError as error:
        raise RemosError(f"Coverage criterion {name!r} does not take these options: {options} ({error}).") from None


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise RemosError(f"{option} must be one of {choices}, received {value!r}.")
