"""Mag-prune, the weights-only form of Fine-Pruning: the smallest weights go, and stay away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import keras
import numpy as np

from keras_remos import student as students
from keras_remos.data.texts import reads_text
from keras_remos.errors import RemosError
from keras_remos.kernels import CONVOLUTIONS, DEPTHWISE_CONVOLUTIONS, SEPARABLE_CONVOLUTIONS, TRANSPOSED_CONVOLUTIONS
from keras_remos.layers import find_sliceable
from keras_remos.methods.base import Task, Trained, Training
from keras_remos.methods.recipe import Recipe, default_recipe
from keras_remos.saving import PathLike
from keras_remos.scoring import Scope

When = Literal["before", "after"]
Layers = Literal["convolutions", "all"]
_CONVOLUTIONS = (*CONVOLUTIONS, *TRANSPOSED_CONVOLUTIONS, *DEPTHWISE_CONVOLUTIONS, *SEPARABLE_CONVOLUTIONS)


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
    prune_ratio: float | None = None,
    scope: Scope = "model",
    layers: Layers | None = None,
    when: When = "before",
    keep_head: bool = False,
) -> Trained:
    """Fine-tunes with the smallest weights set to zero and kept there.

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
        prune_ratio: The share of weights that goes, at least 0 and less than 1. By default 0.8, and 0.3 for models
            that read texts (the released code).
        scope: Whether magnitudes are compared over the whole `"model"` or within each `"layer"`.
        layers: Which weights may go: those of `"convolutions"` (the default), or of `"all"` layers that could be sliced
            (the default for models that read texts). Never the head's.
        when: `"before"` prunes the teacher and then fine-tunes; `"after"` fine-tunes for the first half of the epochs,
            prunes the student, and lets it recover in the second half. Both take as many steps.
        keep_head: See `finetune.train`.

    Returns:
        The student and how its training went.

    Raises:
        RemosError: See `finetune.train`; also if an option has no such value, or there is nothing to prune.

    Reference:
        Liu et al., Fine-Pruning: Defending Against Backdooring Attacks on Deep Neural Networks, RAID 2018. ReMoS,
        section 5.1.

    Note:
        The paper calls it a fix after transfer; the authors' code prunes the teacher (`"before"`, the default), over
        the whole model, and holds pruned weights at zero, as here. Of language models it also prunes pooler and head;
        here what stands behind the backbone is the head, and stays whole.
    """
    if prune_ratio is None:
        prune_ratio = 0.3 if reads_text(teacher) else 0.8
    if layers is None:
        layers = "all" if reads_text(teacher) else "convolutions"
    for name, value, choices in (
        ("scope", scope, get_args(Scope)),
        ("layers", layers, get_args(Layers)),
        ("when", when, get_args(When)),
    ):
        if value not in choices:
            raise RemosError(f"{name} must be one of {choices}, received {value!r}.")
    if not 0 <= prune_ratio < 1:
        raise RemosError(f"prune_ratio must be at least 0 and less than 1, received {prune_ratio!r}.")
    task = Task(
        "mag-prune",
        teacher,
        train,
        validation,
        num_classes=num_classes,
        recipe=recipe or default_recipe(teacher),
        seed=seed,
        callbacks=callbacks,
        checkpoint=checkpoint,
        verbose=verbose,
        options={"prune_ratio": prune_ratio, "scope": scope, "layers": layers, "when": when},
        keep_head=keep_head,
    )
    if when == "before":
        masks = smallest(teacher, prune_ratio, scope=scope, layers=layers, without=task.heads)
        student = task.masked(masks, freeze=True)
        task.fit(Training(student))
        return task.trained(student)
    half = task.recipe.epochs // 2
    if not half:
        raise RemosError("when='after' needs at least two epochs: one before pruning and one to recover.")
    tuned = task.copy()
    task.fit(Training(tuned), last=half, stage="stage-1")
    masks = smallest(tuned, prune_ratio, scope=scope, layers=layers, without=task.heads_of(tuned))
    student = students.build(tuned, masks, freeze=True)
    task.fit(Training(student), first=half, stage="stage-2")
    return task.trained(student)


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
        if found.path not in without and (layers == "all" or isinstance(found.layer, _CONVOLUTIONS))
    }
    if not magnitudes:
        raise RemosError(
            f"Model {model.name!r} has no {'layers' if layers == 'all' else 'convolutions'} to prune but its head. "
            "Try layers='all'."
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
