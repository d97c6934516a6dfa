"""Criteria against the oracle, on tensors of halves: means and thresholds are exact, so that ties must agree."""

import math
from fractions import Fraction
from typing import Any

import keras
import numpy as np
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import numpy

from keras_remos import RemosError
from keras_remos.coverage.activations import Activations, Padding
from keras_remos.coverage.criteria import (
    CRITERIA,
    NeuronCoverage,
    StrongCoverage,
    TopKCoverage,
    as_criterion,
    count_tokens,
)

# Threshold, k and the number of positions (a power of two, but for masks) keep every comparison exact in float32.
RULES: list[dict[str, Any]] = [
    {"name": "nc", "threshold": 0.5},
    {"name": "nc", "threshold": 0.25, "positions": "share"},
    {"name": "nc", "threshold": 0.0, "scale": "none"},
    {"name": "nc", "threshold": 0.5, "scale": "none", "positions": "share"},
    {"name": "nc", "threshold": -1.0, "scale": "none"},
    {"name": "nc", "threshold": 1.0, "scale": "absmean", "positions": "share"},
    {"name": "nc", "threshold": 0.5, "scale": "absmean"},
    {"name": "tknc", "k": 1},
    {"name": "tknc", "k": 3},
    {"name": "tknc", "k": 10},
]
SNAC: list[dict[str, Any]] = [{"name": "snac", "k": 2.0}, {"name": "snac", "k": 4.0}]


@st.composite
def tensors(draw: st.DrawFn) -> np.ndarray:
    """Halves from -3 to 3, shape `(samples, positions, neurons)`."""
    shape = (draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 4])), draw(st.integers(1, 5)))
    largest = draw(st.sampled_from([0, 1, 6]))
    size = math.prod(shape)
    values = draw(st.lists(st.integers(-largest, largest), min_size=size, max_size=size))
    return np.array(values, "float32").reshape(shape) / 2


def exact(values: np.ndarray, valid: np.ndarray | None = None) -> oracle.Neurons:
    fractions = np.vectorize(Fraction, otypes=[object])(values)
    return oracle.Neurons(fractions, np.ones(values.shape[:2], bool) if valid is None else valid)


def count(tensor: np.ndarray, axes: tuple[int, ...], rule: dict[str, Any], mask: Any = None) -> tuple[list[int], int]:
    tensor = keras.ops.convert_to_tensor(tensor)
    padding = None if mask is None else Padding(keras.ops.convert_to_tensor(mask))
    return total([as_criterion(rule).count(piece) for piece in Activations(tensor, axes, padding).pieces()])


def total(found: list[tuple[Any, Any]]) -> tuple[list[int], int]:
    """Over the samples of all pieces; how many positions there are may be one number for each sample of a piece."""
    counts = np.sum([numpy(counts).sum(axis=0) for counts, _ in found], axis=0)
    positions = [int(np.broadcast_to(numpy(each), len(counts)).sum()) for counts, each in found]
    return counts.astype(int).tolist(), sum(positions)


@settings(max_examples=80, deadline=None)
@given(tensors(), st.sampled_from(RULES + SNAC))
def test_counts_equal_the_oracle(tensor: np.ndarray, rule: dict[str, Any]) -> None:
    assert count(tensor, (-1,), rule) == oracle.count(exact(tensor), **rule)


@settings(max_examples=60, deadline=None)
@given(tensors(), st.sampled_from(RULES), st.booleans(), st.data())
def test_masked_positions_do_not_exist(
    tensor: np.ndarray, rule: dict[str, Any], pieces: bool, data: st.DataObject
) -> None:
    size = tensor.shape[0] * tensor.shape[1]
    valid = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size))).reshape(tensor.shape[:2])
    garbage = np.where(valid[..., None], tensor, 1e6).astype("float32")
    with pytest.MonkeyPatch.context() as patch:
        if pieces:
            patch.setattr("keras_remos.coverage.per_backend.PIECE", 1)
        assert count(garbage, (-1,), rule, valid) == oracle.count(exact(tensor, valid), **rule)


@pytest.mark.parametrize("rule", RULES + SNAC, ids=str)
def test_axes_may_lie_in_any_order(rule: dict[str, Any]) -> None:
    tensor = np.random.default_rng(0).integers(-6, 7, (3, 2, 2, 4, 2)).astype("float32") / 2
    for axes in [(1,), (3,), (1, 2), (2, 1), (-1, 1), (4, 3), (1, 2, 3, 4)]:
        assert count(tensor, axes, rule) == oracle.count(exact_neurons(tensor, axes), **rule), axes


