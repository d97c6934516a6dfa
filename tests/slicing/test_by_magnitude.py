"""Fig. 10 of the paper: of each tenth of a layer's weights, by magnitude, the share that a slice resets."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_remos.slicing.summary import SAMPLE, LayerSummary, Magnitudes

pytestmark = pytest.mark.once


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 60), st.integers(0, 2**32 - 1), st.booleans())
def test_tenths_add_up_to_what_is_reset(rows: int, seed: int, tied: bool) -> None:
    rng = np.random.default_rng(seed)
    weights = (rng.integers(-3, 4, (rows, 10)) if tied else rng.normal(size=(rows, 10))).astype(np.float32)
    mask = rng.random((rows, 10)) < 0.6
    found = Magnitudes("layer/kernel", weights).summary(mask)
    assert len(found.excluded_by_magnitude) == 10 and all(0 <= share <= 1 for share in found.excluded_by_magnitude)
    if not tied:
        # Without ties each tenth has as many weights as another, but for one.
        assert np.mean(found.excluded_by_magnitude) == pytest.approx(1 - found.kept / found.total, abs=1 / rows)


def test_the_largest_are_in_the_last_tenth() -> None:
    weights = np.arange(1, 101, dtype=np.float32).reshape(10, 10)
    mask = np.abs(weights) <= 85
    assert Magnitudes("k", -weights).summary(mask).excluded_by_magnitude == (0, 0, 0, 0, 0, 0, 0, 0, 0.5, 1)


def test_of_many_weights_a_sample_tells_where_the_tenths_end() -> None:
    weights = np.random.default_rng(0).normal(size=(SAMPLE, 11)).astype(np.float32)
    mask = np.abs(weights) < np.quantile(np.abs(weights), 0.7)
    found = Magnitudes("k", weights).summary(mask).excluded_by_magnitude
    np.testing.assert_allclose(found, [0] * 7 + [1] * 3, atol=0.06)


def test_it_is_what_it_describes_and_older_files_have_none() -> None:
    summary = Magnitudes("k", np.ones((4, 5), np.float32)).summary(np.ones((4, 5), bool))
    assert LayerSummary.read(summary.describe()) == LayerSummary(
        "k", 20, 20, 1.0, pytest.approx(np.nan, nan_ok=True), (0.0,) * 10
    )
    old = {name: value for name, value in summary.describe().items() if name != "excluded_by_magnitude"}
    assert LayerSummary.read(old).excluded_by_magnitude == ()
