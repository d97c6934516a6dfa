"""The excess above a floor, and figures over seeds, against arithmetic by hand."""

import math

import numpy as np
import pytest

from keras_remos.errors import DataError
from keras_remos.evaluation.intervals import over_seeds
from keras_remos.evaluation.metrics import Rate


def rate(hits: int, n: int = 200, shift: int = 0) -> Rate:
    """So many hits out of so many inputs, the first of them being number `shift`."""
    return Rate.of(np.roll(np.arange(n) < hits, shift), np.ones(n, bool))


def test_the_control_reads_1_and_the_floor_0() -> None:
    control, floor = rate(120), rate(20)
    for student, expected in ((control, 1.0), (floor, 0.0), (rate(70), 0.5), (rate(10), -0.1), (rate(130), 1.1)):
        found = student.excess(control, floor)
        assert found.value == pytest.approx(expected)
        assert found.low <= found.value + 1e-9 and found.value - 1e-9 <= found.high
        assert found.n == 200
    # Inputs are drawn with the outcomes of all three: with itself nothing is in doubt.
    assert control.excess(control, floor).low == control.excess(control, floor).high == pytest.approx(1)
    assert floor.excess(control, floor).low == floor.excess(control, floor).high == pytest.approx(0)


def test_a_rate_of_0_is_not_known_exactly() -> None:
    control, none, floor = rate(10, 15), rate(0, 15), rate(0, 15)
    # Wilson's interval of 0 in 15 ends at z^2 / (15 + z^2) = 0.2039.
    found = none.excess(control, floor)
    assert found.value == 0 and found.high == pytest.approx(0.2039 / (10 / 15), abs=1e-3)
    assert found.low == pytest.approx(-0.2039 / (10 / 15 - 0.2039), abs=1e-3)
    # The floor might be at .2039, too, and the student no further above it than 5/15 is above that.
    assert rate(5, 15).excess(control, floor).low <= (5 / 15 - 0.2039) / (10 / 15 - 0.2039) + 1e-3
    assert rate(15, 15).excess(control, floor).low <= (1 - 0.2039) / (10 / 15) + 1e-3


def test_the_interval_is_that_of_slow_resampling() -> None:
    rng = np.random.default_rng(0)
    student, control, floor = (Rate.of(rng.random(80) < p, rng.random(80) < 0.9) for p in (0.4, 0.8, 0.1))
    found = student.excess(control, floor, resamples=4_000)
    slow = []
    for _ in range(4_000):
        rows = rng.integers(80, size=80)
        drawn = [each.outcomes[rows] for each in (student, control, floor)]  # type: ignore[index]
        ours, theirs, least = ((each == 1).sum() / (each >= 0).sum() for each in drawn)
        slow.append((ours - least) / (theirs - least))
    assert np.quantile(slow, [0.025, 0.975]) == pytest.approx([found.low, found.high], abs=0.04)


@pytest.mark.parametrize(
    ("control", "floor"),
    [
        (rate(20), rate(20)),
        (rate(22), rate(20, shift=90)),
        (rate(10), rate(40)),
        (Rate.of(*[np.zeros(200, bool)] * 2), rate(2)),
    ],
)
def test_where_there_is_nothing_to_inherit_there_is_no_excess(control: Rate, floor: Rate) -> None:
    found = rate(15).excess(control, floor)
    assert math.isnan(found.value) and math.isnan(found.low) and math.isnan(found.high)


def test_rates_of_other_inputs_are_refused() -> None:
    with pytest.raises(DataError, match="200 and 200 and 100"):
        rate(3).excess(rate(30), rate(1, n=100))
    with pytest.raises(DataError, match="counts alone"):
        rate(3).excess(rate(30), Rate(1, 200))


def test_three_seeds_are_three_figures() -> None:
    found = over_seeds([0.332, 0.813, 0.615])
    # Student's t with two degrees of freedom: 4.3027 times the standard error, 0.139561.
    assert found.value == pytest.approx(0.58667, abs=1e-5)
    assert found.high - found.value == pytest.approx(4.30265 * 0.139561, abs=1e-4)
    assert found.value - found.low == pytest.approx(found.high - found.value)
    assert found.n == 3


@pytest.mark.parametrize(("seeds", "t"), [(2, 12.7062), (4, 3.18245), (10, 2.26216), (31, 2.04227)])
def test_the_quantiles_are_those_of_the_tables(seeds: int, t: float) -> None:
    values = np.arange(seeds) / 10
    found = over_seeds(values)
    assert found.high - found.value == pytest.approx(t * values.std(ddof=1) / math.sqrt(seeds), rel=1e-4)


def test_one_seed_has_no_spread_and_none_no_figure() -> None:
    found = over_seeds([0.4])
    assert found.value == 0.4 and math.isnan(found.low) and math.isnan(found.high) and found.n == 1
    assert math.isnan(over_seeds([0.4, math.nan]).value)
    with pytest.raises(DataError, match="none"):
        over_seeds([])
