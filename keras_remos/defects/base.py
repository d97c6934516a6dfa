"""`Defect`: what an attacker does to or with a teacher, configured; all have one signature."""

from __future__ import annotations

import numbers
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Self

import keras
import numpy as np

from keras_remos.data.other_tasks import refuse_other_tasks
from keras_remos.data.pixels import LEVELS, PixelSpace
from keras_remos.data.samples import AnySamples, Levels, Samples, as_samples
from keras_remos.defects.attack_set import AttackSet
from keras_remos.defects.prepared import Prepared
from keras_remos.errors import RemosError
from keras_remos.models.fingerprint import WeightsFingerprint, fingerprint
from keras_remos.models.finite import layers_not_finite, say_not_finite
from keras_remos.models.loading import check_model
from keras_remos.saving import versions
from keras_remos.training.recipe import Recipe
from keras_remos.untrusted import PathLike, check_seed, pieces, room_for


@dataclass(frozen=True, eq=False)
class Preparation:
    """What an attacker has before a student is made. See `Defect.prepare`, which explains each.

    Raises:
        DataError: If the labels of the attacker's arrays are of another task.
    """

    data: Any
    space: PixelSpace
    num_classes: int | None
    seed: int
    verbose: bool | str

    def __post_init__(self) -> None:
        if isinstance(self.data, tuple) and len(self.data) > 1:
            refuse_other_tasks(self.data[1])


