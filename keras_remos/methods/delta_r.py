"""DELTA-R: DELTA on a student that starts from fresh weights. What it inherits, it inherits through features alone."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_remos.methods.base import Task, Trained
from keras_remos.methods.delta import Form, as_training
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
    feature_weight: float = 5.0,
    features: Sequence[str] | None = None,
    form: Form = "mse",
    attention_samples: int = 256,
) -> Trained:
    """Trains the teacher's architecture from fresh weights, its features being held near the teacher's.

    Args:
        teacher: A built Keras model. It is never modified.
        train: See `finetune.train`, as for all that follows.
        validation: As `train`.
        num_classes: How many classes the student tells apart.
        recipe: How long and how fast; by default that of `retrain`.
        seed: For the weights too.
        callbacks: Keras callbacks.
        checkpoint: A folder in which progress is kept.
        verbose: Progress on stderr.
        feature_weight: How much features count beside the loss of the task (the released code: 5).
        features: Paths of the feature layers; the ends of the blocks by default (see `find_features`).
        form: See `delta.train`.
        attention_samples: See `delta.train`.

    Returns:
        The student and how its training went.

    Raises:
        RemosError: See `finetune.train`.

    Reference:
        ReMoS, section 5.1 (DELTA-R as a fix before transfer).
    """
    task = Task(
        "delta-r",
        teacher,
        train,
        validation,
        num_classes=num_classes,
        recipe=recipe or default_recipe(teacher, from_scratch=True),
        seed=seed,
        callbacks=callbacks,
        checkpoint=checkpoint,
        verbose=verbose,
        options={"feature_weight": feature_weight, "form": form, "attention_samples": attention_samples},
    )
    student = task.fresh()
    task.fit(as_training(task, student, feature_weight, features, form, attention_samples))
    return task.trained(student)
