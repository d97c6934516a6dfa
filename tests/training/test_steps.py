"""The steps of a training, as they come."""

import threading
from typing import ClassVar

import keras
import pytest
import terminals
import tiny

from keras_remos.methods import Recipe
from keras_remos.progress import Epochs
from keras_remos.training.callbacks import Steps


class Recorder(Epochs):
    """Remembers what it was told."""

    told: ClassVar[list[tuple[int, int]]] = []

    def step(self, epoch: int, step: int) -> None:
        super().step(epoch, step)
        self.told.append((epoch, self.done))


def test_every_step_is_told_with_what_keras_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras_remos.progress.Epochs", Recorder)
    monkeypatch.setattr(Recorder, "told", [])
    stream = terminals.log_file(monkeypatch)
    trained = tiny.make("finetune", verbose=True, recipe=Recipe(epochs=2, batch_size=8, learning_rate=0.05))
    assert sorted(set(Recorder.told)) == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 3), (1, 4), (1, 5), (1, 6)]
    last = stream.getvalue().splitlines()[-1]
    assert last.startswith("Training (finetune): epoch 2 of 2, ")
    assert f"accuracy {trained.last['accuracy']:.4g}" in last
    assert f"loss {trained.last['loss']:.4g}" in last


def test_trials_say_which_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = terminals.log_file(monkeypatch)
    open_recipe = Recipe(epochs=2, batch_size=8, learning_rate="auto")
    tiny.make("finetune", verbose=True, recipe=open_recipe, budget=5)
    trials = [line.partition(".")[0] for line in stream.getvalue().splitlines() if "trial" in line and "Round" in line]
    assert "Round 1 of 2, trial 4 of 4: learning_rate 0" in trials
    assert "Round 2 of 2, trial 2 of 2: learning_rate 0" in trials


def test_no_step_waits_for_its_figures() -> None:
    """Where Keras makes numbers of a step's loss in a thread of its own, it still does while progress is shown."""
    asked, may = threading.Event(), threading.Event()

    class Slow:
        def __float__(self) -> float:
            asked.set()
            assert may.wait(10)
            return 0.5

    alone, watched = keras.callbacks.CallbackList([]), Epochs("Training", 0, 1, 2)
    callbacks = keras.callbacks.CallbackList([Steps(watched)])
    if not alone._async_train:
        pytest.skip(f"Keras itself waits for each step on {keras.backend.backend()}")
    callbacks.on_train_begin()
    callbacks.on_epoch_begin(0)
    callbacks.on_train_batch_begin(0)
    callbacks.on_train_batch_end(0, {"loss": Slow()})
    assert asked.wait(10)
    assert watched.figures == ""
    may.set()
    callbacks.on_epoch_end(0, {})
    callbacks.on_train_end()
    assert watched.figures == "loss 0.5"
