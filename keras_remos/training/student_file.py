"""A student's file: a plain `.keras` file that also says what the student can be measured by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_remos.data.pixels import PixelSpace
from keras_remos.errors import DataError
from keras_remos.models.fingerprint import fingerprint
from keras_remos.models.origin import where_from
from keras_remos.saving import save_model
from keras_remos.slicing.new_head import classes_of_head
from keras_remos.training.trained import Trained
from keras_remos.untrusted import PathLike


def save_student(
    student: keras.Model | Trained,
    path: PathLike,
    *,
    class_names: Sequence[str] = (),
    space: PixelSpace | None = None,
    teacher: keras.Model | None = None,
    overwrite: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """Saves a student with what `keras-remos evaluate` and `audit` need to read a test set as its training data was.

    Args:
        student: The model, or what `train` returned: then how it was trained is on record, too.
        path: A file that ends in `.keras`. Keras opens it where keras-remos is not installed.
        class_names: The classes in the order in which the student numbers them (`dataset.class_names`). A test set that
            lacks some of them is numbered alike.
        space: How its inputs come from pixels (`open_for_model(...).space`).
        teacher: The teacher that it comes from. Attacks made with other teachers are told apart by its weights; its
            name, as `load_teacher` was given it, is for people.
        overwrite: Whether an existing file may be replaced.
        **more: More for the record: plain values for JSON.

    Returns:
        The record.

    Raises:
        DataError: If there are not as many names as the student has classes.
        FileError: If the file exists and may not be replaced, or has another ending.

    Example:
    ```python
    save_student(student, "student.keras", class_names=train_ds.class_names, teacher=teacher)
    ```
    """
    model = student.student if isinstance(student, Trained) else student
    classes = classes_of_head(model)
    if class_names and classes is not None and classes != len(class_names):
        raise DataError(f"Expected a name for each of the student's {classes} classes. Received: {len(class_names)}.")
    record: dict[str, Any] = {}
    if isinstance(student, Trained):
        record = {**student.options, "history": student.history}
    if space is not None:
        record["space"] = space.get_config()
    if class_names:
        record["class_names"] = list(class_names)
    if teacher is not None:
        record["teacher"] = fingerprint(teacher)
        record["teacher_name"] = where_from(teacher).name or teacher.name
    record |= more
    save_model(model, path, record, overwrite=overwrite)
    return record
