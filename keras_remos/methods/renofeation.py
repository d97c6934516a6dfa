"""Renofeation: a fresh student learns the teacher's features through noise, and its weights are averaged."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import keras

from keras_remos.errors import RemosError
from keras_remos.methods.averaging import WeightAverage, reestimate_batch_norm
from keras_remos.methods.base import Task, Trained
from keras_remos.methods.distillation import Distillation
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
    dropout: float = 0.1,
    averaged_share: float = 0.25,
    averaged_learning_rate: float | None = None,
) -> Trained:
    """Trains the teacher's architecture from fresh weights in two stages, both with feature distillation and dropout.

    The first stage follows the recipe. The second goes on at a constant learning rate, and the student gets the mean
    of the weights that it has at the ends of its epochs (stochastic weight averaging), with batch normalization
    statistics measured anew.

    Args:
        teacher: A built Keras model. It is never modified.
        train: See `finetune.train`, as for all that follows. It has to be readable again.
        validation: As `train`.
        num_classes: How many classes the student tells apart.
        recipe: How long and how fast, both stages together; by default that of `retrain`.
        seed: For the weights too.
        callbacks: Keras callbacks. They see a beginning and an end of training for each stage.
        checkpoint: A folder in which progress is kept.
        verbose: Progress on stderr.
        feature_weight: How much features count beside the loss of the task (the authors: 5).
        features: Paths of the feature layers; the ends of the blocks by default (see `find_features`).
        dropout: Share of the channels that are dropped behind each feature layer, in training only (the authors: 0.1).
        averaged_share: Share of the epochs that the second stage takes, above 0 and less than 1 (the authors: 30,000
            of 120,000 steps).
        averaged_learning_rate: Of the second stage; half the recipe's by default (the authors: 0.005 after 0.01).

    Returns:
        The student and how its training went.

    Raises:
        RemosError: See `finetune.train`; also if an option is out of range, or there are too few epochs for two stages.

    Reference:
        Chin et al., Renofeation: A Simple Transfer Learning Method for Improved Adversarial Robustness, CVPR-W 2021.

    Note:
        The authors take the mean every 500 steps, here it is taken at the end of every epoch, which is more often on
        data of up to 32,000 samples. Their two stages take four times as many steps as the other methods; here all
        have as many. Statistics are measured without dropout.
    """
    if not 0 < averaged_share < 1:
        raise RemosError(f"averaged_share must be above 0 and less than 1, received {averaged_share!r}.")
    recipe = recipe or default_recipe(teacher, from_scratch=True)
    if recipe.epochs < 2:
        raise RemosError("Renofeation needs at least two epochs: one for each of its stages.")
    task = Task(
        "renofeation",
        teacher,
        train,
        validation,
        num_classes=num_classes,
        recipe=recipe,
        seed=seed,
        callbacks=callbacks,
        checkpoint=checkpoint,
        verbose=verbose,
        options={
            "feature_weight": feature_weight,
            "dropout": dropout,
            "averaged_share": averaged_share,
            "averaged_learning_rate": averaged_learning_rate,
        },
    )
    task.plain_data()  # refuses data that can be read once before they are trained on
    student = task.fresh()
    training = Distillation(
        student,
        task.frozen_teacher(),
        paths=task.feature_paths(features),
        weight=feature_weight,
        dropout=dropout,
        example=task.example,
    )
    turn = recipe.epochs - min(max(round(recipe.epochs * averaged_share), 1), recipe.epochs - 1)
    task.fit(training, last=turn, stage="stage-1")
    constant = replace(
        recipe,
        learning_rate=averaged_learning_rate or recipe.learning_rate / 2,
        schedule="constant",
        warmup=0.0,
    )
    average = WeightAverage(student)
    task.fit(training, first=turn, stage="stage-2", recipe=constant, kept=average)
    average.apply()
    reestimate_batch_norm(student, task.plain_data(), verbose=verbose)
    return task.trained(student)
