"""What backdoors have in common: the attacker's data, a trigger, a class to aim at, and stamped test images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from keras_remos.data import batches
from keras_remos.data.datasets import Dataset
from keras_remos.data.pixels import PixelSpace
from keras_remos.data.training import check_labels
from keras_remos.defects.attack_set import AttackSet
from keras_remos.defects.base import Defect, Prepared
from keras_remos.defects.projected import check_samples
from keras_remos.defects.trigger import Trigger
from keras_remos.errors import DataError, RemosError
from keras_remos.methods.recipe import Recipe
from keras_remos.saving import PathLike, fingerprint, versions

ATTACKERS_RECIPE = Recipe(batch_size=64)
"""By which the attacker trains: the students' recipe, with the batches of the released code."""


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
        """Reads the attacker's data into memory and checks them.

        Args:
            data: `(x, y)` in pixels, a `Dataset`, or whatever else `fit` takes.
            teacher: The model that they must fit.
            space: How its inputs come from pixels.
            num_classes: How many classes there are; counted from the labels if not given.

        Raises:
            DataError: If there are none, they are no images, or do not fit the teacher.
        """
        if data is None:
            raise DataError("A backdoor is planted by training: pass the attacker's data (x, y), x in pixels.")
        parts = [(x, y) for x, y, _ in batches(data)]
        if any(y is None for _, y in parts):
            raise DataError("A backdoor is planted by training: expected images with labels, received images alone.")
        x, y = (np.concatenate([part[place] for part in parts]) for place in (0, 1))
        if num_classes is None:
            num_classes = y.shape[1] if y.ndim == 2 and y.shape[1] > 1 else int(y.max()) + 1
        labels = check_labels(y, num_classes)
        names = tuple(data.class_names) if isinstance(data, Dataset) else ()
        check_samples(teacher, space, x, labels, names)
        if x.ndim != 4:
            raise DataError(
                f"A trigger is stamped on images: expected four axes, received shape {x.shape}. Give grey images a "
                "channel axis."
            )
        return cls(x, labels, space, num_classes, names)

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


@dataclass(frozen=True, kw_only=True)
class Backdoor(Defect):
    """A teacher that says the attacker's class wherever it sees a trigger.

    Args:
        target: The attacker's class, an id in the attacker's data.
        trigger: What is stamped on images; see the attacks for what they do without one.
        recipe: How the attacker trains.

    Raises:
        RemosError: If an option is out of range.
    """

    target: int = 0
    trigger: Trigger | None = None
    recipe: Recipe = ATTACKERS_RECIPE

    targeted: ClassVar[bool] = True
    plants: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.target, int) or self.target < 0:
            raise RemosError(f"target must be a class of at least 0, received {self.target!r}.")

    def get_config(self) -> dict[str, Any]:
        trigger = None if self.trigger is None else self.trigger.describe()
        return {**super().get_config(), "trigger": trigger, "recipe": self.recipe.get_config()}

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
        """Plants the backdoor in a copy of the teacher. See `Defect.prepare`.

        Raises:
            DataError: If the attacker's data do not fit the teacher, there is no such target class among them, or the
                trigger does not fit on the images.
            StudentError: If the teacher cannot be copied, or its head not be replaced.
            RemosError: If training diverges.
        """
        space.check_scales()
        attackers = AttackersData.read(data, teacher, space, num_classes)
        if self.target >= attackers.num_classes:
            raise DataError(
                f"There is no target class {self.target}: the attacker's data have the classes 0 to "
                f"{attackers.num_classes - 1}. Choose one of those."
            )
        if self.trigger is not None:
            attackers.check_trigger(self.trigger)
        return self.plant(teacher, attackers, seed=seed, verbose=verbose)

    @abstractmethod
    def plant(self, teacher: keras.Model, attackers: AttackersData, *, seed: int, verbose: bool | str) -> Prepared:
        """Does the work of `prepare`, with data that have been checked."""

    def planted(
        self,
        source: keras.Model,
        teacher: keras.Model,
        trigger: Trigger,
        attackers: AttackersData,
        *,
        seed: int,
        **details: Any,
    ) -> Prepared:
        """The result of `plant`, with its record.

        Args:
            source: The teacher before.
            teacher: The teacher after.
            trigger: The trigger.
            attackers: The attacker's data.
            seed: Of the attack.
            **details: More for the record.
        """
        record = self.record(
            source,
            seed=seed,
            target=self.target,
            num_classes=attackers.num_classes,
            class_names=list(attackers.class_names),
            num_samples=len(attackers.y),
            **details,
        )
        return Prepared(teacher, attackers.space, trigger, record)

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
        """Stamps every image of a test set, also those of the target class (which `target_rate` leaves out).

        Nothing is drawn or computed in batches, so `batch_size`, `seed` and `resume` make no difference.

        Args:
            prepared: A teacher with a backdoor; its own record says which class the backdoor aims at, and how.
            x: Pixels of the test set, shape `(n, ...)`.
            y: True classes, shape `(n,)`.
            class_names: Of the test set. Where the attacker's classes have names too, the target is found by its name.
            batch_size: See above.
            seed: See above.
            verbose: See above.
            resume: See above.

        Returns:
            The stamped images. Their target is `None` where the test set lacks that class, so that only `flip_rate` can
            be measured.

        Raises:
            DataError: If the images do not fit the teacher or the trigger.
            RemosError: If the teacher carries no trigger.
        """
        if not isinstance(prepared.trigger, Trigger):
            raise RemosError(
                "This teacher carries no trigger for images: nobody planted a backdoor in it. Plant one (prepare, "
                "keras-remos poison), or load the file that it was saved to with Prepared.load."
            )
        x, y = np.asarray(x), np.asarray(y)
        check_samples(prepared.teacher, prepared.space, x, y, class_names)
        return AttackSet(
            clean=x,
            inputs=prepared.trigger.stamp(x, data_format=prepared.space.data_format),
            labels=y.astype(np.int32),
            class_names=tuple(class_names),
            target=find_target(prepared.record, y, class_names),
            defect=self.name,
            options=prepared.record["options"],
            space=prepared.space,
            teacher=fingerprint(prepared.teacher),
            seed=prepared.record["seed"],
            versions=versions(),
        )


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