@pytest.mark.parametrize("rule", RULES + SNAC, ids=str)
def test_neurons_on_the_last_axes_can_be_merged(rule: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    tensor = keras.ops.convert_to_tensor(rng.integers(-6, 7, (3, 2, 2, 4)).astype("float32") / 2)
    padding = Padding(keras.ops.convert_to_tensor(np.array([[True, True], [True, False], [False, True]])))
    for axes, merged in {
        (2, 3): (2,),
        (-2, -1): (2,),
        (1, 2, 3): (1,),
        (3,): (3,),
        (3, 2): (3, 2),
        (1, 2): (1, 2),
    }.items():
        seen = Activations(tensor, axes, None if 1 in merged else padding)
        assert seen.merged().neuron_axes == merged
        for ours, theirs in zip(as_criterion(rule).count(seen.merged()), as_criterion(rule).count(seen), strict=True):
            assert np.array_equal(numpy(ours), numpy(theirs)), axes


@pytest.mark.parametrize("rule", RULES + SNAC, ids=str)
def test_a_sample_of_padding_covers_nothing(rule: dict[str, Any]) -> None:
    tensor = np.array([[[1.0, 3.0]], [[1e6, 2e6]]], "float32")
    valid = np.array([[True], [False]])
    assert count(tensor, (-1,), rule, valid)[0] == count(tensor[:1], (-1,), rule)[0]


def exact_neurons(tensor: np.ndarray, axes: tuple[int, ...]) -> oracle.Neurons:
    seen = oracle.neurons(tensor, axes)
    return exact(seen.values, seen.valid)


@pytest.mark.parametrize(
    "rule",
    [
        {"name": "nc"},
        {"name": "nc", "positions": "share"},
        {"name": "nc", "threshold": 1.0, "scale": "absmean"},
        {"name": "nc", "threshold": 1.0, "scale": "absmean", "positions": "share"},
        {"name": "tknc"},
        {"name": "snac"},
    ],
)
@pytest.mark.parametrize("value", [0.0, -3.0, 1e30])
def test_a_constant_tensor_covers_nothing(rule: dict[str, Any], value: float) -> None:
    counts, _ = count(np.full((2, 4, 3), value, "float32"), (-1,), rule)
    assert counts == [0, 0, 0]


@pytest.mark.parametrize("positions", ["mean", "share"])
def test_the_sign_of_an_activation_does_not_matter_to_its_size(positions: str) -> None:
    rule = {"name": "nc", "threshold": 1.0, "scale": "absmean", "positions": positions}
    tensor = np.array([[[1, -2, 5, -8], [1, 2, -5, 8]]], "float32")
    assert count(tensor, (-1,), rule)[0] == ([0, 0, 1, 1] if positions == "mean" else [0, 0, 2, 2])
    assert count(np.abs(tensor), (-1,), rule) == count(-tensor, (-1,), rule) == count(tensor, (-1,), rule)


def test_ties_with_the_kth_neuron_are_covered() -> None:
    tensor = np.array([[5, 4, 4, 4, 1]], "float32")
    assert count(tensor, (-1,), {"name": "tknc", "k": 2}) == ([1, 1, 1, 1, 0], 1)
    assert count(tensor, (-1,), {"name": "tknc", "k": 1}) == ([1, 0, 0, 0, 0], 1)
    assert count(tensor, (-1,), {"name": "tknc", "k": 9}) == ([1, 1, 1, 1, 0], 1)


def test_the_threshold_is_strict() -> None:
    tensor = np.array([[0, 1, 2, 3, 4]], "float32")
    assert count(tensor, (-1,), {"name": "nc", "threshold": 0.5}) == ([0, 0, 0, 1, 1], 1)
    assert count(tensor, (-1,), {"name": "nc", "threshold": 3.0, "scale": "none"}) == ([0, 0, 0, 0, 1], 1)
    assert count(tensor, (-1,), {"name": "snac", "k": 2}) == ([0, 0, 0, 1, 1], 1)


@pytest.mark.parametrize("rule", [None, *RULES], ids=str)
@pytest.mark.parametrize("relu", [False, True])
def test_samples_that_are_not_finite_show(relu: bool, rule: dict[str, Any] | None) -> None:
    for value in (np.nan, np.inf, -np.inf):
        tensor = np.ones((2, 4, 3), "float32")
        tensor[1, 2, 0] = value
        seen = Activations(keras.ops.convert_to_tensor(tensor), (-1,), relu=relu)
        if rule is not None:
            as_criterion(rule).count(seen)
        assert np.isfinite(numpy(seen.check())).tolist() == [True, False]


@settings(max_examples=40, deadline=None)
@given(tensors(), st.sampled_from([*RULES, *SNAC]), st.booleans())
def test_a_relu_may_be_told_or_applied(tensor: np.ndarray, rule: dict[str, Any], pieces: bool) -> None:
    clamped = np.maximum(tensor, 0)
    expected = count(clamped, (-1,), rule)
    with pytest.MonkeyPatch.context() as patch:
        if pieces:
            patch.setattr("keras_remos.coverage.per_backend.PIECE", 1)
        for values, told in ((tensor, {"relu": True}), (clamped, {"nonnegative": True})):
            seen = Activations(keras.ops.convert_to_tensor(values), (-1,), **told)
            found = [as_criterion(rule).count(piece) for piece in seen.pieces()]
            assert total(found) == expected


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(0, 5), st.booleans(), st.randoms(use_true_random=False))
def test_tokens_equal_the_oracle(samples: int, length: int, masked: bool, random: Any) -> None:
    ids = np.array([[random.randrange(6) for _ in range(length)] for _ in range(samples)], "int32").reshape(
        samples, length
    )
    mask = np.array([[random.random() < 0.6 for _ in range(length)] for _ in range(samples)], bool).reshape(ids.shape)
    if not masked:
        mask = np.ones_like(mask)
    valid = np.array([random.random() < 0.7 for _ in range(samples)])
    counts = count_tokens(
        keras.ops.convert_to_tensor(ids),
        6,
        keras.ops.convert_to_tensor(mask) if masked else None,
        keras.ops.convert_to_tensor(valid.astype("int32")),
    )
    expected, _ = oracle.count_tokens(oracle.Tokens(ids[valid], mask[valid], 6))
    assert numpy(counts).astype(int).tolist() == expected


