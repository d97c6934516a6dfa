"""DELTA: fine-tuning, while the student's features are held near the teacher's; and DELTA-R, the same from scratch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import keras

from keras_remos.errors import RemosError
from keras_remos.methods.attention import channel_attention, last_kernels
from keras_remos.methods.distillation import Distillation
from keras_remos.methods.method import ByFeatures
from keras_remos.training.task import Task
from keras_remos.training.trainer import Trainer, Training

Form = Literal["mse", "attention"]


# The regularizer's factor in the paper and in its authors' code.
ATTENTION_WEIGHT = 0.01


@dataclass(frozen=True, kw_only=True)
class Delta(ByFeatures):
    """Trains a copy of the teacher and adds to its loss how far its features move away from the teacher's.

    Args:
        feature_weight: How much features count beside the loss of the task. By default 0.5 for `"mse"` (ReMoS'
            released code) and 0.01 for `"attention"` (Li et al.), whose term is larger: see `form`. With 0 it is
            fine-tuning, and costs no more.
        features: Paths of the feature layers. By default the ends of the blocks (see `find_features`); for
            `"attention"` the last layer with a kernel in each of these blocks, read as it returns it.
        form: `"mse"`: for each feature layer the mean square of the difference, all channels alike. `"attention"`: half
            the square of the difference, its mean over positions times the channel's weight, summed over channels and
            over the samples of the batch. The more the task's loss grows when the teacher goes without a channel, the
            more it weighs; weights have mean 1.
        attention_samples: How many training samples that is measured on. It takes as many forward passes of
            them as the feature layers have channels.

    Raises:
        RemosError: If an option has no such value; in training, if a feature layer does not exist.

    Reference:
        Li et al., DELTA: Deep Learning Transfer using Feature Map with Attention, ICLR 2019. ReMoS, section 5.1.

    Note:
        `"mse"` is what the authors of ReMoS ran, and the default: it needs no pass over labelled data of its own, no
        head trained beforehand, and no hyper-parameter that the other methods lack, so that students can be compared.

        `"attention"` is Li et al.'s released code: what it sums, what it reads, and the channels' weights. It sums over
        the batch beside a loss that is a mean, so that 0.01 is theirs for batches of 64: larger ones hold features
        more strongly. In place of their pull of the head's weights towards 0 the recipe's weight decay stands, as for
        all methods. They read four stages of a ResNet; here the stem is read too where its maps are larger.
    """

    feature_weight: float | None = None
    form: Form = "mse"
    attention_samples: int = 256

    name: ClassVar[str] = "delta"
    mse_weight: ClassVar[float] = 0.5

    def __post_init__(self) -> None:
        if self.form not in ("mse", "attention"):
            raise RemosError(f"`form` must be 'mse' or 'attention', received {self.form!r}.")

    @property
    def weight(self) -> float:
        """How much features count: what was given, or the form's default."""
        if self.feature_weight is not None:
            return self.feature_weight
        return ATTENTION_WEIGHT if self.form == "attention" else self.mse_weight

    def on_record(self, teacher: keras.Model) -> dict[str, Any]:
        return {**super().on_record(teacher), "feature_weight": self.weight}

    def fit(self, task: Task, trainer: Trainer) -> keras.Model:
        student = task.fresh() if self.from_scratch else task.copy()
        trainer.fit(self.as_training(task, trainer, student))
        return student

    def as_training(self, task: Task, trainer: Trainer, student: keras.Model) -> Training:
        """How DELTA trains a student, wherever that starts from."""
        if self.weight == 0:
            return Training(student)
        teacher = task.frozen_teacher()
        paths = self.feature_paths(task, trainer)
        attention = None
        if self.form == "attention":
            attention = channel_attention(task, teacher, paths, samples=self.attention_samples, verbose=trainer.verbose)
        return Distillation(
            student, teacher, paths=paths, weight=self.weight, attention=attention, example=task.example
        )

    def feature_paths(self, task: Task, trainer: Trainer) -> list[str]:
        if self.form == "mse" or self.features is not None:
            return super().feature_paths(task, trainer)
        paths = last_kernels(task)
        trainer.put_on_record(features=paths)
        return paths


@dataclass(frozen=True, kw_only=True)
class DeltaR(Delta):
    """DELTA on a student that starts from fresh weights: what it inherits, it inherits through features alone.

    Args:
        feature_weight: How much features count beside the loss of the task: 5 for `"mse"` (ReMoS' released code), 0.01
            for `"attention"`, as for `Delta`.
        features: Paths of the feature layers: see `Delta`.
        form: `"mse"` or `"attention"`: see `Delta`.
        attention_samples: See `Delta`.

    Raises:
        RemosError: See `Delta`.

    Reference:
        ReMoS, section 5.1 (DELTA-R as a fix before transfer).
    """

    name: ClassVar[str] = "delta-r"
    from_scratch: ClassVar[bool] = True
    mse_weight: ClassVar[float] = 5.0
