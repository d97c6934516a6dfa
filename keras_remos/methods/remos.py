"""ReMoS: the student starts from the part of the teacher that its task needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import keras

from keras_remos.data.parts import set_aside
from keras_remos.errors import RemosError
from keras_remos.methods.finetune import FineTune
from keras_remos.methods.keep_ratio import RATIOS, KeepRatio, search
from keras_remos.methods.method import FromTeacher, Method
from keras_remos.methods.plan import Plan
from keras_remos.methods.tuning import VALIDATION_SHARE, hardening_of_trials
from keras_remos.slicing.presets import find_preset
from keras_remos.slicing.relevant_slice import RelevantSlice
from keras_remos.slicing.scores import check_keep_ratio
from keras_remos.slicing.slicer import RelevantSlicer
from keras_remos.training.recipe import AUTO, Recipe
from keras_remos.training.task import Task
from keras_remos.training.trainer import Trainer, Training


@dataclass(frozen=True, kw_only=True)
class Remos(FromTeacher):
    """Slices the teacher by what the training data activate in it, and trains what is left.

    The training data are read once more, without augmentation, to be profiled.

    Args:
        preset: How the slice is chosen: see `RelevantSlicer`.
        keep_ratio: The share of weights that is kept, in (0, 1]; `"auto"` searches for the smallest one that costs no
            accuracy (see `tune_keep_ratio`). `None` does so too where the learning rate is left open as well, and else
            takes the preset's.
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
    keep_ratio: float | Literal["auto"] | None = None
    relevant: RelevantSlice | None = None
    freeze: bool = False

    name: ClassVar[str] = "remos"
    hardens: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.relevant is not None and not isinstance(self.relevant, RelevantSlice):
            raise RemosError(f"`relevant` must be a RelevantSlice, received {type(self.relevant).__name__}.")

        if isinstance(self.keep_ratio, str) and (self.keep_ratio != AUTO or self.relevant is not None):
            raise RemosError(
                f"`keep_ratio` must be a share, or {AUTO!r} where no slice is given, received {self.keep_ratio!r}."
            )

    @property
    def is_open(self) -> bool:
        return self.keep_ratio == AUTO

    def open_shares(self, recipe: Recipe) -> int:
        unsaid = self.keep_ratio is None and self.relevant is None and recipe.is_open
        return len(RATIOS) if self.is_open or unsaid else 0

    def decide(
        self, teacher: keras.Model, train: Any, validation: Any, *, recipe: Recipe, plan: Plan, **options: Any
    ) -> tuple[Method, Recipe, dict[str, Any]]:
        # The rate is tuned at the preset's share: both at once would cost as many trainings as there are pairs.
        method = replace(self, keep_ratio=None) if self.is_open else self
        _, recipe, record = Method.decide(method, teacher, train, validation, recipe=recipe, plan=plan, **options)
        if not plan.share:
            return method, recipe, record
        found = tune_keep_ratio(
            teacher, train, validation, preset=self.preset, recipe=recipe, budget=plan.share, **options
        )
        return replace(self, keep_ratio=found.keep_ratio), recipe, {**record, "keep_ratio": found.describe()}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        chosen = record["slice"]
        # The layers that were filtered, and what slices were combined of, are on no record.
        if set(chosen) != {"preset", "keep_ratio"}:
            raise RemosError("it was started from a slice that was given to it, which other data do not make again")
        find_preset(chosen["preset"], language=False)
        check_keep_ratio(chosen["keep_ratio"])
        own = {name: record[name] for name in ("freeze", "keep_head") if name in record}
        return cls(preset=chosen["preset"], keep_ratio=chosen["keep_ratio"], **own)

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
        # It follows from what a checkpoint compares, and is not compared itself.
        trainer.put_on_record(kept=relevant.kept_by_layer())
        return student

    def _slicer(self, teacher: keras.Model, head: str | None = None) -> RelevantSlicer:
        if isinstance(self.keep_ratio, str):
            raise RemosError("A share is searched for by `train`; here one is needed.")
        return RelevantSlicer(teacher, preset=self.preset, keep_ratio=self.keep_ratio, head=head)


