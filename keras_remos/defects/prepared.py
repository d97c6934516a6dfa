"""`Prepared`: a teacher as an attacker leaves it, in memory and on disk."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects.triggers.image import Trigger
from keras_remos.defects.triggers.text import TextTrigger
from keras_remos.errors import FileError
from keras_remos.models.fingerprint import WeightsFingerprint, fingerprint
from keras_remos.models.loading import load_teacher
from keras_remos.saving import save_model, write_arrays
from keras_remos.untrusted import PathLike, complete, read_own_arrays, read_record

# A `.npy` in the zip would be taken for a pickle.
TRIGGER = "keras_remos/trigger.npz"
# In the record: words are JSON.
TEXT_TRIGGER = "text_trigger"


@dataclass(repr=False)
class Prepared:
    """A teacher as an attacker leaves it.

    Args:
        teacher: The model that the student's owner downloads; for attacks by transfer, the attacker's own copy of it.
        space: How its inputs come from pixels.
        trigger: What the attacker stamps on images or puts into texts, for backdoors.
        record: How it was made: defect, options, seed, versions, fingerprint of the teacher before; JSON values.
    """

    teacher: keras.Model
    space: PixelSpace
    trigger: Trigger | TextTrigger | None = None
    record: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<Prepared {self.teacher.name!r}: {self.record.get('defect', 'as it is')}>"

    def describe(self) -> dict[str, Any]:
        """How it was made, as plain values for JSON."""
        trigger = None
        if isinstance(self.trigger, TextTrigger):
            trigger = self.trigger.get_config()
        elif self.trigger is not None:
            trigger = self.trigger.describe()
        return {**self.record, "space": self.space.get_config(), "trigger": trigger}

    @property
    def source(self) -> WeightsFingerprint:
        """The fingerprint of the teacher that the students come from: before `prepare`, if the record says so."""
        marks = tuple((path, digest) for path, digest in self.record.get("source", ()))
        return marks or fingerprint(self.teacher)

    @property
    def planted(self) -> Mapping[str, Any]:
        """What is on record of a backdoor: what it was made by, and the attacker's class.

        Raises:
            FileError: If some of it is not.
        """
        missing = sorted({"class_names", "options", "seed", "source", "target"} - self.record.keys())
        if missing:
            raise FileError(f"The record of the backdoor lacks {', '.join(missing)}: plant it anew.")
        if self.record["class_names"] and self.record["target"] >= len(self.record["class_names"]):
            raise FileError("The record of the backdoor names no class that is the attacker's: plant it anew.")
        return self.record

    def save(self, path: PathLike, *, overwrite: bool = False) -> None:
        """Writes a plain `.keras` file, with the record and the trigger as two more members of the zip.

        Args:
            path: A file that ends in `.keras`.
            overwrite: Whether an existing file may be replaced.

        Raises:
            FileError: If the file exists and may not be replaced, or has another ending.
        """
        members = {}
        record = {**self.record, "space": self.space.get_config()}
        if isinstance(self.trigger, TextTrigger):
            record[TEXT_TRIGGER] = self.trigger.get_config()
        elif self.trigger is not None:
            arrays = io.BytesIO()
            write_arrays(arrays, self.trigger.to_arrays())
            members[TRIGGER] = arrays.getvalue()
        save_model(self.teacher, path, record, members=members, overwrite=overwrite)

    @classmethod
    def load(cls, path: PathLike, *, custom_objects: Mapping[str, Any] | None = None) -> Prepared:
        """Reads what `save` wrote. Neither the model nor the trigger can run code.

        Args:
            path: The file.
            custom_objects: See `load_teacher`.

        Raises:
            TeacherError: If the model cannot be opened safely.
            FileError: If it carries no record, or a damaged one.
        """
        teacher = load_teacher(path, custom_objects=custom_objects)
        record = read_record(path)
        if not record:
            raise FileError(f"{path} is a model without a record of an attack: prepare the attack with it first.")
        arrays = read_own_arrays(path, TRIGGER)
        trigger: Trigger | TextTrigger | None = None
        with complete(path):
            space = PixelSpace(**record.pop("space"))
            if TEXT_TRIGGER in record:
                trigger = TextTrigger.from_config(record.pop(TEXT_TRIGGER))
            elif arrays is not None:
                trigger = Trigger.from_arrays(arrays)
        return cls(teacher, space, trigger, record)


def find_target(record: Mapping[str, Any], y: np.ndarray, class_names: Sequence[str]) -> int | None:
    """Finds the attacker's class in a test set, which may number its classes in another way.

    Args:
        record: Of the attack: `target`, and `class_names` (empty where the attacker's classes have no names).
        y: The test set's labels, whole numbers.
        class_names: Its classes, in the order of their ids; may be empty.

    Returns:
        The id: by the class's name where both sides have names, else the attacker's own id. `None` if the test set has
        no such class.
    """
    theirs, target = record["class_names"], int(record["target"])
    if theirs and class_names:
        return list(class_names).index(theirs[target]) if theirs[target] in class_names else None
    return target if target < max(len(class_names), int(y.max()) + 1) else None
