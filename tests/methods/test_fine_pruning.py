"""Fine-pruning: the channels that are least active on clean data go, with all that could wake them, and stay away."""

from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl
from tiny import RECIPE, X, make, teacher

from keras_remos import RemosError
from keras_remos.methods.fine_pruning import last_convolutions, mean_activations
from keras_remos.training.averaging import reestimate_batch_norm
from keras_remos.training.task import Task


def task_of(model: keras.Model, x: np.ndarray) -> Task:
    return Task(model, (x, np.arange(len(x)) % 2), num_classes=2, recipe=RECIPE)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    made = teacher()
    reestimate_batch_norm(made, X, verbose=False)  # as in a teacher that was trained
    return made


def means_of(model: keras.Model) -> np.ndarray:
    """How active the channels of the last convolution are, behind its ReLU."""
    return toys.numpy(keras.Model(model.input, model.get_layer("relu2").output)(X)).mean(axis=(0, 1, 2))


@pytest.mark.parametrize("ratio", [0.5, 0.2, 0.0])
def test_the_least_active_channels_are_silent_all_along(ratio: float, model: keras.Model) -> None:
    gone = np.argsort(means_of(model))[: round(6 * ratio)]
    silent: list[Any] = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            silent.append(np.flatnonzero(means_of(self.model.student) == 0))

    made = make("fine-pruning", model, prune_ratio=ratio, callbacks=[Watch()])
    for found in silent:
        np.testing.assert_array_equal(found, np.sort(gone))
    assert made.options["pruned"] == {"conv2": len(gone)} and made.options["prune_ratio"] == ratio
    kept = np.setdiff1d(np.arange(6), gone)
    kernel = toys.numpy(made.student.get_layer("conv2").kernel.value)
    assert not kernel[..., gone].any() and kernel[..., kept].all()
    assert toys.numpy(made.student.get_layer("conv1").kernel.value).all()
    # The others train.
    assert (kernel != toys.numpy(model.get_layer("conv2").kernel.value))[..., kept].any()


def test_several_layers_are_pruned_from_the_last_one_back(model: keras.Model) -> None:
    made = make("fine-pruning", model, layers=2)
    assert made.options["pruned"] == {"conv2": 3, "conv1": 2}
    bias = toys.numpy(made.student.get_layer("conv1").bias.value)
    kernel = toys.numpy(made.student.get_layer("conv1").kernel.value)
    assert not bias[~kernel.any(axis=(0, 1, 2))].any()


@pytest.mark.parametrize(("name", "path"), [("cnn", "conv2"), ("mobile", "project"), ("nested", "inner/conv")])
def test_means_are_those_of_the_oracles_activations(name: str, path: str) -> None:
    model, x, toy = toys.make(name)
    task = task_of(model, x)
    [found] = last_convolutions(task, 1)
    assert found.path == path
    [means] = mean_activations(task, [found], verbose=False)
    sites = {site.kernel: site for site in toy.sites(model, x)}
    expected = sites[f"{path}/kernel"].activation.values
    np.testing.assert_allclose(means, expected.mean(axis=(0, 1)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["grouped", "depthwise", "separable", "transposed"])
def test_a_channel_of_any_kind_of_convolution_goes_as_a_whole(kind: str) -> None:
    inputs = keras.Input((6, 6, 4))
    last = {
        "grouped": kl.Conv2D(8, 3, groups=2, name="last"),
        "depthwise": kl.DepthwiseConv2D(3, depth_multiplier=2, name="last"),
        "separable": kl.SeparableConv2D(8, 3, name="last"),
        "transposed": kl.Conv2DTranspose(8, 3, name="last"),
    }[kind]
    maps = kl.ReLU(name="relu")(last(inputs))
    model = toys.fill(keras.Model(inputs, kl.Dense(3, name="head")(kl.GlobalAveragePooling2D()(maps)), name=kind))
    x = np.random.default_rng(0).normal(size=(8, 6, 6, 4)).astype("float32")
    task = task_of(model, x)
    [found] = last_convolutions(task, 1)
    kept = np.arange(8) % 3 > 0
    student = task.masked(found.masks(kept))
    raw = [keras.Model(m.input, m.get_layer("last").output) for m in (model, student)]
    before, after = (toys.numpy(each(x)) for each in raw)
    # Without the bias, which is silenced apart.
    np.testing.assert_allclose(after[..., kept], before[..., kept], atol=1e-5)
    assert np.ptp(after[..., ~kept], axis=(0, 1, 2)).max() < 1e-6


@pytest.mark.parametrize(
    ("options", "message"),
    [({"prune_ratio": 1.0}, "`prune_ratio` must be"), ({"layers": 0}, "`layers` must be")],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RemosError, match=message):
        make("fine-pruning", **options)


def test_a_model_without_convolutions_is_refused() -> None:
    model, x, _ = toys.make("mlp")
    with pytest.raises(RemosError, match="no convolution"):
        make("fine-pruning", model, data=(x, np.arange(len(x)) % 2), num_classes=2)
