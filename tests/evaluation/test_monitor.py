"""DIR beside accuracy, in anybody's `fit`."""

import csv
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_remos as kr
from keras_remos.evaluation.predictions import predict_classes

SPACE = kr.PixelSpace("0-1")
RNG = np.random.default_rng(0)
Y = (np.arange(24) % 3).astype(np.int32)
X = RNG.integers(0, 60, (24, 6, 6, 3)).astype(np.float32)
X[np.arange(24), :, :, Y] += 150


def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [keras.Input((6, 6, 3)), keras.layers.Conv2D(4, 3, activation="relu", name="conv")]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="softmax", name="head")]
    made = keras.Sequential(layers)
    made.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return made


def attack(target: int | None = None) -> kr.AttackSet:
    return kr.AttackSet(X, X[::-1].copy(), Y, (), target, "mine", {}, SPACE, (("conv", "0"),), 0, {})


@pytest.mark.parametrize("target", [None, 1])
def test_it_is_in_the_logs_of_every_epoch_and_what_evaluate_says(target: int | None, tmp_path: Path) -> None:
    student, monitor = model(), kr.InheritanceMonitor(attack(target), batch_size=8)
    log = keras.callbacks.CSVLogger(str(tmp_path / "log.csv"))
    history = student.fit(X / 255, Y, epochs=3, batch_size=12, verbose=0, callbacks=[monitor, log]).history
    found = kr.measure({"mine": (student, SPACE)}, X, Y, {"mine": attack(target)}, verbose=False).inherited[0]
    assert len(history["dir"]) == 3
    np.testing.assert_equal(history["dir"][-1], found.rate.value)
    with (tmp_path / "log.csv").open() as file:
        assert [float(row["dir"]) for row in csv.DictReader(file)] == pytest.approx(history["dir"], nan_ok=True)


def test_it_follows_the_weights_and_leaves_them_alone() -> None:
    watched, alone = model(), model()
    said = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
            said.append(predict_classes(self.model, X[::-1].copy(), SPACE, batch_size=8))

    how = {"epochs": 3, "batch_size": 12, "verbose": 0, "shuffle": False}
    history = watched.fit(X / 255, Y, callbacks=[kr.InheritanceMonitor(attack(1)), Look()], **how).history
    alone.fit(X / 255, Y, **how)
    for ours, theirs in zip(watched.get_weights(), alone.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert history["dir"] == pytest.approx([float(np.mean(each[Y != 1] == 1)) for each in said])


def test_methods_take_it_and_it_may_rest() -> None:
    monitor = kr.InheritanceMonitor(attack(1), name="patch dir", every=3)
    recipe = kr.Recipe(epochs=4, batch_size=12, learning_rate=0.05)
    trained = kr.train("finetune", model(), (X / 255, Y), recipe=recipe, callbacks=[monitor], verbose=False)
    first, second, *_, last = trained.history["patch dir"]
    assert first == second  # it asks after the first, the third and the last
    found = kr.measure({"mine": (trained.student, SPACE)}, X, Y, {"mine": attack(1)}, verbose=False).inherited[0]
    assert last == found.rate.value


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(kr.RemosError, match="`every` must be a whole number"):
        kr.InheritanceMonitor(attack(), every=0)
    with pytest.raises(kr.MismatchError):
        kr.InheritanceMonitor(attack(), kr.PixelSpace("0-1", high=1.0))
