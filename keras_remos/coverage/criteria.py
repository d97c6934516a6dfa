"""Coverage criteria: which neurons does a sample activate?

A criterion turns one tensor of activations into a count for every neuron, on the device and under any backend's
tracing. Nothing but these counts leaves the device.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import keras
from keras import ops

from keras_remos.coverage.activations import Activations, Positions
from keras_remos.errors import RemosError
from keras_remos.models.inputs import runs_on_tokens
from keras_remos.models.kernels import Tensor

# What a mean must exceed a relative threshold by, as a share of it: more than float32 rounds, less than data tell.
TIE_MARGIN = 1e-6
# Where fewer neurons of a tensor than this are covered, or left uncovered, by a sample on average, coverage tells
# nothing: the other criteria cover at least one neuron of every tensor.
FEWEST = 0.05


class Criterion:
    """Decides which neurons a sample covers."""

    name: ClassVar[str]

    def count(self, activations: Activations) -> tuple[Tensor, Positions]:
        """Counts coverage, sample by sample.

        Returns:
            `(counts, positions)`: for each sample and neuron how often it is covered, `(batch, neurons)`, whole numbers
            of any type; and out of how many times, one number for all samples or `(batch,)` int32.
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

        Behind a ReLU hardly any mean passes half of the range, which starts at 0 and ends at the one largest value:
        a share of the range is for raw outputs (`on="output"`). `warn_if_blind` says so where it happens.
    """

    name: ClassVar[str] = "nc"
    threshold: float = 0.5
    scale: Literal["minmax", "absmean", "none"] = "minmax"
    positions: Literal["mean", "share"] = "mean"

    def __post_init__(self) -> None:
        _check_choice("scale", self.scale, ("minmax", "absmean", "none"))
        _check_choice("positions", self.positions, ("mean", "share"))
        if self.scale == "minmax" and not 0 <= self.threshold < 1:
            raise RemosError(f"`threshold` must be in [0, 1) with `scale='minmax'`, received {self.threshold!r}.")
        if self.scale == "absmean" and not self.threshold > 0:
            raise RemosError(f"`threshold` must be above 0 with `scale='absmean'`, received {self.threshold!r}.")
        if not math.isfinite(self.threshold):
            raise RemosError(f"`threshold` must be a finite number, received {self.threshold!r}.")

    def count(self, activations: Activations) -> tuple[Tensor, Positions]:
        if self.positions == "share" and self.scale == "none" and self.threshold == 0:
            return activations.count_above(None), activations.positions
        if self.scale == "absmean":
            activations = activations.sizes
            limit = activations.share_of_mean(self.threshold * (1 + TIE_MARGIN))
            if self.positions == "share":
                return activations.count_above(limit), activations.positions
            return _once_a_sample(activations.mean() > limit, activations)
        means = activations.mean()
        if self.scale == "minmax":
            # mean(scaled x) > a is the same as mean(x) - min > a (max - min): no scaled copy is made.
            low, high = activations.extremes()
            limit = low + self.threshold * (1 + TIE_MARGIN) * (high - low)
            # A sample that is nothing but padding has no range, and nothing exceeds it.
            limit = ops.where(ops.isnan(limit), float("inf"), limit)
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
            raise RemosError(f"`k` must be a whole number of at least 1, received {self.k!r}.")

    def count(self, activations: Activations) -> tuple[Tensor, Positions]:
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
            raise RemosError(f"`k` must be greater than 1, received {self.k!r}.")

    def count(self, activations: Activations) -> tuple[Tensor, Positions]:
        means = activations.mean()
        low = ops.min(means, axis=-1, keepdims=True)
        high = ops.max(means, axis=-1, keepdims=True)
        return _once_a_sample(means > high - (high - low) / self.k, activations)


def _once_a_sample(covered: Tensor, activations: Activations) -> tuple[Tensor, Positions]:
    if activations.padding is not None:
        # A sample that is nothing but padding covers nothing.
        covered = ops.logical_and(covered, activations.padding.lengths[:, None] > 0)
    return covered, 1


def count_tokens(tokens: Tensor, vocabulary: int, mask: Tensor | None, valid: Tensor) -> Tensor:
    """In how many samples each token occurs.

    Args:
        tokens: Token ids, shape `(batch, ...)`.
        vocabulary: How many tokens there are.
        mask: `None`, or boolean of the shape of `tokens`: `False` where a token is padding.
        valid: For how many samples each counts, shape `(batch,)`, int32: 0 or 1, or more where it stands for several.

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
    times = ops.reshape(ops.broadcast_to(valid[:, None], ops.shape(flat)), (-1,))
    return ops.segment_sum(times, once, num_segments=vocabulary + 1)[:vocabulary]


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


def warn_if_blind(rule: Criterion, covered: float, neurons: int, tensors: int, *, way_out: str) -> None:
    """Warns where a criterion covers next to nothing or everything, so that coverage tells no neurons apart.

    Args:
        rule: The criterion.
        covered: How many neurons a sample (or position) covers on average, over all tensors.
        neurons: How many neurons there are in them.
        tensors: In how many tensors.
        way_out: What follows from it, and what to try: a sentence or two.

    Warns:
        UserWarning: If fewer than `FEWEST` neurons of a tensor are covered, or left uncovered, on average.
    """
    few = FEWEST * tensors
    if neurons and (covered < few or neurons - covered < few):
        what = "hardly any of" if covered < few else "almost all of"
        options = ", ".join(f"{name}={value!r}" for name, value in rule.get_config().items() if name != "name")
        warnings.warn(
            f"Criterion {rule.name!r} ({options}) covers {what} the {neurons:,} neurons that are read ({covered:.3g} "
            f"on average). It tells no neurons apart. {way_out}",
            stacklevel=4,
        )


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise RemosError(f"`{option}` must be one of {choices}, received {value!r}.")


POSITIVE = NeuronCoverage(threshold=0.0, scale="none", positions="share")
"""Above 0, position by position: Eq. 5 of ReMoS read literally, with alpha = 0."""

LARGE = NeuronCoverage(threshold=1.0, scale="absmean", positions="share")
"""Larger, in either sign, than the tensor's mean size, position by position. Few layers of a model of tokens end in a
ReLU: what tells is how large an activation is, not whether it is above 0."""


def recommended_criterion(model: keras.Layer) -> Criterion:
    """What says in the preset `"recommended"` when a neuron of a model is covered."""
    return LARGE if runs_on_tokens(model) else POSITIVE
