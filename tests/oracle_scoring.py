"""Ordinal scores and masks as slow, obvious loops over single weights: the fast code must equal this exactly.

Nothing here is shared with keras_remos.slicing: coverages are fractions, ranks are counted by comparing everything with
everything.
"""

from dataclasses import dataclass
from fractions import Fraction
from itertools import product

import numpy as np


@dataclass
class Weight:
    kernel: str
    position: tuple[int, ...]  # in the kernel's view
    magnitude: float
    coverage: Fraction
    pair: tuple[str, tuple[int, ...], tuple[int, ...]]


def list_weights(name, kernel):
    """One kernel's weights, input by input, then output by output, then tap by tap."""
    view = kernel.view
    values = kernel.weights.reshape(view)
    inputs = kernel.inputs.reshape([view[a] for a in kernel.input_axes])
    outputs = kernel.outputs.reshape([view[a] for a in kernel.output_axes])
    new_outputs = [a for a in kernel.output_axes if a not in kernel.input_axes]
    taps = [a for a in range(len(view)) if a not in kernel.input_axes and a not in kernel.output_axes]
    axes = [*kernel.input_axes, *new_outputs, *taps]
    weights = []
    for at in product(*(range(view[a]) for a in axes)):
        where = dict(zip(axes, at, strict=True))
        i = tuple(where[a] for a in kernel.input_axes)
        o = tuple(where[a] for a in kernel.output_axes)
        position = tuple(where[a] for a in range(len(view)))
        coverage = Fraction(int(inputs[i]), max(kernel.input_positions, 1))
        coverage += Fraction(int(outputs[o]), max(kernel.output_positions, 1))
        weights.append(Weight(name, position, abs(float(values[position])), coverage, (name, i, o)))
    return weights


def rankings(kernels, scope):
    listed = [list_weights(name, kernel) for name, kernel in kernels.items()]
    return listed if scope == "layer" else [[w for weights in listed for w in weights]]


def doubled_average_rank(value, values):
    below = sum(v < value for v in values)
    equal = sum(v == value for v in values)
    return 2 * below + equal - 1  # the mean of below, .., below + equal - 1, doubled


def released_coverage_ranks(weights):
    """Sort pairs by coverage, stably; each pair carries a counter's value, which then moves on by the pair's taps."""
    pairs = []
    for weight in weights:
        if weight.pair not in pairs:
            pairs.append(weight.pair)
    coverage = {w.pair: w.coverage for w in weights}
    ranks, counter = {}, 0
    for pair in sorted(pairs, key=lambda p: coverage[p]):
        ranks[pair] = counter
        counter += sum(w.pair == pair for w in weights)
    return [ranks[w.pair] for w in weights]


def released_magnitude_ranks(weights):
    order = sorted(range(len(weights)), key=lambda i: weights[i].magnitude)
    return [order.index(i) for i in range(len(weights))]


def score_ranking(weights, ties):
    if ties == "order":
        coverage, magnitude = released_coverage_ranks(weights), released_magnitude_ranks(weights)
    else:
        coverage = [doubled_average_rank(w.coverage, [v.coverage for v in weights]) for w in weights]
        magnitude = [doubled_average_rank(w.magnitude, [v.magnitude for v in weights]) for w in weights]
    return [c - m for c, m in zip(coverage, magnitude, strict=True)]


def to_arrays(kernels, weights, values, dtype):
    arrays = {name: np.empty(kernel.view, dtype) for name, kernel in kernels.items()}
    for weight, value in zip(weights, values, strict=True):
        arrays[weight.kernel][weight.position] = value
    return {name: array.reshape(kernels[name].weights.shape) for name, array in arrays.items()}


def score(kernels, ties, scope):
    weights = [w for ranking in rankings(kernels, scope) for w in ranking]
    values = [s for ranking in rankings(kernels, scope) for s in score_ranking(ranking, ties)]
    return to_arrays(kernels, weights, values, np.int64)


def select(kernels, keep_ratio, ties, scope):
    weights, kept = [], []
    for ranking in rankings(kernels, scope):
        scores = score_ranking(ranking, ties)
        k = min(int(len(scores) * round(1 - keep_ratio, 12)), len(scores) - 1)
        threshold = sorted(scores)[k]
        weights += ranking
        kept += [s > threshold if ties == "order" else s >= threshold for s in scores]
    return to_arrays(kernels, weights, kept, bool)


def select_within(kernels, keep_ratio, scope, limit):
    """The average rule where no kernel may lose more than `limit` times the share: tries every threshold."""
    removed = Fraction(str(round(1 - keep_ratio, 12)))
    weights, kept = [], []
    for ranking in rankings(kernels, scope):
        scores = score_ranking(ranking, "average")
        per_kernel = {
            w.kernel: [s for v, s in zip(ranking, scores, strict=True) if v.kernel == w.kernel] for w in ranking
        }
        most = {name: min(limit * removed, 1) * len(own) for name, own in per_kernel.items()}

        def lost(score, name, per_kernel=per_kernel):
            return sum(s < score for s in per_kernel[name])

        common = max(t for t in scores if sum(min(lost(t, name), most[name]) for name in most) <= removed * len(scores))
        own = {name: max(t for t in per_kernel[name] if lost(t, name) <= most[name]) for name in most}
        weights += ranking
        kept += [s >= min(common, own[w.kernel]) for w, s in zip(ranking, scores, strict=True)]
    return to_arrays(kernels, weights, kept, bool)
