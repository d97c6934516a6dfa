"""Which callbacks of Keras do not go with a training of ours, and what does instead."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from keras_remos.errors import RemosError
from keras_remos.training.recipe import Recipe


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
