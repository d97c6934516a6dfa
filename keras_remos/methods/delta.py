"""DELTA: fine-tuning, while the student's features are held near the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras

from keras_remos.errors import RemosError
from keras_remos.methods.attention import channel_attention
from keras_remos.methods.base import Task, Trained, Training
from keras_remos.methods.distillation import Distillation
from keras_remos.methods.recipe import Recipe, default_recipe
from keras_remos.saving import PathLike

Form = Literal["mse", "attention"]


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
    feature_weight: float = 0.5,
    features: Sequence[str] | None = None,
    form: Form = "mse",
    attention_samples: int = 256,
) -> Trained:
    """Trains a copy of the teacher and adds to its loss how far its features move away from the teacher's.

    Args:
        teacher: A built Keras model. It is never modified.
        train: See `finetune.train`, as for all that follows.
        validation: As `train`.
        num_classes: How many classes the student tells apart.
        recipe: How long and how fast.
        seed: For the head, the order of the data, augmentation and dropout.
        callbacks: Keras callbacks.
        checkpoint: A folder in which progress is kept.
        verbose: Progress on stderr.
        feature_weight: How much features count beside the loss of the task (the released code: 0.5). With 0 it is
            fine-tuning, and costs no more.
        features: Paths of the feature layers; the ends of the blocks by default (see `find_features`).
        form: `"mse"`: the mean square of the difference, all channels alike. `"attention"`: channels weighted by how
            much the task's loss grows when the teacher goes without them. Weights have mean 1 in both.
        attention_samples: How many training samples that is measured on. It takes as many forward passes of
            them as the feature layers have channels.

    Returns:
        The student and how its training went.

    Raises:
        RemosError: See `finetune.train`; also if a feature layer does not exist, or an option has no such value.

    Reference:
        Li et al., DELTA: Deep Learning Transfer using Feature Map with Attention, ICLR 2019. ReMoS, section 5.1.

    Note:
        `"mse"` is what the authors of ReMoS ran, and the default: it needs no pass over labelled data of its own, no
        head trained beforehand, and no hyper-parameter that the other methods lack, so that students can be compared.
    """
    task = Task(
        "delta",
        teacher,
        train,
        validation,
        num_classes=num_classes,
        recipe=recipe or default_recipe(teacher),
        seed=seed,
        callbacks=callbacks,
        checkpoint=checkpoint,
        verbose=verbose,
        options={"feature_weight": feature_weight, "form": form, "attention_samples": attention_samples},
    )
    student = task.copy()
    task.fit(as_training(task, student, feature_weight, features, form, attention_samples))
    return task.trained(student)


def as_training(
    task: Task,
    student: keras.Model,
    feature_weight: float,
    features: Sequence[str] | None,
    form: Form,
    attention_samples: int,
) -> Training:
    """How DELTA trains a student, wherever that starts from.

    Raises:
        RemosError: If an option has no such value.
    """
    if form not in ("mse", "attention"):
        raise RemosError(f"form must be 'mse' or 'attention', received {form!r}.")
    if feature_weight == 0:
        return Training(student)
    teacher = task.frozen_teacher()
    paths = task.feature_paths(features)
    attention = channel_attention(task, teacher, paths, samples=attention_samples) if form == "attention" else None
    return Distillation(student, teacher, paths=paths, weight=feature_weight, attention=attention, example=task.example)
