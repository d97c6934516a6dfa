"""Ordinal scores: which weights of a teacher matter to the task, and which of them to keep.

ReMoS gives every weight the score `rank(coverage) - rank(|w|)` and keeps the highest-scored share `keep_ratio`: weights
that the task's data excites, and that are not the large ones in which a teacher's defects mostly live. All of it is
integer arithmetic in NumPy, so the same profile gives the same mask, bit for bit, on every machine.

Reference:
    Zhang et al., "ReMoS: Reducing Defect Inheritance in Transfer Learning via Relevant Model Slicing", ICSE 2022,
    section 4.3 (weight coverage, Eq. 7) and section 4.4 (ordinal scores and the slice, Eq. 8-11).
"""

import math
import numbers
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Literal, get_args

import numpy as np

from keras_remos.errors import RemosError
from keras_remos.slicing.ranking import (
    MOST_WEIGHTS,
    CoveredKernel,
    Part,
    Ranking,
    rank_magnitudes,
    run_all,
    subtract_from_coverage_ranks,
)

__all__ = ["CoveredKernel", "OrdinalScores", "Scope", "Ties", "check_keep_ratio", "check_layer_limit", "score"]

Ties = Literal["average", "order"]
Scope = Literal["layer", "model"]


class OrdinalScores:
    """The score of every weight. Made by `score`; `select` turns it into masks for as many ratios as wanted."""

    def __init__(self, flat: np.ndarray, rankings: Sequence[Ranking], ties: Ties):
        self._flat = flat
        self._rankings = rankings
        self._ties = ties
        # Of each kernel, in order: made for the first mask that needs them, and at hand for the next.
        self._sorted: dict[str, np.ndarray] = {}

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns the integer scores of each kernel, in the kernel's own shape.

        Note:
            With `ties="average"` they are twice the paper's scores, since an average rank may end in one half.
        """
        return {p.name: p.unflatten(self._flat[p.start : p.stop]) for r in self._rankings for p in r.parts}

    def select(self, keep_ratio: float, *, layer_limit: float | None = None) -> dict[str, np.ndarray]:
        """Keeps the highest-scored weights (Eq. 11).

        Args:
            keep_ratio: The paper's theta, the share of weights to keep, above 0 and at most 1. Per layer or over the
                whole model, as the `scope` of the scores says.
            layer_limit: At least 1. No kernel loses a larger share of its weights than so many times `1 - keep_ratio`;
                others lose more in its place. `None` sets no limit.

        Returns:
            One bool array per kernel, in the kernel's shape: True = kept. The masks of a smaller ratio lie inside those
            of a larger one.

        Raises:
            RemosError: `keep_ratio` is not a real number above 0 and at most 1, or `layer_limit` is less than 1.

        Note:
            With `ties="average"`, weights tied at the threshold are all kept, so at most the share `1 - keep_ratio`
            goes. With `ties="order"` they all go, as in the released code: with distinct scores one more weight than
            the share. A limit that bears on several kernels keeps the tied whatever `ties` says.
        """
        check_keep_ratio(keep_ratio)
        check_layer_limit(layer_limit)
        # Rounded, because 1 - 0.9 is a little less than 0.1 and would lose a weight whenever 0.1 * n is whole.
        removed = round(1 - float(keep_ratio), 12)
        is_kept = np.greater_equal if self._ties == "average" else np.greater

        def select_one(ranking: Ranking) -> dict[str, np.ndarray]:
            flat = self._flat[ranking.span]
            k = min(int(flat.size * removed), flat.size - 1)
            threshold = np.partition(flat, k)[k]
            return {p.name: p.unflatten(is_kept(self._flat[p.start : p.stop], threshold)) for p in ranking.parts}

        def keep_from(job: tuple[Part, int]) -> tuple[str, np.ndarray]:
            part, threshold = job
            return part.name, part.unflatten(self._flat[part.start : part.stop] >= threshold)

        # A kernel that is ranked alone loses the share, which no limit is below.
        alone = all(len(ranking.parts) == 1 for ranking in self._rankings)
        if alone or layer_limit is None or math.isinf(layer_limit):
            return {name: mask for masks in run_all(select_one, self._rankings) for name, mask in masks.items()}
        jobs: list[tuple[Part, int]] = []
        for ranking in self._rankings:
            thresholds = self._limited_thresholds(ranking, Fraction(str(removed)), Fraction(str(layer_limit)))
            jobs += zip(ranking.parts, thresholds, strict=True)
        return dict(run_all(keep_from, jobs))

    def _limited_thresholds(self, ranking: Ranking, removed: Fraction, limit: Fraction) -> list[int]:
        """For each kernel the score below which its weights go.

        That is the largest score below which lie no more weights than are to go, those of each kernel counted up to its
        limit; or the kernel's own, below which no more of its weights lie than it may lose, if that is less. Both can
        only rise with the share, so that masks are nested.
        """
        most = [min(limit * removed, Fraction(1)) * (part.stop - part.start) for part in ranking.parts]

        lows = [
            in_order[: min(int(allowed), in_order.size - 1) + 1]
            for in_order, allowed in zip(self._in_order(ranking), most, strict=True)
        ]
        wanted = removed * sum(part.stop - part.start for part in ranking.parts)

        def below(score: int) -> Fraction:
            # In their own type: with a wider one NumPy would widen all of them, each time.
            counts = (int(low.searchsorted(low.dtype.type(score))) for low in lows)
            return sum((min(allowed, Fraction(n)) for allowed, n in zip(most, counts, strict=True)), Fraction(0))

        # Above every kernel's own threshold the common one makes no difference.
        low, high = min(int(found[0]) for found in lows), max(int(found[-1]) for found in lows)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if below(middle) <= wanted else (low, middle - 1)
        return [min(low, int(found[-1])) for found in lows]

    def _in_order(self, ranking: Ranking) -> list[np.ndarray]:
        """The scores of each kernel, the lowest first."""
        missing = [part for part in ranking.parts if part.name not in self._sorted]
        found = run_all(lambda part: np.sort(self._flat[part.start : part.stop]), missing)
        self._sorted.update(zip((part.name for part in missing), found, strict=True))
        return [self._sorted[part.name] for part in ranking.parts]


def check_keep_ratio(keep_ratio: float) -> None:
    """Raises a RemosError unless `keep_ratio` is a real number above 0 and at most 1."""
    is_number = isinstance(keep_ratio, numbers.Real) and not isinstance(keep_ratio, bool)
    if not is_number or not 0 < keep_ratio <= 1:
        raise RemosError(
            "`keep_ratio` must be a number above 0 and at most 1, the share of weights to keep; "
            f"received {keep_ratio!r}. Pass for example 0.9 to keep 90 % of the weights."
        )


def check_layer_limit(layer_limit: float | None) -> None:
    """Raises a RemosError unless `layer_limit` is `None` or a real number of at least 1."""
    is_number = isinstance(layer_limit, numbers.Real) and not isinstance(layer_limit, bool)
    if layer_limit is not None and not (is_number and float(layer_limit) >= 1):
        raise RemosError(
            "`layer_limit` must be a number of at least 1, or None: how many times the share that all layers lose one "
            f"of them may lose; received {layer_limit!r}."
        )


def score(kernels: Mapping[str, CoveredKernel], *, ties: Ties = "average", scope: Scope = "layer") -> OrdinalScores:
    """Scores every weight by how relevant it is to the task: `rank(coverage) - rank(|w|)` (Eq. 8-10).

    The coverage of a weight is the covered frequency of its input neuron plus that of its output neuron (Eq. 7).
    Frequencies are compared exactly, as integers over their least common denominator.

    Args:
        kernels: The kernels by name. Their order matters with `ties="order"` only.
        ties: What equal coverages, and equal magnitudes, get. `"average"`: all of them the average of their ranks, so
            that nothing depends on the order in which weights are listed. `"order"`: different ranks in the order of
            listing (kernel by kernel, input by input, output by output, tap by tap), as in the authors' released code,
            where all taps of a pair carry the rank of the first.
        scope: `"layer"` ranks inside each kernel, `"model"` over all kernels together (the paper).

    Returns:
        The scores, from which `OrdinalScores.select` makes masks.

    Example:
    A dense kernel of two inputs and two outputs. Two samples were read; both covered input 0, none input 1, and one of
    them covered output 0:

    ```python
    weights = np.array([[1.0, -4.0], [-2.0, 3.0]])
    kernel = CoveredKernel(weights, (2, 2), (0,), (1,), np.array([2, 0]), np.array([1, 0]), 2, 2)
    ```

        coverage (Eq. 7)    its rank    |w|      its rank    score = the difference
        2/2+1/2  2/2+0/2    3  2        1  4     0  3        3  -1
        0/2+1/2  0/2+0/2    1  0        2  3     1  2        0  -2

    ```python
    scores = score({"dense": kernel}, ties="order")
    scores.arrays()["dense"]            # [[3, -1], [0, -2]]
    scores.select(0.75)["dense"]        # [[True, False], [True, False]]: -1 is the threshold, and goes too
    score({"dense": kernel}).select(0.75)["dense"]      # [[True, True], [True, False]]: ties="average" keeps it
    ```

    Raises:
        RemosError: Unknown `ties` or `scope`; a kernel's parts do not fit together; weights that are NaN or infinite.

    Note:
        The paper does not say how ties rank, and coverage counts tie massively. The paper and the released code add
        counts, which is the same where all layers count the same positions. Where the common denominator is too large
        for 64 bits, sums of float64 frequencies are compared instead: then coverages that differ only by rounding may
        change places.
    """
    for value, literal, name in ((ties, Ties, "ties"), (scope, Scope, "scope")):
        if value not in get_args(literal):
            raise RemosError(f"`{name}` must be one of {get_args(literal)}; received {value!r}. Pass one of those.")
    parts = _lay_out(kernels, in_listing_order=ties == "order")
    rankings = [Ranking([p]) for p in parts] if scope == "layer" else [Ranking(parts)] if parts else []
    flat = rank_magnitudes(rankings, average=ties == "average")
    subtract_from_coverage_ranks(flat, rankings, average=ties == "average")
    return OrdinalScores(flat, rankings, ties)


def _lay_out(kernels: Mapping[str, CoveredKernel], in_listing_order: bool) -> list[Part]:
    """Gives each kernel its span of the flat arrays; "listing order" is input-major, then output, then tap."""
    parts, start = [], 0
    for name, kernel in kernels.items():
        _check(name, kernel)
        layout = tuple(range(len(kernel.view)))
        if in_listing_order:
            layout = tuple(dict.fromkeys((*kernel.input_axes, *kernel.output_axes, *layout)))
        parts.append(Part(name, kernel, layout, start, start + kernel.weights.size))
        start += kernel.weights.size
    if start > MOST_WEIGHTS:
        raise RemosError(
            f"At most 2**32 - 1 weights can be scored at once; received {start}. Score the model in parts."
        )
    return parts


def _check(name: str, kernel: CoveredKernel) -> None:
    dtype = kernel.weights.dtype
    if dtype.kind in "biuc" or not (dtype == np.float64 or np.can_cast(dtype, np.float32)):
        raise RemosError(
            f"The weights of {name!r} must be floats of at most 64 bits; received {dtype}. Cast or skip them."
        )
    if not kernel.weights.size:
        raise RemosError(
            f"{name!r} must have weights to be ranked; received shape {kernel.weights.shape}. Leave it out."
        )
    if math.prod(kernel.view) != kernel.weights.size:
        raise RemosError(
            f"The `view` of {name!r} must have the {kernel.weights.size} elements of its weights, of shape "
            f"{kernel.weights.shape}; received {kernel.view}. Pass a reshape of the kernel's shape."
        )
    for side, axes, counts, positions in (
        ("input", kernel.input_axes, kernel.inputs, kernel.input_positions),
        ("output", kernel.output_axes, kernel.outputs, kernel.output_positions),
    ):
        if len(set(axes)) < len(axes) or any(not 0 <= axis < len(kernel.view) for axis in axes):
            raise RemosError(
                f"The `{side}_axes` of {name!r} must be different axes from 0 to {len(kernel.view) - 1} of its view "
                f"{kernel.view}; received {axes}. Count axes from the front."
            )
        neurons = math.prod(kernel.view[axis] for axis in axes)
        if counts.size != neurons or counts.dtype.kind not in "iu":
            raise RemosError(
                f"The `{side}s` of {name!r} must be {neurons} integer counts, one per {side} neuron; received "
                f"{counts.size} of type {counts.dtype}. Pass the counts of the profile of this layer."
            )
        if not 0 <= counts.min() <= counts.max() <= max(positions, 1):
            raise RemosError(
                f"The `{side}s` of {name!r} must be counts from 0 to the {positions} positions that were counted; "
                f"received {counts.min()} to {counts.max()}. Pass counts and positions of the same profile."
            )
