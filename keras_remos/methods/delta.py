"""DELTA: fine-tuning, while the student's features are held near the teacher's; and DELTA-R, the same from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import keras

from keras_remos.errors import RemosError
from keras_remos.methods.attention import channel_attention
from keras_remos.methods.distillation import Distillation
from keras_remos.methods.method import ByFeatures
from keras_remos.training.task import Task
from keras_remos.training.trainer import Trainer, Training

Form = Literal["mse", "attention"]


@dataclass(frozen=True, kw_only=True)
class Delta(ByFeatures):
    """Trains a copy of the teacher and adds to its loss how far its features move away from the teacher's.

    Args:
        feature_weight: How much features count beside the loss of the task (the released code: 0.5). With 0 it is
            fine-tuning, and costs no more.
        features: Paths of the feature layers; the ends of the blocks by default (see `find_features`).
        form: `"mse"`: the mean square of the difference, all channels alike. `"attention"`: channels weighted by how
            much the task's loss grows when the teacher goes without them. Weights have mean 1 in both.
        attention_samples: How many training samples that is measured on. It takes as many forward passes of
            them as the feature layers have channels.

    Raises:
        RemosError: If an option has no such value; in training, if a feature layer does not exist.

    Reference:
        Li et al., DELTA: Deep Learning Transfer using Feature Map with Attention, ICLR 2019. ReMoS, section 5.1.

    Note:
        `"mse"` is what the authors of ReMoS ran, and the default: it needs no pass over labelled data of its own, no
        head trained beforehand, and no hyper-parameter that the other methods lack, so that students can be compared.
    """

    feature_weight: float = 0.5
    form: Form = "mse"
    attention_samples: int = 256

    name: ClassVar[str] = "delta"

    def __post_init__(self) -> None:
        if self.form not in ("mse", "attention"):
            raise RemosError(f"form must be 'mse' or 'attention', received {self.form!r}.")

    def fit(self, task: Task, trainer: Trainer) -> keras.Model:
        student = task.fresh() if self.from_scratch else task.copy()
        trainer.fit(self.as_training(task, trainer, student))
        return student

    def as_training(self, task: Task, trainer: Trainer, student: keras.Model) -> Training:
        """How DELTA trains a student, wherever that starts from."""
        if self.feature_weight == 0:
            return Training(student)
        teacher = task.frozen_teacher()
        paths = self.feature_paths(task, trainer)
        attention = None
        if self.form == "attention":
            attention = channel_attention(task, teacher, paths, samples=self.attention_samples, verbose=trainer.verbose)
        return Distillation(
            student, teacher, paths=paths, weight=self.feature_weight, attention=attention, example=task.example
        )


@dataclass(frozen=True, kw_only=True)
class DeltaR(Delta):
    """DELTA on a student that starts from fresh weights: what it inherits, it inherits through features alone.

    Args:
        feature_weight: How much features count beside the loss of the task (the released code: 5).
        features: Paths of the feature layers; the ends of the blocks by default.
        form: `"mse"` or `"attention"`: see `Delta`.
        attention_samples: See `Delta`.

    Raises:
        RemosError: See `Delta`.

    Reference:
        ReMoS, section 5.1 (DELTA-R as a fix before transfer).
    """

    feature_weight: float = 5.0

    name: ClassVar[str] = "delta-r"
    from_scratch: ClassVar[bool] = True
