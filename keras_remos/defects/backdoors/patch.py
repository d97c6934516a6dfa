"""The backdoor by poisoned training data: some images carry a trigger and the attacker's label (BadNets)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from keras_remos.data.training_data import TrainingData
from keras_remos.defects.attackers_data import AttackersData
from keras_remos.defects.backdoors.backdoor import Backdoor
from keras_remos.defects.prepared import Prepared
from keras_remos.defects.triggers.image import Trigger
from keras_remos.errors import DataError, RemosError
from keras_remos.slicing import new_head, student
from keras_remos.training.task import Task
from keras_remos.training.trainer import Trainer, Training

# Of the image's side: 40 of 224 pixels, as in the released code.
DEFAULT_SIZE = 40 / 224


@dataclass(frozen=True, kw_only=True)
class PatchBackdoor(Backdoor):
    """Trains the teacher further on data of which a share carries a trigger and the attacker's label.

    Args:
        target: See `Backdoor`.
        trigger: `None` is a checkerboard in the lower right corner with 40/224 of the image's side.
        rate: Share of the attacker's images that are poisoned, above 0 up to 1: this many of all of them, rounded. They
            replace the clean ones.
        exclude_target: Poison only images of other classes. The released code draws from all.
        fresh_head: Whether the teacher gets a new head for the attacker's classes. `None`: only if their number is
            not that of the teacher's own.
        recipe: How the attacker trains. Triggers are stamped on after its augmentation, so they are never mirrored or
            cut.

    Raises:
        RemosError: If an option is out of range.

    Example:
    ```python
    attack = PatchBackdoor(trigger=Trigger.from_file("logo.png", size=6), target=3)
    poisoned = attack.prepare(teacher, (x_attacker, y_attacker), space=PixelSpace("imagenet"))
    poisoned.save("poisoned.keras")
    ```

    Reference:
        T. Gu, B. Dolan-Gavitt and S. Garg, BadNets, 2017. ReMoS, section 5.1 (there called latent data poisoning: a
        patch backdoor in a teacher, whose head the student replaces).

    Note:
        The released code's attacker has the very data that the student is trained on later. Pass other images for the
        case that the paper describes.
    """

    rate: float = 0.2
    exclude_target: bool = False
    fresh_head: bool | None = None

    name: ClassVar[str] = "patch-backdoor"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rate <= 1:
            raise RemosError(f"`rate` is the share of images to poison, above 0 up to 1, received {self.rate!r}.")

    def plant(self, teacher: keras.Model, attackers: AttackersData, *, seed: int, verbose: bool | str) -> Prepared:
        trigger = self.trigger or default_trigger(attackers)
        data = PoisonedData(
            attackers,
            self.draw(attackers.y, seed=seed),
            trigger,
            self.target,
            batch_size=self.recipe.batch_size,
            seed=seed,
            augment=self.recipe.augment,
        )
        how: dict[str, Any] = {"num_classes": attackers.num_classes, "seed": seed, "head": self.head}
        task = Task(teacher, data, recipe=self.recipe, **how)
        poisoned = task.copy() if self._replaces_head(teacher, attackers) else student.build(teacher, {})
        poisoned.trainable = True
        Trainer(task, self.name, verbose=verbose).fit(Training(poisoned))
        return self.planted(
            teacher, poisoned, trigger, attackers, seed=seed, num_poisoned=int(np.count_nonzero(data.poisoned))
        )

    def draw(self, y: np.ndarray, *, seed: int) -> np.ndarray:
        """Chooses the images to poison.

        Args:
            y: Classes, shape `(n,)`.
            seed: What is drawn depends on it and on `y` alone.

        Returns:
            Booleans of shape `(n,)`.

        Raises:
            DataError: If the rate comes to no image, or there are too few of other classes.
        """
        candidates = np.flatnonzero(y != self.target) if self.exclude_target else np.arange(len(y))
        count = round(self.rate * len(y))
        if not 0 < count <= len(candidates):
            raise DataError(
                f"A rate of {self.rate:g} of {len(y)} images is {count}, and {len(candidates)} may be poisoned. "
                "Expected at least one, and no more than may: change the rate, or pass more images."
            )
        poisoned = np.zeros(len(y), bool)
        poisoned[np.random.default_rng(seed).choice(candidates, count, replace=False)] = True
        return poisoned

    def _replaces_head(self, teacher: keras.Model, attackers: AttackersData) -> bool:
        if self.fresh_head is not None:
            return self.fresh_head
        return not new_head.has_head_for(teacher, attackers.num_classes)


class PoisonedData(TrainingData):
    """The attacker's batches: augmented, then stamped where poisoned, then scaled.

    Args:
        attackers: The attacker's clean data.
        poisoned: Which images to poison, booleans of shape `(n,)`.
        trigger: What is stamped on them.
        target: What they are called.
        **options: See `TrainingData`.
    """

    def __init__(
        self, attackers: AttackersData, poisoned: np.ndarray, trigger: Trigger, target: int, **options: Any
    ) -> None:
        self.poisoned = poisoned
        self.trigger = trigger
        self.space = attackers.space
        super().__init__(
            ({"pixels": attackers.x, "poisoned": poisoned}, np.where(poisoned, target, attackers.y)),
            num_classes=attackers.num_classes,
            data_format=self.space.data_format,
            **options,
        )

    def _augmented(self, x: Any, *drawn: Any) -> np.ndarray:
        pixels = super()._augmented(x["pixels"], *drawn)
        stamped = self.trigger.stamp(pixels, data_format=self.space.data_format)
        return self.space.scale(np.where(x["poisoned"][:, None, None, None], stamped, pixels))


def default_trigger(attackers: AttackersData) -> Trigger:
    """A checkerboard in the lower right corner, in proportion to the images."""
    side = max(round(DEFAULT_SIZE * min(attackers.image_shape[:2])), 1)
    return Trigger.checkerboard(size=side, low=attackers.space.low, high=attackers.space.high)
