"""The scores and masks of keras_remos.slicing.scores against the oracle, and the laws that they obey."""

import itertools
import math
from dataclasses import replace
from fractions import Fraction

import ml_dtypes
import numpy as np
import oracle_scoring as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_remos.errors import RemosError
from keras_remos.slicing import ranking
from keras_remos.slicing.ranking import CoveredKernel
from keras_remos.slicing.scores import score

# They are of NumPy alone (see test_architecture).
pytestmark = pytest.mark.once

TIES = ("average", "order")
SCOPES = ("layer", "model")
DTYPES = (np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.dtype(">f4"))

# What a Keras layer's kernel looks like: (shape, view, input axes, output axes), from the sizes of its axes.
LAYOUTS = {
    "dense": lambda a, b, c, d: ((a, b), (a, b), (0,), (1,)),
    "conv": lambda a, b, c, d: ((a, b, c, d), (a, b, c, d), (2,), (3,)),
    "conv_transpose": lambda a, b, c, d: ((a, b, c, d), (a, b, c, d), (3,), (2,)),
    "grouped": lambda a, b, c, d: ((a, b, c * d), (a, b, c, d), (2, 1), (2, 3)),
    "depthwise": lambda a, b, c, d: ((a, b, c, d), (a, b, c, d), (2,), (2, 3)),
    "heads": lambda a, b, c, d: ((a, b, c), (a, b, c), (0,), (1, 2)),
    "merge_heads": lambda a, b, c, d: ((a, b, c), (a, b, c), (0, 1), (2,)),
    "batch_letter": lambda a, b, c, d: ((a, b, c), (a, b, c), (0, 1), (2, 0)),
    "embedding": lambda a, b, c, d: ((a, b), (a, b), (0,), ()),
    "no_neurons": lambda a, b, c, d: ((a, b), (a, b), (), ()),
}


def make_kernel(rng, layout="dense", sizes=(4, 5, 3, 2), *, levels=4, positions=(7, 7), dtype=np.float32):
    """A kernel with `levels` different magnitudes (0: as many as weights) and random counts."""
    shape, view, input_axes, output_axes = LAYOUTS[layout](*sizes)
    weights = rng.integers(-levels, levels + 1, shape) / 8 if levels else rng.standard_normal(shape)
    inputs, outputs = (
        rng.integers(0, max(n, 1) + 1, math.prod(view[axis] for axis in axes))
        for n, axes in zip(positions, (input_axes, output_axes), strict=True)
    )
    return CoveredKernel(weights.astype(dtype), view, input_axes, output_axes, inputs, outputs, *positions)


def make_distinct(rng, shapes=((6, 7), (3, 5))):
    """Kernels of which all coverages and all magnitudes differ, over the whole model."""
    total = sum(a * b for a, b in shapes)
    values = iter(rng.permutation(total) + 1)
    kernels = {}
    for n, (a, b) in enumerate(shapes):
        weights = np.array([next(values) for _ in range(a * b)], np.float32).reshape(a, b)
        inputs, outputs = 1000 * n + 100 * np.arange(a), np.arange(b)
        kernels[f"layer{n}"] = CoveredKernel(weights, (a, b), (0,), (1,), inputs, outputs, 10_000, 10_000)
    return kernels


@st.composite
def models(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([0, 1, 4]))
    positions = draw(st.sampled_from([[(7, 7)], [(1, 1)], [(3, 5), (7, 4), (0, 9)], [(1 << 18, 99_991), (1, 6)]]))
    kernels = {}
    for n in range(draw(st.integers(1, 3))):
        sizes = draw(st.tuples(*[st.integers(1, 4)] * 4))
        kernels[f"layer{n}"] = make_kernel(
            rng,
            draw(st.sampled_from(sorted(LAYOUTS))),
            sizes,
            levels=levels,
            positions=draw(st.sampled_from(positions)),
            dtype=draw(st.sampled_from(DTYPES)),
        )
    return kernels


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.fixture(params=["one bucket", "many buckets"])
def small_buckets(request, monkeypatch):
    """The sizes at which work is cut into pieces must not show in the result."""
    if request.param == "many buckets":
        monkeypatch.setattr(ranking, "_BUCKET", 5)
        monkeypatch.setattr(ranking, "_BLOCK", 3)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("ties", TIES)