def tune_keep_ratio(
    teacher: keras.Model,
    train: Any,
    validation: Any = None,
    *,
    preset: str = "recommended",
    ratios: Sequence[float] = RATIOS,
    recipe: Recipe | None = None,
    budget: float = 4.0,
    tolerance: float = 0.01,
    seed: int = 0,
    verbose: bool | str = "auto",
    **options: Any,
) -> KeepRatio:
    """Finds how little of a teacher a student can be started from without losing accuracy.

    Nested slices of one ranking are trained for as long as the budget allows, and so is a fine-tuned student. The
    smallest slice is taken that loses no more than one standard error, and no more than the tolerance. A share whose
    training diverges is out. It knows of no attack.

    Args:
        teacher: See `Method.train`.
        train: What students learn from: arrays `(x, y)` or a `Dataset`; with `validation` whatever else `fit` takes.
        validation: What accuracy is measured on. By default a fifth of every class of `train`, which is then not
            trained on.
        preset: How the slices are chosen: see `RelevantSlicer`.
        ratios: The shares that are tried, in (0, 1].
        recipe: How students are trained: the one that will train the student, tuned before.
        budget: How many trainings of `recipe` it may cost. With less than one for each, all are trained for less long;
            where whole epochs are few, fewer shares are tried, spread over the list.
        tolerance: The accuracy that a slice may cost at most, from 0.
        seed: Of every training, and of what is set aside.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.
        **options: More for `Method.train`: `num_classes`, `head`, `harden`, `space`.

    Returns:
        The share, and all that was tried.

    Raises:
        RemosError: If an option is out of range, the budget does not pay for two trainings of an epoch, or training
            diverges.
        DataError: If there are no validation data and none can be set aside.

    Warns:
        UserWarning: If there are too few validation samples to tell the tolerance; says how many would do.

    Example:
    ```python
    found = tune_keep_ratio(teacher, (x, y), recipe=tuning.recipe)
    print(found.summary())
    student = RelevantSlicer(teacher, keep_ratio=found.keep_ratio).apply((x, y), num_classes=10)
    ```

    Reference:
        The rule of one standard error: L. Breiman et al., Classification and Regression Trees, 1984, section 3.4.3.

    Note:
        The fine-tuned student is hardened as the slices are, and trained by the same recipe: in `train` at the rate
        that was tuned for ReMoS. An audit's control is tuned on its own and not hardened. Hardening costs accuracy by
        itself, though: compared with that, it would use up the tolerance, and nothing would ever be cut.
    """
    ratios = sorted({float(ratio) for ratio in ratios}, reverse=True)
    if not ratios or not budget > 0 or not tolerance >= 0:
        raise RemosError(
            "`ratios` must be one or more shares, `budget` above 0 and `tolerance` at least 0, received "
            f"{list(ratios)}, {budget!r} and {tolerance!r}."
        )
    for ratio in ratios:
        check_keep_ratio(ratio)
    if validation is None:
        train, validation = set_aside(train, VALIDATION_SHARE, seed=seed)
    of_task = {name: options[name] for name in ("num_classes", "head") if name in options}
    task = Task(teacher, train, recipe=recipe, seed=seed, **of_task)
    slicer = RelevantSlicer(teacher, preset=preset, head=task.head)
    slices = slicer.sweep(slicer.profile(task.plain_data(), verbose=verbose), keep_ratios=ratios)
    options["harden"] = hardening_of_trials(Remos(), teacher, train, recipe=task.recipe, seed=seed, **options)
    return search(
        FineTune(),
        {ratio: Remos(relevant=relevant) for ratio, relevant in slices.items()},
        teacher,
        train,
        validation,
        recipe=task.recipe,
        budget=budget,
        tolerance=tolerance,
        seed=seed,
        verbose=verbose,
        **options,
    )
