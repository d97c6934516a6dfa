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
from keras_remos.methods.attention import last_kernels, weights_of
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


def test_the_distance_is_the_mean_square() -> None:
    model, student = teacher(), teacher()
    student.get_layer("conv1").kernel.assign(student.get_layer("conv1").kernel * 1.1)
    # Before the call: in training, batch normalization moves its statistics.
    in_training = features(student, X, training=True)
    expected = sum(float(np.mean((a - b) ** 2)) for a, b in zip(in_training, features(model, X), strict=True))
    distilled = Distillation(student, model, paths=FEATURES, weight=0.7)
    outputs = distilled(X, training=True)
    assert outputs.shape == (24, 5)
    np.testing.assert_allclose([toys.numpy(loss) for loss in distilled.losses], [0.7 * expected], rtol=1e-4)
    distilled(X, training=False)
    assert not distilled.losses


def test_with_attention_the_distance_is_what_delta_says() -> None:
    """Worked out by hand: two images of 1 x 2 pixels, two channels.

    The student's maps differ from the teacher's by 1 and 2 in channel 0, by 3 and 4 in channel 1, in both images the
    same. The mean squares over positions are (1 + 4) / 2 = 2.5 and (9 + 16) / 2 = 12.5. With weights 0.5 and 1.5 an
    image adds (0.5 * 2.5 + 1.5 * 12.5) / 2 = 10, the batch 20; and 0.01 of that is 0.2.
    """
    x = np.array([[[[1, 3], [2, 4]]]] * 2, "float32")

    def build(kernel: np.ndarray) -> keras.Model:
        model = keras.Sequential([keras.Input((1, 2, 2)), kl.Conv2D(2, 1, use_bias=False, name="maps"), kl.Flatten()])
        model.get_layer("maps").kernel.assign(kernel.reshape(1, 1, 2, 2))
        return model

    attention = {"maps": np.array([0.5, 1.5])}
    distilled = Distillation(
        build(np.eye(2)), build(np.zeros((2, 2))), paths=["maps"], weight=0.01, attention=attention
    )
    distilled(x, training=True)
    np.testing.assert_allclose([toys.numpy(loss) for loss in distilled.losses], [0.2], rtol=1e-6)


@pytest.mark.once
def test_attention_is_read_at_the_last_kernel_of_each_block_with_the_weight_of_its_authors() -> None:
    trained = make("delta", form="attention", attention_samples=8)
    assert trained.options["features"] == ["conv1", "conv2"]
    assert trained.options["feature_weight"] == 0.01
    assert np.isfinite(trained.history["loss"]).all()
    named = make("delta-r", form="attention", attention_samples=8, features=["relu2"], feature_weight=0.002)
    assert named.options["features"] == ["relu2"] and named.options["feature_weight"] == 0.002
    assert make("delta-r").options["feature_weight"] == 5.0
    model, _, _ = toys.make("mobile")  # the last block ends in a sum
    task = Task(model, (np.zeros((4, 6, 6, 4), "float32"), np.arange(4) % 2), num_classes=2, recipe=RECIPE)
    assert last_kernels(task) == ["project"]


def test_weights_of_channels() -> None:
    """By hand: losses of 1 and 3 are -1 and 1 when scaled; the softmax of -0.2 and 0.2, times two."""
    np.testing.assert_allclose(weights_of(np.array([1.0, 3.0])), 2 / (1 + np.exp([0.4, -0.4])), rtol=1e-12)
    np.testing.assert_array_equal(weights_of(np.full(3, 0.7)), 1)


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


def test_attention_is_the_softmax_of_the_scaled_losses_without_each_channel() -> None:
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
    scaled = (np.array(losses) - np.mean(losses)) / np.std(losses) / 5
    expected = np.exp(scaled) / np.exp(scaled).sum() * 3
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    assert abs(found.mean() - 1) < 1e-6
    assert np.ptp(found) > 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "l2"}, "`form` must be"),
        ({"features": ["relu3"]}, "no layer 'relu3'.*'relu2'"),
        ({"feature_weight": -1.0}, "`feature_weight` must be"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    for method in ("delta", "delta-r"):
        with pytest.raises(RemosError, match=message):
            make(method, **options)