class TestAgainstOracle:
    @settings(max_examples=120, deadline=None)
    @given(kernels=models(), ratio=st.floats(0.001, 1) | st.sampled_from([0.1, 0.5, 0.7, 0.9, 0.95, 1]))
    def test_any_model(self, ties, scope, kernels, ratio):
        scores = score(kernels, ties=ties, scope=scope)
        assert_same(scores.arrays(), oracle.score(kernels, ties, scope))
        assert_same(scores.select(ratio), oracle.select(kernels, ratio, ties, scope))

    @pytest.mark.usefixtures("small_buckets")
    def test_coverages_that_differ_in_their_lowest_bits(self, ties, scope):
        # Frequencies over these two differ by 1 in 2**62: more bits than are left beside an index.
        positions = 2**31 - 1, 2**31 - 3
        rng = np.random.default_rng(0)
        kernels = {}
        for name, shape in (("a", (9, 8)), ("b", (7, 11))):
            inputs, outputs = (
                np.where(rng.random(size) < 0.5, most - rng.integers(0, 4, size), rng.integers(0, 4, size))
                for size, most in zip(shape, positions, strict=True)
            )
            weights = rng.standard_normal(shape).astype(np.float32)
            kernels[name] = CoveredKernel(weights, shape, (0,), (1,), inputs, outputs, *positions)
        assert_same(score(kernels, ties=ties, scope=scope).arrays(), oracle.score(kernels, ties, scope))

    @pytest.mark.parametrize("layout", sorted(LAYOUTS))
    @pytest.mark.parametrize("levels", [0, 1, 4])
    @pytest.mark.usefixtures("small_buckets")
    def test_layouts(self, ties, scope, layout, levels):
        rng = np.random.default_rng(levels)
        kernels = {
            n: make_kernel(rng, layout, sizes, levels=levels) for n, sizes in [("a", (3, 2, 4, 5)), ("b", (2, 3, 2, 3))]
        }
        scores = score(kernels, ties=ties, scope=scope)
        assert_same(scores.arrays(), oracle.score(kernels, ties, scope))
        for ratio in (0.05, 0.5, 0.9, 1):
            assert_same(scores.select(ratio), oracle.select(kernels, ratio, ties, scope))

    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    def test_dtypes(self, ties, scope, dtype):
        rng = np.random.default_rng(0)
        kernels = {"a": make_kernel(rng, "conv", levels=0, dtype=dtype), "b": make_kernel(rng, "dense", levels=0)}
        assert_same(score(kernels, ties=ties, scope=scope).arrays(), oracle.score(kernels, ties, scope))

    def test_many_buckets_of_neighbouring_floats(self, ties, scope, monkeypatch):
        # Each weight is the float next to another (subnormal ones too): every bucket's edge is some weight's magnitude.
        monkeypatch.setattr(ranking, "_BUCKET", 40)
        assert len(ranking._buckets(np.arange(304, dtype=np.uint32))) == 8
        rng = np.random.default_rng(1)
        weights = rng.permutation(304).astype(np.uint32).view(np.float32).reshape(19, 16)
        kernels = {"a": replace(make_kernel(rng, sizes=(19, 16, 1, 1)), weights=weights)}
        assert_same(score(kernels, ties=ties, scope=scope).arrays(), oracle.score(kernels, ties, scope))


class TestLayerLimit:
    @settings(max_examples=120, deadline=None)
    @given(
        kernels=models(),
        ratio=st.floats(0.001, 1) | st.sampled_from([0.5, 0.7, 0.9, 1]),
        limit=st.sampled_from([1, 1.5, 2, 7]),
    )
    @pytest.mark.parametrize("scope", SCOPES)
    def test_against_the_oracle(self, scope, kernels, ratio, limit):
        masks = score(kernels, scope=scope).select(ratio, layer_limit=limit)
        assert_same(masks, oracle.select_within(kernels, ratio, scope, Fraction(limit)))

    @settings(max_examples=60, deadline=None)
    @given(kernels=models(), ratios=st.lists(st.floats(0.001, 1), min_size=2, max_size=4))
    def test_masks_are_nested_and_no_layer_is_stripped(self, kernels, ratios):
        scores = score(kernels, scope="model")
        masks = {ratio: scores.select(ratio, layer_limit=2) for ratio in sorted(ratios)}
        for smaller, larger in itertools.pairwise(masks.values()):
            assert all((larger[name] | ~mask).all() for name, mask in smaller.items())
        for ratio, found in masks.items():
            removed = round(1 - ratio, 12)
            lost = {name: np.count_nonzero(~mask) for name, mask in found.items()}
            assert all(count <= 2 * removed * found[name].size for name, count in lost.items())
            assert sum(lost.values()) <= removed * sum(mask.size for mask in found.values())

    def test_the_share_goes_where_nothing_ties(self):
        rng = np.random.default_rng(0)
        kernels = {name: make_kernel(rng, sizes=(40, 30, 1, 1), levels=0) for name in "abc"}
        kernels["a"] = replace(kernels["a"], weights=kernels["a"].weights * 9)
        scores = score(kernels, scope="model")
        free, limited = (scores.select(0.9, layer_limit=limit) for limit in (None, 1.5))
        assert np.count_nonzero(~free["a"]) > 180 == np.count_nonzero(~limited["a"])
        assert sum(np.count_nonzero(~mask) for mask in limited.values()) == 360
        assert_same(scores.select(0.9, layer_limit=float("inf")), free)

    @pytest.mark.parametrize("limit", [0, 0.99, -1, float("nan"), True, "2"])
    def test_a_wrong_limit_is_refused(self, limit):
        scores = score({"a": make_kernel(np.random.default_rng(0))})
        with pytest.raises(RemosError, match="`layer_limit` must be a number of at least 1"):
            scores.select(0.9, layer_limit=limit)


