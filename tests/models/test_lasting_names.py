"""Layers without a name: wherever and however often a model is built, its layers have the same paths."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl

from keras_remos import CoverageProfile, RelevantSlice, RelevantSlicer
from keras_remos.models.fingerprint import fingerprint
from keras_remos.models.layers import walk, weight_holders

X = np.random.default_rng(0).normal(size=(12, 5, 6)).astype("float32")


@keras.saving.register_keras_serializable("tests")
class Block(kl.Layer):
    """As people write them: what is inside gets its names from Keras."""

    def __init__(self, units: int = 6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.attend = kl.MultiHeadAttention(2, 3)
        self.norm = kl.LayerNormalization()
        self.grow, self.shrink = kl.Dense(2 * units, activation="relu"), kl.Dense(units)
        self.read = kl.Bidirectional(kl.LSTM(3, return_sequences=True))

    def build(self, shape: Any) -> None:
        self.attend.build(shape, shape)
        self.norm.build(shape)
        self.grow.build(shape)
        self.shrink.build((*shape[:-1], 2 * self.units))
        self.read.build(shape)
        self.built = True

    def call(self, x: Any) -> Any:
        h = self.norm(x + self.attend(x, x))
        return self.read(h + self.shrink(self.grow(h)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("tests")
class Subclassed(keras.Model):
    """A model of blocks that have no names."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first, self.second = Block(), Block()
        self.pool, self.head = kl.GlobalAveragePooling1D(), kl.Dense(3, activation="softmax")

    def build(self, shape: Any) -> None:
        self.first.build(shape)
        self.second.build(shape)
        self.head.build((None, 6))
        self.built = True

    def call(self, x: Any) -> Any:
        return self.head(self.pool(self.second(self.first(x))))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name}


def functional() -> keras.Model:
    x = keras.Input((5, 6))
    h = kl.GlobalAveragePooling1D()(Block(name="two")(Block(name="one")(x)))
    return toys.fill(keras.Model(x, kl.Dense(3, activation="softmax", name="head")(h)))


def subclassed() -> keras.Model:
    model = Subclassed()
    model.build((None, 5, 6))
    return toys.fill(model)


@pytest.mark.once
@pytest.mark.parametrize("build", [functional, subclassed])
def test_paths_do_not_count(build: Any, tmp_path: Path) -> None:
    model, again = build(), build()
    assert [path for path, _ in weight_holders(model)] == [path for path, _ in weight_holders(again)]
    assert fingerprint(model) == fingerprint(again)
    slicer = RelevantSlicer(model, keep_ratio=0.7)
    profile = slicer.profile(X, verbose=False)
    profile.save(tmp_path / "profile.npz")
    chosen = RelevantSlicer(again, keep_ratio=0.7).slice(CoverageProfile.load(tmp_path / "profile.npz"))
    chosen.save(tmp_path / "slice.npz")
    student = RelevantSlice.load(tmp_path / "slice.npz").apply(build())
    assert not all(mask.all() for mask in chosen.masks.values())
    for path, mask in chosen.masks.items():
        (kernel,) = (kernel for at, layer in walk(student) for kernel in layer.weights if f"{at}/{kernel.name}" == path)
        np.testing.assert_array_equal(toys.numpy(kernel.value)[~mask], 0)


@pytest.mark.once
def test_a_students_file_is_as_it_was(tmp_path: Path) -> None:
    model = functional()
    student = RelevantSlicer(model, keep_ratio=0.7).apply(X, num_classes=2, verbose=False)
    student.save(tmp_path / "student.keras")
    loaded = keras.saving.load_model(tmp_path / "student.keras")
    np.testing.assert_allclose(toys.numpy(loaded(X)), toys.numpy(student(X)), atol=1e-6)
    assert [path for path, _ in walk(loaded)] == [path for path, _ in walk(student)]


def test_names_are_kept_where_they_last() -> None:
    """Functional and sequential models write them into their files; and a name that somebody gave is a name."""
    inner = keras.Sequential([keras.Input((4,)), kl.Dense(3, name="dense_7")])
    x = keras.Input((4,))
    model = keras.Model(x, kl.Dense(2, name="dense_9")(inner(x)))
    assert [path for path, _ in weight_holders(model)] == [f"{inner.name}/dense_7", "dense_9"]
    block = Block()
    block.grow = kl.Dense(12, name="grow_2")
    assert "grow_2" in [path for path, _ in walk(block)]
    assert "bidirectional/forward_lstm" in [path for path, _ in walk(block)]
