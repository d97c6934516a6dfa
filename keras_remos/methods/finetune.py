"""Fine-tuning: the student starts from all of the teacher. It inherits the most, and is what others are compared to."""

from dataclasses import dataclass
from typing import ClassVar

import keras

from keras_remos.methods.method import FromTeacher
from keras_remos.training.task import Task
from keras_remos.training.trainer import Trainer, Training


@dataclass(frozen=True, kw_only=True)
class FineTune(FromTeacher):
    """Trains a copy of the teacher with a fresh head.

    Args:
        keep_head: The student starts with the teacher's head, the attacker's if there is one, instead of a fresh one.
    """

    name: ClassVar[str] = "finetune"

    def fit(self, task: Task, trainer: Trainer) -> keras.Model:
        student = task.copy()
        trainer.fit(Training(student))
        return student
