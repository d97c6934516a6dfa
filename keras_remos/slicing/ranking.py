"""Ranks of magnitudes and of coverages, exact and fast: what `scores` is made of.

Pure functions on flat arrays. Magnitudes are ranked by sorting; coverage takes few distinct values and is ranked by
counting them, so that no array of a kernel's size is sorted for it.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from keras_remos.errors import RemosError

_Job = TypeVar("_Job")
_Result = TypeVar("_Result")

# More threads than this gain little and would multiply the buckets that are in memory at once.
_THREADS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
_BUCKET = 12_000_000  # weights sorted at once: bounds the memory of a sort to 8 bytes times this and thread
_BLOCK = 1 << 17  # elements of a temporary that stays in the cache
MOST_WEIGHTS = 2**32 - 1  # an index has 32 bits
_LOW_HALF = np.uint64(MOST_WEIGHTS)
_INFINITY = 0x7F80_0000  # the bits of float32 infinity; NaNs lie above, all finite magnitudes below


@dataclass(frozen=True, eq=False)
class CoveredKernel:
    """A kernel with the coverage counts of the neurons on its two sides.

    Args:
        weights: The kernel, of any shape, in any float type up to 64 bits (bfloat16 included).
        view: Shape in which the axes below are counted: as many elements as `weights`, in the same C order. A grouped
            convolution splits its last axis into `(groups, outputs per group)`.
        input_axes: Axes of `view` that index input neurons, in the order in which `inputs` is laid out.
        output_axes: The same for output neurons. An axis may be on both sides (groups, depthwise channels, the batch
            letters of an einsum). Axes on neither side are taps: all taps of an (input, output) pair share its
            coverage.
        inputs: Integer counts, one per input neuron: at how many positions it was covered.
        outputs: The same per output neuron.
        input_positions: At how many positions inputs were counted, so that `inputs / input_positions` is a frequency.
        output_positions: The same for outputs.
    """

    weights: np.ndarray
    view: tuple[int, ...]
    input_axes: tuple[int, ...]
    output_axes: tuple[int, ...]
    inputs: np.ndarray
    outputs: np.ndarray
    input_positions: int
    output_positions: int


@dataclass(frozen=True, eq=False)
class Part:
    """A kernel's place in the flat arrays of ranks and scores, where its `view` lies with axes in `layout` order."""

    name: str
    kernel: CoveredKernel
    layout: tuple[int, ...]
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.kernel.view[axis] for axis in self.layout)

    @property
    def taps(self) -> int:
        both = {*self.kernel.input_axes, *self.kernel.output_axes}
        return math.prod(size for axis, size in enumerate(self.kernel.view) if axis not in both)

    def unflatten(self, flat: np.ndarray) -> np.ndarray:
        """Brings one value per weight back from the flat layout to the kernel's own shape."""
        back = sorted(range(len(self.layout)), key=self.layout.__getitem__)
        return flat.reshape(self.shape).transpose(back).reshape(self.kernel.weights.shape)


@dataclass(frozen=True, eq=False)
class Ranking:
    """The kernels that are ranked together: one of them (scope "layer") or all (scope "model")."""

    parts: list[Part]

    @property
    def span(self) -> slice:
        return slice(self.parts[0].start, self.parts[-1].stop)


@dataclass(frozen=True)
class _Bucket:
    """The keys from `low` to `high`, both included; in the sorted order of the ranking they are at `begin` to `end`."""

    low: int
    high: int
    begin: int
    end: int


# Magnitudes: sorting (|w|, index) packed into one integer is several times as fast as an argsort.


def rank_magnitudes(rankings: Sequence[Ranking], average: bool) -> np.ndarray:
    """Ranks |w| ascending inside each ranking, from 0 (Eq. 8); ranks are doubled if `average`; gives flat integers."""
    total = max((r.span.stop for r in rankings), default=0)
    keys = np.empty(total, np.uint32)
    ranks = np.empty(total, np.int32 if 2 * total < 2**31 else np.int64)
    run_all(lambda r: _fill_keys(r, keys), rankings)
    jobs = [(keys[r.span], ranks[r.span], bucket) for r in rankings for bucket in _buckets(keys[r.span])]
    run_all(lambda job: _rank_bucket(*job, average=average), jobs)
    return ranks


def _fill_keys(ranking: Ranking, keys: np.ndarray) -> None:
    """Writes a uint32 per weight that orders as |w| does: the bits of float32, or dense ranks of float64."""
    wide = any(p.kernel.weights.dtype == np.float64 for p in ranking.parts)
    magnitudes = np.empty(keys[ranking.span].size, np.float64) if wide else None
    for part in ranking.parts:
        weights = part.kernel.weights.reshape(part.kernel.view).transpose(part.layout)
        if magnitudes is not None:
            start = part.start - ranking.span.start
            magnitude = magnitudes[start : start + weights.size].reshape(part.shape)
            np.abs(weights.astype(np.float64), out=magnitude)
            finite = bool(np.isfinite(magnitude).all())
        else:
            bits = weights.astype(np.float32, copy=False).view(np.uint32)
            key = keys[part.start : part.stop].reshape(part.shape)
            np.bitwise_and(bits, np.uint32(0x7FFF_FFFF), out=key)
            finite = bool(key.max(initial=0) < _INFINITY)
        if not finite:
            raise RemosError(
                f"The weights of {part.name!r} must be finite to be ranked; received NaN or infinity. "
                "Check that the teacher was loaded whole and trained without overflow, or exclude this layer."
            )
    if magnitudes is not None:
        keys[ranking.span] = np.unique(magnitudes, return_inverse=True)[1]


