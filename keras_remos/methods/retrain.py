"""Retraining: the student has the teacher's architecture and none of its weights. It inherits nothing."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_remos.methods.base import Task, Trained, Training
from keras_remos.methods.recipe import Recipe, default_recipe
from keras_remos.saving import PathLike


def train(
    teacher: keras.Model,
    train: Any,
    validation: Any = None,
    *,
    num_classes: int,
    recipe: Recipe | None = None,
    seed: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    checkpoint: PathLike | None = None,
    verbose: bool | str = "auto",
) -> Trained:
    """Trains the teacher's architecture from fresh weights.

    Args:
        teacher: Gives its architecture, and the statistics of a `Normalization` layer for its inputs.
        train: See `finetune.train`, as for all that follows.
        validation: As `train`.
        num_classes: How many classes the student tells apart.
        recipe: How long and how fast; by default with learning rate 0.1 and weight decay 5e-4, since a student
            that starts from nothing learns too little at the rate of fine-tuning.
        seed: For the weights too.
        callbacks: Keras callbacks.
        checkpoint: A folder in which progress is kept.
        verbose: Progress on stderr.

    Returns:
        The student and how its training went.

    Raises:
        RemosError: See `finetune.train`.
    """
    task = Task(
        "retrain",
        teacher,
        train,
        validation,
        num_classes=num_classes,
        recipe=recipe or default_recipe(teacher, from_scratch=True),
        seed=seed,
        callbacks=callbacks,
        checkpoint=checkpoint,
        verbose=verbose,
    )
    student = task.fresh()
    task.fit(Training(student))
    return task.trained(student)
