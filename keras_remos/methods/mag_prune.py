"""Mag-prune: the smallest weights go, and stay away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import keras
import numpy as np

from keras_remos.errors import RemosError
from keras_remos.methods.method import FromTeacher
from keras_remos.models.kernels import (
    CONVOLUTIONS,
    DEPTHWISE_CONVOLUTIONS,
    SEPARABLE_CONVOLUTIONS,
    TRANSPOSED_CONVOLUTIONS,
)
from keras_remos.models.sliceable import find_sliceable
from keras_remos.models.tokenizers import reads_text
from keras_remos.slicing import student as students
from keras_remos.slicing.scores import Scope
from keras_remos.training.task import Task
from keras_remos.training.trainer import Trainer, Training

When = Literal["before", "after"]
Layers = Literal["convolutions", "all"]
CONVOLUTION_LAYERS = (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS, *DEPTHWISE_CONVOLUTIONS, *SEPARABLE_CONVOLUTIONS)


@dataclass(frozen=True, kw_only=True)
class MagPrune(FromTeacher):
    """Fine-tunes with the smallest weights set to zero and kept there.

    Args:
        prune_ratio: The share of weights that goes, at least 0 and less than 1. By default 0.8, and 0.3 for models
            that read texts (the released code).
        scope: Whether magnitudes are compared over the whole `"model"` or within each `"layer"`.
        layers: Which weights may go: those of `"convolutions"` (the default), or of `"all"` layers that could be sliced
            (the default for models that read texts). Never the head's.
        when: `"before"` prunes the teacher and then fine-tunes; `"after"` fine-tunes for the first half of the epochs,
            prunes the student, and lets it recover in the second half. Both take as many steps.
        keep_head: The student starts with the teacher's head, the attacker's if there is one, instead of a fresh one.

    Raises:
        RemosError: If an option has no such value; in training, if there is nothing to prune, or `"after"` has but one
            epoch.

    Reference:
        ReMoS, section 5.1.

    Note:
        The ReMoS paper takes it from Fine-Pruning (Liu et al., RAID 2018), which is another method: `FinePruning` has
        it. The paper calls it a fix after transfer; the authors' code prunes the teacher (`"before"`, the default),
        over the whole model, and holds pruned weights at zero, as here. Of language models it also prunes pooler and
        head; here what stands behind the backbone is the head, and stays whole.
    """

    prune_ratio: float | None = None
    scope: Scope = "model"
    layers: Layers | None = None
    when: When = "before"

    name: ClassVar[str] = "mag-prune"

    def __post_init__(self) -> None:
        for name, choices in (
            ("scope", get_args(Scope)),
            ("layers", (*get_args(Layers), None)),
            ("when", get_args(When)),
        ):
            if getattr(self, name) not in choices:
                shown = tuple(choice for choice in choices if choice is not None)
                raise RemosError(f"`{name}` must be one of {shown}, received {getattr(self, name)!r}.")
        if self.prune_ratio is not None and not 0 <= self.prune_ratio < 1:
            raise RemosError(f"`prune_ratio` must be at least 0 and less than 1, received {self.prune_ratio!r}.")

    @property
    def least_epochs(self) -> int:
        return 2 if self.when == "after" else 1

    def on_record(self, teacher: keras.Model) -> dict[str, Any]:
        return {**super().on_record(teacher), "prune_ratio": self._ratio(teacher), "layers": self._prunable(teacher)}

    def fit(self, task: Task, trainer: Trainer) -> keras.Model:
        how: dict[str, Any] = {"scope": self.scope, "layers": self._prunable(task.teacher)}
        ratio = self._ratio(task.teacher)
        if self.when == "before":
            student = task.masked(smallest(task.teacher, ratio, without=task.heads, **how), freeze=True)
            trainer.fit(Training(student))
            return student
        half = task.recipe.epochs // 2
        if task.recipe.epochs < self.least_epochs:
            raise RemosError("`when='after'` needs at least two epochs: one before pruning and one to recover.")
        tuned = task.copy()
        trainer.fit(Training(tuned), last=half, stage="stage-1")
        masks = smallest(tuned, ratio, without=task.heads_of(tuned), **how)
        student = students.build(tuned, masks, freeze=True)
        trainer.fit(Training(student), first=half, stage="stage-2")
        return student

    def _ratio(self, teacher: keras.Model) -> float:
        if self.prune_ratio is not None:
            return self.prune_ratio
        return 0.3 if reads_text(teacher) else 0.8

    def _prunable(self, teacher: keras.Model) -> Layers:
        return self.layers or ("all" if reads_text(teacher) else "convolutions")


def smallest(
    model: keras.Model, prune_ratio: float, *, scope: Scope, layers: Layers, without: Sequence[str]
) -> dict[str, np.ndarray]:
    """Finds the weights of the smallest magnitude.

    Args:
        model: A built model.
        prune_ratio: Their share, exact but for rounding; of equal ones those that come first.
        scope: Over the whole `"model"` or within each `"layer"`.
        layers: `"convolutions"` or `"all"`.
        without: Paths of layers that stay whole.

    Returns:
        For each kernel a boolean array of its shape: `False` where a weight goes.

    Raises:
        RemosError: If there is nothing to prune.
    """
    magnitudes = {
        f"{found.path}/{kernel.name}": np.abs(keras.ops.convert_to_numpy(kernel.variable.value).astype("float32"))
        for found in find_sliceable(model)[0]
        for kernel in found.kernels
        if found.path not in without and (layers == "all" or isinstance(found.layer, CONVOLUTION_LAYERS))
    }
    if not magnitudes:
        raise RemosError(
            f"Model {model.name!r} has no {'layers' if layers == 'all' else 'convolutions'} to prune but its head. "
            "Try `layers='all'`."
        )
    if scope == "layer":
        return {path: _kept({path: values}, prune_ratio)[path] for path, values in magnitudes.items()}
    return _kept(magnitudes, prune_ratio)


def _kept(magnitudes: Mapping[str, np.ndarray], prune_ratio: float) -> dict[str, np.ndarray]:
    flat = np.concatenate([values.ravel() for values in magnitudes.values()])
    kept = np.ones(flat.size, bool)
    kept[np.argsort(flat, kind="stable")[: round(flat.size * prune_ratio)]] = False
    parts = np.split(kept, np.cumsum([values.size for values in magnitudes.values()])[:-1])
    return {path: part.reshape(magnitudes[path].shape) for path, part in zip(magnitudes, parts, strict=True)}
