"""Attacks on a surrogate: what momentum, restarts and diversity do, on models whose gradients are known."""

from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl

import keras_remos as kr
from keras_remos.data.pixels import PixelSpace
from keras_remos.defects import SurrogateAttack, TransferPGD
from keras_remos.defects.adversarial.class_scores import ClassScores
from keras_remos.errors import DataError, RemosError
from keras_remos.training.recipe import Recipe

RNG = np.random.default_rng(5)
SPACE = PixelSpace("0-1")
IMAGES = RNG.integers(30, 225, (6, 8, 8, 3)).astype("uint8")
LABELS = np.arange(6) % 3

pytestmark = [
    pytest.mark.filterwarnings("ignore:Training .* ended in a constant classifier"),
]


def small() -> keras.Model:
    layers = [keras.Input((8, 8, 3)), kl.Flatten(), kl.Dense(6, "tanh"), kl.Dense(3)]
    return toys.fill(keras.Sequential(layers, name="small"))


def on(model: keras.Model, attack: TransferPGD, **options: Any) -> np.ndarray:
    """What an attack makes of a model as it is: as if that were the surrogate."""
    prepared = TransferPGD().prepare(model, space=SPACE)
    return attack.inputs(prepared, IMAGES, LABELS, **{"verbose": False, **options}).inputs[:]


def log_odds(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """How far from its class each image is."""
    inputs = SPACE.scale(pixels.astype("float32"))
    scores = toys.numpy(ClassScores(model, inputs)(inputs)).astype("float64")
    own = scores[np.arange(6), LABELS]
    scores[np.arange(6), LABELS] = -np.inf
    return np.log(np.exp(scores).sum(axis=1)) - own


def test_without_momentum_it_is_pgd() -> None:
    model = small()
    same = {"steps": 4, "step_size": 2.0}
    plain = on(model, TransferPGD(**same))
    np.testing.assert_array_equal(on(model, SurrogateAttack(momentum=0, **same)), plain)
    assert np.any(on(model, SurrogateAttack(**same)) != plain)


def test_momentum_is_what_the_paper_says() -> None:
    """Two steps by hand, on gradients from the library's own differentiation."""
    model = small()
    attack = SurrogateAttack(steps=2, step_size=1.0, epsilon=50, random_start=False, momentum=0.7)
    made = on(model, attack)

    def gradient(pixels: np.ndarray) -> np.ndarray:
        def loss(inputs: Any) -> Any:
            outputs = model(inputs, training=False)
            own = keras.ops.sum(outputs * keras.ops.one_hot(LABELS, 3), axis=1)
            others = keras.ops.where(keras.ops.one_hot(LABELS, 3) > 0, -1e30, outputs)
            return keras.ops.sum(keras.ops.logsumexp(others, axis=1) - own)

        return toys.numpy(kr.value_and_grad(loss, model)(SPACE.scale(pixels))[1])

    pixels, pace = IMAGES.astype("float32"), 0.0
    for _ in range(2):
        found = gradient(pixels)
        pace = 0.7 * pace + found / np.abs(found).mean(axis=(1, 2, 3), keepdims=True)
        pixels = pixels + np.sign(pace)
    assert np.mean(made == pixels) > 0.99  # a gradient next to nothing may have another sign


def test_restarts_keep_the_best_of_each_image() -> None:
    model = small()
    same: dict[str, Any] = {"steps": 2, "step_size": 0.5}
    # What is rounded later may be worse again.
    one, three = (on(model, SurrogateAttack(restarts=count, **same), bits=32) for count in (1, 3))
    before, after = log_odds(model, one), log_odds(model, three)
    assert (after >= before - 1e-6).all() and (after > before + 1e-6).any()
    np.testing.assert_array_equal(on(model, SurrogateAttack(restarts=3, **same), bits=32, batch_size=4), three)


@pytest.mark.once
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_diversity_changes_steps_and_not_the_ball(data_format: str) -> None:
    shape = (20, 22, 2) if data_format == "channels_last" else (2, 20, 22)
    images = RNG.integers(30, 225, (6, *shape)).astype("uint8")
    convolution = kl.Conv2D(3, 3, data_format="channels_last")
    to_last = [] if data_format == "channels_last" else [kl.Permute((2, 3, 1))]
    layers = [keras.Input(shape), *to_last, convolution, kl.GlobalAveragePooling2D(data_format="channels_last")]
    model = toys.fill(keras.Sequential([*layers, kl.Dense(3)]))
    space = PixelSpace("0-1", data_format=data_format)
    prepared = TransferPGD().prepare(model, space=space)

    def made(**options: Any) -> np.ndarray:
        attack = SurrogateAttack(steps=4, step_size=2.0, **options)
        return attack.inputs(prepared, images, LABELS, verbose=False).inputs[:]

    plain, diverse = made(), made(diversity=1.0)
    assert np.any(plain != diverse)
    assert np.abs(diverse - images).max() <= 5.7
    np.testing.assert_array_equal(made(diversity=1.0), diverse)


def test_the_surrogate_is_trained_by_the_recipe_that_is_given() -> None:
    model = small()
    recipe = Recipe(epochs=1, batch_size=3, learning_rate=0.01)
    attack = SurrogateAttack(recipe=recipe, steps=1)
    prepared = attack.prepare(model, (IMAGES, LABELS % 2), space=SPACE, verbose=False)
    assert prepared.teacher is not model and prepared.teacher.output_shape == (None, 2)
    assert prepared.record["options"]["recipe"] == recipe.get_config()
    assert attack.copy_recipe == recipe and SurrogateAttack(epochs=3).copy_recipe == Recipe(epochs=3)


def test_without_data_there_is_no_surrogate() -> None:
    with pytest.raises(DataError, match="attacker's own data"):
        SurrogateAttack().prepare(small(), space=SPACE)


def test_diversity_is_for_images() -> None:
    model = toys.fill(keras.Sequential([keras.Input((12,)), kl.Dense(3)]))
    attack = SurrogateAttack(diversity=0.5)
    with pytest.raises(RemosError, match="`diversity` is for images"):
        attack.inputs(TransferPGD().prepare(model, space=SPACE), RNG.integers(0, 256, (6, 12)), LABELS)


@pytest.mark.parametrize(
    "options",
    [{"momentum": -1}, {"restarts": 0}, {"restarts": True}, {"restarts": 2, "random_start": False}, {"diversity": 1.1}],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(RemosError, match=next(iter(options))):
        SurrogateAttack(**options)
