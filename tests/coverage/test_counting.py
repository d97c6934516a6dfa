"""A criterion that tells no neurons apart is named."""

import warnings
from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl

from keras_remos.coverage.counting import CoverageModel
from keras_remos.coverage.criteria import POSITIVE, NeuronCoverage, TopKCoverage, as_criterion, warn_if_blind
from keras_remos.models.placement import NeuronSite
from keras_remos.models.reading_plan import plan_readings


def wide() -> tuple[keras.Model, np.ndarray]:
    """A convolution wide enough for the largest activation to stand alone."""
    x = keras.Input((8, 8, 3))
    h = kl.ReLU()(kl.Conv2D(40, 3, name="conv")(x))
    model = toys.fill(keras.Model(x, kl.Dense(3)(kl.GlobalAveragePooling2D()(h))))
    return model, np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype("float32")


def said(model: keras.Model, x: Any, rule: Any, on: NeuronSite) -> list[str]:
    counting = CoverageModel(model, plan_readings(model, x, on=on), as_criterion(rule), False)
    counts = counting.predict_on_batch({"x": x, "valid": np.ones(len(x), "int32")})
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        # As when three such batches have been added up.
        counting.warn_if_blind(3 * counts)
    return [str(warning.message) for warning in seen if "tells no neurons apart" in str(warning.message)]


def test_a_share_of_the_range_behind_a_relu_covers_nothing_and_is_named_once() -> None:
    model, x = wide()
    [message] = said(model, x, "nc", "activation")
    assert "'nc' (threshold=0.5, scale='minmax', positions='mean') covers hardly any of the 40 neurons" in message
    assert "on='output'" in message
    assert not said(model, x, "nc", "output")
    [message] = said(model, x, {"name": "nc", "scale": "none", "threshold": -1e6}, "output")
    assert "almost all of the 40 neurons" in message


@pytest.mark.parametrize("rule", [POSITIVE, NeuronCoverage(1.0, "absmean", "share"), TopKCoverage(1), "snac"], ids=str)
@pytest.mark.parametrize("name", ["mlp", "cnn", "text"])
def test_what_tells_neurons_apart_is_left_alone(name: str, rule: Any) -> None:
    model, x, _ = toys.make(name)
    assert not said(model, x, rule, "activation")


def test_what_enters_the_model_does_not_count() -> None:
    """Images may all be positive: that says nothing of the neurons behind them."""
    model, x = wide()
    assert not said(model, np.abs(x), POSITIVE, "activation")
    assert said(model, x, {"name": "nc", "scale": "none", "threshold": 1e6}, "activation")


@pytest.mark.parametrize(
    ("covered", "neurons", "tensors", "blind"),
    [
        *[(0.0, 10, 1, True), (0.04, 10, 1, True), (0.06, 10, 1, False), (1.0, 10_000, 1, False), (9.96, 10, 1, True)],
        *[(0.9, 400, 20, True), (1.1, 400, 20, False), (399.1, 400, 20, True), (0.0, 0, 0, False)],
    ],
)
def test_less_than_one_neuron_in_twenty_tensors_is_nothing(
    covered: float, neurons: int, tensors: int, blind: bool
) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        warn_if_blind(NeuronCoverage(), covered, neurons, tensors, way_out="Try another.")
    assert len(seen) == blind
    assert not blind or str(seen[0].message).endswith("It tells no neurons apart. Try another.")
