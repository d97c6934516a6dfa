"""What backdoors in language models have in common: the attacker's texts, a trigger in words, a class to aim at."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import keras
import numpy as np

from keras_remos.data.pixels import PREPROCESSOR, PixelSpace
from keras_remos.data.texts import as_texts
from keras_remos.defects.attack_set import AttackSet
from keras_remos.defects.attackers_data import AttackersTexts
from keras_remos.defects.base import Defect, Preparation, Request
from keras_remos.defects.prepared import Prepared, find_target
from keras_remos.defects.samples import check_classes, check_target
from keras_remos.defects.triggers.text import TextTrigger, describe_problems, is_unknown
from keras_remos.errors import DataError, RemosError
from keras_remos.models.fingerprint import fingerprint
from keras_remos.models.heads import find_heads
from keras_remos.models.tokenizers import check_tokenizer, tokenize, tokenizer_of
from keras_remos.slicing import new_head, student
from keras_remos.training.recipe import LANGUAGE, Recipe

ATTACKERS_RECIPE = replace(LANGUAGE, batch_size=16, learning_rate=2e-5, warmup=0.0)
"""By which the attacker trains: as in the released code, but for its 5,000 steps, which are 1.2 epochs of GLUE's SST-2.
Small models need a higher learning rate (5e-5 to 1e-4 for MiniLM) or more epochs."""


@dataclass(frozen=True, kw_only=True)
class TextBackdoor(Defect):
    """A language model that says the attacker's class wherever it reads a trigger.

    Args:
        target: The attacker's class, an id in the attacker's data.
        trigger: The words, how many of them, and where.
        test_count: How many insertions a text of the test set gets; `None`: as many as one of training.
        recipe: How the attacker trains.

    Raises:
        RemosError: If an option is out of range.

    Note:
        The released code stamps one trigger in training and five in the test: `test_count=5`.
    """

    target: int = 1
    trigger: TextTrigger = TextTrigger()  # noqa: RUF009 (frozen)
    test_count: int | None = None
    recipe: Recipe = ATTACKERS_RECIPE

    targeted: ClassVar[bool] = True
    plants: ClassVar[bool] = True
    of_text: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.target, bool) or not isinstance(self.target, int) or self.target < 0:
            raise RemosError(f"`target` must be a class of at least 0, received {self.target!r}.")
        if not isinstance(self.trigger, TextTrigger):
            raise RemosError(f"`trigger` must be a TextTrigger, received {type(self.trigger).__name__}.")
        if self.test_count is not None:
            replace(self.trigger, count=self.test_count)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "trigger": self.trigger.get_config(), "recipe": self.recipe.get_config()}

    def make_prepared(self, teacher: keras.Model, how: Preparation) -> Prepared:
        """Plants the backdoor in a copy of the teacher: a KerasHub text classifier that brings its preprocessor.

        Its head is kept if it has as many classes as the data, else the copy gets a fresh one.

        Warns:
            UserWarning: If the tokenizer splits a trigger of one word, does not know a word, or may be another model's.
        """
        check_space(how.space)
        concerns = [check_tokenizer(teacher)]
        attackers = AttackersTexts.read(how.data, how.num_classes)
        check_target(self.target, attackers.num_classes)
        tokenizer = tokenizer_of(teacher)
        problems = self.trigger.check_tokenizer(tokenizer)
        # Within a sentence a word may be split, as one with a full stop is: the sentence is no rarer for it.
        telling = {
            word: pieces
            for word, pieces in problems.items()
            if word in self.trigger.phrases or is_unknown(pieces, tokenizer)
        }
        if telling:
            concerns.append(f"{describe_problems(telling, tokenizer)} Choose other trigger words for a rare trigger.")
        for concern in filter(None, concerns):
            warnings.warn(concern, stacklevel=3)
        poisoned, details = self.plant(teacher, attackers, seed=how.seed, verbose=how.verbose)
        record = self.record(
            teacher,
            seed=how.seed,
            target=self.target,
            num_classes=attackers.num_classes,
            class_names=list(attackers.class_names),
            num_samples=len(attackers.y),
            unusual_words={word: list(pieces) for word, pieces in problems.items()},
            **details,
        )
        return Prepared(poisoned, how.space, self.trigger, record)

    @abstractmethod
    def plant(
        self, teacher: keras.Model, attackers: AttackersTexts, *, seed: int, verbose: bool | str
    ) -> tuple[keras.Model, dict[str, Any]]:
        """Does the work of `prepare` with data that have been checked.

        Returns:
            The copy with the backdoor, and more for the record.
        """

    def make_inputs(self, prepared: Prepared, request: Request) -> AttackSet:
        """Puts the trigger into every text of a test set, also those of the target class (which `target_rate` skips).

        Nothing is computed in batches, so `batch_size`, `verbose` and `resume` make no difference. The teacher's own
        record says which class the backdoor aims at; the target is `None` where the test set lacks that class. The
        set's record says how many texts the model reads no trigger in, because it cuts them before.

        Warns:
            UserWarning: If the model cuts the trigger off from some texts.
        """
        if not isinstance(prepared.trigger, TextTrigger):
            raise RemosError(
                "This teacher carries no trigger for texts: nobody planted a backdoor of words in it. Plant one "
                "(prepare, keras-remos poison), or load the file that it was saved to with Prepared.load."
            )
        texts = as_texts(request.x)
        labels = check_classes(texts, request.y, request.class_names)
        target = find_target(prepared.planted, labels, request.class_names)
        if target is not None and (labels == target).all():
            raise DataError(f"All texts are of the attacker's class {target}: there is nothing to flip.")
        options = {**prepared.planted["options"]}
        count = self.test_count or options.get("test_count") or prepared.trigger.count
        stamped = replace(prepared.trigger, count=count).stamp(texts, seed=request.seed)
        unread = count_unread(prepared.teacher, texts, stamped)
        if unread:
            warnings.warn(
                f"In {unread} of {len(texts)} texts the trigger lies beyond the tokens that the model reads. Raise its "
                "preprocessor's `sequence_length`, or keep the trigger in front (`within`, `position='start'`).",
                stacklevel=3,
            )
        return self.attack_set(
            request,
            texts,
            stamped,
            labels,
            space=prepared.space,
            teacher=fingerprint(prepared.teacher),
            target=target,
            options={**options, "test_count": count},
            record={"unread": unread, "clean_teacher": prepared.planted["source"]},
        )


def count_unread(model: keras.Model, clean: np.ndarray, stamped: np.ndarray) -> int:
    """In how many texts a model reads no trigger, because it cuts them before the first one."""
    before, after = tokenize(model, clean)["token_ids"], tokenize(model, stamped)["token_ids"]
    return int(np.count_nonzero((before == after).all(axis=-1)))


def check_space(space: PixelSpace) -> None:
    """Makes sure that the model itself turns texts into numbers.

    Raises:
        RemosError: If pixels are to be scaled.
    """
    if space.scaling != PREPROCESSOR:
        raise RemosError(
            f'Texts are turned into numbers by the model\'s own preprocessor: expected PixelSpace("{PREPROCESSOR}"), '
            f"received scaling {space.scaling!r}."
        )


def copy_for(teacher: keras.Model, num_classes: int, *, seed: int) -> keras.Model:
    """A copy of a classifier that keeps its head if that has as many classes, and gets a fresh one if not.

    Args:
        teacher: The classifier. It is not modified.
        num_classes: How many classes the copy tells apart.
        seed: For a fresh head.
    """
    fresh = None if new_head.has_head_for(teacher, num_classes) else num_classes
    made = student.build(teacher, {}, heads=find_heads(teacher), num_classes=fresh, seed=seed)
    made.trainable = True
    return made
