"""The callback that shows progress; and which of Keras' own do not go with a training of ours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_remos.errors import RemosError
from keras_remos.progress import Epochs
from keras_remos.training.recipe import Recipe


class Steps(keras.callbacks.Callback):
    """Shows the steps of a training, and what Keras reports of them.

    Args:
        watched: What is on display.
    """

    # Keras makes numbers of the loss and the metrics of each step in a thread of its own, unless a callback wants them
    # at the end of the step: then the step waits for the device. This one takes them when they come.
    async_safe = True

    def __init__(self, watched: Epochs) -> None:
        super().__init__()
        self.watched = watched
        self._epoch = watched.first

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch
        self.watched.step(epoch, 0)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.watched.step(self._epoch, batch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.watched.see(logs or {})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.watched.end(epoch, logs or {})


def check_callbacks(callbacks: Sequence[keras.callbacks.Callback], recipe: Recipe) -> None:
    """Makes sure that callbacks can do in a training what they are for.

    Raises:
        RemosError: If one puts a run back to where it was, or sets a learning rate that follows a schedule.
    """
    known = keras.callbacks
    for callback in callbacks:
        name = type(callback).__name__
        if isinstance(callback, known.BackupAndRestore):
            raise RemosError(
                f"{name} would bring back the weights, and neither the optimizer nor the history. Leave it out, and "
                "pass a folder as `checkpoint`: a run that was killed goes on from there."
            )
        if isinstance(callback, (known.ReduceLROnPlateau, known.LearningRateScheduler)) and recipe.follows_schedule:
            raise RemosError(
                f"{name} sets the learning rate, which follows the recipe's schedule. Leave it out, or pass a Recipe "
                "with `schedule='constant'` and `warmup=0`."
            )
