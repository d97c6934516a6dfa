"""What backdoors have in common: the attacker's data, a trigger, a class to aim at, and stamped test images."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from keras_remos.data.samples import Levels, Pixels, Samples, as_samples
from keras_remos.defects.attack_set import AttackSet
from keras_remos.defects.attackers_data import AttackersData
from keras_remos.defects.base import Defect, Preparation, Request
from keras_remos.defects.prepared import Prepared, find_target
from keras_remos.defects.samples import check_samples, check_target
from keras_remos.defects.triggers.image import Trigger
from keras_remos.errors import RemosError
from keras_remos.models.fingerprint import fingerprint
from keras_remos.training.recipe import Recipe
from keras_remos.untrusted import pieces, room_for

ATTACKERS_RECIPE = Recipe(batch_size=64)
"""By which the attacker trains: the students' recipe, with the batches of the released code."""


@dataclass(frozen=True, kw_only=True)
class Backdoor(Defect):
    """A teacher that says the attacker's class wherever it sees a trigger.

    Args:
        target: The attacker's class, an id in the attacker's data.
        trigger: What is stamped on images; see the attacks for what they do without one.
        recipe: How the attacker trains.
        head: The path of the teacher's head, where it is not found.

    Raises:
        RemosError: If an option is out of range.
    """

    target: int = 0
    trigger: Trigger | None = None
    recipe: Recipe = ATTACKERS_RECIPE
    head: str | None = None

    targeted: ClassVar[bool] = True
    plants: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not isinstance(self.target, int) or self.target < 0:
            raise RemosError(f"`target` must be a class of at least 0, received {self.target!r}.")

    def get_config(self) -> dict[str, Any]:
        trigger = None if self.trigger is None else self.trigger.describe()
        return {**super().get_config(), "trigger": trigger, "recipe": self.recipe.get_config()}

    def make_prepared(self, teacher: keras.Model, how: Preparation) -> Prepared:
        """Plants the backdoor in a copy of the teacher."""
        how.space.check_scales()
        attackers = AttackersData.read(how.data, teacher, how.space, how.num_classes)
        check_target(self.target, attackers.num_classes)
        if self.trigger is not None:
            attackers.check_trigger(self.trigger)
        return self.plant(teacher, attackers, seed=how.seed, verbose=how.verbose)

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

    def make_inputs(self, prepared: Prepared, request: Request) -> AttackSet:
        """Stamps every image of a test set, also those of the target class (which `target_rate` leaves out).

        Nothing is drawn or computed in batches, so `batch_size`, `seed` and `resume` make no difference. The teacher's
        own record says which class the backdoor aims at, and how; the target is `None` where the test set lacks that
        class, so that only `flip_rate` can be measured.
        """
        if not isinstance(prepared.trigger, Trigger):
            raise RemosError(
                "This teacher carries no trigger for images: nobody planted a backdoor in it. Plant one (prepare, "
                "keras-remos poison), or load the file that it was saved to with Prepared.load."
            )
        space, y = prepared.space, np.asarray(request.y)
        x = as_samples(request.x, space)
        check_samples(prepared.teacher, space, x, y, request.class_names)
        assert isinstance(x, Samples), "texts are no pixels"
        kind, dtype = (Levels, np.uint8) if request.rounds(x) else (Pixels, np.float32)
        rows = room_for(x.shape, dtype)
        for piece in pieces(x):
            stamped = prepared.trigger.stamp(x[piece], data_format=space.data_format)
            rows[piece] = stamped if kind is Pixels else space.nearest_levels(stamped)[0]
        return self.attack_set(
            request,
            x,
            kind(rows, space),
            y.astype(np.int32),
            space=space,
            teacher=fingerprint(prepared.teacher),
            target=find_target(prepared.planted, y, request.class_names),
            options=prepared.planted["options"],
            seed=prepared.planted["seed"],
            record={"clean_teacher": prepared.planted["source"]},
        )
