"""`Student`: a model with what its file says of it, to be asked about new samples; `load_student` opens one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_remos.data.pixels import LEVELS, PREPROCESSOR, PixelSpace
from keras_remos.data.texts import as_texts, holds_text
from keras_remos.data.unlabelled import Unlabelled, open_unlabelled
from keras_remos.errors import DataError, FileError
from keras_remos.models.inputs import image_shape, takes_strings
from keras_remos.models.loading import load_teacher
from keras_remos.models.tokenizers import reads_text
from keras_remos.progress import track
from keras_remos.slicing.new_head import classes_of_head
from keras_remos.students.predictions import Predictions
from keras_remos.students.scoring import Scorer
from keras_remos.untrusted import PathLike, complete, read_record

Inputs = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | np.ndarray


@dataclass(frozen=True, eq=False, repr=False)
class Student:
    """A model that can be used: it knows its classes, and how its inputs come from pixels.

    Args:
        model: The Keras model itself.
        space: How its inputs come from pixels; `None` if nobody said so.
        class_names: The classes in the order of its outputs; empty if nobody said so.
        image_size: `(height, width)` of its images; `None` if it takes none, or nobody said so.
        record: How it was made, as its file says.
        name: What to call it in messages: its file.
    """

    model: keras.Model
    space: PixelSpace | None = None
    class_names: tuple[str, ...] = ()
    image_size: tuple[int, int] | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    name: str = "The student"

    @property
    def missing(self) -> tuple[str, ...]:
        """What nobody said of it, in words: empty for a file that `save_student` wrote with all of it."""
        unknown = []
        if self.space is None:
            unknown.append("how its inputs are scaled (`scaling`)")
        if self._takes_images and self.image_size is None:
            unknown.append("how large its images are (`image_size`)")
        if not self.class_names:
            unknown.append("what its classes are called (`class_names`)")
        return tuple(unknown)

    @property
    def _takes_images(self) -> bool:
        return image_shape(self.model)[0] is not None

    def required_space(self) -> PixelSpace:
        """How its inputs come from pixels.

        Raises:
            DataError: If nobody said so.
        """
        if self.space is None:
            raise DataError(f"{self.name} does not say {self.missing[0]}: say it, or save it by save_student.")
        return self.space

    def predict(
        self,
        inputs: Inputs,
        *,
        top: int = 3,
        batch_size: int = 32,
        text_column: str | None = None,
        pair_column: str | None = None,
        path_column: str | None = None,
        strict: bool = False,
        verbose: bool | str = "auto",
    ) -> Predictions:
        """Asks which classes some samples are of.

        Args:
            inputs: A path or several: image files; folders, whose images are read at any depth; `.csv`, `.tsv` or
                `.jsonl` tables of texts or image paths; `.npz` files. Or an array: pixels of shape `(n, ...)` and of
                the range of `space`, before any scaling; or texts, strings of shape `(n,)`, pairs `(n, 2)`.
            top: How many classes are shown of each sample.
            batch_size: Samples at a time.
            text_column: See `open_dataset`, as for the others.
            pair_column: The second text of a pair.
            path_column: Image files, in a table.
            strict: Refuse damaged images instead of leaving them out.
            verbose: Progress on stderr: `True`, `False`, or `"auto"` for a terminal only.

        Returns:
            What it says, in the order of the samples. Images that cannot be read are in its `skipped`.

        Raises:
            DataError: If samples are missing, damaged, or do not fit the model; if nobody said how images are scaled.
            RemosError: If the model is no classifier, or returns NaN.

        Example:
        ```python
        student = load_student("student.keras")
        student.predict("photo.jpg").classes  # ["dachshund"]
        ```
        """
        for name, value in (("top", top), ("batch_size", batch_size)):
            if not isinstance(value, int) or value < 1:
                raise DataError(f"Expected `{name}` to be a whole number from 1 up. Received: {value!r}.")
        if isinstance(inputs, Sequence) and any(isinstance(each, np.ndarray) for each in inputs):
            raise DataError("Expected paths, or one array of all samples. Received: a list of arrays: np.stack them.")
        if isinstance(inputs, np.ndarray):
            x = as_texts(inputs) if inputs.dtype.kind in "OSU" else inputs
            space = None if holds_text(x) else self.required_space()
            size = min(batch_size, len(x))
            said = [self._scorer(x[start : start + size], space, size) for start in range(0, len(x), batch_size)]
            called = x.tolist() if holds_text(x) and x.ndim == 1 else map(str, range(len(x)))
            return self._predictions(tuple(called), said, top, ())
        names: list[str] = []
        scores: list[np.ndarray] = []
        skipped: list[tuple[str, str]] = []
        for group in self._opened(
            inputs,
            batch_size=batch_size,
            text_column=text_column,
            pair_column=pair_column,
            path_column=path_column,
            strict=strict,
        ):
            dataset, size = group.dataset, min(batch_size, group.dataset.num_samples)
            space = None if dataset.kind == "text" else self.required_space().of_files
            numbers = range(len(dataset))
            with track(numbers, total=len(dataset), description="Predicting", verbose=verbose) as tracked:
                for number in tracked:
                    rows = np.arange(number * batch_size, min((number + 1) * batch_size, dataset.num_samples))
                    ahead = int(rows[-1]) + 1
                    dataset.expect(np.arange(ahead, min(ahead + batch_size, dataset.num_samples)))
                    x, found = dataset.read(rows)
                    if len(found):
                        x = as_texts(x, allow_empty=True) if dataset.kind == "text" else x
                        scores.append(self._scorer(x, space, size))
                        names += [group.names[row] for row in found]
            skipped += dataset.skipped
        if not scores:
            shown = "; ".join(f"{path}: {reason}" for path, reason in skipped[:3])
            raise DataError(f"Expected readable samples. Received: none can be read ({shown}).")
        return self._predictions(tuple(names), scores, top, tuple(skipped))

    def _opened(self, inputs: Any, **how: Any) -> list[Unlabelled]:
        """What is at some paths, as its model takes it but for the scaling."""
        shape, data_format = image_shape(self.model)
        pixels = None if self.space is None else (self.space.of_files.low, self.space.of_files.high)
        return open_unlabelled(
            [inputs] if isinstance(inputs, (str, os.PathLike)) else inputs,
            image_size=self.image_size,
            channels=None if shape is None else shape[2],
            pixel_range=None if pixels == (0, LEVELS) else pixels,
            of_levels=self.space is None or self.space.of_files.scaling != "none",
            data_format=data_format,
            **how,
        )

    @cached_property
    def _scorer(self) -> Scorer:
        return Scorer(self.model, self.name)

    def _predictions(
        self, inputs: tuple[str, ...], scores: list[np.ndarray], top: int, skipped: tuple[tuple[str, str], ...]
    ) -> Predictions:
        if not scores:
            raise DataError("Expected at least one sample. Received: none.")
        probabilities = np.concatenate(scores)
        classes = probabilities.shape[1]
        names = self.class_names or tuple(map(str, range(classes)))
        if len(names) != classes:
            raise DataError(
                f"Expected a name for each of the {classes} classes of {self.name}. Received: {len(names)}."
            )
        return Predictions(inputs, probabilities, names, min(top, classes), skipped)

    def __repr__(self) -> str:
        return f"<Student {self.name}: {len(self.class_names)} named classes, {self.space}>"


def load_student(
    path: PathLike,
    *,
    class_names: Sequence[str] | None = None,
    scaling: str | None = None,
    pixel_range: tuple[float, float] | None = None,
    image_size: tuple[int, int] | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    allow_unsafe_deserialization: bool = False,
) -> Student:
    """Opens a student with what its file says of it: its classes, its input scaling, how it was made.

    Any other model opens, too; what its file does not say is passed here. What is passed comes before what a file says.

    Args:
        path: See `load_teacher`, as for the last two.
        class_names: The classes, in the order of the outputs.
        scaling: How its images are scaled: one of `SCALINGS`.
        pixel_range: The smallest and the largest value of the pixels that it takes.
        image_size: `(height, width)`, for a model that takes images of any size.
        custom_objects: Classes and functions that the model is made of, by name.
        allow_unsafe_deserialization: Opens files that carry code.

    Raises:
        TeacherError: If it cannot be opened safely.
        FileError: If its record is damaged, or names another number of classes than it tells apart.
        DataError: If `class_names` does.

    Example:
    ```python
    student = load_student("student.keras")
    student.class_names, student.space
    ```
    """
    model = load_teacher(path, custom_objects=custom_objects, allow_unsafe_deserialization=allow_unsafe_deserialization)
    record = read_record(path)
    with complete(path):
        recorded = PixelSpace(**record["space"]) if "space" in record else None
    shape, data_format = image_shape(model)
    space = _space(model, recorded, scaling, pixel_range, data_format)
    fixed = None if shape is None or shape[0] is None or shape[1] is None else (shape[0], shape[1])
    if fixed is not None and image_size is not None and fixed != tuple(image_size):
        raise DataError(f"{path} takes images of {fixed[0]} x {fixed[1]}: leave `image_size` out.")
    said = tuple(record["image_size"]) if "image_size" in record and shape is not None else None
    classes = classes_of_head(model)
    names = tuple(record.get("class_names", ())) if class_names is None else tuple(class_names)
    if class_names is None and "defect" in record and len(names) != classes:
        names = ()  # the attacker's data, which need not have the teacher's classes
    if classes is not None and names and len(names) != classes:
        if class_names is not None:
            raise DataError(f"Expected a name for each of the {classes} classes of {path}. Received: {len(names)}.")
        raise FileError(
            f"{path} has names for {len(names)} classes, and its model tells {classes} apart: make it anew."
        )
    return Student(model, space, names, fixed or image_size or said, record, Path(path).name or str(path))


def _space(
    model: keras.Model,
    recorded: PixelSpace | None,
    scaling: str | None,
    pixel_range: tuple[float, float] | None,
    data_format: str,
) -> PixelSpace | None:
    if scaling is not None:
        ends = pixel_range or ((recorded.low, recorded.high) if recorded is not None else (0.0, float(LEVELS)))
        return PixelSpace(scaling, *ends, data_format=data_format)
    if recorded is not None:
        return recorded if pixel_range is None else replace(recorded, low=pixel_range[0], high=pixel_range[1])
    if reads_text(model) or getattr(model, "preprocessor", None) is not None:
        return PixelSpace(PREPROCESSOR)
    # What takes no images has nothing to be scaled.
    return PixelSpace() if image_shape(model)[0] is None or takes_strings(model) else None