class TestLaws:
    @settings(max_examples=60, deadline=None)
    @given(kernels=models(), ratios=st.lists(st.floats(0.001, 1), min_size=2, max_size=4))
    @pytest.mark.parametrize("scope", SCOPES)
    @pytest.mark.parametrize("ties", TIES)
    def test_masks_are_nested(self, ties, scope, kernels, ratios):
        scores = score(kernels, ties=ties, scope=scope)
        masks = [scores.select(ratio) for ratio in sorted(ratios)]
        for smaller, larger in itertools.pairwise(masks):
            assert all((larger[name] | ~mask).all() for name, mask in smaller.items())

    @settings(max_examples=60, deadline=None)
    @given(kernels=models(), ratio=st.floats(0.001, 1))
    def test_average_removes_at_most_the_share_in_each_layer(self, kernels, ratio):
        for name, mask in score(kernels).select(ratio).items():
            assert np.count_nonzero(~mask) <= int(mask.size * round(1 - ratio, 12)), name

    @pytest.mark.parametrize("ratio", [0.05, 0.5, 0.7, 0.9, 1])
    def test_order_removes_one_more_than_the_share_of_distinct_scores(self, ratio):
        # Coverages rise with the index and magnitudes fall, so that all scores differ.
        weights = np.arange(40, 0, -1, dtype=np.float32).reshape(8, 5)
        kernel = CoveredKernel(weights, (8, 5), (0,), (1,), 5 * np.arange(8), np.arange(5), 100, 100)
        (mask,) = score({"a": kernel}, ties="order").select(ratio).values()
        assert np.count_nonzero(~mask) == int(40 * round(1 - ratio, 12)) + 1

    def test_keep_all(self):
        kernels = {"a": make_kernel(np.random.default_rng(0)), "b": make_kernel(np.random.default_rng(1), "conv")}
        for scope in SCOPES:
            assert all(mask.all() for mask in score(kernels, scope=scope).select(1).values())

    def test_equal_weights_share_one_fate(self):
        kernel = make_kernel(np.random.default_rng(0))
        same = replace(
            kernel, weights=np.full((4, 5), -0.5, np.float32), inputs=np.zeros(4, int), outputs=np.zeros(5, int)
        )
        (mask,) = score({"a": same}).select(0.3).values()
        assert mask.all()
        (mask,) = score({"a": same}, ties="order").select(0.3).values()
        assert not mask.any()

    @pytest.mark.parametrize("scope", SCOPES)
    def test_average_does_not_depend_on_the_order_of_anything(self, scope):
        rng = np.random.default_rng(3)
        kernels = {f"layer{n}": make_kernel(rng, levels=2, positions=(3, 3)) for n in range(3)}
        moved, moves = {}, {}
        for name in reversed(kernels):
            k = kernels[name]
            rows, columns = rng.permutation(4), rng.permutation(5)
            moves[name] = np.ix_(rows, columns)
            moved[name] = replace(k, weights=k.weights[moves[name]], inputs=k.inputs[rows], outputs=k.outputs[columns])
        expected = score(kernels, scope=scope).arrays()
        for name, scores in score(moved, scope=scope).arrays().items():
            np.testing.assert_array_equal(scores, expected[name][moves[name]])

    def test_both_tie_rules_agree_where_nothing_ties(self):
        kernels = make_distinct(np.random.default_rng(0))
        for scope in SCOPES:
            average = score(kernels, scope=scope).arrays()
            order = score(kernels, scope=scope, ties="order").arrays()
            for name in kernels:
                np.testing.assert_array_equal(average[name], 2 * order[name])

    def test_the_paper_by_hand(self):
        # Coverage [[3, 2], [1, 0]] ranks [[3, 2], [1, 0]]; |w| [[1, 4], [2, 3]] ranks [[0, 3], [1, 2]].
        weights = np.array([[1, -4], [-2, 3]], np.float32)
        kernel = CoveredKernel(weights, (2, 2), (0,), (1,), np.array([2, 0]), np.array([1, 0]), 2, 2)
        scores = score({"a": kernel}, ties="order")
        np.testing.assert_array_equal(scores.arrays()["a"], [[3, -1], [0, -2]])
        np.testing.assert_array_equal(scores.select(0.75)["a"], [[True, False], [True, False]])
        np.testing.assert_array_equal(score({"a": kernel}).select(0.75)["a"], [[True, True], [True, False]])

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_minus_zero_equals_zero(self, dtype):
        kernel = make_kernel(np.random.default_rng(0), sizes=(1, 4, 1, 1))
        kernel = replace(kernel, weights=np.array([[0.0, -0.0, 0.0, -0.0]], dtype), outputs=np.zeros(4, int))
        assert not score({"a": kernel}).arrays()["a"].any()

    def test_float64_weights_that_differ_only_beyond_float32(self):
        weights = np.array([[1 + 3e-16, 1, 1 + 6e-16]])
        kernel = CoveredKernel(weights, (1, 3), (0,), (1,), np.zeros(1, int), np.zeros(3, int), 1, 1)
        np.testing.assert_array_equal(score({"a": kernel}, ties="order").arrays()["a"], [[-1, 1, 0]])

    def test_huge_denominators_fall_back_to_float64(self):
        rng = np.random.default_rng(0)
        kernels = {f"p{p}": make_kernel(rng, positions=(p, p + 2)) for p in (4_294_967_291, 4_294_967_279)}
        assert 2 * math.lcm(*(p for k in kernels.values() for p in (k.input_positions, k.output_positions))) >= 2**63
        assert_same(score(kernels, scope="model").arrays(), oracle.score(kernels, "average", "model"))

    def test_inputs_are_left_alone_and_no_kernels_is_fine(self):
        kernel = make_kernel(np.random.default_rng(0))
        before = kernel.weights.copy()
        score({"a": kernel}).select(0.5)
        np.testing.assert_array_equal(kernel.weights, before)
        for scope in SCOPES:
            assert score({}, scope=scope).select(0.5) == {}