def _buckets(keys: np.ndarray) -> list[_Bucket]:
    """Cuts a ranking's keys by value into buckets of about `_BUCKET` keys; equal keys never part."""
    if keys.size <= _BUCKET:
        return [_Bucket(0, 2**32 - 1, 0, keys.size)]
    pieces = min(16, 2 * math.ceil(keys.size / (2 * _BUCKET)))  # even, to keep two threads equally busy
    sample = np.sort(keys[:: math.ceil(keys.size / 10_000)])
    cuts = sorted({int(sample[sample.size * piece // pieces]) for piece in range(1, pieces)} - {0})
    below = np.zeros(len(cuts), np.int64)
    for block in _blocks(keys.size):
        below += [np.count_nonzero(keys[block] < np.uint32(cut)) for cut in cuts]
    edges, begins = [0, *cuts, 2**32], [0, *below.tolist(), keys.size]
    return [_Bucket(edges[i], edges[i + 1] - 1, begins[i], begins[i + 1]) for i in range(len(cuts) + 1)]


def _rank_bucket(keys: np.ndarray, ranks: np.ndarray, bucket: _Bucket, average: bool) -> None:
    packed = _pack(keys, bucket)
    packed.sort()
    for block in _blocks_of_whole_ties(packed):
        index = (packed[block] & _LOW_HALF).view(np.int64)
        begin = bucket.begin + block.start
        if average:
            key = packed[block] >> np.uint64(32)
            edges = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1], [True])))
            # Ties at positions p .. q - 1 have the average (p + q - 1) / 2.
            doubled = (edges[:-1] + edges[1:] + (2 * begin - 1)).astype(ranks.dtype)
            ranks[index] = np.repeat(doubled, edges[1:] - edges[:-1])
        else:
            ranks[index] = np.arange(begin, begin + index.size, dtype=ranks.dtype)


def _pack(keys: np.ndarray, bucket: _Bucket) -> np.ndarray:
    """Returns `key << 32 | index` for each key of the bucket."""
    packed, filled = np.empty(bucket.end - bucket.begin, np.uint64), 0
    low, width = np.uint32(bucket.low), np.uint32(bucket.high - bucket.low)
    for block in _blocks(keys.size):
        if packed.size == keys.size:
            found, index = keys[block], np.arange(block.start, block.stop, dtype=np.uint64)
        else:
            inside = np.flatnonzero(keys[block] - low <= width)  # unsigned: keys below `low` wrap round to large ones
            found, index = keys[block][inside], (inside + block.start).view(np.uint64)
        target = packed[filled : filled + found.size]
        target[:] = found
        target <<= np.uint64(32)
        target |= index
        filled += found.size
    return packed


def _blocks_of_whole_ties(packed: np.ndarray) -> list[slice]:
    """Cuts sorted keys into blocks that fit the cache, moved back to where a run of equal keys begins."""
    starts = packed[::_BLOCK] & ~_LOW_HALF
    edges = [*np.unique(np.searchsorted(packed, starts)).tolist(), packed.size]
    return [slice(*pair) for pair in itertools.pairwise(edges)]


# Coverage: it takes few distinct values, so ranks come from a histogram and no array of the kernel's size is ever
# sorted.


def subtract_from_coverage_ranks(flat: np.ndarray, rankings: Sequence[Ranking], average: bool) -> None:
    """Turns the ranks of |w| in `flat` into scores, rank(coverage) - rank(|w|), in place (Eq. 9-10)."""

    def subtract_all(ranking: Ranking) -> None:
        sides = _coverage_sides(ranking)
        taps = [part.taps for part in ranking.parts]
        if average:
            lookup = _average_rank_lookup(sides, taps)
        else:
            sides, lookup = _listing_order_ranks(sides, taps), lambda ranks: ranks

        def subtract(block: tuple[np.ndarray, ...]) -> None:
            ranks, inputs, outputs = block
            np.subtract(lookup(inputs + outputs), ranks, out=ranks, casting="same_kind")

        for part, pair in zip(ranking.parts, sides, strict=True):
            run_all(subtract, _cut(flat[part.start : part.stop].reshape(part.shape), *pair))

    run_all(subtract_all, rankings)


