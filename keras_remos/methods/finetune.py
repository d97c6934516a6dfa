"""Fine-tuning: the student starts from all of the teacher. It inherits the most, and is what others are compared to."""

from collections.abc import Sequence
from typing import Any

import keras

from keras_remos.methods.base import Task, Trained, Training
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
    keep_head: bool = False,
) -> Trained:
    """Trains a copy of the teacher with a fresh head.

    Args:
        teacher: A built Keras model. It is never modified, its `trainable` flags included; in the student every layer
            trains.
        train: Arrays `(x, y)` (class ids or one-hot rows), a `Dataset` of ours, or whatever else `fit` takes. The order
            and augmentation of the first two depend on the seed and the epoch alone, so they are the same for every
            method; other data bring their own, unshuffled and unaugmented.
        validation: The same, or `None`. Never augmented.
        num_classes: How many classes the student tells apart.
        recipe: How long and how fast; `default_recipe` if not given.
        seed: For the head, the order of the data, augmentation and dropout. The head is the same for every method.
        callbacks: Keras callbacks. The model that they see wraps the student: `model.student`.
        checkpoint: A folder. After each epoch all that is needed to go on is kept there; the same call goes on
            from the last epoch, to the same weights as if it had not been interrupted (on one backend and machine, and
            as far as the data repeat themselves). Callbacks begin anew.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for a terminal only.
        keep_head: The student starts with the teacher's head, the attacker's if there is one, instead of a fresh one.

    Returns:
        The student and how its training went.

    Raises:
        DataError: If the data are empty, or do not fit the teacher or `num_classes`. Before any work.
        StudentError: If the teacher cannot be copied, its head not be replaced, or not be kept, since it is for other
            classes.
        MismatchError: If the checkpoint is of a run with other arguments.
        RemosError: If training diverges.

    Example:
    ```python
    trained = finetune.train(teacher, (x, y), num_classes=20, recipe=Recipe(epochs=10))
    trained.student.save("student.keras")
    ```
    """
    task = Task(
        "finetune",
        teacher,
        train,
        validation,
        num_classes=num_classes,
        recipe=recipe or default_recipe(teacher),
        seed=seed,
        callbacks=callbacks,
        checkpoint=checkpoint,
        verbose=verbose,
        keep_head=keep_head,
    )
    student = task.copy()
    task.fit(Training(student))
    return task.trained(student)
