"""A teacher that trains in no time, data that it can learn, and how a student is made of them."""

from typing import Any

import keras
import numpy as np
import toys
from keras import layers as kl

from keras_remos.methods import Recipe, Trained, train

# Two stages, for the two resolutions; the second shrinks.
FEATURES = ["relu1", "relu2"]
RECIPE = Recipe(epochs=2, batch_size=8, learning_rate=0.05)
RNG = np.random.default_rng(0)
Y = np.arange(24) % 3
# Each class has a colour of its own.
X = (RNG.normal(size=(24, 8, 8, 3)) * 0.3 + np.eye(3)[Y][:, None, None, :]).astype("float32")


def teacher() -> keras.Model:
    """A convolutional network with batch normalization and dropout; its head knows five other classes."""
    x = keras.Input((8, 8, 3))
    h = kl.ReLU(name="relu1")(kl.BatchNormalization(name="bn1")(kl.Conv2D(4, 3, padding="same", name="conv1")(x)))
    h = kl.Conv2D(6, 3, strides=2, padding="same", use_bias=False, name="conv2")(h)
    h = kl.ReLU(name="relu2")(kl.BatchNormalization(name="bn2")(h))
    h = kl.Dropout(0.2, name="dropout")(kl.GlobalAveragePooling2D(name="pool")(h))
    model = toys.fill(keras.Model(x, kl.Dense(5, activation="softmax", name="head")(h), name="tiny"))
    model.get_layer("bn2").trainable = False
    return model


def make(method: str, model: keras.Model | None = None, **options: Any) -> Trained:
    """A student of the tiny teacher."""
    options = {"num_classes": 3, "recipe": RECIPE, "seed": 5, "verbose": False, **options}
    return train(method, model or teacher(), options.pop("data", (X, Y)), options.pop("validation", None), **options)


def same(one: keras.Model, other: keras.Model) -> bool:
    """Whether two models have the same weights, bit for bit."""
    return all(np.array_equal(a, b) for a, b in zip(one.get_weights(), other.get_weights(), strict=True))


class Stop(keras.callbacks.Callback):
    """Kills a run in the midst of an epoch."""

    def __init__(self, epoch: int) -> None:
        super().__init__()
        self.epoch = epoch
        self.now = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.now = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.now == self.epoch and batch == 1:
            raise KeyboardInterrupt


class Weights(keras.callbacks.Callback):
    """The student's weights after each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[np.ndarray]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seen.append([np.array(keras.ops.convert_to_numpy(w.value)) for w in self.model.student.trainable_weights])
