"""Ranks of magnitudes and of coverages, exact and fast: what `scores` is made of.

Pure functions on flat arrays. Magnitudes are ranked by sorting. Coverages are ranked by counting them where few values
are possible; else by sorting, once for each pair of different counts on the two sides of a kernel.
"""

from __future__ import annotations

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
# The keys of a list, where their ranks go, and how many elements each stands for: one, if that is not said.
_Keys = tuple[np.ndarray, np.ndarray, np.ndarray | None]
# Two arrays that broadcast over the pairs of a kernel's neurons.
_Sides = tuple[np.ndarray, np.ndarray]

# More threads than this gain little and would multiply the buckets that are in memory at once.
_THREADS = min(4, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
_BUCKET = 12_000_000  # weights sorted at once: bounds the memory of a sort to 8 bytes times this and thread
_BLOCK = 1 << 17  # elements of a temporary that stays in the cache
MOST_WEIGHTS = 2**32 - 1  # an index has 32 bits
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
    """The keys from `low` to `high`, both included: how many, and for how many elements smaller ones stand."""

    low: int
    high: int
    size: int
    before: int


# Magnitudes: sorting (|w|, index) packed into one integer is several times as fast as an argsort.


def rank_magnitudes(rankings: Sequence[Ranking], average: bool) -> np.ndarray:
    """Ranks |w| ascending inside each ranking, from 0 (Eq. 8); ranks are doubled if `average`; gives flat integers."""
    total = max((r.span.stop for r in rankings), default=0)
    keys = np.empty(total, np.uint32)
    ranks = np.empty(total, np.int32 if 2 * total < 2**31 else np.int64)
    run_all(lambda r: _fill_keys(r, keys), rankings)
    _rank_all([(keys[r.span], ranks[r.span], None) for r in rankings], average)
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


def _rank_all(lists: Iterable[_Keys], average: bool) -> None:
    """Writes the rank of each key, from 0: among the elements that its list's keys stand for."""
    run_all(
        lambda job: _rank_bucket(*job, average=average),
        ((*keys, bucket) for keys in lists for bucket in _buckets(keys[0], keys[2])),
    )


def _buckets(keys: np.ndarray, repeats: np.ndarray | None = None) -> list[_Bucket]:
    """Cuts keys by value into buckets of at most about `_BUCKET` keys; equal keys never part."""
    if keys.size <= _BUCKET // 3:
        return [_Bucket(0, int(np.iinfo(keys.dtype).max), keys.size, 0)]
    pieces = min(16, 2 * math.ceil(keys.size / (2 * _BUCKET)))  # even, to keep two threads equally busy
    sample = np.sort(keys[:: math.ceil(keys.size / 10_000)])
    cuts = sorted({int(sample[sample.size * piece // pieces]) for piece in range(1, pieces)} - {0})
    below, before = np.zeros((2, len(cuts)), np.int64)
    for block in blocks(keys.size):
        smaller = [keys[block] < keys.dtype.type(cut) for cut in cuts]
        below += [np.count_nonzero(found) for found in smaller]
        if repeats is not None:
            before += [int(repeats[block].sum(where=found, dtype=np.int64)) for found in smaller]
    edges, begins = [0, *cuts, int(np.iinfo(keys.dtype).max) + 1], [0, *below.tolist(), keys.size]
    starts = begins if repeats is None else [0, *before.tolist()]
    return [_Bucket(edges[i], edges[i + 1] - 1, begins[i + 1] - begins[i], starts[i]) for i in range(len(cuts) + 1)]


def _rank_bucket(
    keys: np.ndarray, ranks: np.ndarray, repeats: np.ndarray | None, bucket: _Bucket, average: bool
) -> None:
    layout = _Packing.of(keys, bucket)
    packed = _pack(keys, bucket, layout)
    packed.sort()
    before = bucket.before
    for block in _blocks_of_whole_ties(packed, layout):
        index = (packed[block] & np.uint64((1 << layout.bits) - 1)).view(np.int64)
        key = packed[block] >> np.uint64(layout.bits)
        if layout.dropped:
            key = _untangle(key, keys, index)
        # Where keys that are equal begin, and the end; and how many elements of this block stand before those.
        edges = np.arange(index.size + 1)
        if average:
            edges = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1], [True])))
        places = edges if repeats is None else np.append(0, np.cumsum(repeats[index]))[edges]
        if average:
            # Ties at positions p .. q - 1 have the average (p + q - 1) / 2.
            doubled = (places[:-1] + places[1:] + (2 * before - 1)).astype(ranks.dtype)
            ranks[index] = np.repeat(doubled, np.diff(edges))
        else:
            ranks[index] = (places[:-1] + before).astype(ranks.dtype)
        before += int(places[-1])


@dataclass(frozen=True)
class _Packing:
    """How a key and its index share 64 bits: so many are the index's, and so many of the key's lowest find no room."""

    bits: int
    dropped: int

    @classmethod
    def of(cls, keys: np.ndarray, bucket: _Bucket) -> _Packing:
        bits = keys.size.bit_length()
        most = min(bucket.high, int(keys.max(initial=0))) - bucket.low
        return cls(bits, max(most.bit_length() + bits - 64, 0))


def _untangle(heads: np.ndarray, keys: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Sorts what is sorted by all but the lowest bits of keys: `index`, in place. Returns the keys in order."""
    found = keys[index]
    starts = np.flatnonzero(np.append(True, heads[1:] != heads[:-1]))
    wrong = np.append(False, found[1:] < found[:-1])
    if wrong.any():
        lengths = np.diff(np.append(starts, heads.size))
        # Whole runs of equal heads: what is sorted among them stays within its run.
        rows = np.flatnonzero(np.repeat(np.logical_or.reduceat(wrong, starts), lengths))
        order = rows[np.argsort(found[rows], kind="stable")]
        index[rows], found[rows] = index[order], found[order]
    return found


def _pack(keys: np.ndarray, bucket: _Bucket, layout: _Packing) -> np.ndarray:
    """Returns `(key - lowest) >> dropped << bits | index` for each key of the bucket."""
    packed, filled = np.empty(bucket.size, np.uint64), 0
    low, width = keys.dtype.type(bucket.low), keys.dtype.type(bucket.high - bucket.low)
    for block in blocks(keys.size):
        if packed.size == keys.size:
            found, index = keys[block], np.arange(block.start, block.stop, dtype=np.uint64)
        else:
            inside = np.flatnonzero(keys[block] - low <= width)  # unsigned: keys below `low` wrap round to large ones
            found, index = keys[block][inside], (inside + block.start).view(np.uint64)
        target = packed[filled : filled + found.size]
        target[:] = found
        target -= np.uint64(bucket.low)
        target >>= np.uint64(layout.dropped)
        target <<= np.uint64(layout.bits)
        target |= index
        filled += found.size
    return packed


def _blocks_of_whole_ties(packed: np.ndarray, layout: _Packing) -> list[slice]:
    """Cuts sorted keys into blocks that fit the cache, moved back to where a run of equal keys begins."""
    starts = packed[::_BLOCK] >> np.uint64(layout.bits) << np.uint64(layout.bits)
    edges = [*np.unique(np.searchsorted(packed, starts)).tolist(), packed.size]
    return [slice(*pair) for pair in itertools.pairwise(edges)]


# Coverages: of few possible values a histogram tells the ranks, and nothing is sorted. Samples in their thousands, and
# layers with other numbers of positions, make as many values as there are pairs of neurons.


def subtract_from_coverage_ranks(flat: np.ndarray, rankings: Sequence[Ranking], average: bool) -> None:
    """Turns the ranks of |w| in `flat` into scores, rank(coverage) - rank(|w|), in place (Eq. 9-10)."""

    def subtract_all(ranking: Ranking) -> None:
        sides, table = _ranks_of_coverages(ranking, average)

        def subtract(block: tuple[np.ndarray, ...]) -> None:
            ranks, inputs, outputs = block
            np.subtract(table[inputs + outputs], ranks, out=ranks, casting="same_kind")

        for part, pair in zip(ranking.parts, sides, strict=True):
            run_all(subtract, _cut(flat[part.start : part.stop].reshape(part.shape), *pair))

    run_all(subtract_all, rankings)


def _cut(ranks: np.ndarray, inputs: np.ndarray, outputs: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Cuts arrays that broadcast together into blocks, along the first axis that is not a tap."""
    pair_shape = np.broadcast_shapes(inputs.shape, outputs.shape)
    axis = next((axis for axis, size in enumerate(pair_shape) if size > 1), 0)
    for rows in blocks(pair_shape[axis], max(1, _BLOCK * pair_shape[axis] // math.prod(pair_shape))):
        at = (slice(None),) * axis + (rows,)
        yield tuple(array[at] if array.shape[axis] == pair_shape[axis] else array for array in (ranks, inputs, outputs))


def _coverage_sides(ranking: Ranking) -> list[_Sides]:
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


def _ranks_of_coverages(ranking: Ranking, average: bool) -> tuple[list[_Sides], np.ndarray]:
    """The rank of each pair's coverage, in which every weight counts as one element.

    Returns:
        For each kernel two arrays that broadcast over its pairs, and a table: the rank of a pair is at the place which
        their sum gives. Doubled average ranks, or the released ones: how many weights are in pairs listed before.
    """
    sides = _coverage_sides(ranking)
    taps = [part.taps for part in ranking.parts]
    top = max(inputs.max() + outputs.max() for inputs, outputs in sides)
    pairs = sum(math.prod(np.broadcast_shapes(inputs.shape, outputs.shape)) for inputs, outputs in sides)
    if average and isinstance(top, np.integer) and top < max(1 << 16, pairs // 4):
        histogram = np.zeros(int(top) + 1, np.int64)
        for pair, each in zip(sides, taps, strict=True):
            cells = _cells(pair, each, merged=True)
            found = np.bincount(cells.coverages, cells.repeats)
            histogram[: found.size] += found.astype(np.int64)
        last = np.cumsum(histogram)
        return sides, _narrow(2 * last - histogram - 1, int(last[-1]))
    listed = [_cells(pair, each, merged=average) for pair, each in zip(sides, taps, strict=True)]
    coverages = np.concatenate([cells.coverages for cells in listed])
    if not isinstance(top, np.integer):
        coverages = np.unique(coverages, return_inverse=True)[1]
    repeats = np.concatenate([cells.repeats for cells in listed])
    ranks = _narrow(np.empty(coverages.size, np.int64), int(repeats.sum()))
    _rank_all([(coverages.view(np.uint64), ranks, repeats)], average)
    starts = itertools.accumulate((cells.coverages.size for cells in listed), initial=0)
    return [(cells.sides[0] + start, cells.sides[1]) for cells, start in zip(listed, starts, strict=False)], ranks


@dataclass(frozen=True, eq=False)
class _Cells:
    """The coverages that occur in a kernel, some of them more than once.

    Args:
        coverages: Flat.
        repeats: How many weights each stands for.
        sides: Two arrays that broadcast over the kernel's pairs; their sum is the place of a pair's coverage.
    """

    coverages: np.ndarray
    repeats: np.ndarray
    sides: _Sides


def _cells(sides: _Sides, taps: int, *, merged: bool) -> _Cells:
    """Tells apart what stands in a kernel: pairs of different counts where they may be `merged`, else every pair."""
    inputs, outputs = sides
    if not merged or any(i > 1 and o > 1 for i, o in zip(inputs.shape, outputs.shape, strict=True)):
        coverages = inputs + outputs
        places = np.arange(coverages.size).reshape(coverages.shape)
        return _Cells(coverages.ravel(), np.full(coverages.size, taps), (places, np.zeros_like(outputs, np.int64)))
    # Every input meets every output, so it is enough to pair the different counts of both sides.
    rows, row, row_repeats = np.unique(inputs, return_inverse=True, return_counts=True)
    columns, column, column_repeats = np.unique(outputs, return_inverse=True, return_counts=True)
    return _Cells(
        np.add.outer(rows, columns).ravel(),
        np.multiply.outer(row_repeats * taps, column_repeats).ravel(),
        (row.reshape(inputs.shape) * columns.size, column.reshape(outputs.shape)),
    )


def _narrow(ranks: np.ndarray, elements: int) -> np.ndarray:
    """Ranks of so many elements in the smaller type, if twice the largest fits."""
    return ranks.astype(np.int32) if 2 * elements < 2**31 else ranks


def run_all(function: Callable[[_Job], _Result], jobs: Iterable[_Job]) -> list[_Result]:
    """Applies a function to all jobs on a few threads: NumPy's sorts and loops let go of the interpreter lock."""
    jobs = list(jobs)
    if len(jobs) == 1:
        return [function(jobs[0])]
    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(function, jobs))


def blocks(size: int, block: int = 0) -> list[slice]:
    """Cuts so many elements into pieces: of a size that stays in the processor's cache, if none is given."""
    block = block or _BLOCK
    return [slice(start, min(start + block, size)) for start in range(0, size, block)]
