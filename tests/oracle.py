"""Coverage as slow, obvious loops over samples and neurons: the fast code must equal this exactly.

Nothing here is shared with keras_remos.coverage: activations are scaled in a copy and means are sums over lists, in
float64 or, where a test gives fractions, exactly. A comparison of floats that float32 could decide the other way is an
error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

TOO_CLOSE = 1e-6  # of the values compared; float32 noise is about a tenth of it


@dataclass
class Neurons:
    """What neurons do: `values[sample][position][neuron]`, and at which positions of each sample that is no padding."""

    values: np.ndarray
    valid: np.ndarray

    def without_mask(self) -> "Neurons":
        return Neurons(self.values, np.ones_like(self.valid))


@dataclass
class Tokens:
    """The token ids that enter an embedding, `(sample, ...)`, where they are no padding, and how many there are."""

    ids: np.ndarray
    valid: np.ndarray
    vocabulary: int

    def without_mask(self) -> "Tokens":
        return Tokens(self.ids, np.ones_like(self.valid), self.vocabulary)


@dataclass
class Site:
    """One call of a kernel's layer: the neurons on both sides, as the layer returns them and after what follows it."""

    kernel: str
    inputs: Neurons | Tokens
    output: Neurons | None = None
    activation: Neurons | None = None


def neurons(tensor: np.ndarray, axes: Sequence[int] = (-1,), mask: np.ndarray | None = None) -> Neurons:
    """`tensor` as samples x positions x neurons; `axes` index neurons, all others but 0 positions."""
    tensor = np.asarray(tensor, np.float64)
    neuron_axes = [axis % tensor.ndim for axis in axes]
    position_axes = [axis for axis in range(1, tensor.ndim) if axis not in neuron_axes]
    values = tensor.transpose(0, *position_axes, *neuron_axes)
    positions = math.prod(tensor.shape[axis] for axis in position_axes)
    values = values.reshape(len(tensor), positions, -1)
    valid = np.ones((len(tensor), positions), bool)
    if mask is not None:
        # The mask is for the first position axis; the others vary faster.
        valid = np.repeat(np.asarray(mask, bool), positions // mask.shape[1], axis=1)
    return Neurons(values, valid)


def exceeds(value: float, limit: float, size: float) -> bool:
    if math.isnan(value) or math.isnan(limit):
        return False
    if not isinstance(value, Fraction) and value != limit and abs(value - limit) < TOO_CLOSE * size:
        raise AssertionError(f"too close to call: {value!r} and {limit!r}; choose another seed")
    return value > limit


def count(seen: Neurons, name: str = "nc", **options: Any) -> tuple[list[int], int]:
    """How often each neuron is covered, and out of how many times."""
    samples, _, size = seen.values.shape
    counts, total = [0] * size, 0
    for sample in range(samples):
        rows = [row for row, valid in zip(seen.values[sample], seen.valid[sample], strict=True) if valid]
        covered, times = {"nc": _nc, "tknc": _tknc, "snac": _snac}[name](rows, size, **options)
        counts = [old + new for old, new in zip(counts, covered, strict=True)]
        total += times
    return counts, total


def _mean_of(rows: list[np.ndarray], size: int) -> list[float]:
    return [sum(row[neuron] for row in rows) / max(len(rows), 1) for neuron in range(size)]


def _nc(
    rows: list[np.ndarray], size: int, threshold: float = 0.5, scale: str = "minmax", positions: str = "mean"
) -> tuple[list[int], int]:
    largest = max((abs(v) for row in rows for v in row), default=0.0)
    if scale == "minmax":
        low = min((v for row in rows for v in row), default=0.0)
        high = max((v for row in rows for v in row), default=0.0)
        # The released code divides by zero here, and NaN covers nothing.
        rows = [[(v - low) / (high - low) if high > low else math.nan for v in row] for row in rows]
        largest = 1.0 + (largest / (high - low) if high > low else 0.0)
        if any(mean == threshold and not isinstance(mean, Fraction) for mean in _mean_of(rows, size)):
            raise AssertionError("a tie that float32 may break either way; choose another seed")
    if scale == "absmean":
        rows = [[abs(v) for v in row] for row in rows]
        size_of_all = sum(sum(row) for row in rows) / max(len(rows) * size, 1)
        threshold = (Fraction(threshold) if isinstance(size_of_all, Fraction) else threshold) * size_of_all
    if positions == "share":
        return [sum(exceeds(row[n], threshold, largest) for row in rows) for n in range(size)], len(rows)
    if not rows:
        return [0] * size, 1
    return [int(exceeds(mean, threshold, largest)) for mean in _mean_of(rows, size)], 1


def _tknc(rows: list[np.ndarray], size: int, k: int = 10) -> tuple[list[int], int]:
    means = _mean_of(rows, size)
    largest = max(map(abs, means))
    kth = sorted(means, reverse=True)[min(k, size) - 1]
    covered = []
    for mean in means:
        among_top = not exceeds(kth, mean, largest)  # ties with the k-th are in
        covered.append(int(among_top and mean > min(means)))
    return covered, 1


def _snac(rows: list[np.ndarray], size: int, k: float = 2.0) -> tuple[list[int], int]:
    means = _mean_of(rows, size)
    bound = max(means) - (max(means) - min(means)) / k
    return [int(exceeds(mean, bound, max(map(abs, means)))) for mean in means], 1


def count_tokens(tokens: Tokens) -> tuple[list[int], int]:
    """In how many samples each token occurs, and how many samples there are."""
    counts = [0] * tokens.vocabulary
    for ids, valid in zip(tokens.ids, tokens.valid, strict=True):
        for token in {int(i) for i, v in zip(np.ravel(ids), np.ravel(valid), strict=True) if v}:
            counts[token] += 1
    return counts, len(tokens.ids)


def profile(
    sites: Sequence[Site], on: str = "activation", count_padding: bool = False, **criterion: Any
) -> dict[str, tuple[list[int], list[int], int, int]]:
    """For each kernel `(inputs, outputs, input positions, output positions)`, summed over its layer's calls."""
    totals: dict[str, tuple[list[int], list[int], int, int]] = {}
    for site in sites:
        read, written = site.inputs, site.activation if on == "activation" else site.output
        if count_padding:
            read, written = read.without_mask(), written and written.without_mask()
        inputs, input_times = count_tokens(read) if isinstance(read, Tokens) else count(read, **criterion)
        outputs, output_times = ([], 0) if written is None else count(written, **criterion)
        if site.kernel in totals:
            old = totals[site.kernel]
            inputs = [a + b for a, b in zip(old[0], inputs, strict=True)]
            outputs = [a + b for a, b in zip(old[1], outputs, strict=True)]
            input_times, output_times = old[2] + input_times, old[3] + output_times
        totals[site.kernel] = (inputs, outputs, input_times, output_times)
    return totals
