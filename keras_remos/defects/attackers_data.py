"""What the attacker has: images or texts of their own, with classes, in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_remos.data import batches
from keras_remos.data.datasets import Dataset
from keras_remos.data.labels import check_labels, count_label_classes
from keras_remos.data.other_tasks import refuse_other_tasks
from keras_remos.data.pixels import PixelSpace
from keras_remos.data.texts import as_texts
from keras_remos.defects.samples import check_samples
from keras_remos.defects.triggers.image import Trigger
from keras_remos.errors import DataError

# What each kind of data is called in a message.
_FORMS = {"images": "in pixels", "texts": "being texts"}


@dataclass(frozen=True)
class AttackersData:
    """The images that the attacker has.

    Args:
        x: Pixels, shape `(n, height, width, channels)`, or as the space's `data_format` says.
        y: Classes, int32 of shape `(n,)`.
        space: How the teacher's inputs come from pixels.
        num_classes: How many classes there are.
        class_names: Their names, if they have some.
    """

    x: np.ndarray
    y: np.ndarray
    space: PixelSpace
    num_classes: int
    class_names: tuple[str, ...] = ()

    @classmethod
    def read(cls, data: Any, teacher: keras.Model, space: PixelSpace, num_classes: int | None) -> AttackersData:
        """Reads the attacker's images into memory and checks them.

        Args:
            data: `(x, y)`, x in pixels, a `Dataset`, or whatever else `fit` takes.
            teacher: The model that they must fit.
            space: How its inputs come from pixels.
            num_classes: How many classes there are; counted from the labels if not given.

        Raises:
            DataError: If there are none, they are no images, or do not fit the teacher.
        """
        x, y, num_classes, names = _read(data, num_classes, "images")
        check_samples(teacher, space, x, y, names)
        if x.ndim != 4:
            raise DataError(
                f"A trigger is stamped on images: expected four axes, received shape {x.shape}. Give grey images a "
                "channel axis."
            )
        return cls(x, y, space, num_classes, names)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """`(height, width, channels)` of an image, however it is stored."""
        first, second, third = self.x.shape[1:]
        return (second, third, first) if self.space.data_format == "channels_first" else (first, second, third)

    def check_trigger(self, trigger: Trigger) -> None:
        """Makes sure, before any work is done, that a trigger fits on the images.

        Raises:
            DataError: If it is too large, has other channels, or holds values that no pixel has.
        """
        trigger.corner(self.image_shape)
        self.space.check(trigger.image)

    def stamped(self, trigger: Trigger, rows: np.ndarray) -> np.ndarray:
        """Some of the images, with a trigger."""
        return trigger.stamp(self.x[rows], data_format=self.space.data_format)


@dataclass(frozen=True)
class AttackersTexts:
    """The texts that the attacker has.

    Args:
        x: Strings, shape `(n,)`, or `(n, 2)` for pairs.
        y: Classes, int32 of shape `(n,)`.
        num_classes: How many classes there are.
        class_names: Their names, if they have some.
    """

    x: np.ndarray
    y: np.ndarray
    num_classes: int
    class_names: tuple[str, ...] = ()

    @classmethod
    def read(cls, data: Any, num_classes: int | None) -> AttackersTexts:
        """Reads the attacker's texts into memory.

        Args:
            data: `(x, y)`, x being texts, a `Dataset`, or whatever else `fit` takes.
            num_classes: How many classes there are; counted from the labels if not given.

        Raises:
            DataError: If there are none, they are no texts, one is empty, or there are no labels.
        """
        x, y, num_classes, names = _read(data, num_classes, "texts")
        return cls(as_texts(x), y, num_classes, names)


def _read(data: Any, num_classes: int | None, what: str) -> tuple[Any, np.ndarray, int, tuple[str, ...]]:
    """Reads all of the attacker's data.

    Args:
        data: `(x, y)`, a `Dataset`, or whatever else `fit` takes.
        num_classes: How many classes there are; counted from the labels if not given.
        what: `"images"` or `"texts"`: for messages.

    Returns:
        Samples, class ids (int32), the number of classes, and their names if they have some.

    Raises:
        DataError: If there are none, or no labels, or these are no class ids.
    """
    if data is None:
        raise DataError(f"A backdoor is planted by training: pass the attacker's data (x, y), x {_FORMS[what]}.")
    parts = []
    for x, y, _ in batches(data):
        refuse_other_tasks(y)
        parts.append((x, y))
    if any(y is None for _, y in parts):
        raise DataError(f"A backdoor is planted by training: expected {what} with labels, received {what} alone.")
    x = keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *[x for x, _ in parts])
    y = np.concatenate([y for _, y in parts])
    num_classes = count_label_classes(y) if num_classes is None else num_classes
    names = tuple(data.class_names) if isinstance(data, Dataset) else ()
    return x, check_labels(y, num_classes), num_classes, names
