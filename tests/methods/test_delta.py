"""DELTA: with weight 0 it is fine-tuning, its distance is what arithmetic says, and its attention too."""

from typing import Any

import keras
import numpy as np
import pytest
import toys
from keras import layers as kl
from tiny import FEATURES, RECIPE, X, Y, make, same, teacher

from keras_remos import RemosError
from keras_remos.methods import Delta, Recipe
from keras_remos.methods.distillation import Distillation
from keras_remos.models.features import FeatureExtractor
from keras_remos.training.averaging import reestimate_batch_norm
from keras_remos.training.task import Task
from keras_remos.training.trainer import Trainer


def features(model: keras.Model, x: np.ndarray, **how: Any) -> list[np.ndarray]:
    return [toys.numpy(tensor) for tensor in FeatureExtractor(model, FEATURES)(x, **how)[1]]


def test_without_weight_it_is_fine_tuning_bit_for_bit_and_with_it_features_stay_nearer() -> None:
    model = teacher()
    reestimate_batch_norm(model, X, verbose=False)  # as in a teacher that was trained
    recipe = Recipe(epochs=2, batch_size=8, learning_rate=0.02, augment="none")
    plain = make("finetune", model, recipe=recipe).student
    assert same(make("delta", model, feature_weight=0, recipe=recipe).student, plain)
    held = make("delta", model, feature_weight=2.0, recipe=recipe)
    assert held.options["features"] == FEATURES
    distance = [
        sum(np.square(a - b).mean() for a, b in zip(features(student, X), features(model, X), strict=True))
        for student in (held.student, plain)
    ]
    assert distance[0] < 0.8 * distance[1]


@pytest.mark.parametrize("attention", [None, {"relu2": np.arange(6) / 2.5}])
def test_the_distance_is_the_weighted_mean_square(attention: Any) -> None:
    model, student = teacher(), teacher()
    student.get_layer("conv1").kernel.assign(student.get_layer("conv1").kernel * 1.1)
    expected = 0.0
    # Before the call: in training, batch normalization moves its statistics.
    in_training = features(student, X, training=True)
    for path, mine, theirs in zip(FEATURES, in_training, features(model, X), strict=True):
        weights = (attention or {}).get(path, np.ones(mine.shape[-1]))
        expected += float(np.mean(np.square(mine - theirs) * weights))
    distilled = Distillation(student, model, paths=FEATURES, weight=0.7, attention=attention)
    outputs = distilled(X, training=True)
    assert outputs.shape == (24, 5)
    np.testing.assert_allclose([toys.numpy(loss) for loss in distilled.losses], [0.7 * expected], rtol=1e-4)
    distilled(X, training=False)
    assert not distilled.losses


def test_nothing_of_the_teacher_trains() -> None:
    model = teacher()
    task = Task(model, (X, Y), num_classes=3, recipe=RECIPE)
    trainer = Trainer(task, "delta", verbose=False)
    student = task.copy()
    training = Delta(feature_weight=1.0).as_training(task, trainer, student)
    assert {id(v) for v in training.trainable_variables} == {id(v) for v in student.trainable_variables}
    frozen = [weight for weight in training.weights if all(weight is not own for own in student.weights)]
    for copied, own in zip(frozen, model.weights, strict=True):
        assert copied is not own
        np.testing.assert_array_equal(toys.numpy(copied.value), toys.numpy(own.value))


def test_a_step_runs_each_model_once() -> None:
    calls: list[str] = []

    class Counted(kl.Dense):
        def call(self, x: Any, training: bool = False) -> Any:
            calls.append(f"{self.name} {training}")
            return super().call(x)

    def build(name: str) -> keras.Model:
        return keras.Sequential([keras.Input((4,)), Counted(3, name=name, activation="relu"), kl.Dense(2)])

    student, frozen = build("hidden"), build("hidden")
    distilled = Distillation(student, frozen, paths=["hidden"], weight=1.0)
    calls.clear()
    distilled(np.ones((2, 4), "float32"), training=True)
    assert sorted(calls) == ["hidden False", "hidden True"]


def test_attention_is_the_softmax_of_the_losses_without_each_channel() -> None:
    """A network small enough to be worked out by NumPy: two channels, then the head."""
    x = keras.Input((4, 4, 2))
    h = kl.Conv2D(3, 1, activation="relu", name="conv")(x)
    h = kl.Flatten(name="flat")(kl.MaxPooling2D(4, name="pool")(h))
    model = toys.fill(keras.Model(x, kl.Dense(5, activation="softmax", name="head")(h), name="small"))
    rng = np.random.default_rng(3)
    images, labels = rng.normal(size=(30, 4, 4, 2)).astype("float32"), np.arange(30) % 2
    images[labels == 1] += 0.7
    task = Task(model, (images, labels), num_classes=2, recipe=Recipe(epochs=1, batch_size=7))
    trainer = Trainer(task, "delta", verbose=False)
    heads: list[Any] = []
    seen = keras.Sequential.train_on_batch

    def watched(self: keras.Model, *args: Any, **kwargs: Any) -> Any:
        heads.append(self)
        return seen(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.Sequential, "train_on_batch", watched)
        training = Delta(features=["conv"], form="attention", attention_samples=30).as_training(
            task, trainer, task.copy()
        )
    assert isinstance(training, Distillation)
    found = training.attention["conv"]
    kernel, bias = (toys.numpy(weight.value) for weight in heads[0].weights)
    conv = toys.relu(toys.run(model.get_layer("conv"), images))
    losses = []
    for channel in range(3):
        silenced = conv * (np.arange(3) != channel)
        scores = toys.softmax(silenced.max(axis=(1, 2)) @ kernel + bias)
        losses.append(-np.log(scores[np.arange(30), labels]).mean())
    expected = np.exp(losses) / np.exp(losses).sum() * 3
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    assert abs(found.mean() - 1) < 1e-6
    assert np.ptp(found) > 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "l2"}, "form must be"),
        ({"features": ["relu3"]}, "no layer 'relu3'.*'relu2'"),
        ({"feature_weight": -1.0}, "feature_weight must be"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    for method in ("delta", "delta-r"):
        with pytest.raises(RemosError, match=message):
            make(method, **options)
