"""ReMoS: the student starts from the part of the teacher that its task needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import keras

from keras_remos.errors import RemosError
from keras_remos.methods.method import FromTeacher
from keras_remos.slicing.relevant_slice import RelevantSlice
from keras_remos.slicing.slicer import RelevantSlicer
from keras_remos.training.task import Task
from keras_remos.training.trainer import Trainer, Training


@dataclass(frozen=True, kw_only=True)
class Remos(FromTeacher):
    """Slices the teacher by what the training data activate in it, and trains what is left.

    The training data are read once more, without augmentation, to be profiled.

    Args:
        preset: How the slice is chosen: see `RelevantSlicer`.
        keep_ratio: The share of weights that is kept, in (0, 1]; the preset's by default.
        relevant: A slice that was made before, with the same teacher. `preset` and `keep_ratio` are its own then.
        freeze: Keeps excluded weights at zero instead of training them from there.
        keep_head: The student starts with the teacher's head, the attacker's if there is one, instead of a fresh one.

    Raises:
        MismatchError: In training, if `relevant` is of another teacher.
        RemosError: In training, if there is no such preset or share.

    Reference:
        Zhang et al., ReMoS: Reducing Defect Inheritance in Transfer Learning via Relevant Model Slicing, ICSE 2022.
    """

    preset: str = "recommended"
    keep_ratio: float | None = None
    relevant: RelevantSlice | None = None
    freeze: bool = False

    name: ClassVar[str] = "remos"

    def __post_init__(self) -> None:
        if self.relevant is not None and not isinstance(self.relevant, RelevantSlice):
            raise RemosError(f"`relevant` must be a RelevantSlice, received {type(self.relevant).__name__}.")

    def get_config(self) -> dict[str, Any]:
        relevant = None if self.relevant is None else dict(self.relevant.options)
        own = {"preset": self.preset, "keep_ratio": self.keep_ratio, "relevant": relevant, "freeze": self.freeze}
        return {**own, "keep_head": self.keep_head}

    def on_record(self, teacher: keras.Model) -> dict[str, Any]:
        chosen: dict[str, Any] = {"preset": self.preset, "keep_ratio": self._slicer(teacher).settings.keep_ratio}
        if self.relevant is not None:
            chosen = dict(self.relevant.options)
        kept_head = {"keep_head": True} if self.keep_head else {}
        return {"slice": chosen, "freeze": self.freeze, **kept_head}

    def fit(self, task: Task, trainer: Trainer) -> keras.Model:
        relevant = self.relevant
        if relevant is None:
            slicer = self._slicer(task.teacher, task.head)
            relevant = slicer.slice(slicer.profile(task.plain_data(), verbose=trainer.verbose))
        relevant.check_teacher(task.teacher)
        student = task.masked(relevant.masks, freeze=self.freeze)
        trainer.fit(Training(student))
        return student

    def _slicer(self, teacher: keras.Model, head: str | None = None) -> RelevantSlicer:
        return RelevantSlicer(teacher, preset=self.preset, keep_ratio=self.keep_ratio, head=head)