@pytest.mark.parametrize("rule", [NeuronCoverage(0.3, "none", "share"), TopKCoverage(4), StrongCoverage(3.0)])
def test_a_criterion_comes_back_from_its_configuration(rule: Any) -> None:
    assert as_criterion(rule.get_config()) == rule
    assert as_criterion(rule) is rule
    assert as_criterion(rule.name) == CRITERIA[rule.name]()


WRONG: list[tuple[Any, str]] = [
    ("kmnc", "Unknown coverage criterion"),
    ({"threshold": 0.5}, "Unknown coverage criterion None"),
    ({"name": "nc", "alpha": 0.5}, "does not take"),
    ({"name": "nc", "threshold": 1.0}, r"in \[0, 1\)"),
    ({"name": "nc", "threshold": -0.1}, r"in \[0, 1\)"),
    ({"name": "nc", "threshold": float("nan")}, "threshold"),
    ({"name": "nc", "threshold": float("nan"), "scale": "none"}, "threshold"),
    ({"name": "nc", "threshold": 0.0, "scale": "absmean"}, "above 0"),
    ({"name": "nc", "threshold": float("inf"), "scale": "absmean"}, "finite"),
    ({"name": "nc", "scale": "max"}, "`scale` must be one of"),
    ({"name": "nc", "positions": "max"}, "`positions` must be one of"),
    ({"name": "tknc", "k": 0}, "at least 1"),
    ({"name": "tknc", "k": 1.5}, "`k` must be"),
    ({"name": "snac", "k": 1}, "greater than 1"),
    ({"name": "snac", "k": float("nan")}, "greater than 1"),
]


@pytest.mark.parametrize(("config", "message"), WRONG, ids=[str(config) for config, _ in WRONG])
def test_a_wrong_criterion_is_refused(config: Any, message: str) -> None:
    with pytest.raises(RemosError, match=message):
        as_criterion(config)


def test_a_mean_at_the_threshold_is_not_covered() -> None:
    """Two positions, one with the smallest value and one with the largest: a scaled mean of exactly one half."""
    rng = np.random.default_rng(0)
    ends = np.sort(rng.normal(size=(500, 2, 1)).astype("float32"), axis=1)
    between = ends.mean(axis=1, keepdims=True).repeat(2, axis=1)
    counts, samples = count(np.concatenate([ends, between], axis=2), (-1,), {"name": "nc"})
    assert (counts, samples) == ([0, 0], 500)