class TestErrors:
    @pytest.mark.parametrize("ratio", [0, -0.1, 1.0001, float("nan"), float("inf"), True, "0.9", None, 0.9 + 0j])
    def test_keep_ratio(self, ratio):
        scores = score({"a": make_kernel(np.random.default_rng(0))})
        with pytest.raises(RemosError, match="`keep_ratio` must be .* received .* Pass for example"):
            scores.select(ratio)

    @pytest.mark.parametrize("option", [{"ties": "min"}, {"scope": "global"}, {"ties": None}, {"scope": ["layer"]}])
    def test_unknown_options(self, option):
        with pytest.raises(RemosError, match="must be one of"):
            score({}, **option)

    @pytest.mark.parametrize("scope", SCOPES)
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -np.nan])
    def test_weights_that_are_not_finite(self, bad, dtype, scope):
        kernels = {name: make_kernel(np.random.default_rng(0), dtype=dtype) for name in ("good", "block1/conv")}
        kernels["block1/conv"].weights[1, 2] = bad
        with pytest.raises(RemosError, match="'block1/conv' must be finite"):
            score(kernels, scope=scope)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"view": (4, 4)}, "`view` of 'a'"),
            ({"input_axes": (2,)}, "`input_axes` of 'a'"),
            ({"input_axes": (-2,)}, "`input_axes` of 'a'"),
            ({"output_axes": (1, 1)}, "`output_axes` of 'a'"),
            ({"inputs": np.zeros(5, int)}, "`inputs` of 'a' must be 4"),
            ({"outputs": np.zeros(4, int)}, "`outputs` of 'a' must be 5"),
            ({"outputs": np.zeros(5)}, "integer counts"),
            ({"inputs": np.full(4, -1)}, "counts from 0"),
            ({"inputs": np.full(4, 8)}, "counts from 0 to the 7"),
            ({"weights": np.zeros((4, 5), int)}, "must be floats"),
            ({"weights": np.zeros((4, 5), complex)}, "must be floats"),
            ({"weights": np.zeros((4, 5), np.longdouble)}, "must be floats"),
            (
                {"weights": np.zeros((0, 5), np.float32), "view": (0, 5), "inputs": np.zeros(0, int)},
                "must have weights",
            ),
        ],
    )
    def test_parts_that_do_not_fit(self, change, message):
        kernel = replace(make_kernel(np.random.default_rng(0)), **change)
        with pytest.raises(RemosError, match=message):
            score({"a": kernel})
