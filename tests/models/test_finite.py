"""Weights that are no numbers are told wherever a model is looked at or attacked."""

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl

from keras_remos import PenultimateAttack, PixelSpace, describe_model
from keras_remos.models.finite import layers_not_finite


def small(value: float) -> keras.Model:
    layers = [keras.Input((8, 8, 3)), kl.Conv2D(2, 3, name="conv"), kl.Flatten(), kl.Dense(3, name="logits")]
    model = toys.fill(keras.Sequential(layers, name="small"))
    kernel, bias = model.get_layer("conv").get_weights()
    bias[1] = value
    model.get_layer("conv").set_weights([kernel, bias])
    return model


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_named(value: float) -> None:
    description = describe_model(small(value))
    assert description.not_finite == ("conv",)
    assert description.describe()["not_finite"] == ["conv"]
    assert "NaN or infinite weights in conv: what is computed with them means nothing" in description.summary()


def test_finite_weights_are_not_spoken_of() -> None:
    description = describe_model(small(3e38))
    assert not description.not_finite
    assert "NaN" not in description.summary()
    # Neither are those whose sum is none.
    layer = kl.Dense(2, kernel_initializer=keras.initializers.Constant(3e38))
    assert not layers_not_finite(keras.Sequential([keras.Input((4,)), layer]))
    # Seeds are no numbers to compute with.
    assert not layers_not_finite(keras.Sequential([keras.Input((4,)), kl.Dropout(0.5, seed=1), kl.Dense(2)]))


@pytest.mark.parametrize("policy", ["float16", "bfloat16"])
def test_half_precision_counts_too(policy: str) -> None:
    layer = kl.Dense(2, dtype=policy, name="half")
    model = keras.Sequential([keras.Input((4,)), layer])
    assert not layers_not_finite(model)
    layer.bias.assign(keras.ops.full((2,), np.nan, dtype=policy))
    assert layers_not_finite(model) == ("half",)


@pytest.mark.filterwarnings("ignore:penultimate could not change")
def test_an_attack_on_such_a_model_says_so() -> None:
    attack, space = PenultimateAttack(steps=1), PixelSpace("0-1")
    x, y = np.zeros((2, 8, 8, 3), "uint8"), np.arange(2)
    with pytest.warns(UserWarning, match=r"'small' has NaN or infinite weights in conv") as given:
        attack.inputs(attack.prepare(small(np.nan), space=space), x, y, verbose=False)
    assert any(each.filename == __file__ for each in given)
