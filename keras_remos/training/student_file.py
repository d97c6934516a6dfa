"""A student's file: a plain `.keras` file that also says what the student can be used and measured by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from keras_remos.data import MatchedDataset
from keras_remos.data.pixels import PixelSpace
from keras_remos.errors import DataError
from keras_remos.models.fingerprint import fingerprint
from keras_remos.models.inputs import image_shape
from keras_remos.models.origin import where_from
from keras_remos.saving import save_model, versions
from keras_remos.slicing.new_head import classes_of_head
from keras_remos.training.trained import Trained
from keras_remos.untrusted import PathLike


def save_student(
    student: keras.Model | Trained,
    path: PathLike,
    *,
    data: MatchedDataset | None = None,
    class_names: Sequence[str] | None = None,
    space: PixelSpace | None = None,
    image_size: tuple[int, int] | None = None,
    teacher: keras.Model | None = None,
    overwrite: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """Saves a student with what it takes to use it, and to measure it on other data.

    The file says which classes it tells apart, how its inputs are scaled and how large they are, which teacher it comes
    from, the slice that it starts from, and, for what `train` returned, by which method and recipe it was trained.

    Args:
        student: The model, or what `train` returned.
        path: A file that ends in `.keras`. Keras opens it where keras-remos is not installed.
        data: What it was trained on, as `open_for_model` gave it: says whatever of the next three is left out.
        class_names: The classes in the order in which the student numbers them (`dataset.class_names`). A test set that
            lacks some of them is numbered alike. Empty if they have no names.
        space: How its inputs come from pixels (`open_for_model(...).space`).
        image_size: `(height, width)` of its images, for a model that takes any.
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
    found = open_for_model(teacher, "dogs")
    save_student(student, "student.keras", data=found, teacher=teacher)
    ```
    """
    model = student.student if isinstance(student, Trained) else student
    if data is not None:
        class_names = data.dataset.class_names if class_names is None else class_names
        space, image_size = space or data.space, image_size or data.image_size
    classes = classes_of_head(model)
    if class_names and classes is not None and classes != len(class_names):
        raise DataError(f"Expected a name for each of the student's {classes} classes. Received: {len(class_names)}.")
    record: dict[str, Any] = {"versions": versions()}
    sliced = where_from(model).slice
    if isinstance(student, Trained):
        record |= {**student.options, "history": student.history}
    elif sliced:
        record["slice"] = dict(sliced)
    if space is not None:
        record["space"] = space.get_config()
    size = _image_size(model) or image_size
    if size is not None:
        record["image_size"] = list(size)
    if class_names:
        record["class_names"] = list(class_names)
    if teacher is not None:
        record["teacher"] = fingerprint(teacher)
        record["teacher_name"] = where_from(teacher).name or teacher.name
    record |= more
    save_model(model, path, record, overwrite=overwrite)
    return record


def _image_size(model: keras.Model) -> tuple[int, int] | None:
    """The size of the images that a model takes, where it is for one size only."""
    shape, _ = image_shape(model)
    if shape is None or shape[0] is None or shape[1] is None:
        return None
    return shape[0], shape[1]
