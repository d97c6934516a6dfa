"""Figures with the interval that they lie in: over test inputs by bootstrap, over training seeds by Student's t."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_remos.errors import DataError

CONFIDENCE = 0.95
RESAMPLES = 10_000
_STATES = 3  # of one input under one rate: not counted, counted and no hit, hit


@dataclass(frozen=True)
class Estimate:
    """A figure and the interval that it lies in.

    Args:
        value: The figure; NaN where it is undefined, as a ratio to a control of 0 is.
        low: Lower end of the interval.
        high: Upper end; infinite where resampling may leave the control without a hit.
        n: How many inputs it rests on.
    """

    value: float
    low: float
    high: float
    n: int

    def describe(self) -> dict[str, float | int | None]:
        """The same as plain values for JSON; `None` for what is undefined or infinite."""
        return {"value": finite(self.value), "low": finite(self.low), "high": finite(self.high), "n": self.n}


def over_seeds(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate:
    """The mean of one figure over students of several seeds, with Student's t interval.

    Students of other seeds answer the same inputs, so their answers are no independent inputs: three seeds of 500
    inputs are three figures, not 1,500. The interval is about students of further seeds on inputs like these.

    Args:
        values: The figure for each seed.
        confidence: Above 0 and below 1.

    Returns:
        Mean and interval; `n` is the number of seeds. With one seed the ends are NaN: one figure has no spread. NaN
        throughout where one of them is undefined.

    Raises:
        DataError: If there is none.
    """
    check_confidence(confidence)
    if not len(values):
        raise DataError("Expected a figure for each of one or more seeds. Received: none.")
    found = np.asarray(values, np.float64)
    mean = float(found.mean())
    if len(found) == 1 or math.isnan(mean):
        return Estimate(mean, math.nan, math.nan, len(found))
    half = _t_quantile((1 + confidence) / 2, len(found) - 1) * float(found.std(ddof=1)) / math.sqrt(len(found))
    return Estimate(mean, mean - half, mean + half, len(found))


class Joint:
    """The outcomes of several rates on the same inputs: how many inputs have each combination of them.

    A bootstrap sample of the inputs is a multinomial draw of these counts, so its cost does not grow with them.

    Args:
        *outcomes: Of each rate, int8 of shape `(n,)`: see `Rate`.

    Raises:
        DataError: If one is missing, or they are not of the same inputs.
    """

    def __init__(self, *outcomes: np.ndarray | None) -> None:
        known = [each for each in outcomes if each is not None]
        if len(known) < len(outcomes):
            raise DataError(
                "Expected rates that know their outcomes, as accuracy, flip_rate and target_rate make them. "
                "Received one that was made from counts alone: those of two students cannot be paired."
            )
        sizes = [len(each) for each in known]
        if len(set(sizes)) > 1:
            raise DataError(
                f"Expected rates of the same inputs. Received: {' and '.join(map(str, sizes))} inputs. Measure the "
                "students on one test set."
            )
        self.n = sizes[0]
        self._shape = (_STATES,) * len(known)
        combined = np.ravel_multi_index([each.astype(np.int64) + 1 for each in known], self._shape)
        self.counts = np.bincount(combined, minlength=_STATES ** len(known))

    def resample(self, seed: int, resamples: int) -> tuple[np.ndarray, ...]:
        """The rates in each bootstrap sample; NaN where nothing in it counts."""
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(self.n, self.counts / self.n, size=resamples).reshape(resamples, *self._shape)
        axes = range(1, drawn.ndim)
        return tuple(_rates(drawn.sum(axis=tuple(other for other in axes if other != axis))) for axis in axes)

    def undefined(self) -> Estimate:
        """No figure for these inputs."""
        return Estimate(math.nan, math.nan, math.nan, self.n)


def _rates(states: np.ndarray) -> np.ndarray:
    """Hits out of those that count, from how many inputs are in each of the three states."""
    with np.errstate(invalid="ignore"):
        return states[:, 2] / (states[:, 1] + states[:, 2])


def percentiles(values: np.ndarray, confidence: float) -> tuple[float, float]:
    """The ends of the middle share of some values; NaN among them do not count."""
    check_confidence(confidence)
    defined = values[~np.isnan(values)]
    if not defined.size:
        return math.nan, math.nan
    # Values themselves, not means of two of them: one may be infinite.
    low, high = np.quantile(defined, [(1 - confidence) / 2, (1 + confidence) / 2], method="inverted_cdf")
    return float(low), float(high)


def _t_quantile(probability: float, degrees: int) -> float:
    """The point that Student's t stays below with a probability above one half."""
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
    # Substituting x = sqrt(degrees) tan(angle) leaves an integral over a finite range, of a smooth function.
    middles = (np.arange(2_000) + 0.5) / 2_000
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        angle = (low + high) / 2
        area = angle * float(np.mean(np.cos(angle * middles) ** (degrees - 1)))
        below = 0.5 + scale * math.sqrt(degrees) * area
        low, high = (angle, high) if below < probability else (low, angle)
    return math.sqrt(degrees) * math.tan(low)


def check_confidence(confidence: float) -> None:
    """Makes sure that a confidence is above 0 and below 1."""
    if not 0 < confidence < 1:
        raise DataError(f"Expected a confidence above 0 and below 1. Received: {confidence!r}.")


def finite(value: float) -> float | None:
    """The value, or `None` where JSON has none for it."""
    return value if math.isfinite(value) else None
