"""Teachers whose layers are frozen, as for transfer learning: in a student what was reset trains all the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl

from keras_remos import RelevantSlice, RelevantSlicer
from keras_remos.models.layers import walk
from keras_remos.models.sliceable import find_sliceable
from keras_remos.slicing.student import build

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 6, 6, 2)).astype("float32")
Y = np.arange(12) % 3
UNFROZEN = "with trainable=False lost weights"


def on_a_base(base: keras.Model) -> keras.Model:
    """As the Keras guide on transfer learning has it."""
    base.trainable = False
    x = keras.Input((6, 6, 2))
    h = kl.GlobalAveragePooling2D()(base(x, training=False))
    return keras.Model(x, kl.Dense(3, activation="softmax", name="head")(h), name="guide")


def base() -> keras.Model:
    x = keras.Input((6, 6, 2))
    h = kl.ReLU()(kl.BatchNormalization(name="bn")(kl.Conv2D(4, 3, padding="same", name="first")(x)))
    h = kl.Conv2D(4, 3, padding="same", activation="relu", name="second")(h)
    return keras.Model(x, kl.Conv2D(4, 3, padding="same", activation="relu", name="third")(h), name="base")


def nested() -> keras.Model:
    return toys.fill(on_a_base(base()))


def in_two() -> keras.Model:
    inner = base()
    x = keras.Input((6, 6, 2))
    return toys.fill(on_a_base(keras.Model(x, kl.ReLU()(inner(x)), name="outer")))


def whole() -> keras.Model:
    """All of it, its head too."""
    model = nested()
    model.trainable = False
    return model


TEACHERS: dict[str, Callable[[], keras.Model]] = {"nested": nested, "in two": in_two, "whole": whole}


def sliced(model: keras.Model, **options: Any) -> RelevantSlice:
    slicer = RelevantSlicer(model, keep_ratio=0.7, **options)
    return slicer.slice(slicer.profile(X))


def kernels(model: keras.Model) -> dict[str, np.ndarray]:
    return {f"{s.path}/{k.name}": toys.numpy(k.variable.value) for s in find_sliceable(model)[0] for k in s.weights}


def flags(model: keras.Model) -> list[bool]:
    """Which weights train."""
    trained = {id(variable) for variable in model.trainable_variables}
    return [id(variable) in trained for variable in model.weights]


def fit(student: keras.Model) -> None:
    student.compile(keras.optimizers.SGD(0.5), "sparse_categorical_crossentropy")
    student.fit(X, Y, epochs=2, batch_size=6, verbose=0)


@pytest.mark.once
@pytest.mark.parametrize("name", TEACHERS)
@pytest.mark.parametrize("num_classes", [None, 3])
def test_what_was_reset_trains(name: str, num_classes: int | None, tmp_path: Path) -> None:
    model = TEACHERS[name]()
    before = flags(model)
    made = sliced(model)
    with pytest.warns(UserWarning, match=f"'guide' {UNFROZEN}"):
        student = made.apply(model, num_classes=num_classes)
    assert flags(model) == before
    student.save(tmp_path / "student.keras")
    for each in (student, keras.saving.load_model(tmp_path / "student.keras")):
        start = {path: values for path, values in kernels(each).items() if path in made.masks}
        fit(each)
        for path, values in start.items():
            reset = ~made.masks[path]
            assert reset.any() and not values[reset].any()
            assert kernels(each)[path][reset].any()


def test_only_the_layers_that_were_sliced_are_unfrozen() -> None:
    model = nested()
    inner = model.get_layer("base")
    model.get_layer("head").trainable = False
    made = sliced(model, filters="second")
    assert not made.masks["base/second/kernel"].all()
    with pytest.warns(UserWarning, match="^1 layer of 'guide'"):
        student = made.apply(model)
    copied = student.get_layer("base")
    assert [layer.name for layer in copied.layers if layer.trainable and layer.weights] == ["second"]
    assert not student.get_layer("head").trainable
    before = [toys.numpy(weight.value) for weight in copied.get_layer("bn").weights]
    fit(student)
    for old, now in zip(before, copied.get_layer("bn").weights, strict=True):
        np.testing.assert_array_equal(old, toys.numpy(now.value))
    for name in ("first", "third"):
        np.testing.assert_array_equal(inner.get_layer(name).kernel, copied.get_layer(name).kernel)


def test_a_fresh_head_trains_where_nothing_else_does() -> None:
    model = whole()
    with pytest.warns(UserWarning, match="fresh head"):
        student = sliced(model, filters="second").apply(model, num_classes=4)
    names = {variable.path.split("/")[-2] for variable in student.trainable_variables}
    assert names == {"second", "head"}


def test_a_single_weight_that_its_owner_froze_stays_frozen() -> None:
    x = keras.Input((6, 6, 2))
    h = kl.Conv2D(4, 3, activation="relu", name="first")(x)
    h = kl.GlobalAveragePooling2D()(kl.Conv2D(4, 3, activation="relu", name="second")(h))
    model = toys.fill(keras.Model(x, kl.Dense(3, activation="softmax", name="head")(h)))
    model.get_layer("first").trainable = False
    model.get_layer("second").bias.trainable = False
    made = sliced(model, filters="first")
    with pytest.warns(UserWarning, match=UNFROZEN):
        student = made.apply(model, in_place=True)
    assert student.get_layer("first").kernel.trainable
    assert not student.get_layer("second").bias.trainable


def test_nothing_is_said_where_all_are_to_train() -> None:
    model = whole()
    student = build(model, sliced(model).masks, heads=("head",), num_classes=2, all_train=True)
    assert all(layer.trainable for _, layer in walk(student)) and not any(flags(model))


def test_nothing_is_said_where_nothing_that_trains_was_frozen() -> None:
    """A warning would be an error here."""
    model = nested()
    model.get_layer("head").trainable = False
    model.get_layer("base").get_layer("second").trainable = True
    student = sliced(model, filters="second").apply(model)
    assert flags(student) == flags(model)
    model.get_layer("head").trainable = True
    sliced(model, filters="second").apply(model, num_classes=4)