def _cut(ranks: np.ndarray, inputs: np.ndarray, outputs: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Cuts arrays that broadcast together into blocks, along the first axis that is not a tap."""
    pair_shape = np.broadcast_shapes(inputs.shape, outputs.shape)
    axis = next((axis for axis, size in enumerate(pair_shape) if size > 1), 0)
    for rows in _blocks(pair_shape[axis], max(1, _BLOCK * pair_shape[axis] // math.prod(pair_shape))):
        at = (slice(None),) * axis + (rows,)
        yield tuple(array[at] if array.shape[axis] == pair_shape[axis] else array for array in (ranks, inputs, outputs))


def _coverage_sides(ranking: Ranking) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns two arrays per kernel that broadcast over its pairs; their sum is the coverage of each pair (Eq. 7)."""
    kernels = [part.kernel for part in ranking.parts]
    positions = [max(n, 1) for kernel in kernels for n in (kernel.input_positions, kernel.output_positions)]
    denominator = math.lcm(*positions)
    exact = 2 * denominator < 2**63

    def spread(part: Part, counts: np.ndarray, axes: tuple[int, ...], positions: int) -> np.ndarray:
        by_layout = sorted(range(len(axes)), key=lambda i: part.layout.index(axes[i]))
        counts = counts.astype(np.int64).reshape([part.kernel.view[axis] for axis in axes]).transpose(by_layout)
        counts = counts.reshape([part.kernel.view[axis] if axis in axes else 1 for axis in part.layout])
        return counts * (denominator // max(positions, 1)) if exact else counts / max(positions, 1)

    return [
        (
            spread(part, part.kernel.inputs, part.kernel.input_axes, part.kernel.input_positions),
            spread(part, part.kernel.outputs, part.kernel.output_axes, part.kernel.output_positions),
        )
        for part in ranking.parts
    ]


def _average_rank_lookup(
    sides: Sequence[tuple[np.ndarray, np.ndarray]], taps: Sequence[int]
) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from coverages to their doubled average ranks, in which every weight counts as one element."""
    tallies = (_tally(*pair, n) for pair, n in zip(sides, taps, strict=True))
    top = max(inputs.max() + outputs.max() for inputs, outputs in sides)
    pairs = sum(math.prod(np.broadcast_shapes(inputs.shape, outputs.shape)) for inputs, outputs in sides)
    if isinstance(top, np.integer) and top < max(1 << 16, pairs // 4):
        histogram = np.zeros(int(top) + 1, np.int64)
        for coverages, weights in tallies:
            found = np.bincount(coverages, weights)
            histogram[: found.size] += found.astype(np.int64)
        table = _doubled_average_ranks(histogram)
        return lambda coverages: table[coverages]

    # Too many possible coverages for a slot each: number those that occur.
    known = []
    for coverages, weights in tallies:
        distinct, inverse = np.unique(coverages, return_inverse=True)
        known.append((distinct, np.bincount(inverse, weights).astype(np.int64)))
    values = np.unique(np.concatenate([distinct for distinct, _ in known]))
    histogram = np.zeros(values.size, np.int64)
    for distinct, found in known:
        histogram[np.searchsorted(values, distinct)] += found
    table = _doubled_average_ranks(histogram)
    return lambda coverages: table[np.searchsorted(values, coverages)]


def _tally(inputs: np.ndarray, outputs: np.ndarray, taps: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns coverages that occur in a kernel, with repeats, and how many weights each entry stands for."""
    if any(i > 1 and o > 1 for i, o in zip(inputs.shape, outputs.shape, strict=True)):
        coverages = (inputs + outputs).ravel()
        return coverages, np.full(coverages.size, taps)
    # Every input meets every output, so it is enough to pair the distinct counts of both sides.
    inputs, input_repeats = np.unique(inputs, return_counts=True)
    outputs, output_repeats = np.unique(outputs, return_counts=True)
    return np.add.outer(inputs, outputs).ravel(), np.multiply.outer(input_repeats * taps, output_repeats).ravel()


def _doubled_average_ranks(histogram: np.ndarray) -> np.ndarray:
    last = np.cumsum(histogram)
    ranks: np.ndarray = 2 * last - histogram - 1
    return ranks.astype(np.int32) if 2 * last[-1] < 2**31 else ranks


def _listing_order_ranks(
    sides: Sequence[tuple[np.ndarray, np.ndarray]], taps: Sequence[int]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns, in the form of `sides`, the released rank of each pair: how many weights are in pairs sorted before."""
    coverages = [inputs + outputs for inputs, outputs in sides]
    advance = np.repeat(taps, [c.size for c in coverages])
    order = np.argsort(np.concatenate([c.ravel() for c in coverages]), kind="stable")
    ranks = np.empty(order.size, np.int64)
    ranks[order] = np.cumsum(advance[order]) - advance[order]
    split = np.split(ranks, np.cumsum([c.size for c in coverages])[:-1])
    return [(r.reshape(c.shape), np.zeros((1,) * c.ndim, np.int64)) for r, c in zip(split, coverages, strict=True)]


def run_all(function: Callable[[_Job], _Result], jobs: Iterable[_Job]) -> list[_Result]:
    """Applies a function to all jobs on a few threads: NumPy's sorts and loops let go of the interpreter lock."""
    jobs = list(jobs)
    if len(jobs) == 1:
        return [function(jobs[0])]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, jobs))


def _blocks(size: int, block: int = 0) -> list[slice]:
    block = block or _BLOCK
    return [slice(start, min(start + block, size)) for start in range(0, size, block)]
