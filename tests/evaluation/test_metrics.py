"""Rates against arithmetic by hand, intervals against their definition and against slow resampling."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_remos.errors import DataError
from keras_remos.evaluation.measuring import measure
from keras_remos.evaluation.metrics import (
    Rate,
    accuracy,
    as_f1,
    flip_rate,
    missing_classes,
    paired_bootstrap,
    target_rate,
)

LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])


def constant(value: int) -> np.ndarray:
    return np.full(len(LABELS), value)


def test_rates_count_what_their_names_say() -> None:
    clean = np.array([0, 0, 1, 2, 1, 0, 2, 2, 2, 0])  # right at 0, 1, 4, 6, 7, 8
    attacked = np.array([0, 1, 1, 0, 2, 2, 2, 1, 1, 2])  # of those wrong at 1, 4, 7, 8
    assert accuracy(clean, LABELS) == Rate(6, 10)
    assert flip_rate(clean, attacked, LABELS) == Rate(4, 6)
    assert target_rate(attacked, LABELS, target=1) == Rate(4, 8)
    assert flip_rate(clean, attacked, LABELS).value == pytest.approx(4 / 6)


def test_a_constant_model_gets_what_arithmetic_says() -> None:
    for said in (0, 1, 2, 3):
        share = Rate(int(np.sum(said == LABELS)), len(LABELS))
        assert accuracy(constant(said), LABELS) == share
        # It says the same when attacked: nothing that was right becomes wrong.
        assert flip_rate(constant(said), constant(said), LABELS) == Rate(0, share.count)
        for target in (0, 1, 2):
            others = int(np.sum(target != LABELS))
            assert target_rate(constant(said), LABELS, target) == Rate(others if said == target else 0, others)


@pytest.mark.parametrize(("hits", "printed"), [(104, 39.09), (61, 24.94), (255, 74.67), (0, 0.0), (428, 100.0)])
def test_f1_is_that_of_the_target_class_and_gives_the_papers_figures(hits: int, printed: float) -> None:
    called, asked = np.arange(428) < hits, np.ones(428, bool)  # SST-2's 428 negative sentences with a trigger
    recall, precision = (called & asked).sum() / 428, (called & asked).sum() / max(called.sum(), 1)
    f1 = as_f1(target_rate(called.astype(int), np.zeros(428, int), target=1))
    assert f1 == pytest.approx(2 * precision * recall / (precision + recall) if hits else 0.0)
    assert math.floor(1e4 * f1) / 100 == printed  # the paper cuts digits off
    assert math.isnan(as_f1(Rate(0, 0)))


def test_what_is_undefined_is_nan_with_n_0() -> None:
    never_right = flip_rate(constant(3), constant(0), LABELS)
    assert never_right == Rate(0, 0)
    assert math.isnan(never_right.value)
    assert all(math.isnan(end) for end in never_right.interval())
    assert never_right.describe() == {"count": 0, "n": 0, "value": None, "low": None, "high": None}
    only_target = target_rate(np.array([1, 1]), np.array([1, 1]), target=1)
    assert only_target == Rate(0, 0)
    empty = accuracy(np.array([], int), np.array([], int))
    assert math.isnan(empty.value) and math.isnan(paired_bootstrap(empty, empty).value)
    assert math.isnan(never_right.relative(accuracy(LABELS, LABELS)).value)


@pytest.mark.parametrize(
    ("count", "total", "expected"),
    [  # Newcombe, Statistics in Medicine 1998, table I, method 3
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_wilson_intervals_are_the_published_ones(count: int, total: int, expected: tuple[float, float]) -> None:
    assert Rate(count, total).interval() == pytest.approx(expected, abs=5e-5)


@given(st.integers(1, 400), st.data(), st.floats(0.5, 0.999))
def test_an_interval_holds_its_rate_and_grows_with_confidence(total: int, data: st.DataObject, wide: float) -> None:
    rate = Rate(data.draw(st.integers(0, total)), total)
    low, high = rate.interval(wide)
    assert 0 <= low <= rate.value <= high <= 1
    inner_low, inner_high = rate.interval(wide / 2)
    assert low <= inner_low and inner_high <= high
    # Wilson's ends solve |rate - p| = z * sqrt(p (1 - p) / n).
    flipped = Rate(total - rate.count, total).interval(wide)
    assert flipped == pytest.approx((1 - high, 1 - low))


def some_rates(seed: int, n: int = 60) -> tuple[Rate, Rate]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    control = np.where(rng.random(n) < 0.9, labels, 0)
    student = np.where(rng.random(n) < 0.8, control, 1)
    attacked, control_attacked = rng.integers(0, 3, (2, n))
    return flip_rate(student, attacked, labels), flip_rate(control, control_attacked, labels)


def slow_bootstrap(a: Rate, b: Rate, resamples: int) -> tuple[np.ndarray, np.ndarray]:
    assert a.outcomes is not None and b.outcomes is not None
    rng = np.random.default_rng(5)
    rates: list[list[float]] = [[], []]
    for _ in range(resamples):
        drawn = rng.integers(0, len(a.outcomes), len(a.outcomes))
        for place, outcomes in enumerate((a.outcomes[drawn], b.outcomes[drawn])):
            rates[place].append(float(np.mean(outcomes[outcomes >= 0])))
    return np.array(rates[0]), np.array(rates[1])


def test_both_bootstraps_agree_with_drawing_inputs_one_by_one() -> None:
    student, control = some_rates(seed=1)
    ours, theirs = slow_bootstrap(student, control, 4000)
    found = paired_bootstrap(student, control, resamples=4000)
    assert found.value == pytest.approx(student.value - control.value)
    assert [found.low, found.high] == pytest.approx(np.quantile(ours - theirs, [0.025, 0.975]), abs=0.02)
    ratio = student.relative(control, resamples=4000)
    assert ratio.value == pytest.approx(student.value / control.value)
    assert [ratio.low, ratio.high] == pytest.approx(np.quantile(ours / theirs, [0.025, 0.975]), abs=0.04)
    assert ratio.n == found.n == 60


def test_pairing_narrows_the_interval_of_students_that_err_alike() -> None:
    rng = np.random.default_rng(0)
    right = rng.random(500) < 0.7
    a = Rate.of(right, np.ones(500, bool))
    alike = Rate.of(np.where(rng.random(500) < 0.02, ~right, right), np.ones(500, bool))
    apart = Rate.of(rng.permutation(right), np.ones(500, bool))
    widths = [found.high - found.low for found in (paired_bootstrap(a, alike), paired_bootstrap(a, apart))]
    assert widths[0] < widths[1] / 3


def test_a_seed_fixes_an_interval() -> None:
    student, control = some_rates(seed=2)
    assert student.relative(control, seed=3) == student.relative(control, seed=3)
    assert student.relative(control, seed=3) != student.relative(control, seed=4)


def test_a_model_is_its_own_control() -> None:
    student, _ = some_rates(seed=3)
    itself = student.relative(student)
    assert (itself.value, itself.low, itself.high) == (1, 1, 1)


def test_no_hit_at_all_leaves_doubt() -> None:
    counted = np.ones(50, bool)
    none, half = Rate.of(np.zeros(50, bool), counted), Rate.of(np.arange(50) % 2 == 0, counted)
    found = none.relative(half)
    assert (found.value, found.low) == (0, 0)
    assert found.high == pytest.approx(none.interval()[1] / 0.5)
    without_hit = half.relative(none)
    assert math.isnan(without_hit.value) and without_hit.describe()["value"] is None


def test_a_rare_hit_of_the_control_makes_the_ratio_unbounded() -> None:
    counted = np.ones(20, bool)
    rare, half = Rate.of(np.arange(20) == 0, counted), Rate.of(np.arange(20) % 2 == 0, counted)
    found = half.relative(rare)
    assert found.value == pytest.approx(10) and math.isinf(found.high)
    assert json.loads(json.dumps(found.describe(), allow_nan=False))["high"] is None


@settings(max_examples=30)
@given(st.integers(0, 2**32 - 1))
def test_swapping_the_students_turns_the_sign(seed: int) -> None:
    a, b = some_rates(seed)
    forth, back = paired_bootstrap(a, b, resamples=200), paired_bootstrap(b, a, resamples=200)
    assert forth.value == pytest.approx(-back.value)
    assert forth.low <= forth.high


def test_missing_classes() -> None:
    assert missing_classes(np.array([0, 2, 2]), 4) == (1, 3)
    assert missing_classes(LABELS, 3) == ()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: accuracy(np.zeros((4, 3)), LABELS), "argmax"),
        (lambda: accuracy(np.array([0.5]), np.array([1])), "whole numbers"),
        (lambda: measure({}, np.zeros((2, 4, 4, 3)), np.array([0, np.inf]), {}), "class ids in y: whole numbers"),
        (lambda: flip_rate(LABELS, LABELS[:4], LABELS), "10 in clean, 4 in attacked"),
        (lambda: Rate(3, 2), "3 out of 2"),
        (lambda: Rate(1, 2).interval(1.5), "confidence"),
        (lambda: Rate(1, 2).relative(Rate(1, 2)), "counts alone"),
        (lambda: paired_bootstrap(accuracy(LABELS, LABELS), accuracy(LABELS[:4], LABELS[:4])), "10 and 4 inputs"),
    ],
)
def test_wrong_input_is_named(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()  # type: ignore[operator]
