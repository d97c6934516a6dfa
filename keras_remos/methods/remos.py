"""ReMoS: the student starts from the part of the teacher that its task needs."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_remos.methods.base import Task, Trained, Training
from keras_remos.methods.recipe import Recipe, default_recipe
from keras_remos.saving import PathLike
from keras_remos.slices import RelevantSlice
from keras_remos.slicing import RelevantSlicer


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
    preset: str = "recommended",
    keep_ratio: float | None = None,
    relevant: RelevantSlice | None = None,
    freeze: bool = False,
    keep_head: bool = False,
) -> Trained:
    """Slices the teacher by what the training data activate in it, and trains what is left.

    Args:
        teacher: A built Keras model. It is never modified.
        train: See `finetune.train`, as for all that follows. Read once more, without augmentation, to be profiled.
        validation: As `train`.
        num_classes: How many classes the student tells apart.
        recipe: How long and how fast.
        seed: For the head, the order of the data, augmentation and dropout.
        callbacks: Keras callbacks.
        checkpoint: A folder in which progress is kept.
        verbose: Progress on stderr.
        preset: How the slice is chosen: see `RelevantSlicer`.
        keep_ratio: The share of weights that is kept, in (0, 1]; the preset's by default.
        relevant: A slice that was made before, with the same teacher. `preset` and `keep_ratio` are its own then.
        freeze: Keeps excluded weights at zero instead of training them from there.
        keep_head: See `finetune.train`.

    Returns:
        The student and how its training went.

    Raises:
        MismatchError: If `relevant` is of another teacher.
        RemosError: See `finetune.train`.

    Reference:
        Zhang et al., ReMoS: Reducing Defect Inheritance in Transfer Learning via Relevant Model Slicing, ICSE 2022.
    """
    slicer = RelevantSlicer(teacher, preset=preset, keep_ratio=keep_ratio)
    chosen = {"preset": preset, "keep_ratio": slicer.settings.keep_ratio} if relevant is None else relevant.options
    task = Task(
        "remos",
        teacher,
        train,
        validation,
        num_classes=num_classes,
        recipe=recipe or default_recipe(teacher),
        seed=seed,
        callbacks=callbacks,
        checkpoint=checkpoint,
        verbose=verbose,
        options={"slice": dict(chosen), "freeze": freeze},
        keep_head=keep_head,
    )
    if relevant is None:
        relevant = slicer.slice(slicer.profile(task.plain_data(), verbose=verbose))
    relevant.check_teacher(teacher)
    student = task.masked(relevant.masks, freeze=freeze)
    task.fit(Training(student))
    return task.trained(student)
