"""`Defect`: what an attacker does to or with a teacher; `Prepared`: the teacher that comes out of it."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

import keras
import numpy as np

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects.attack_set import AttackSet
from keras_remos.defects.text_trigger import TextTrigger
from keras_remos.errors import FileError
from keras_remos.saving import PathLike, complete, fingerprint, read_members, read_record, save_model, versions
from keras_remos.teachers import load_teacher

if TYPE_CHECKING:
    from keras_remos.defects.trigger import Trigger
    from keras_remos.methods import Recipe

# A `.npy` in the zip would be taken for a pickle.
TRIGGER = "keras_remos/trigger.npz"
# In the record: words are JSON.
TEXT_TRIGGER = "text_trigger"


@dataclass(frozen=True, kw_only=True)
class Defect(ABC):
    """A configured attack. Its options are keyword-only arguments of the constructor: every attack is a dataclass.

    Attributes:
        name: Its key in `DEFECTS`.
        targeted: Whether it can aim at a class of the attacker's choice.
        plants: Whether the teacher carries it: `prepare` changes weights, and there is a trigger.
        of_task: Whether it needs a classifier of the students' task: `prepare` then takes data of that task, to
            fine-tune the attacker's own copy of the teacher.
        of_text: Whether it is for models that read texts; the others are for images.
    """

    name: ClassVar[str]
    targeted: ClassVar[bool]
    plants: ClassVar[bool] = False
    of_task: ClassVar[bool] = False
    of_text: ClassVar[bool] = False

    def get_config(self) -> dict[str, Any]:
        """The options that the constructor takes, as plain values for JSON."""
        options = asdict(self)
        return {name: options[name] for name in self.option_names()}

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """The options that the constructor takes."""
        return tuple(option.name for option in fields(cls) if option.init)

    @property
    def copy_recipe(self) -> Recipe | None:
        """How `prepare` fine-tunes the attacker's own copy of the teacher, if it is `of_task`; `None` by default.

        Attacks with the same recipe make the same copy of the same data and seed: `inputs` of each takes the other's.
        """
        return None

    @abstractmethod
    def prepare(
        self,
        teacher: keras.Model,
        data: Any = None,
        *,
        space: PixelSpace,
        num_classes: int | None = None,
        seed: int = 0,
        verbose: bool | str = "auto",
    ) -> Prepared:
        """Does what the attacker does before a student is made.

        Args:
            teacher: The teacher. It is not modified: a defect that changes weights works on a copy.
            data: The attacker's own data `(x, y)`, x in pixels, where the defect needs some.
            space: How the teacher's inputs come from pixels.
            num_classes: How many classes the attacker's data have; counted from the labels if not given.
            seed: For everything that is drawn.
            verbose: Progress on stderr: `True`, `False`, or `"auto"` for a terminal only.

        Returns:
            The teacher as the student's owner gets it, and what the attacker keeps.
        """

    @abstractmethod
    def inputs(
        self,
        prepared: Prepared,
        x: np.ndarray,
        y: np.ndarray,
        *,
        class_names: Sequence[str] = (),
        batch_size: int = 64,
        seed: int = 0,
        verbose: bool | str = "auto",
        resume: PathLike | None = None,
    ) -> AttackSet:
        """Makes the malicious version of each sample of a test set.

        Args:
            prepared: What `prepare` returned.
            x: Pixels of the test set, shape `(n, ...)`.
            y: True classes, shape `(n,)`.
            class_names: Of the test set.
            batch_size: Samples at a time: as many as the device's memory holds.
            seed: For everything that is drawn.
            verbose: Progress on stderr: `True`, `False`, or `"auto"` for a terminal only.
            resume: A file for partial results. An interrupted call that is made again with the same file and options
                continues where it stopped, with the result of an unbroken one; the file is removed at the end.

        Returns:
            The malicious inputs, to be saved once and tried on every student.
        """

    def record(self, source: keras.Model, *, seed: int, **details: Any) -> dict[str, Any]:
        """What a `Prepared` says about how it was made.

        Args:
            source: The teacher before the attacker touched it.
            seed: The seed of `prepare`.
            **details: More that JSON can hold.
        """
        return {
            "defect": self.name,
            "options": self.get_config(),
            "seed": seed,
            "source": fingerprint(source),
            "versions": versions(),
            **details,
        }


@dataclass
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
            np.savez(arrays, allow_pickle=False, **self.trigger.to_arrays())
            members[TRIGGER] = arrays.getvalue()
        save_model(self.teacher, path, record, members=members, overwrite=overwrite)

    @classmethod
    def load(cls, path: PathLike) -> Prepared:
        """Reads what `save` wrote. Neither the model nor the trigger can run code.

        Raises:
            TeacherError: If the model cannot be opened safely.
            FileError: If it carries no record, or a damaged one.
        """
        teacher = load_teacher(path)
        record = read_record(path)
        if not record:
            raise FileError(f"{path} is a model without a record of an attack: prepare the attack with it first.")
        members = read_members(path, TRIGGER)
        trigger: Trigger | TextTrigger | None = None
        with complete(path):
            space = PixelSpace(**record.pop("space"))
            if TEXT_TRIGGER in record:
                trigger = TextTrigger.from_config(record.pop(TEXT_TRIGGER))
            elif TRIGGER in members:
                from keras_remos.defects.trigger import Trigger

                with np.load(io.BytesIO(members[TRIGGER]), allow_pickle=False) as arrays:
                    trigger = Trigger.from_arrays(arrays)
        return cls(teacher, space, trigger, record)
