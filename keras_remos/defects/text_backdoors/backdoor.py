"""What backdoors in language models have in common: the attacker's texts, a trigger in words, a class to aim at."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import keras
import numpy as np

from keras_remos import student
from keras_remos.data import batches
from keras_remos.data.datasets import Dataset
from keras_remos.data.pixels import PREPROCESSOR, PixelSpace
from keras_remos.data.texts import as_texts, check_tokenizer, tokenize, tokenizer_of
from keras_remos.data.training import check_labels
from keras_remos.defects.attack_set import AttackSet
from keras_remos.defects.backdoor import find_target
from keras_remos.defects.base import Defect, Prepared
from keras_remos.defects.text_trigger import TextTrigger, describe_problems, is_unknown
from keras_remos.errors import DataError, RemosError
from keras_remos.features import find_heads
from keras_remos.methods.recipe import LANGUAGE, Recipe
from keras_remos.saving import PathLike, fingerprint, versions

ATTACKERS_RECIPE = replace(LANGUAGE, batch_size=16, learning_rate=2e-5, warmup=0.0)
"""By which the attacker trains: as in the released code, but for its 5,000 steps, which are 1.2 epochs of GLUE's SST-2.
Small models need a higher learning rate (5e-5 to 1e-4 for MiniLM) or more epochs."""


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
        """Reads the attacker's data into memory.

        Args:
            data: `(x, y)`, a `Dataset` of texts, or whatever else `fit` takes.
            num_classes: How many classes there are; counted from the labels if not given.

        Raises:
            DataError: If there are none, they are no texts, one is empty, or there are no labels.
        """
        if data is None:
            raise DataError("A backdoor is planted by training: pass the attacker's data (x, y), x being texts.")
        parts = [(x, y) for x, y, _ in batches(data)]
        if any(y is None for _, y in parts):
            raise DataError("A backdoor is planted by training: expected texts with labels, received texts alone.")
        x = as_texts(keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *[x for x, _ in parts]))
        y = np.concatenate([y for _, y in parts])
        if num_classes is None:
            num_classes = y.shape[1] if y.ndim == 2 and y.shape[1] > 1 else int(y.max()) + 1
        names = tuple(data.class_names) if isinstance(data, Dataset) else ()
        return cls(x, check_labels(y, num_classes), num_classes, names)


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
            raise RemosError(f"target must be a class of at least 0, received {self.target!r}.")
        if not isinstance(self.trigger, TextTrigger):
            raise RemosError(f"trigger must be a TextTrigger, received {type(self.trigger).__name__}.")
        if self.test_count is not None:
            replace(self.trigger, count=self.test_count)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "trigger": self.trigger.get_config(), "recipe": self.recipe.get_config()}

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

        Args:
            teacher: A KerasHub text classifier that brings its preprocessor. It is not modified. Its head is kept if it
                has as many classes as the data, else the copy gets a fresh one.
            data: The attacker's `(x, y)`: texts and classes.
            space: `PixelSpace("preprocessor")`: the model itself turns texts into numbers.
            num_classes: How many classes the attacker's data have; counted from the labels if not given.
            seed: For the texts that are poisoned, triggers, the order of the data, dropout and a fresh head.
            verbose: Progress on stderr.

        Raises:
            TeacherError: If the teacher brings no tokenizer.
            MismatchError: If its tokenizer knows more tokens than it does.
            DataError: If these are no texts with classes, or there is no such target class among them.
            RemosError: If training diverges.

        Warns:
            UserWarning: If the tokenizer splits a trigger of one word, does not know a word, or may be another model's.
        """
        check_space(space)
        concerns = [check_tokenizer(teacher)]
        attackers = AttackersTexts.read(data, num_classes)
        if self.target >= attackers.num_classes:
            raise DataError(
                f"There is no target class {self.target}: the attacker's data have the classes 0 to "
                f"{attackers.num_classes - 1}. Choose one of those."
            )
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
            warnings.warn(concern, stacklevel=2)
        poisoned, details = self.plant(teacher, attackers, seed=seed, verbose=verbose)
        record = self.record(
            teacher,
            seed=seed,
            target=self.target,
            num_classes=attackers.num_classes,
            class_names=list(attackers.class_names),
            num_samples=len(attackers.y),
            unusual_words={word: list(pieces) for word, pieces in problems.items()},
            **details,
        )
        return Prepared(poisoned, space, self.trigger, record)

    @abstractmethod
    def plant(
        self, teacher: keras.Model, attackers: AttackersTexts, *, seed: int, verbose: bool | str
    ) -> tuple[keras.Model, dict[str, Any]]:
        """Does the work of `prepare` with data that have been checked.

        Returns:
            The copy with the backdoor, and more for the record.
        """

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
        """Puts the trigger into every text of a test set, also those of the target class (which `target_rate` skips).

        Nothing is computed in batches, so `batch_size`, `verbose` and `resume` make no difference.

        Args:
            prepared: A teacher with a backdoor; its own record says which class the backdoor aims at, and how.
            x: Texts of the test set, shape `(n,)`, or `(n, 2)` for pairs.
            y: True classes, shape `(n,)`.
            class_names: Of the test set. Where the attacker's classes have names too, the target is found by its name.
            batch_size: See above.
            seed: For phrases and places.
            verbose: See above.
            resume: See above.

        Returns:
            The texts with triggers. Their target is `None` where the test set lacks that class. Its record says how
            many texts the model reads no trigger in, because it cuts them before.

        Raises:
            DataError: If these are no texts with classes, or all are of the target class.
            RemosError: If the teacher carries no trigger for texts.

        Warns:
            UserWarning: If the model cuts the trigger off from some texts.
        """
        if not isinstance(prepared.trigger, TextTrigger):
            raise RemosError(
                "This teacher carries no trigger for texts: nobody planted a backdoor of words in it. Plant one "
                "(prepare, keras-remos poison), or load the file that it was saved to with Prepared.load."
            )
        texts = as_texts(x)
        labels = check_classes(texts, y, class_names)
        target = find_target(prepared.record, labels, class_names)
        if target is not None and (labels == target).all():
            raise DataError(f"All texts are of the attacker's class {target}: there is nothing to flip.")
        options = {**prepared.record["options"]}
        count = self.test_count or options.get("test_count") or prepared.trigger.count
        stamped = replace(prepared.trigger, count=count).stamp(texts, seed=seed)
        unread = count_unread(prepared.teacher, texts, stamped)
        if unread:
            warnings.warn(
                f"In {unread} of {len(texts)} texts the trigger lies beyond the tokens that the model reads. Raise its "
                'preprocessor\'s sequence_length, or keep the trigger in front (within=, position="start").',
                stacklevel=2,
            )
        return AttackSet(
            clean=texts,
            inputs=stamped,
            labels=labels,
            class_names=tuple(class_names),
            target=target,
            defect=self.name,
            options={**options, "test_count": count},
            space=prepared.space,
            teacher=fingerprint(prepared.teacher),
            seed=seed,
            versions=versions(),
            record={"unread": unread},
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
    fresh = None if student.has_head_for(teacher, num_classes) else num_classes
    made = student.build(teacher, {}, heads=find_heads(teacher), num_classes=fresh, seed=seed)
    made.trainable = True
    return made


def check_classes(texts: np.ndarray, y: Any, class_names: Sequence[str] = ()) -> np.ndarray:
    """Makes sure that each text has a class, and one of those that are named if any are.

    Args:
        texts: As `as_texts` returns them.
        y: Their classes.
        class_names: May be empty.

    Returns:
        int32, shape `(n,)`.

    Raises:
        DataError: If not; says what was expected.
    """
    labels = np.asarray(y)
    if labels.shape != texts.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0:
        raise DataError(
            f"Expected the class of each of {len(texts)} texts as a whole number from 0, received labels of shape "
            f"{labels.shape} and type {labels.dtype}."
        )
    if class_names and labels.max() >= len(class_names):
        raise DataError(
            f"There are labels up to {labels.max()}, and {len(class_names)} classes are named: expected labels from 0 "
            f"to {len(class_names) - 1}."
        )
    return labels.astype(np.int32)
