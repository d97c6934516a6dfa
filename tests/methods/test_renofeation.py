"""Renofeation: the mean of the weights along the way, statistics that fit it, and dropout that leaves no trace."""

from typing import Any

import keras
import numpy as np
import pytest
import toys
from tiny import FEATURES, RECIPE, X, make, teacher

from keras_remos import RemosError
from keras_remos.methods import Recipe
from keras_remos.methods.distillation import Distillation
from keras_remos.training.averaging import WeightAverage, reestimate_batch_norm


def test_an_average_goes_on_from_its_arrays() -> None:
    model = teacher()
    model.trainable = True
    first, second = WeightAverage(model), WeightAverage(model)
    kernel = model.get_layer("conv1").kernel
    values = [toys.numpy(kernel.value) * factor for factor in (1, 4, 10)]
    for number, value in enumerate(values):
        kernel.assign(value)
        first.update()
        if number == 1:
            second.restore(first.arrays())
    second.update()
    second.apply()
    np.testing.assert_allclose(toys.numpy(kernel.value), values[0] * 5, rtol=1e-6)


def test_batch_normalization_is_measured_anew() -> None:
    model = teacher()
    expected, h = [], X
    for number in "12":
        inputs = toys.run(model.get_layer(f"conv{number}"), h)
        norm = model.get_layer(f"bn{number}")
        mean, variance = inputs.mean(axis=(0, 1, 2)), inputs.var(axis=(0, 1, 2))
        expected.append((mean, variance))
        gamma, beta = toys.numpy(norm.gamma.value), toys.numpy(norm.beta.value)
        h = toys.relu((inputs - mean) / np.sqrt(variance + norm.epsilon) * gamma + beta)
    before = {weight.path: toys.numpy(weight.value) for weight in model.weights}
    reestimate_batch_norm(model, X[:24], verbose=False)
    for number, (mean, variance) in zip("12", expected, strict=True):
        norm = model.get_layer(f"bn{number}")
        np.testing.assert_allclose(toys.numpy(norm.moving_mean.value), mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(toys.numpy(norm.moving_variance.value), variance, rtol=1e-4, atol=1e-5)
    changed = [path for path, value in before.items() if (value != _value(model, path)).any()]
    assert {path.split("/")[-1] for path in changed} == {"moving_mean", "moving_variance"}


def _value(model: keras.Model, path: str) -> np.ndarray:
    return next(toys.numpy(weight.value) for weight in model.weights if weight.path == path)


def test_the_statistics_of_several_batches_are_their_mean() -> None:
    whole, parts = teacher(), teacher()
    reestimate_batch_norm(whole, X[:24], verbose=False)
    reestimate_batch_norm(parts, iter([(X[:8],), (X[8:24],)]), verbose=False)
    # The first normalization sees the same inputs either way: means of means are means.
    means = [toys.numpy(model.get_layer("bn1").moving_mean.value) for model in (whole, parts)]
    np.testing.assert_allclose(*means, rtol=1e-4, atol=1e-5)


def test_dropout_takes_whole_channels_in_training_only() -> None:
    student = teacher()
    student.get_layer("dropout").rate = 0.0
    training = Distillation(student, teacher(), paths=FEATURES, weight=1.0, dropout=0.5)
    kept = toys.numpy(training._drop_channels("relu1", keras.ops.ones((5, 4, 4, 40))))
    assert set(np.unique(kept)) == {0.0, 2.0}
    assert (kept == kept[:, :1, :1]).all()
    assert 0.3 < (kept == 0).mean() < 0.7
    plain = toys.numpy(student(X, training=False))
    np.testing.assert_array_equal(toys.numpy(training(X, training=False)), plain)
    assert (toys.numpy(training(X, training=True)) != toys.numpy(student(X, training=True))).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"averaged_share": 1.0}, "`averaged_share` must be"),
        ({"dropout": 1.0}, "`dropout` must be"),
        ({"recipe": Recipe(epochs=1)}, "at least two epochs"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RemosError, match=message):
        make("renofeation", **options)
    assert RECIPE.epochs == 2
