"""`Hardening`: a share of every training batch is malicious twins of its own images, with the right labels."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_remos.data import PixelSpace, TrainingData
from keras_remos.data.twins import Twins
from keras_remos.defects.adversarial.displacement import DisplacementAttack
from keras_remos.defects.adversarial.penultimate import ANY, PenultimateAttack
from keras_remos.defects.adversarial.projected import Ascent, ProjectedAttack, check_attackable
from keras_remos.errors import DataError, FileError, RemosError
from keras_remos.progress import track
from keras_remos.training.task import Task

# Of twins in memory, in bytes; what is larger is kept in a file.
MOST_IN_MEMORY = 2**30
# What is drawn for twins is not what an attack with the same seed draws.
SEED = 7_919


def default_attacks() -> tuple[ProjectedAttack, ...]:
    """Attacks that need the teacher alone: displaced features, and peaks of any of the last ones."""
    short: dict[str, Any] = {"steps": 4, "step_size": 2.5}
    return DisplacementAttack(**short), PenultimateAttack(neuron=ANY, **short)


@dataclass(frozen=True, kw_only=True)
class Hardening:
    """Trains on malicious twins beside clean images, so that what works on the teacher stops working on the student.

    Twins are made once, before training, from the teacher and the student's own training images: nothing is known of
    the attacks that will come, and no step is added. A share of each batch gives way to them; labels stay.

    Args:
        share: Of each batch, at least 0 and less than 1. 0 is training without hardening, bit for bit.
        attacks: What twins are made by; each sample is dealt one of them at random. `default_attacks` by default.

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
        teacher, whose outputs are of another task, so that its features are attacked.
    """

    share: float = 0.5
    attacks: Sequence[ProjectedAttack] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise RemosError(f"`share` must be at least 0 and less than 1, received {self.share!r}.")
        if not self.made_by or not all(isinstance(attack, ProjectedAttack) for attack in self.made_by):
            raise RemosError(
                "`attacks` must be small changes of images that the teacher alone is needed for, as DisplacementAttack "
                f"and PenultimateAttack, received {self.attacks!r}."
            )

    @property
    def made_by(self) -> tuple[ProjectedAttack, ...]:
        """The attacks that twins are made by."""
        return default_attacks() if self.attacks is None else tuple(self.attacks)

    def get_config(self) -> dict[str, Any]:
        """What decides the result, as plain values for JSON."""
        attacks = [{"defect": attack.name, **attack.get_config()} for attack in self.made_by]
        return {"share": self.share, "attacks": attacks}

    def apply(self, task: Task, space: PixelSpace | None, *, verbose: bool | str = "auto") -> None:
        """Makes the twins of a task's training images, and has it train on them.

        Args:
            task: Its `data` are replaced.
            space: How inputs come from pixels.
            verbose: Progress on stderr: `True`, `False`, or `"auto"` for a terminal only.

        Raises:
            DataError: If the data are no images in an order that is known.
            RemosError: If it is not known how inputs come from pixels.
            TeacherError: If no gradient reaches the teacher's inputs.
        """
        if self.share == 0:
            return
        if not isinstance(task.data, TrainingData):
            raise DataError(
                f"Hardening needs training images by their numbers: arrays (x, y), or a Dataset. Received: a "
                f"{type(task.data).__name__}. Leave `harden` out, or read the data into arrays."
            )
        if not isinstance(task.example, np.ndarray) or task.example.ndim != 4:
            raise DataError("Hardening is for images: the inputs of these data are none. Leave `harden` out.")
        if space is None:
            raise RemosError(
                "How do inputs come from pixels? Hardening changes pixels: pass `space=PixelSpace(...)`, which "
                "open_for_model(...).space knows."
            )
        check_attackable(task.teacher, space)
        task.data = task.data.with_twins(self._twins(task, task.data, space, verbose))

    def _twins(self, task: Task, data: TrainingData, space: PixelSpace, verbose: bool | str) -> Twins:
        size = task.recipe.batch_size
        levels, present = _room_for((data.num_samples, *task.example.shape[1:])), np.zeros(data.num_samples, bool)
        example = _pixels(np.repeat(task.example[:1], size, axis=0), space)
        order = np.random.default_rng([task.seed, SEED]).permutation(data.num_samples)
        for attack, dealt in zip(self.made_by, np.array_split(order, len(self.made_by)), strict=True):
            ascent = Ascent(attack, task.teacher, space, example, seed=task.seed + SEED)
            pieces = range(0, len(dealt), size)
            for start in track(pieces, total=len(pieces), description=f"Twins ({attack.name})", verbose=verbose):
                rows, x = data.read(np.sort(dealt[start : start + size]))
                if not len(rows):
                    continue
                pixels = _pixels(x, space)
                # Twins know no class: an attack on a task's classes needs a model of them.
                moved = ascent.batch(pixels, np.zeros(len(rows), np.int32), rows)
                levels[rows] = space.to_levels(moved, near=pixels, within=attack.epsilon)
                present[rows] = True
        return Twins(levels, present, space, self.share)


def _pixels(x: np.ndarray, space: PixelSpace) -> np.ndarray:
    """The pixels that inputs come from; scaling back and forth may have left their range by a rounding."""
    return np.clip(space.unscale(x), space.low, space.high)


def _room_for(shape: tuple[int, ...]) -> np.ndarray:
    if np.prod(shape, dtype=np.int64) <= MOST_IN_MEMORY:
        return np.zeros(shape, np.uint8)
    # The file goes when nothing refers to the array any more.
    with tempfile.TemporaryFile() as file:
        if hasattr(os, "posix_fallocate"):
            # All of it now: a disk that fills while an array is written to kills the process.
            try:
                os.posix_fallocate(file.fileno(), 0, math.prod(shape))
            except OSError as error:
                size, folder = math.prod(shape) / 1e9, tempfile.gettempdir()
                raise FileError(
                    f"Twins of all images take {size:.1f} GB in {folder}, which cannot be had ({error.strerror}). Make "
                    "room, or name another folder by TMPDIR."
                ) from error
        return np.memmap(file, np.uint8, "w+", shape=shape)
