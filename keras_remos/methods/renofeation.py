"""Renofeation: a fresh student learns the teacher's features through noise, and its weights are averaged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import keras

from keras_remos.errors import RemosError
from keras_remos.methods.distillation import Distillation
from keras_remos.methods.method import ByFeatures
from keras_remos.training.averaging import WeightAverage, reestimate_batch_norm
from keras_remos.training.task import Task
from keras_remos.training.trainer import Trainer


@dataclass(frozen=True, kw_only=True)
class Renofeation(ByFeatures):
    """Trains the teacher's architecture from fresh weights in two stages, both with feature distillation and dropout.

    The first stage follows the recipe. The second goes on at a constant learning rate, and the student gets the mean
    of the weights that it has at the ends of its epochs (stochastic weight averaging), with batch normalization
    statistics measured anew. The recipe counts both stages together, and the data have to be readable again.

    Args:
        feature_weight: How much features count beside the loss of the task (the authors: 5).
        features: Paths of the feature layers; the ends of the blocks by default (see `find_features`).
        dropout: Share of the channels that are dropped behind each feature layer, in training only (the authors: 0.1).
        averaged_share: Share of the epochs that the second stage takes, above 0 and less than 1 (the authors: 30,000
            of 120,000 steps).
        averaged_learning_rate: Of the second stage; half the recipe's by default (the authors: 0.005 after 0.01).

    Raises:
        RemosError: If an option is out of range; in training, if there are too few epochs for two stages.

    Reference:
        Chin et al., Renofeation: A Simple Transfer Learning Method for Improved Adversarial Robustness, CVPR-W 2021.

    Note:
        The authors take the mean every 500 steps, here it is taken at the end of every epoch, which is more often on
        data of up to 32,000 samples. Their two stages take four times as many steps as the other methods; here all
        have as many. Statistics are measured without dropout.
    """

    feature_weight: float = 5.0
    dropout: float = 0.1
    averaged_share: float = 0.25
    averaged_learning_rate: float | None = None

    name: ClassVar[str] = "renofeation"
    from_scratch: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.averaged_share < 1:
            raise RemosError(f"`averaged_share` must be above 0 and less than 1, received {self.averaged_share!r}.")

    @property
    def least_epochs(self) -> int:
        return 2

    def fit(self, task: Task, trainer: Trainer) -> keras.Model:
        recipe = task.recipe
        if recipe.epochs < self.least_epochs:
            raise RemosError("Renofeation needs at least two epochs: one for each of its stages.")
        task.plain_data()  # refuses data that can be read once before they are trained on
        paths = self.feature_paths(task, trainer)
        student = task.fresh()
        training = Distillation(
            student,
            task.frozen_teacher(),
            paths=paths,
            weight=self.feature_weight,
            dropout=self.dropout,
            example=task.example,
        )
        turn = recipe.epochs - min(max(round(recipe.epochs * self.averaged_share), 1), recipe.epochs - 1)
        trainer.fit(training, last=turn, stage="stage-1")
        constant = replace(
            recipe,
            learning_rate=self.averaged_learning_rate or recipe.rate / 2,
            schedule="constant",
            warmup=0.0,
        )
        average = WeightAverage(student)
        trainer.fit(training, first=turn, stage="stage-2", recipe=constant, kept=average)
        average.apply()
        reestimate_batch_norm(student, task.plain_data(), verbose=trainer.verbose)
        return student
