"""Retraining: the student has the teacher's architecture and none of its weights. It inherits nothing."""

from dataclasses import dataclass
from typing import ClassVar

import keras

from keras_remos.methods.method import Method
from keras_remos.training.task import Task
from keras_remos.training.trainer import Trainer, Training


@dataclass(frozen=True, kw_only=True)
class Retrain(Method):
    """Trains the teacher's architecture from fresh weights.

    The teacher gives its architecture, and the statistics of a `Normalization` layer for its inputs. By default the
    learning rate is 0.1 and the weight decay 5e-4, since a student that starts from nothing learns too little at the
    rate of fine-tuning.
    """

    name: ClassVar[str] = "retrain"
    from_scratch: ClassVar[bool] = True

    def fit(self, task: Task, trainer: Trainer) -> keras.Model:
        student = task.fresh()
        trainer.fit(Training(student))
        return student
