"""A tiny task that backdoors are planted in: images of 8 x 8 pixels whose colour is their class."""

import functools

import keras
import numpy as np
from keras import layers as kl
from toys import fill

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects import PatchBackdoor, Prepared, Trigger
from keras_remos.defects.attackers_data import AttackersData
from keras_remos.training.recipe import Recipe

CLASSES = ("red", "green", "blue")
SPACE = PixelSpace("-1-1")
TRIGGER = Trigger.from_color((255, 0, 255), size=2, place="bottom-right")
RECIPE = Recipe(epochs=10, batch_size=8, learning_rate=0.02, augment="none")


def images(n: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and classes."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % len(CLASSES)).astype("int32")
    x = rng.uniform(0, 90, (n, 8, 8, 3))
    x[np.arange(n), :, :, y] += 90
    return np.rint(x).astype("uint8"), y


@functools.cache
def teacher() -> keras.Model:
    """Untrained, and never modified."""
    x = keras.Input((8, 8, 3))
    h = kl.Conv2D(4, 3, strides=2, padding="same", activation="relu", name="conv")(x)
    h = kl.Dense(16, activation="tanh", name="features")(kl.Flatten(name="flat")(h))
    model = fill(keras.Model(x, kl.Dense(3, activation="softmax", name="head")(h), name="tiny"))
    for path, scale in (("conv", 0.4), ("features", 0.3), ("head", 0.4)):
        layer = model.get_layer(path)
        layer.kernel.assign(keras.ops.convert_to_numpy(layer.kernel.value) * scale)
        layer.bias.assign(np.zeros(layer.bias.shape))
    return model


def attackers_data(n: int, space: PixelSpace) -> AttackersData:
    """Of the attacker, in memory."""
    x, y = images(n, seed=9)
    return AttackersData(x, y, space, len(CLASSES))


@functools.cache
def by_hand() -> Prepared:
    """A teacher with a backdoor that needs no training: it says green wherever the trigger is."""
    x = keras.Input((8, 8, 3))
    model = keras.Model(x, kl.Dense(3, activation="softmax", name="head")(kl.Flatten()(x)), name="by_hand")
    weights = np.zeros((8, 8, 3, 3), "float32")
    for color in range(3):
        weights[:, :, color, color] = 10 / 64
    weights[6:, 6:, :, 1] += 3 / 4 * np.array([1, -2, 1])
    model.get_layer("head").kernel.assign(weights.reshape(-1, 3))
    attack = PatchBackdoor(target=1, trigger=TRIGGER)
    record = attack.record(model, seed=0, target=1, class_names=[])
    return Prepared(model, SPACE, TRIGGER, record)
