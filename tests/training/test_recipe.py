"""Recipes: what they allow, and the optimizer that they stand for."""

import math
from typing import Any

import keras
import numpy as np
import pytest

from keras_remos import RemosError
from keras_remos.methods import Recipe
from keras_remos.training.recipe import optimizer


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"batch_size": True},
        {"learning_rate": 0.0},
        {"momentum": 1.0},
        {"momentum": 0.5, "optimizer": "adamw"},
        {"weight_decay": -1.0},
        {"weight_decay": math.inf},
        {"weight_decay": math.nan},
        {"clip": math.inf},
        {"warmup": 1.0},
        {"schedule": "step"},
        {"augment": "mixup"},
        {"label_smoothing": 1.0},
        {"head_multiplier": 0.0},
    ],
)
def test_values_out_of_range_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(RemosError, match=next(iter(wrong))):
        Recipe(**wrong)


def rates(recipe: Recipe, steps: int) -> list[float]:
    rate = optimizer(recipe, steps=steps)._learning_rate
    return [float(rate(keras.ops.convert_to_tensor(step))) for step in range(steps)]


def test_the_rate_rises_to_its_peak_and_falls_to_nothing() -> None:
    found = rates(Recipe(learning_rate=0.4, warmup=0.2), 20)
    np.testing.assert_allclose(found[:5], [0.1, 0.2, 0.3, 0.4, 0.4], rtol=1e-5)
    np.testing.assert_allclose(found[12], 0.2, rtol=1e-5)
    np.testing.assert_allclose(found[-1], 0.2 * (1 + math.cos(math.pi * 15 / 16)), rtol=1e-4)


def test_a_constant_rate_stays() -> None:
    np.testing.assert_allclose(rates(Recipe(learning_rate=0.4, warmup=0.2, schedule="constant"), 20)[4:], 0.4)
    # Without a warm-up it is no schedule at all: callbacks may set it.
    plain = optimizer(Recipe(schedule="constant", warmup=0.0), steps=5)
    np.testing.assert_allclose(float(plain.learning_rate), 0.005, rtol=1e-6)
    plain.learning_rate = 0.1


def test_weight_decay_counts_as_in_the_gradient() -> None:
    """With momentum, decay in the gradient adds up over the steps: ours has to shrink weights as much."""
    recipe = Recipe(learning_rate=0.1, momentum=0.9, weight_decay=0.01, warmup=0.0, schedule="constant")
    weight = keras.Variable(np.ones(3, "float32"))
    sgd = optimizer(recipe, steps=200)
    for _ in range(200):
        sgd.apply([keras.ops.zeros(3)], [weight])
    by_hand, velocity = 1.0, 0.0
    for _ in range(200):
        velocity = 0.9 * velocity + 0.01 * by_hand
        by_hand -= 0.1 * velocity
    np.testing.assert_allclose(keras.ops.convert_to_numpy(weight.value), by_hand, rtol=0.15)


def test_the_head_may_learn_faster() -> None:
    recipe = Recipe(learning_rate=0.1, momentum=0.0, weight_decay=0.0, warmup=0.0, schedule="constant")
    body, head = keras.Variable(np.zeros(2, "float32")), keras.Variable(np.zeros(2, "float32"))
    with pytest.warns(DeprecationWarning, match="head_multiplier"):
        faster = Recipe(**{**recipe.get_config(), "head_multiplier": 10.0})
    sgd = optimizer(faster, steps=3, head=[head])
    sgd.apply([keras.ops.ones(2), keras.ops.ones(2)], [body, head])
    np.testing.assert_allclose(keras.ops.convert_to_numpy(body.value), -0.1, rtol=1e-6)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(head.value), -1.0, rtol=1e-6)


def test_a_recipe_is_plain_values() -> None:
    def shift(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return x + rng.normal()

    assert Recipe(augment=shift).get_config()["augment"].endswith("shift")
    assert Recipe(**Recipe().get_config()) == Recipe()
