"""`Profiler`: what is compiled for one data set serves for the next, and never for another model."""

import keras
import numpy as np
import pytest
import toys

from keras_remos import RelevantSlicer, profile
from keras_remos.coverage import profiler


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[keras.Model]:
    """The models that a forward pass is planned of, one after the other."""
    planned: list[keras.Model] = []
    plan = profiler.plan_readings

    def noted(model: keras.Model, *args: object, **options: object) -> object:
        planned.append(model)
        return plan(model, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(profiler, "plan_readings", noted)
    return planned


def test_a_slicer_plans_once_for_data_of_one_shape(plans: list[keras.Model]) -> None:
    model, x, _ = toys.make("cnn", samples=7)
    _, other, _ = toys.make("cnn", samples=5, seed=3)
    slicer = RelevantSlicer(model)
    found = [slicer.profile(data, batch_size=4) for data in (x, other)]
    assert len(plans) == 1
    for data, made in zip((x, other), found, strict=True):
        fresh = profile(model, data, criterion=slicer.settings.criterion, on=slicer.settings.on, batch_size=4)
        assert made.describe() == fresh.describe() and made.data == fresh.data
    slicer.profile(x, batch_size=5)
    assert len(plans) == 4


def test_weights_may_change_in_between(plans: list[keras.Model]) -> None:
    model, x, _ = toys.make("mlp")
    slicer = RelevantSlicer(model)
    before = slicer.profile(x)
    for variable in model.trainable_variables:
        variable.assign(-variable)
    after = slicer.profile(x)
    assert len(plans) == 1 and after.teacher != before.teacher
    fresh = RelevantSlicer(model).profile(x)
    for path, coverage in fresh.layers.items():
        np.testing.assert_array_equal(after.layers[path].outputs, coverage.outputs)
    assert any((after.layers[path].outputs != before.layers[path].outputs).any() for path in after.layers)


def test_another_activation_is_another_model() -> None:
    model, x, _ = toys.make("mlp")
    slicer = RelevantSlicer(model)
    before = slicer.profile(x)
    layer = next(layer for layer in model.layers if getattr(layer, "activation", None) is keras.activations.relu)
    layer.activation = keras.activations.sigmoid
    after = slicer.profile(x)
    assert after.describe() == RelevantSlicer(model).profile(x).describe() != before.describe()


def twins() -> tuple[keras.Model, np.ndarray]:
    """A model with two layers of one shape, which look alike to what was compiled."""
    x = keras.Input((6,))
    hidden = keras.layers.Dense(6, activation="relu", name="a")(x)
    hidden = keras.layers.Dense(6, activation="relu", name="b")(hidden)
    model = toys.fill(keras.Model(x, keras.layers.Dense(2, name="head")(hidden)))
    return model, np.random.default_rng(0).normal(size=(32, 6)).astype("float32")


def test_other_layers_may_be_trainable_in_between() -> None:
    model, x = twins()
    slicer = RelevantSlicer(model)
    model.get_layer("a").trainable = False
    slicer.profile(x)
    model.get_layer("a").trainable, model.get_layer("b").trainable = True, False
    found, expected = slicer.profile(x), RelevantSlicer(model).profile(x)
    for path, coverage in expected.layers.items():
        np.testing.assert_array_equal(found.layers[path].outputs, coverage.outputs)


def test_another_dtype_policy_is_another_model(plans: list[keras.Model]) -> None:
    model, x = twins()
    slicer = RelevantSlicer(model)
    slicer.profile(x)
    model.get_layer("b").dtype_policy = "mixed_bfloat16"
    found, expected = slicer.profile(x), RelevantSlicer(model).profile(x)
    assert len(plans) == 3
    for path, coverage in expected.layers.items():
        np.testing.assert_array_equal(found.layers[path].outputs, coverage.outputs)


def test_other_options_are_another_profile() -> None:
    model, x, _ = toys.make("mlp")
    slicer = RelevantSlicer(model)
    whole = slicer.profile(x)
    slicer.filters = lambda path, layer: path != next(iter(whole.layers)).rpartition("/")[0]
    assert len(slicer.profile(x).layers) == len(whole.layers) - 1
