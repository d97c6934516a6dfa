"""Projected gradient ascent in pixels: the engine of every attack that changes each image a little."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_remos.data import Fingerprint
from keras_remos.data.pixels import LEVELS, PixelSpace
from keras_remos.defects.attack_set import AttackSet
from keras_remos.defects.base import Defect, Preparation, Request
from keras_remos.defects.prepared import Prepared
from keras_remos.defects.resuming import Partial
from keras_remos.defects.samples import check_samples
from keras_remos.errors import RemosError, TeacherError
from keras_remos.models import gradients
from keras_remos.models.fingerprint import fingerprint
from keras_remos.models.kernels import Tensor
from keras_remos.models.layers import is_built, symbolic_inputs
from keras_remos.progress import track

# The paper's step is 0.01 where epsilon is 0.1.
STEPS_PER_EPSILON = 10
# A generator of its own for each sample and purpose: neither the batch size nor an interruption changes what is drawn.
START, STEPS = 0, 1
# What scores are multiplied by, so that their gradients are not rounded to 0 in half precision: the largest factor that
# float16 holds, and each smaller one until they do not overflow either. A power of 2 changes no other digit.
LARGEST_SCALE, SMALLEST_SCALE, SCALE_STEP = 2.0**15, 2.0**-9, 2.0**-4
# Of the samples, where none has a gradient: more are no accident.
FEW = 0.03


class Objective(ABC):
    """What an attack raises, step by step, for each sample by itself."""

    def begin(self, labels: np.ndarray, rows: np.ndarray, seed: int) -> Any:
        """Starts with a batch.

        Args:
            labels: The samples' classes, shape `(batch,)`, int32.
            rows: Which samples of the test set they are.
            seed: The attack's seed.

        Returns:
            The state before the first step: a structure of arrays, each with the batch in front. It stays on the
            device.
        """
        return ()

    def draw(self, step: int) -> Any:
        """What a step needs from the computer: a structure of arrays, of the same shapes at every step."""
        return ()

    @abstractmethod
    def __call__(self, inputs: Tensor, state: Any, drawn: Any) -> tuple[Tensor, Any]:
        """Scores a batch; is compiled, together with its gradient.

        Args:
            inputs: What the model takes, `(batch, ...)`.
            state: What the step before left.
            drawn: What `draw` returned.

        Returns:
            A score for each sample, `(batch,)`, to be raised; and the state that the next step gets.
        """


@dataclass(frozen=True, kw_only=True)
class ProjectedAttack(Defect):
    """Signed gradient steps, each followed by a projection onto the epsilon ball and onto the range of pixels (L-inf).

    Args:
        epsilon: How much a pixel may change, in levels of 255 whatever the range of the pixels: 5.7 is 5.7/255 of it.
        steps: How many steps. The last one's result counts.
        step_size: In levels of 255; `None` is a tenth of epsilon, as in the paper.
        random_start: Start at a uniformly random point of the ball instead of at the image.
        head: The path of the teacher's head, where it is not found.

    Raises:
        RemosError: If an option is out of range.

    Note:
        `inputs` counts the samples that no step moves, as the model's gradient vanishes for them, in the set's record:
        `unchanged`. If they are more than a few percent it warns, since students would look robust against them.
    """

    epsilon: float = 5.7
    steps: int = 40
    step_size: float | None = None
    random_start: bool = True
    head: str | None = None

    targeted: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= LEVELS:
            raise RemosError(
                f"`epsilon` is in levels of 255, above 0 and up to 255, received {self.epsilon!r}. 8 means that a "
                "pixel may change by 8/255 of its range."
            )
        if self.step_size is not None and not 0 < self.step_size <= 2 * LEVELS:
            raise RemosError(f"`step_size` is in levels of 255, above 0, received {self.step_size!r}.")
        if not isinstance(self.steps, int) or self.steps < 1:
            raise RemosError(f"`steps` must be a whole number of at least 1, received {self.steps!r}.")

    @property
    def target_class(self) -> int | None:
        """The class that the attacker wants, `None` for any wrong one."""
        return None

    @abstractmethod
    def objective(self, model: keras.Model, example: np.ndarray) -> Objective:
        """What to raise.

        Args:
            model: The model to attack.
            example: A batch of its inputs.
        """

    def make_prepared(self, teacher: keras.Model, how: Preparation) -> Prepared:
        """Checks that the teacher can be attacked. It is not changed, and no data are needed."""
        check_attackable(teacher, how.space)
        return Prepared(teacher, how.space, record=self.record(teacher, seed=how.seed))

    def make_inputs(self, prepared: Prepared, request: Request) -> AttackSet:
        model, space, seed = prepared.teacher, prepared.space, request.seed
        x, y = np.asarray(request.x), np.asarray(request.y)
        check_attackable(model, space)
        check_samples(model, space, x, y, request.class_names)
        data = Fingerprint()
        data.update([x, y])
        whole = {"defect": self.name, "options": self.get_config(), "space": space.get_config(), "seed": seed}
        whole |= {"model": [list(mark) for mark in fingerprint(model)], "data": data.hexdigest()}
        labels = y.astype(np.int32)
        partial = Partial(request.resume, whole, x.shape)
        ascent = Ascent(self, model, space, x[: request.batch_size], seed=seed)
        ascent.run(x, labels, partial, verbose=request.verbose)
        unchanged = ascent.count_unchanged(x, partial.rows)
        if unchanged > FEW * len(x):
            warnings.warn(
                f"{self.name} could not change {unchanged:,} of {len(x):,} inputs: what it raises has no gradient in "
                f"{model.name!r} there, and every student will look robust against them. Where half precision or "
                "outputs of exactly 0 and 1 round it away, attack a float32 copy of the model without its softmax.",
                stacklevel=3,
            )
        result = self.attack_set(
            request,
            x,
            partial.rows,
            labels,
            space=space,
            teacher=prepared.source,
            target=self.target_class,
            record={"unchanged": unchanged},
        )
        partial.remove()
        return result

    def bounds(self, x: np.ndarray, space: PixelSpace) -> tuple[np.ndarray, np.ndarray]:
        """How far each pixel may go.

        Args:
            x: Pixels, float32.
            space: Their range.

        Returns:
            The least and the greatest value of each, float32. Rounded inwards: what lies between them is in the
            epsilon ball and in the range exactly, not to within rounding.
        """
        pixels, epsilon = x.astype(np.float64), space.epsilon(self.epsilon)
        lower = np.maximum(pixels - epsilon, space.low)
        upper = np.minimum(pixels + epsilon, space.high)
        low, high = lower.astype(np.float32), upper.astype(np.float32)
        low = np.where(low < lower, np.nextafter(low, np.float32(np.inf)), low)
        return low, np.where(high > upper, np.nextafter(high, np.float32(-np.inf)), high)


class Ascent:
    """Runs an attack over samples, batch after batch, with one compiled step.

    Args:
        attack: The attack.
        model: The model to attack.
        space: How its inputs come from pixels.
        example: A batch of pixels, of the size that all batches have.
        seed: For everything that is drawn.
    """

    def __init__(
        self, attack: ProjectedAttack, model: keras.Model, space: PixelSpace, example: np.ndarray, *, seed: int
    ) -> None:
        self.attack = attack
        self.space = space
        self.batch_size = len(example)
        self.seed = seed
        self._objective = attack.objective(model, space.scale(example))
        self._step = gradients.compiled(self._make_step(), model)

    def run(self, x: np.ndarray, y: np.ndarray, partial: Partial, *, verbose: bool | str = "auto") -> None:
        """Adds the rows that are missing to a partial result.

        Raises:
            RemosError: If the memory does not suffice.
        """
        starts = range(partial.done, len(x), self.batch_size)
        try:
            for start in track(starts, total=len(starts), description=self.attack.name, verbose=verbose):
                # The last batch is filled up with its last sample: every batch runs the same compiled program.
                rows = np.minimum(np.arange(start, start + self.batch_size), len(x) - 1)
                partial.add(self._batch(x[rows], y[rows], rows)[: len(x) - start])
        except BaseException as error:
            partial.write()
            if gradients.is_out_of_memory(error):
                raise _out_of_memory(self.batch_size, partial) from error
            raise

    def count_unchanged(self, x: np.ndarray, made: np.ndarray) -> int:
        """How many samples no step has moved from where they started."""
        count = 0
        for start in range(0, len(x), self.batch_size):
            rows = np.arange(start, min(start + self.batch_size, len(x)))
            clean = x[rows].astype(np.float32)
            begun = self._start(clean, *self.attack.bounds(clean, self.space), rows)
            count += int((made[rows] == begun).reshape(len(rows), -1).all(axis=1).sum())
        return count

    def _make_step(self) -> Callable[..., tuple[Tensor, Any, Tensor]]:
        size = self.attack.step_size or self.attack.epsilon / STEPS_PER_EPSILON
        distance = self.space.epsilon(size)

        def score(pixels: Tensor, state: Any, drawn: Any, scale: Tensor) -> tuple[Tensor, Any]:
            scores, state = self._objective(self.space.scale(pixels), state, drawn)
            # The sum: no sample's gradient depends on the others in its batch.
            return ops.sum(scores * scale), state

        def step(
            pixels: Tensor, lower: Tensor, upper: Tensor, state: Any, drawn: Any, scale: Tensor
        ) -> tuple[Tensor, Any, Tensor]:
            (_, state), gradient = gradients.differentiate(score, pixels, state, drawn, scale)
            fits = ops.all(ops.isfinite(gradient), axis=tuple(range(1, len(gradient.shape))), keepdims=True)
            moves = ops.where(fits, ops.sign(gradient), 0.0)
            return ops.clip(pixels + distance * moves, lower, upper), state, ops.reshape(fits, (-1,))

        return step

    def _batch(self, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
        clean = x.astype(np.float32)
        lower, upper = self.attack.bounds(clean, self.space)
        state = self._objective.begin(y, rows, self.seed)
        pixels: Any = self._start(clean, lower, upper, rows)
        lower, upper = ops.convert_to_tensor(lower), ops.convert_to_tensor(upper)
        # One for each sample, so that it does not matter which others are in the batch.
        scale = np.full(len(x), LARGEST_SCALE, np.float32)
        for number in range(self.attack.steps):
            drawn = self._objective.draw(number)
            while True:
                moved, after, fits = self._step(pixels, lower, upper, state, drawn, scale)
                too_large = ~np.asarray(ops.convert_to_numpy(fits)) & (scale > SMALLEST_SCALE)
                if not too_large.any():
                    break
                scale = np.where(too_large, scale * np.float32(SCALE_STEP), scale)
            pixels, state = moved, after
        return np.asarray(ops.convert_to_numpy(pixels))

    def _start(self, clean: np.ndarray, lower: np.ndarray, upper: np.ndarray, rows: np.ndarray) -> np.ndarray:
        if not self.attack.random_start:
            return np.clip(clean, lower, upper)
        epsilon = self.space.epsilon(self.attack.epsilon)
        noise = [np.random.default_rng((self.seed, row, START)).uniform(-1, 1, clean.shape[1:]) for row in rows]
        return np.clip(clean + epsilon * np.stack(noise).astype(np.float32), lower, upper)


def check_attackable(model: keras.Model, space: PixelSpace) -> None:
    """Makes sure that gradients reach a model's inputs.

    Raises:
        TeacherError: If it has not been built, or does not take one array of floats.
        RemosError: If its inputs are scaled by a preprocessor of its own.
    """
    if not is_built(model):
        raise TeacherError(f"Model {model.name!r} has not been built: call it once on a batch of images.")
    taken = symbolic_inputs(model)
    found = [] if taken is None else keras.tree.flatten(taken)
    if len(found) > 1 or any(not keras.backend.is_float_dtype(keras.backend.standardize_dtype(t.dtype)) for t in found):
        raise TeacherError(
            f"Model {model.name!r} takes {', '.join(f'{t.name} ({t.dtype})' for t in found)}: this attack changes the "
            "pixels of one image, and needs a model of one float input."
        )
    space.check_scales()


def _out_of_memory(batch_size: int, partial: Partial) -> RemosError:
    way_out = f"try `batch_size={batch_size // 2}`" if batch_size > 1 else "use smaller images or a larger device"
    kept = "" if partial.path is None else f" What is finished is in {partial.path}, and the next run goes on from it."
    return RemosError(f"The memory does not suffice for `batch_size={batch_size}`: {way_out}.{kept}")
