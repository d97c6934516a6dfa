"""Heads and readings are found by what computes what: the same under every dtype policy and on every backend."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl
from keras import ops

from keras_remos.errors import RemosError
from keras_remos.models.heads import find_heads, returns_probabilities
from keras_remos.models.reading_plan import plan_readings

# Keras' own layer writes 1e-12 in half precision.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")

POLICIES = ["float32", "mixed_float16", "mixed_bfloat16"]


@contextmanager
def policy(name: str) -> Iterator[None]:
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy("float32")


def dense(h: Any, name: str = "fc", **options: Any) -> Any:
    return kl.Dense(4, name=name, **options)(h)


class OwnSoftmax(kl.Layer):
    def call(self, x: Any) -> Any:
        return ops.softmax(x)


class OwnHead(kl.Layer):
    def build(self, shape: Any) -> None:
        self.matrix = self.add_weight(shape=(shape[-1], 4), name="matrix")

    def call(self, x: Any) -> Any:
        return ops.matmul(x, self.matrix)


# What stands behind the last weights, the heads, and whether probabilities come out.
ENDS: dict[str, tuple[Callable[[Any], Any], tuple[str, ...], bool]] = {
    "logits": (dense, ("fc",), False),
    "softmax in float32": (lambda h: kl.Activation("softmax", dtype="float32")(dense(h)), ("fc",), True),
    "linear in float32": (
        lambda h: kl.Activation("linear", dtype="float32")(dense(h, activation="softmax")),
        ("fc",),
        True,
    ),
    "ops.softmax": (lambda h: ops.softmax(dense(h)), ("fc",), True),
    "activations.softmax": (lambda h: keras.activations.softmax(dense(h)), ("fc",), True),
    "ops.clip": (lambda h: ops.clip(dense(h), -1, 1), ("fc",), False),
    "a temperature": (lambda h: dense(h) / 2, ("fc",), False),
    "rescaling": (lambda h: kl.Rescaling(0.5)(dense(h)), ("fc",), False),
    "unit normalization": (lambda h: kl.UnitNormalization()(dense(h)), ("fc",), False),
    "batch normalization": (lambda h: kl.BatchNormalization()(dense(h)), ("fc",), False),
    "sum": (lambda h: kl.Add()([dense(h), dense(h, "fc2")]), ("fc", "fc2"), False),
    "average": (lambda h: kl.Average()([dense(h), dense(h, "fc2")]), ("fc", "fc2"), False),
    "concatenation": (lambda h: kl.Concatenate()([dense(h), dense(h, "fc2")]), ("fc", "fc2"), False),
    "a softmax of one's own": (lambda h: OwnSoftmax()(dense(h)), ("fc",), True),
    "a head of one's own": (lambda h: OwnHead(name="fc")(h), ("fc",), False),
    "spectral normalization": (lambda h: kl.SpectralNormalization(kl.Dense(4), name="fc")(h), ("fc",), False),
    "ReLU and softmax": (lambda h: kl.Softmax()(dense(h, activation="relu")), ("fc",), True),
    # Features, not class scores.
    "hidden": (lambda h: dense(h, activation="relu"), (), False),
    "residual": (lambda h: kl.Add()([h, kl.Dense(8, name="block")(h)]), (), False),
    "recurrent": (lambda h: kl.LSTM(4, name="lstm")(kl.Reshape((4, 2))(h)), (), False),
}


def ending(name: str) -> keras.Model:
    x = keras.Input((6,))
    return keras.Model(x, ENDS[name][0](kl.Dense(8, activation="relu", name="hidden")(x)))


@pytest.mark.parametrize("dtype", POLICIES)
@pytest.mark.parametrize("name", ENDS)
def test_the_head_is_found_whatever_stands_behind_it(name: str, dtype: str) -> None:
    with policy(dtype):
        model = toys.fill(ending(name))
    if dtype == "float32":
        assert find_heads(model) == ENDS[name][1]
    if dtype != "mixed_bfloat16":
        assert returns_probabilities(model) is ENDS[name][2]
    plan = plan_readings(model, np.zeros((2, 6), "float32"))
    assert plan.heads == list(ENDS[name][1])
    assert not any(f"{path}/".startswith(f"{head}/") for head in plan.heads for path in plan.kernels)


@pytest.mark.once
@pytest.mark.parametrize("how", ["int8", "lora"])
def test_a_head_whose_kernel_is_computed_is_found(how: str) -> None:
    model = toys.fill(ending("logits"))
    head = model.get_layer("fc")
    if how == "lora":
        head.enable_lora(2)
    else:
        head.quantize(how)
    assert find_heads(model) == ("fc",)
    assert plan_readings(model, np.zeros((2, 6), "float32")).heads == ["fc"]


def maps(end: Callable[[Any], Any]) -> keras.Model:
    """A U-Net and its end."""
    x = keras.Input((16, 16, 3))
    wide = kl.Conv2D(4, 3, padding="same", activation="relu", name="wide")(x)
    deep = kl.Conv2D(8, 3, 2, padding="same", activation="relu", name="deep")(wide)
    up = kl.Conv2DTranspose(4, 3, 2, padding="same", activation="relu", name="up")(deep)
    return keras.Model(x, end(kl.Concatenate()([up, wide])))


def conv(h: Any, **options: Any) -> Any:
    return kl.Conv2D(5, 1, name="out", **options)(h)


def normalized(h: Any) -> Any:
    return kl.ReLU()(kl.BatchNormalization()(conv(h)))


MAPS: dict[str, tuple[Callable[[Any], Any], tuple[str, ...]]] = {
    "segmentation": (lambda h: conv(h, activation="softmax"), ("out",)),
    "segmentation by logits": (conv, ("out",)),
    "segmentation by an operator": (lambda h: ops.softmax(conv(h)), ("out",)),
    "features": (lambda h: conv(h, activation="relu"), ()),
    "normalized features": (normalized, ()),
    "pooled features": (lambda h: kl.GlobalAveragePooling2D()(conv(h)), ()),
    "features pooled by an operator": (lambda h: ops.mean(conv(h), axis=(1, 2)), ()),
    "a convolution behind the pooling": (
        lambda h: kl.Flatten()(conv(kl.GlobalAveragePooling2D(keepdims=True)(h))),
        ("out",),
    ),
    "pooled into a softmax": (
        lambda h: kl.Softmax()(kl.GlobalAveragePooling2D()(conv(h, activation="relu"))),
        ("out",),
    ),
}


@pytest.mark.parametrize("name", MAPS)
def test_maps_of_classes_are_told_from_features(name: str) -> None:
    end, heads = MAPS[name]
    assert find_heads(maps(end)) == heads


def test_tags_of_words_are_class_scores_too() -> None:
    x = keras.Input((7,), dtype="int32")
    h = kl.LSTM(4, return_sequences=True, name="lstm")(kl.Embedding(13, 4, name="table")(x))
    assert find_heads(keras.Model(x, kl.Dense(3, activation="softmax", name="tags")(h))) == ("tags",)
    assert find_heads(keras.Model(x, kl.TimeDistributed(kl.Dense(3), name="tags")(h))) == ("tags",)
    assert find_heads(keras.Model(x, h)) == ()
    features = kl.TimeDistributed(kl.Dense(3, activation="relu"), name="tags")(h)
    assert find_heads(keras.Model(x, features)) == ()


@pytest.mark.parametrize("name", [name for name in toys.TOYS if name != "bert"])
def test_readings_do_not_depend_on_the_dtype_policy(name: str) -> None:
    plans = []
    for dtype in POLICIES:
        with policy(dtype):
            model, x, _ = toys.make(name)
        plan = plan_readings(model, x)
        plans.append((plan.readings, plan.kernels, plan.heads, plan.skipped, plan.num_calls))
    assert plans[1:] == plans[:1] * 2


def test_a_cast_stands_between_no_two_layers() -> None:
    with policy("mixed_float16"):
        x = keras.Input((8, 8, 3))
        h = kl.Conv2D(4, 3, name="conv")(x)
        h = kl.ReLU(dtype="float32", name="relu")(kl.BatchNormalization(dtype="float32", name="bn")(h))
        model = keras.Model(x, kl.Dense(2, name="head")(kl.GlobalAveragePooling2D()(h)))
    plan = plan_readings(model, np.zeros((2, 8, 8, 3), "float32"))
    [(_, [written])] = plan.kernels.values()
    reading = plan.readings[written]
    assert plan.taps and reading.nonnegative  # behind the ReLU


def test_the_head_may_be_named() -> None:
    model = ending("logits")
    assert find_heads(model, head="hidden") == ("hidden",)
    with pytest.raises(RemosError, match="no layer 'hiden': did you mean 'hidden'"):
        find_heads(model, head="hiden")
