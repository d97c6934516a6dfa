"""`Recipe`: how long and how fast a student is trained, one for every method; and the optimizer that it stands for."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self

import keras
from keras import ops

from keras_remos.data.training_data import AUGMENTATIONS, Augmentation
from keras_remos.errors import RemosError
from keras_remos.models.kernels import Tensor
from keras_remos.models.tokenizers import reads_text

AUTO: Literal["auto"] = "auto"


@dataclass(frozen=True)
class Recipe:
    """How a student is trained. Methods are compared fairly when they train by one recipe.

    Args:
        epochs: Passes over the data, all stages of a method together.
        batch_size: Samples a batch, for arrays and data sets of ours; other data bring their own batches.
        learning_rate: Its peak; `"auto"` leaves it open: `train` then chooses it on validation data.
        momentum: Of SGD alone, from 0 to less than 1.
        weight_decay: Of SGD as PyTorch and the papers count it: part of the gradient, so that momentum adds it up. Of
            AdamW beside the gradient.
        warmup: Share of the steps in which the learning rate rises to its peak, from 0 to less than 1.
        schedule: What it does then: `"cosine"` and `"linear"` fall to 0, `"constant"` stays.
        augment: `"flip-crop"` mirrors and shifts images, `"none"`, or a function of a batch of inputs and a
            `numpy.random.Generator`.
        label_smoothing: Share of each label that is spread over all classes, from 0 to less than 1.
        head_multiplier: Deprecated: times the learning rate is what the head learns with. No method sets it; 1 treats
            all weights alike. With SGD only.
        optimizer: `"sgd"`, or `"adamw"` for language models.
        clip: The length that the gradient of all weights together is cut to; `None` leaves it.

    Raises:
        RemosError: If a value is out of range.
    """

    epochs: int = 30
    batch_size: int = 128
    learning_rate: float | Literal["auto"] = 0.005
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup: float = 0.05
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    augment: Augmentation = "flip-crop"
    label_smoothing: float = 0.0
    head_multiplier: float = 1.0
    optimizer: Literal["sgd", "adamw"] = "sgd"
    clip: float | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise RemosError(f"`{name}` must be a whole number from 1 up, received {value!r}.")
        if isinstance(self.learning_rate, str) and self.learning_rate != AUTO:
            raise RemosError(f"`learning_rate` must be a number or {AUTO!r}, received {self.learning_rate!r}.")
        for name in ("head_multiplier", *(() if self.is_open else ("learning_rate",))):
            if not 0 < getattr(self, name) < math.inf:
                raise RemosError(f"`{name}` must be above 0 and finite, received {getattr(self, name)!r}.")
        for name in ("momentum", "warmup", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise RemosError(f"`{name}` must be at least 0 and less than 1, received {getattr(self, name)!r}.")
        if not 0 <= self.weight_decay < math.inf:
            raise RemosError(f"`weight_decay` must be at least 0 and finite, received {self.weight_decay!r}.")
        for name, choices in (("schedule", ("cosine", "linear", "constant")), ("optimizer", ("sgd", "adamw"))):
            if getattr(self, name) not in choices:
                raise RemosError(f"`{name}` must be one of {choices}, received {getattr(self, name)!r}.")
        if self.optimizer == "adamw" and self.head_multiplier != 1:
            raise RemosError("`head_multiplier` is for SGD: leave it at 1 with AdamW.")
        if self.optimizer == "adamw" and self.momentum != type(self).momentum:
            raise RemosError("`momentum` is for SGD: leave it out with AdamW.")
        if self.clip is not None and not 0 < self.clip < math.inf:
            raise RemosError(f"`clip` must be above 0 and finite, or None, received {self.clip!r}.")
        if not callable(self.augment) and self.augment not in AUGMENTATIONS:
            raise RemosError(f"`augment` must be one of {AUGMENTATIONS} or a function, received {self.augment!r}.")

        if self.head_multiplier != 1:
            warnings.warn(
                "`head_multiplier` is deprecated and will go: all methods train all weights alike. Leave it out.",
                DeprecationWarning,
                stacklevel=3,
            )

    @property
    def is_open(self) -> bool:
        """Whether the learning rate has yet to be chosen."""
        return self.learning_rate == AUTO

    @property
    def rate(self) -> float:
        """The learning rate.

        Raises:
            RemosError: If it has yet to be chosen.
        """
        if isinstance(self.learning_rate, str):
            raise RemosError("`learning_rate='auto'` is for `train`, which chooses it; here a number is needed.")
        return self.learning_rate

    @property
    def follows_schedule(self) -> bool:
        """Whether the learning rate is another from step to step, and so cannot be set from outside."""
        return self.schedule != "constant" or self.warmup > 0

    def changes(self, base: Recipe) -> dict[str, Any]:
        """In what the recipe differs from another, as arguments for `dataclasses.replace`."""
        ours, theirs = vars(self), vars(base)
        return {name: value for name, value in ours.items() if value != theirs[name]}

    def get_config(self) -> dict[str, Any]:
        """The recipe as plain values for JSON; a function goes by its name."""
        augment = self.augment
        name = augment if isinstance(augment, str) else f"{augment.__module__}.{augment.__qualname__}"
        return {**asdict(self), "augment": name}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """The recipe that `get_config` described.

        Raises:
            RemosError: If it was augmented by a function, of which only the name is known.
        """
        return cls(**config)


FROM_SCRATCH = Recipe(learning_rate=0.1, weight_decay=5e-4)
"""What students that keep no weight of the teacher are trained by, unless told otherwise: they have further to go."""

LANGUAGE = Recipe(
    optimizer="adamw",
    epochs=3,
    batch_size=32,
    learning_rate=5e-5,
    weight_decay=0.0,
    schedule="linear",
    clip=1.0,
    augment="none",
)
"""What students of language models are trained by, unless told otherwise: as BERT is fine-tuned."""

LANGUAGE_FROM_SCRATCH = replace(LANGUAGE, learning_rate=5e-4)


def default_recipe(teacher: keras.Model, *, from_scratch: bool = False) -> Recipe:
    """What a student is trained by unless told otherwise.

    Args:
        teacher: Whether it reads texts decides.
        from_scratch: Whether the student keeps no weight of the teacher: it has further to go.
    """
    if reads_text(teacher):
        return LANGUAGE_FROM_SCRATCH if from_scratch else LANGUAGE
    return FROM_SCRATCH if from_scratch else Recipe()


def optimizer(recipe: Recipe, *, steps: int, head: Iterable[keras.Variable] = ()) -> keras.optimizers.Optimizer:
    """The optimizer as a recipe says.

    Args:
        recipe: The recipe.
        steps: How many steps will be made.
        head: The weights of the head.
    """
    rate = _Schedule(recipe, steps) if recipe.follows_schedule else recipe.rate
    if recipe.optimizer == "adamw":
        return keras.optimizers.AdamW(rate, weight_decay=recipe.weight_decay, global_clipnorm=recipe.clip)
    # Keras' SGD takes weight decay off beside the gradient; in the gradient it would be added up by the momentum.
    decay = recipe.weight_decay / (1 - recipe.momentum) or None
    sgd: dict[str, Any] = {"momentum": recipe.momentum, "weight_decay": decay, "global_clipnorm": recipe.clip}
    if recipe.head_multiplier == 1:
        return keras.optimizers.SGD(rate, **sgd)
    return _FastHeadSGD(rate, {id(weight) for weight in head}, recipe.head_multiplier, **sgd)


class _Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """Rises to its peak in a straight line, and falls to 0 or stays.

    Without a condition: Keras asks for the rate once for each weight, and a compiler cannot merge branches.
    """

    def __init__(self, recipe: Recipe, steps: int) -> None:
        super().__init__()
        self._peak = recipe.rate
        self._shape = recipe.schedule
        self._warmup = round(recipe.warmup * steps)
        self._falling = max(steps - self._warmup, 1)

    def __call__(self, step: Tensor) -> Tensor:
        done = ops.cast(step, "float32")
        rate = self._peak * ops.minimum((done + 1) / max(self._warmup, 1), 1.0)  # the first step counts too
        share = ops.clip((done - self._warmup) / self._falling, 0.0, 1.0)
        if self._shape == "cosine":
            return rate * 0.5 * (1 + ops.cos(math.pi * share))
        return rate * (1 - share) if self._shape == "linear" else rate


class _FastHeadSGD(keras.optimizers.SGD):
    """SGD with another learning rate for some weights."""

    def __init__(self, learning_rate: Any, head: set[int], multiplier: float, **options: Any) -> None:
        super().__init__(learning_rate, name="sgd", **options)
        self._of_head = frozenset(head)
        self._multiplier = multiplier

    def build(self, variables: list[keras.Variable]) -> None:
        super().build(variables)
        # By number: TensorFlow gives an update its own kind of variable.
        self._fast = frozenset(number for number, variable in enumerate(variables) if id(variable) in self._of_head)

    def update_step(self, gradient: Tensor, variable: keras.Variable, learning_rate: Tensor) -> None:
        factor = self._multiplier if self._get_variable_index(variable) in self._fast else 1.0
        super().update_step(gradient, variable, ops.cast(learning_rate, "float32") * factor)
