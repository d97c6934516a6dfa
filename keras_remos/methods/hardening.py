"""`Hardening`: a share of every training batch is malicious twins of its own images, with the right labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import keras
import numpy as np

from keras_remos.data import PixelSpace, TrainingData
from keras_remos.data.pixels import PREPROCESSOR
from keras_remos.data.twins import Twins
from keras_remos.defects import DEFECTS
from keras_remos.defects.adversarial.displacement import DisplacementAttack
from keras_remos.defects.adversarial.penultimate import ANY, PenultimateAttack
from keras_remos.defects.adversarial.projected import Ascent, ProjectedAttack, check_attackable
from keras_remos.defects.adversarial.transfer import TransferPGD
from keras_remos.errors import DataError, RemosError
from keras_remos.progress import track
from keras_remos.training.recipe import Recipe
from keras_remos.training.task import Task
from keras_remos.training.trainer import Trainer, Training
from keras_remos.untrusted import PathLike, room_for

# What is drawn for twins is not what an attack with the same seed draws.
SEED = 7_919
# What is fine-tuned for twins to be made from: the name of its training and of its checkpoint.
COPY = "copy"
# How many pixel values are attacked at a time.
MOST_AT_A_TIME = 2**22
# Twins go further than the attacks that are expected, 5.7 levels, as their pixels are rounded towards the clean ones
# and they take few steps: 8 levels left half as much to unseen attacks as 5.7 did.
_SHORT: dict[str, Any] = {"epsilon": 8, "steps": 4, "step_size": 3.5}


def default_attacks() -> tuple[ProjectedAttack, ...]:
    """Attacks that need the teacher alone: displaced features, and peaks of any of the last ones."""
    return DisplacementAttack(**_SHORT), PenultimateAttack(neuron=ANY, **_SHORT)


def default_of_control() -> tuple[ProjectedAttack, ...]:
    """An attack on a classifier that was fine-tuned from the teacher, as an attacker with data has one."""
    return (TransferPGD(**_SHORT),)


@dataclass(frozen=True, kw_only=True)
class Hardening:
    """Trains on malicious twins beside clean images, so that what works on the teacher stops working on the student.

    Twins are made once, before training, from the student's own training images, the teacher, and a copy of it that is
    fine-tuned on these images: nothing is known of the attacks that will come, and no step is added. A share of each
    batch gives way to them; labels stay.

    Args:
        share: Of each batch, at least 0 and less than 1. 0 is training without hardening, bit for bit.
        attacks: What twins are made by, from the teacher. `default_attacks` by default.
        of_control: Attacks on a classifier of the task, as TransferPGD: more twins are made by them from a copy of the
            teacher that is fine-tuned for this, which costs a training more. By default by `default_of_control`, unless
            `attacks` are named or the budget of a call does not pay for it; `()` makes none. Each sample is dealt one
            of all attacks at random.

    Raises:
        RemosError: If an option is out of range.

    Example:
    ```python
    found = open_for_model(teacher, "dogs")
    trained = train("remos", teacher, found.dataset, harden=True, space=found.space)
    ```

    Reference:
        C. Sitawarin et al., PubDef: Defending Against Transfer Attacks From Public Models, ICLR 2024. F. Tramer et al.,
        Ensemble Adversarial Training, ICLR 2018.

    Note:
        PubDef trains against attacks on the outputs of several public models of the task. Here there is one, the
        teacher, whose outputs are of another task, so that its features are attacked; and a copy, which has the
        student's task. What settles a student (`tune_recipe`, `tune_keep_ratio`) trains on twins of the teacher alone.
    """

    share: float = 0.5
    attacks: Sequence[ProjectedAttack] | None = None
    of_control: Sequence[ProjectedAttack] | None = None
    # Twins that were made: they are the same in all trainings that settle one student (see `for_one_student`).
    _made: dict[Any, Twins] | None = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise RemosError(f"`share` must be at least 0 and less than 1, received {self.share!r}.")
        if not self.made_by or not all(_is_small(attack) and not attack.of_task for attack in self.made_by):
            raise RemosError(
                "`attacks` must be small changes of images that the teacher alone is needed for, as DisplacementAttack "
                f"and PenultimateAttack, received {self.attacks!r}."
            )
        if not all(_is_small(attack) and attack.of_task for attack in self.made_of_control):
            raise RemosError(
                f"`of_control` must be attacks on a classifier of the task, as TransferPGD, received "
                f"{self.of_control!r}."
            )

    @property
    def made_by(self) -> tuple[ProjectedAttack, ...]:
        """The attacks that twins are made by."""
        return default_attacks() if self.attacks is None else tuple(self.attacks)

    @property
    def made_of_control(self) -> tuple[ProjectedAttack, ...]:
        """The attacks that twins are made by from a control."""
        if self.of_control is None:
            return default_of_control() if self.attacks is None else ()
        return tuple(self.of_control)

    @property
    def controls(self) -> int:
        """How many classifiers are trained for twins to be made from."""
        return int(bool(self.made_of_control))

    def within(self, budget: float | None) -> Self:
        """The same hardening, without twins of a control where they were not asked for and are not paid for.

        Args:
            budget: How many trainings a student may cost, its own included; `None`: what it takes.
        """
        is_too_small = budget is not None and budget < 1 + self.controls
        return self.by_teacher() if self.of_control is None and is_too_small else self

    @property
    def passes(self) -> float:
        """How many gradient steps are made for each sample. Each takes at most about as long as a step of training."""
        attacks = [*self.made_by, *self.made_of_control]
        return sum(attack.steps for attack in attacks) / len(attacks)

    def get_config(self) -> dict[str, Any]:
        """What decides the result, as plain values for JSON."""
        of_control = {"of_control": _described(self.made_of_control)} if self.controls else {}
        return {"share": self.share, "attacks": _described(self.made_by), **of_control}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The hardening that `get_config` described."""
        kinds = {name: _configured(config.get(name, ())) for name in ("attacks", "of_control")}
        return cls(share=config["share"], **kinds)

    def for_one_student(self) -> Self:
        """The same hardening, which makes twins once for all trainings of one student: of its data, and of a part."""
        return self if self._made is not None else self._sharing({})

    @property
    def is_shared(self) -> bool:
        """Whether several trainings share its twins. Whoever has them do so says what they take."""
        return self._made is not None

    def by_teacher(self) -> Self:
        """The same hardening without twins of the control, which is trained for the student alone and for no trial."""
        return self._sharing(self._made, of_control=())

    def _sharing(self, made: dict[Any, Twins] | None, **changes: Any) -> Self:
        ours = replace(self, **changes)
        # A frozen class is written to only in this way.
        object.__setattr__(ours, "_made", made)
        return ours

    def unfit(self, task: Task, space: PixelSpace | None) -> RemosError | None:
        """Why a task's students cannot be hardened; `None` if they can.

        Args:
            task: The task.
            space: How inputs come from pixels.
        """
        if not isinstance(task.data, TrainingData):
            return DataError(
                f"Hardening needs training images by their numbers: arrays (x, y), or a Dataset. Received: a "
                f"{type(task.data).__name__}. Read the data into arrays, or pass `harden=False`."
            )
        if not is_of_images(task):
            return DataError("Hardening is for images: the inputs of these data are none. Pass `harden=False`.")
        if space is None:
            return RemosError(
                "How do inputs come from pixels? Hardening changes pixels: pass `space=PixelSpace(...)`, which "
                "open_for_model(...).space knows."
            )
        if space.scaling == PREPROCESSOR:
            return RemosError(
                "Hardening changes pixels, and the teacher scales images by a preprocessor of its own, through which "
                "no gradient comes. Pass `harden=False`."
            )
        try:
            check_attackable(task.teacher, space)
        except RemosError as error:
            return error
        return None

    def apply(
        self,
        task: Task,
        space: PixelSpace | None,
        *,
        recipe: Recipe | None = None,
        checkpoint: PathLike | None = None,
        verbose: bool | str = "auto",
    ) -> None:
        """Makes the twins of a task's training images, and has it train on them.

        Args:
            task: Its `data` are replaced.
            space: How inputs come from pixels.
            recipe: By which the copy is trained that twins are made from; the task's by default.
            checkpoint: A folder in which the training of that copy is kept.
            verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.

        Raises:
            DataError: If the data are no images in an order that is known.
            RemosError: If it is not known how inputs come from pixels.
            TeacherError: If no gradient reaches the teacher's inputs.
        """
        if self.share == 0:
            return
        reason = self.unfit(task, space)
        if reason is not None:
            raise reason
        assert space is not None, "that would be a reason"
        recipe = recipe or task.recipe
        key = task.data.labels.tobytes(), recipe if self.controls else None
        made = {} if self._made is None else self._made
        if key not in made:
            trainer = Trainer(task, COPY, checkpoint=checkpoint, verbose=verbose)
            made[key] = self._twins(trainer, task.data, space, recipe)
        task.data = task.data.with_twins(made[key])

    def _twins(self, trainer: Trainer, data: TrainingData, space: PixelSpace, recipe: Recipe) -> Twins:
        task = trainer.task
        # Of large images fewer at a time than are trained on: a step of an attack keeps a dozen copies of them.
        size = min(task.recipe.batch_size, max(MOST_AT_A_TIME // math.prod(task.example.shape[1:]), 1))
        levels = room_for((data.num_samples, *task.example.shape[1:]), np.uint8)
        present = np.zeros(data.num_samples, bool)
        example = _pixels(np.repeat(task.example[:1], size, axis=0), space)
        order = np.random.default_rng([task.seed, SEED]).permutation(data.num_samples)
        attacked = [(attack, task.teacher) for attack in self.made_by]
        if self.controls:
            copy = _copy(trainer, recipe)
            attacked += [(attack, copy) for attack in self.made_of_control]
        for (attack, model), dealt in zip(attacked, np.array_split(order, len(attacked)), strict=True):
            ascent = Ascent(attack, model, space, example, seed=task.seed + SEED)
            pieces = range(0, len(dealt), size)
            how: dict[str, Any] = {"description": f"Twins ({attack.name})", "verbose": trainer.verbose}
            with track(pieces, total=len(pieces), **how) as tracked:
                for start in tracked:
                    rows, x = data.read(np.sort(dealt[start : start + size]))
                    if not len(rows):
                        continue
                    pixels = _pixels(x, space)
                    # The teacher knows none of the classes: only attacks on the control read them.
                    moved = ascent.batch(pixels, data.labels[rows].astype(np.int32), rows)
                    levels[rows] = space.to_levels(moved, near=pixels, within=attack.epsilon)
                    present[rows] = True
        return Twins(levels, present, space, self.share)


def is_of_images(task: Task) -> bool:
    """Whether a task's inputs are images, by their shape."""
    return isinstance(task.example, np.ndarray) and task.example.ndim == 4


def _is_small(attack: Any) -> bool:
    return isinstance(attack, ProjectedAttack)


def _copy(trainer: Trainer, recipe: Recipe) -> keras.Model:
    """A copy of the teacher, fine-tuned."""
    copy = trainer.task.copy()
    trainer.fit(Training(copy), stage=COPY, recipe=recipe)
    return copy


def _described(attacks: Sequence[ProjectedAttack]) -> list[dict[str, Any]]:
    return [{"defect": attack.name, **attack.get_config()} for attack in attacks]


def _configured(attacks: Sequence[Mapping[str, Any]]) -> tuple[Any, ...]:
    made = []
    for config in attacks:
        kind = DEFECTS[config["defect"]]
        known = kind.option_names()
        options = {name: value for name, value in config.items() if name in known}
        if isinstance(options.get("recipe"), dict):
            options["recipe"] = Recipe.from_config(options["recipe"])
        made.append(kind(**options))
    return tuple(made)


def _pixels(x: np.ndarray, space: PixelSpace) -> np.ndarray:
    """The pixels that inputs come from; scaling back and forth may have left their range by a rounding."""
    return np.clip(space.unscale(x), space.low, space.high)
