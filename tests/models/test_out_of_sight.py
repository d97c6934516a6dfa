"""Layers whose calls no tap can read, and models that take batches of one size: they are left whole, nothing breaks."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl
from keras import ops

from keras_remos import profile
from keras_remos.models.features import FeatureExtractor, find_features

X = np.random.default_rng(0).normal(size=(6, 4, 3)).astype("float32")


def scan(inner: Any, x: Any) -> Any:
    def step(state: Any, now: Any) -> Any:
        return inner(state + now), state

    return ops.scan(step, x[:, 0], ops.transpose(x, (1, 0, 2)))[0]


def repeat(inner: Any, x: Any) -> Any:
    def step(index: Any, h: Any) -> Any:
        return index + 1, inner(h)

    return ops.while_loop(lambda index, h: index < 3, step, (0, x[:, 0]))[1]


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "scan": scan,
    "while_loop": repeat,
    "cond": lambda inner, x: ops.cond(ops.mean(x) > 0, lambda: inner(x[:, 0]), lambda: x[:, 0] * 0.5),
    "vectorized_map": lambda inner, x: ops.vectorized_map(lambda one: inner(one[None, 0])[0], x),
}


class Within(kl.Layer):
    """Calls a layer within an operation that takes a function."""

    def __init__(self, how: str) -> None:
        super().__init__(name="within")
        self.how = how
        self.inner = kl.Dense(3, activation="tanh", name="inner")

    def build(self, shape: Any) -> None:
        self.inner.build((None, 3))
        self.built = True

    def call(self, x: Any) -> Any:
        return CALLS[self.how](self.inner, x)

    def compute_output_shape(self, shape: Any) -> Any:
        return (shape[0], 3)


def around(how: str) -> keras.Model:
    x = keras.Input((4, 3))
    h = Within(how)(kl.Dense(3, activation="relu", name="before")(x))
    h = kl.Dense(5, activation="relu", name="after")(h)
    return toys.fill(keras.Model(x, kl.Dense(2, activation="softmax", name="head")(h)))


@pytest.mark.parametrize("how", CALLS)
def test_what_an_operation_calls_within_itself_is_left_whole(how: str) -> None:
    """On every backend, also where it would be in sight: one model has one plan."""
    model = around(how)
    found = profile(model, X, verbose=False)
    assert list(found.layers) == ["before/kernel", "after/kernel"]
    assert dict(found.skipped)["within/inner"] == f"called within ops.{how}, out of sight"
    assert found.heads == ("head",)


class Either(Within):
    """Two layers, of which the data decide which one is called."""

    def __init__(self) -> None:
        super().__init__("cond")
        self.other = kl.Dense(3, name="other")

    def build(self, shape: Any) -> None:
        self.other.build((None, 3))
        super().build(shape)

    def call(self, x: Any) -> Any:
        return ops.cond(ops.mean(x) > 0, lambda: self.inner(self.other(x[:, 0])), lambda: self.other(x[:, 0]))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_data_may_decide_what_an_operation_calls(sign: int) -> None:
    x = keras.Input((4, 3))
    h = kl.Dense(5, activation="relu", name="after")(Either()(x))
    model = toys.fill(keras.Model(x, kl.Dense(2, activation="softmax", name="head")(h)))
    found = profile(model, sign * np.abs(X), verbose=False)
    assert list(found.layers) == ["after/kernel"] and found.num_samples == len(X)


def test_features_are_taken_from_what_is_in_sight() -> None:
    model = around("scan")
    paths = find_features(model)
    assert paths == ["before", "after"]
    _, features = FeatureExtractor(model, paths)(X)
    assert [tuple(tensor.shape) for tensor in features] == [(6, 4, 3), (6, 5)]


class OwnBatch(keras.Model):
    """Its reshape takes six samples and no other number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = kl.Dense(4, activation="relu", name="first"), kl.Dense(2, name="head")

    def build(self, shape: Any) -> None:
        self.first.build((None, 3))
        self.head.build((None, 16))
        self.built = True

    def call(self, x: Any) -> Any:
        return self.head(ops.reshape(self.first(x), (6, 16)))


def test_a_model_of_one_batch_size_is_traced_with_that() -> None:
    model = OwnBatch()
    model.build((6, 4, 3))
    found = profile(toys.fill(model), np.concatenate([X, X]), batch_size=6, verbose=False)
    assert list(found.layers) == ["first/kernel"] and found.num_samples == 12
    assert dict(found.skipped)["head"].startswith("head")
    active = toys.run(model.first, np.concatenate([X, X])) > 0
    np.testing.assert_array_equal(found.layers["first/kernel"].outputs, active.sum(axis=(0, 1)))


def test_what_a_model_raises_for_its_own_data_is_told() -> None:
    class Broken(OwnBatch):
        def call(self, x: Any) -> Any:
            raise ArithmeticError("of its own")

    model = Broken()
    model.build((6, 4, 3))
    with pytest.raises(Exception, match="of its own"):
        profile(model, X, verbose=False)
