"""Where students start from: a slice with zeros, fresh weights that share nothing, and one head for all."""

from typing import Any

import keras
import numpy as np
import toys
from keras import layers as kl
from tiny import X, make, same, teacher

from keras_remos import RelevantSlicer
from keras_remos.methods import METHODS, Recipe
from keras_remos.models.layers import weight_holders
from keras_remos.models.sliceable import find_sliceable
from keras_remos.slicing.student import build, from_scratch


class Begun(KeyboardInterrupt):
    """Ends a run before its first step."""


class First(keras.callbacks.Callback):
    """Keeps what a student begins with, and trains no further."""

    weights: dict[str, np.ndarray]

    def on_train_begin(self, logs: Any = None) -> None:
        self.weights = {
            f"{path}/{weight.name}": toys.numpy(weight.value)
            for path, layer in weight_holders(self.model.student)
            for weight in layer.weights
        }
        raise Begun


def start(method: str, **options: Any) -> dict[str, np.ndarray]:
    first = First()
    try:
        make(method, callbacks=[first], **options)
    except Begun:
        return first.weights
    raise AssertionError("did not begin")


def test_every_method_has_the_same_head() -> None:
    starts = {name: start(name) for name in METHODS}
    heads = {name: weights["head/kernel"] for name, weights in starts.items()}
    for name, head in heads.items():
        np.testing.assert_array_equal(head, heads["finetune"], err_msg=name)
        assert not starts[name]["head/bias"].any()
    assert (heads["finetune"] != start("finetune", seed=6)["head/kernel"]).any()


def test_remos_starts_from_the_slice_and_zeros() -> None:
    model = teacher()
    slicer = RelevantSlicer(model, keep_ratio=0.7)
    made = slicer.slice(slicer.profile(X, verbose=False))
    begun = start("remos", model=model, keep_ratio=0.7)
    assert made.kept < made.total
    for path, mask in made.masks.items():
        old = toys.numpy(model.get_layer(path.split("/")[0]).kernel.value)
        np.testing.assert_array_equal(begun[path], np.where(mask, old, 0))


def test_remos_can_keep_excluded_weights_at_zero_and_takes_a_slice_made_before() -> None:
    model = teacher()
    slicer = RelevantSlicer(model, keep_ratio=0.7)
    made = slicer.slice(slicer.profile(X, verbose=False))
    frozen = make("remos", model, relevant=made, freeze=True, recipe=Recipe(epochs=1, batch_size=8))
    for path, mask in made.masks.items():
        kernel = toys.numpy(frozen.student.get_layer(path.split("/")[0]).kernel.value)
        assert not kernel[~mask].any()
        assert kernel[mask].all()
    assert frozen.options["slice"]["keep_ratio"] == 0.7


def test_retraining_shares_no_weight_with_the_teacher() -> None:
    model = teacher()
    begun = start("retrain", model=model)
    for found in find_sliceable(model)[0]:
        if found.path != "head":
            assert not (begun[f"{found.path}/kernel"] == toys.numpy(found.layer.kernel.value)).any()
    for layer in (model.get_layer("bn1"), model.get_layer("bn2")):
        for name, value in (("gamma", 1), ("beta", 0), ("moving_mean", 0), ("moving_variance", 1)):
            assert (begun[f"{layer.name}/{name}"] == value).all()
    assert (begun["conv1/kernel"] == start("retrain", model=model)["conv1/kernel"]).all()
    assert (begun["conv1/kernel"] != start("retrain", model=model, seed=6)["conv1/kernel"]).any()
    assert np.unique(begun["conv2/kernel"]).size == begun["conv2/kernel"].size


def test_fresh_weights_come_from_the_seed_even_where_keras_would_draw_them() -> None:
    model, _, _ = toys.make("bert")  # its position embeddings are of a kind that cannot be sliced
    one, other = from_scratch(model, seed=1), from_scratch(model, seed=1)
    assert same(one, other)
    third = from_scratch(model, seed=2)
    differing = [a.path for a, b in zip(one.weights, third.weights, strict=True) if (np.asarray(a) != b).any()]
    assert any("position" in path for path in differing)


def test_input_statistics_are_kept() -> None:
    """They are of the data, not learned; without them a fresh student would read another scale."""
    rng = np.random.default_rng(0)
    x = rng.normal(3, 2, (50, 4)).astype("float32")
    norm = kl.Normalization(name="norm")
    norm.adapt(x)
    model = keras.Sequential([keras.Input((4,)), norm, kl.Dense(5, name="hidden"), kl.Dense(2, name="head")])
    for student in (from_scratch(model, seed=3), build(model, {})):
        np.testing.assert_allclose(toys.run(student.get_layer("norm"), x), toys.run(norm, x), rtol=1e-5)
    assert (toys.numpy(from_scratch(model).get_layer("hidden").kernel) != toys.numpy(model.layers[1].kernel)).all()