@dataclass(frozen=True, eq=False)
class Request:
    """The samples of a test set, and how they are to be attacked. See `Defect.inputs`, which explains each.

    Raises:
        DataError: If the labels are of another task.
        RemosError: If the batch size is no whole number from 1 up, or there is no such number of bits.
    """

    x: Any
    y: Any
    class_names: tuple[str, ...]
    batch_size: int
    seed: int
    verbose: bool | str
    resume: PathLike | None
    bits: int = 8

    def __post_init__(self) -> None:
        if self.bits not in (8, 32):
            raise RemosError(f"`bits` must be 8 or 32, received {self.bits!r}.")
        check_batch_size(self.batch_size)
        refuse_other_tasks(self.y)

    def rounds(self, clean: Samples) -> bool:
        """Whether the malicious versions of these images are to be rounded to levels of an image file."""
        return self.bits == 8 and clean.are_levels


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

    def each(self) -> tuple[Self, ...]:
        """The attacks that this one stands for: itself, unless an option has several values that are tried one by one.

        Each makes an attack set, so that every rate is out of as many samples as there are. What they are prepared with
        is the same for all.
        """
        return (self,)

    @property
    def copy_recipe(self) -> Recipe | None:
        """How `prepare` fine-tunes the attacker's own copy of the teacher, if it is `of_task`; `None` by default.

        Attacks with the same recipe make the same copy of the same data and seed: `inputs` of each takes the other's.
        """
        return None

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
            data: The attacker's own data `(x, y)`, x in pixels or texts, or a `Dataset` of such, where the defect needs
                some: to plant a backdoor, or for a copy of the teacher that is fine-tuned on the students' task.
            space: How the teacher's inputs come from pixels; `PixelSpace("preprocessor")` for texts.
            num_classes: How many classes the attacker's data have; counted from the labels if not given.
            seed: For everything that is drawn.
            verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.

        Returns:
            The teacher as the student's owner gets it, and what the attacker keeps.

        Raises:
            TeacherError: If the teacher cannot be attacked in this way: it is not built, takes something else than one
                image, or, for texts, is no KerasHub classifier that brings its preprocessor.
            StudentError: If it cannot be copied, or its head not be replaced.
            MismatchError: If its tokenizer knows more tokens than it does.
            DataError: If the attacker's data do not fit the teacher, are missing, or lack the target class.
            RemosError: If an option does not suit the teacher, there is no such seed, its inputs are scaled by a
                preprocessor of its own, or training diverges.
            ImportError: If a source of synonyms, or scikit-learn for embedding surgery, is not installed.

        Warns:
            UserWarning: If a tokenizer splits trigger words, does not know them, or may be another model's.
        """
        check_model(teacher)
        check_seed(seed)
        return self.make_prepared(teacher, Preparation(data, space, num_classes, seed, verbose))

    def inputs(
        self,
        prepared: Prepared,
        x: Any,
        y: Any,
        *,
        class_names: Sequence[str] = (),
        batch_size: int = 64,
        seed: int = 0,
        verbose: bool | str = "auto",
        resume: PathLike | None = None,
        bits: int = 8,
    ) -> AttackSet:
        """Makes the malicious version of each sample of a test set.

        Args:
            prepared: What `prepare` returned.
            x: Pixels of the test set, shape `(n, ...)`, as an array, or `Samples` of a data set that need not fit the
                memory (`MatchedDataset.samples`); texts as strings of shape `(n,)`, or `(n, 2)` for pairs.
            y: True classes, shape `(n,)`.
            class_names: Of the test set. Where the attacker's classes have names too, a target is found by its name.
            batch_size: Samples at a time: as many as the device's memory holds.
            seed: For everything that is drawn.
            verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.
            resume: A file for partial results. An interrupted call that is made again with the same file and options
                continues where it stopped, with the result of an unbroken one. The file is removed when the result is
                saved.
            bits: Of a pixel's value: 8 rounds the malicious images to the levels of an image file, as an attacker
                delivers one, each pixel to the nearest that is in the ball; 32 leaves them as they are. Clean images
                that are no such levels themselves are not rounded, nor is what is made of them.

        Returns:
            The malicious inputs, to be saved once and tried on every student. The target of a backdoor is `None` where
            the test set lacks that class, so that only `flip_rate` can be measured.

        Raises:
            DataError: If the samples do not fit the teacher, labels are missing, all texts are of the attacker's class,
                or the teacher knows fewer classes than they or the target.
            MismatchError: If the file to resume from is of another attack.
            RemosError: If the teacher carries no trigger, there is no such seed, the batch size is no whole number from
                1 up, or the memory does not suffice; says which batch size to try.

        Warns:
            UserWarning: If a model cuts the trigger off from some texts, or has NaN or infinite weights.
        """
        check_seed(seed)
        broken = layers_not_finite(prepared.teacher)
        if broken:
            warnings.warn(f"Model {prepared.teacher.name!r} has {say_not_finite(broken)}", stacklevel=2)
        return self.make_inputs(prepared, Request(x, y, tuple(class_names), batch_size, seed, verbose, resume, bits))

    @abstractmethod
    def make_prepared(self, teacher: keras.Model, how: Preparation) -> Prepared:
        """Does the work of `prepare`."""

    @abstractmethod
    def make_inputs(self, prepared: Prepared, request: Request) -> AttackSet:
        """Does the work of `inputs`."""

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

    def attack_set(
        self,
        request: Request,
        clean: AnySamples,
        inputs: AnySamples,
        labels: np.ndarray,
        *,
        space: PixelSpace,
        teacher: WeightsFingerprint,
        target: int | None = None,
        options: Mapping[str, Any] | None = None,
        **details: Any,
    ) -> AttackSet:
        """The result of `inputs`.

        Args:
            request: What it was asked for.
            clean: The samples, checked.
            inputs: The malicious version of each; an array of pixels is rounded, if the request says so, towards the
                clean ones: how far it may be from them is not known here.
            labels: Their classes, checked.
            space: How the teacher's inputs come from pixels.
            teacher: The fingerprint of the teacher that the students come from.
            target: The class that the attacker wants.
            options: The attack's options, if not those that are configured.
            **details: Other fields of the set.
        """
        how = {"defect": self.name, "options": self.get_config() if options is None else options, "seed": request.seed}
        clean = as_samples(clean, space)
        if isinstance(inputs, np.ndarray) and isinstance(clean, Samples) and request.rounds(clean):
            rows = room_for(clean.shape, np.uint8)
            for piece in pieces(clean):
                rows[piece] = space.to_levels(inputs[piece], near=clean[piece], within=LEVELS)
            inputs = Levels(rows, space)
        return AttackSet(
            clean=clean,
            inputs=inputs,
            labels=labels,
            class_names=request.class_names,
            target=target,
            space=space,
            teacher=teacher,
            **{**how, "versions": versions(), **details},
        )


def check_batch_size(batch_size: int) -> None:
    """Makes sure that samples can be taken so many at a time.

    Raises:
        RemosError: If they cannot.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, numbers.Integral) or batch_size < 1:
        raise RemosError(f"`batch_size` must be a whole number of at least 1, received {batch_size!r}.")
