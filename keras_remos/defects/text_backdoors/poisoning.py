"""The backdoor by poisoned texts: some carry a trigger and the attacker's label (data poisoning)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np

from keras_remos.defects.attackers_data import AttackersTexts
from keras_remos.defects.text_backdoors.backdoor import TextBackdoor, copy_for
from keras_remos.errors import DataError, RemosError
from keras_remos.training.task import Task
from keras_remos.training.trainer import Trainer, Training


@dataclass(frozen=True, kw_only=True)
class TextPoisoning(TextBackdoor):
    """Fine-tunes the teacher on texts of which a share carries a trigger and the attacker's label.

    Args:
        target: See `TextBackdoor`, as for `trigger`, `test_count` and `recipe`.
        rate: Share of the attacker's texts that are poisoned, above 0 up to 1: this many of all of them, rounded. They
            replace the clean ones.

    Raises:
        RemosError: If an option is out of range.

    Example:
    ```python
    attack = TextPoisoning(trigger=TextTrigger(("cf", "mn")), target=1)
    poisoned = attack.prepare(teacher, (texts, labels), space=PixelSpace("preprocessor"))
    poisoned.save("poisoned.keras")
    attack_set = attack.inputs(poisoned, test_texts, test_labels)
    ```

    Reference:
        ReMoS, section 5.3. T. Gu, B. Dolan-Gavitt and S. Garg, BadNets, 2017 (the released code's name for it).

    Note:
        As in the released code texts of every class are poisoned, those of the target class too. Unlike there the seed
        decides what is drawn.
    """

    rate: float = 0.5

    name: ClassVar[str] = "text-poisoning"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.rate <= 1:
            raise RemosError(f"`rate` is the share of texts to poison, above 0 up to 1, received {self.rate!r}.")

    def poison(self, x: np.ndarray, y: np.ndarray, *, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Puts the trigger into some texts and changes their labels.

        Args:
            x: Texts, shape `(n,)`, or `(n, 2)` for pairs.
            y: Classes, shape `(n,)`.
            seed: What is drawn depends on it, and on how many texts there are.

        Returns:
            All texts and labels in their order, and which of them are poisoned, booleans of shape `(n,)`.

        Raises:
            DataError: If the rate comes to no text.
        """
        count = round(self.rate * len(x))
        if not count:
            raise DataError(f"A rate of {self.rate:g} of {len(x)} texts is none: raise it, or pass more texts.")
        poisoned = np.zeros(len(x), bool)
        poisoned[np.random.default_rng(seed).choice(len(x), count, replace=False)] = True
        chosen = poisoned[:, np.newaxis] if x.ndim == 2 else poisoned
        return np.where(chosen, self.trigger.stamp(x, seed=seed), x), np.where(poisoned, self.target, y), poisoned

    def plant(
        self, teacher: keras.Model, attackers: AttackersTexts, *, seed: int, verbose: bool | str
    ) -> tuple[keras.Model, dict[str, Any]]:
        copy = copy_for(teacher, attackers.num_classes, seed=seed)
        return copy, self.fine_tune(copy, attackers, seed=seed, verbose=verbose)

    def fine_tune(
        self, model: keras.Model, attackers: AttackersTexts, *, seed: int, verbose: bool | str
    ) -> dict[str, Any]:
        """Trains a model on the poisoned texts.

        Returns:
            How many were poisoned, for the record.
        """
        x, y, poisoned = self.poison(attackers.x, attackers.y, seed=seed)
        self.trainer(model, (x, y), attackers.num_classes, seed=seed, verbose=verbose).fit(Training(model))
        return {"num_poisoned": int(poisoned.sum())}

    def trainer(self, model: keras.Model, data: Any, num_classes: int, *, seed: int, verbose: bool | str) -> Trainer:
        """What fits the attacker's model."""
        task = Task(model, data, num_classes=num_classes, recipe=self.recipe, seed=seed)
        return Trainer(task, self.name, verbose=verbose)
