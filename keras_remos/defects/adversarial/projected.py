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
from keras_remos.data.samples import AnySamples, Levels, Pixels, Samples, as_samples
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
from keras_remos.untrusted import pieces

# The paper's step is 0.01 where epsilon is 0.1.
STEPS_PER_EPSILON = 10
# A generator of its own for each sample and purpose: neither the batch size nor an interruption changes what is drawn.
START, STEPS = 0, 1
# What scores are multiplied by, so that their gradients are not rounded to 0 in half precision: the largest factor that
# float16 holds, and each smaller one until they do not overflow either. A power of 2 changes no other digit.
LARGEST_SCALE, SMALLEST_SCALE, SCALE_STEP = 2.0**15, 2.0**-9, 2.0**-4
# Of the samples, where none has a gradient: more are no accident.
FEW = 0.03
# Bytes of pixels whose bounds are found at a time.
AT_ONCE = 2**20


class Objective(ABC):
    """What an attack raises, step by step, for each sample by itself."""

    def begin(self, inputs: np.ndarray, labels: np.ndarray, rows: np.ndarray, seed: int) -> Any:
        """Starts with a batch.

        Args:
            inputs: What the model takes for the clean samples, shape `(batch, ...)`.
            labels: The samples' classes, shape `(batch,)`, int32.
            rows: Which samples of the test set they are.
            seed: The attack's seed.

        Returns:
            The state before the first step: a structure of arrays, each with the batch in front. It stays on the
            device.
        """
        return ()

    def draw(self, step: int | None) -> Any:
        """What a step needs from the computer: a structure of arrays, of the same shapes at every step.

        Args:
            step: Its number; `None` where a result is to be judged, and nothing should be left to chance.
        """
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

    @property
    def memory(self) -> float:
        """How much of a step's gradient counts in the next: 0 but for attacks with momentum."""
        return 0.0

    @property
    def starts(self) -> int:
        """From how many random starts each sample is attacked. The result with the highest score counts."""
        return 1

    @property
    def size(self) -> float:
        """Of a step, in levels of 255."""
        return self.step_size or self.epsilon / STEPS_PER_EPSILON

    @property
    def reach(self) -> float:
        """How far a pixel can get from where it was, in levels of 255."""
        return self.epsilon if self.random_start else min(self.epsilon, self.steps * self.size)

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
        x, y = as_samples(request.x, space), np.asarray(request.y)
        check_attackable(model, space)
        check_samples(model, space, x, y, request.class_names)
        assert isinstance(x, Samples), "texts are no pixels"
        kept = np.uint8 if request.rounds(x) else np.float32
        if kept is np.uint8 and min(self.epsilon, 2 * self.reach) < 1:
            raise RemosError(
                f"These steps change a pixel by up to {self.reach:g} levels, and images of 8 bits know whole ones. "
                "Take larger or more `steps`, or leave the images as they are (`bits=32`)."
            )
        whole = {"defect": self.name, "options": self.get_config(), "space": space.get_config(), "seed": seed}
        whole |= {"model": [list(mark) for mark in fingerprint(model)], "bits": 8 * np.dtype(kept).itemsize}
        whole["data"] = f"{x.content}{Fingerprint.of(y)}"
        labels = y.astype(np.int32)
        partial = Partial(request.resume, whole, x.shape, kept)
        ascent = Ascent(self, model, space, x[: request.batch_size], seed=seed)
        with partial.being_made():
            ascent.run(x, labels, partial, verbose=request.verbose)
        made = Levels(partial.rows, space) if kept is np.uint8 else Pixels(partial.rows, space)
        unchanged = ascent.count_unchanged(x, made)
        if unchanged > FEW * len(x):
            warnings.warn(
                f"{self.name} could not change {unchanged:,} of {len(x):,} inputs: what it raises has no gradient in "
                f"{model.name!r} there, and every student will look robust against them. Where half precision or "
                "outputs of exactly 0 and 1 round it away, attack a float32 copy of the model without its softmax.",
                stacklevel=3,
            )
        return self.attack_set(
            request,
            x,
            made,
            labels,
            space=space,
            teacher=prepared.source,
            target=self.target_class,
            record={"unchanged": unchanged},
            partial=request.resume,
        )

    def bounds(self, x: np.ndarray, space: PixelSpace) -> tuple[np.ndarray, np.ndarray]:
        """How far each pixel may go.

        Args:
            x: Pixels, float32.
            space: Their range.

        Returns:
            The least and the greatest value of each, float32. Rounded inwards: what lies between them is in the
            epsilon ball and in the range exactly, not to within rounding.
        """
        epsilon, low, high = space.epsilon(self.epsilon), np.empty_like(x), np.empty_like(x)
        # In float64 a whole batch would take a multiple of its room.
        for piece in pieces(x, size=AT_ONCE):
            exact = x[piece].astype(np.float64)
            lower, upper = np.maximum(exact - epsilon, space.low), np.minimum(exact + epsilon, space.high)
            least, most = lower.astype(np.float32), upper.astype(np.float32)
            low[piece] = np.where(least < lower, np.nextafter(least, np.float32(np.inf)), least)
            high[piece] = np.where(most > upper, np.nextafter(most, np.float32(-np.inf)), most)
        return low, high


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
        self._judge = gradients.compiled(self._score, model)

    def run(self, x: AnySamples, y: np.ndarray, partial: Partial, *, verbose: bool | str = "auto") -> None:
        """Adds the rows that are missing to a partial result, as levels of an image file if it holds such.

        Raises:
            RemosError: If the memory does not suffice.
        """
        starts = range(partial.done, len(x), self.batch_size)
        try:
            with track(starts, total=len(starts), description=self.attack.name, verbose=verbose) as tracked:
                for start in tracked:
                    rows = np.arange(start, min(start + self.batch_size, len(x)))
                    clean = x[start : start + self.batch_size]
                    made = self.batch(clean, y[rows], rows)
                    partial.add(self._rounded(made, clean) if partial.rows.dtype == np.uint8 else made)
        except BaseException as error:
            if gradients.is_out_of_memory(error):
                raise _out_of_memory(self.batch_size, partial) from error
            raise

    def count_unchanged(self, x: AnySamples, made: Levels | Pixels) -> int:
        """How many samples no step has moved from where they started."""
        count = 0
        for start in range(0, len(x), self.batch_size):
            rows = np.arange(start, min(start + self.batch_size, len(x)))
            clean = x[start : start + self.batch_size]
            found = made.rows[rows]
            bounds = self.attack.bounds(clean, self.space)
            begun = [self._start(clean, *bounds, rows, number) for number in range(self.attack.starts)]
            if found.dtype == np.uint8:
                begun = [self._rounded(each, clean) for each in begun]
            count += int(np.any([(found == each).reshape(len(rows), -1).all(axis=1) for each in begun], axis=0).sum())
        return count

    def _rounded(self, made: np.ndarray, clean: np.ndarray) -> np.ndarray:
        # Towards the clean image all would lose half a level, which is a tenth of the usual epsilon.
        return self.space.to_levels(made, near=clean, within=self.attack.epsilon, towards=False)

    def _score(self, pixels: Tensor, state: Any, drawn: Any) -> tuple[Tensor, Any]:
        return self._objective(self.space.scale(pixels), state, drawn)

    def _make_step(self) -> Callable[..., tuple[Tensor, Tensor, Any, Tensor]]:
        distance, memory = self.space.epsilon(self.attack.size), self.attack.memory

        def score(pixels: Tensor, state: Any, drawn: Any, scale: Tensor) -> tuple[Tensor, Any]:
            scores, state = self._score(pixels, state, drawn)
            # The sum: no sample's gradient depends on the others in its batch.
            return ops.sum(scores * scale), state

        def step(
            pixels: Tensor, pace: Tensor, lower: Tensor, upper: Tensor, state: Any, drawn: Any, scale: Tensor
        ) -> tuple[Tensor, Tensor, Any, Tensor]:
            (_, state), gradient = gradients.differentiate(score, pixels, state, drawn, scale)
            of_sample = tuple(range(1, len(gradient.shape)))
            fits = ops.all(ops.isfinite(gradient), axis=of_sample, keepdims=True)
            gradient = ops.where(fits, gradient, 0.0)
            if memory:
                length = ops.mean(ops.abs(gradient), axis=of_sample, keepdims=True)
                gradient = pace = memory * pace + gradient / ops.where(length > 0, length, 1.0)
            moved = ops.clip(pixels + distance * ops.sign(gradient), lower, upper)
            return moved, pace, state, ops.reshape(fits, (-1,))

        return step

    def batch(self, x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Attacks one batch.

        Args:
            x: Pixels, as many samples as the example has, or fewer.
            y: Their classes, int32.
            rows: Their numbers in the whole data, from which follows what is drawn for them.

        Returns:
            float32, the shape of x.
        """
        # A short batch is filled up with its last sample: every batch runs the same compiled program.
        filled = np.minimum(np.arange(self.batch_size), len(rows) - 1)
        return self._best(x[filled].astype(np.float32), y[filled], rows[filled])[: len(rows)]

    def _best(self, clean: np.ndarray, y: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """What comes of the start from which the score gets highest."""
        bounds = self.attack.bounds(clean, self.space)
        begun = self._objective.begin(self.space.scale(clean), y, rows, self.seed)
        if self.attack.starts == 1:
            return self._climb(self._start(clean, *bounds, rows, 0), bounds, begun)[0]
        best, highest = clean, np.full(len(clean), -np.inf)
        for number in range(self.attack.starts):
            pixels, state = self._climb(self._start(clean, *bounds, rows, number), bounds, begun)
            scores, _ = self._judge(pixels, state, self._objective.draw(None))
            scores = np.asarray(ops.convert_to_numpy(scores))
            better = scores > highest
            best = np.where(better.reshape(-1, *[1] * (clean.ndim - 1)), pixels, best)
            highest = np.where(better, scores, highest)
        return best

    def _climb(self, start: np.ndarray, bounds: tuple[np.ndarray, np.ndarray], state: Any) -> tuple[np.ndarray, Any]:
        """All steps from one start: where they lead, and the state after them."""
        pixels: Any = start
        pace: Any = np.zeros_like(start) if self.attack.memory else np.float32(0)
        lower, upper = map(ops.convert_to_tensor, bounds)
        # One for each sample, so that it does not matter which others are in the batch.
        scale = np.full(len(start), LARGEST_SCALE, np.float32)
        for number in range(self.attack.steps):
            drawn = self._objective.draw(number)
            while True:
                *moved, fits = self._step(pixels, pace, lower, upper, state, drawn, scale)
                too_large = ~np.asarray(ops.convert_to_numpy(fits)) & (scale > SMALLEST_SCALE)
                if not too_large.any():
                    break
                scale = np.where(too_large, scale * np.float32(SCALE_STEP), scale)
            pixels, pace, state = moved
        return np.asarray(ops.convert_to_numpy(pixels)), state

    def _start(
        self, clean: np.ndarray, lower: np.ndarray, upper: np.ndarray, rows: np.ndarray, number: int
    ) -> np.ndarray:
        if not self.attack.random_start:
            return np.clip(clean, lower, upper)
        epsilon = self.space.epsilon(self.attack.epsilon)
        seeds = [(self.seed, row, START, *([number] if number else [])) for row in rows]
        begun = np.empty_like(clean)
        for row, seed in enumerate(seeds):
            noise = np.random.default_rng(seed).uniform(-1, 1, clean.shape[1:]).astype(np.float32)
            begun[row] = clean[row] + epsilon * noise
        return np.clip(begun, lower, upper, out=begun)


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
    kept = ""
    if partial.path is not None and partial.done:
        kept = f" What is finished is in {partial.path}, and the next run goes on from it."
    return RemosError(f"The memory does not suffice for `batch_size={batch_size}`: {way_out}.{kept}")
