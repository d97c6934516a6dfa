"""`tune_recipe`: the learning rate, or whatever else of a recipe, that validation data ask for."""

from __future__ import annotations

import contextlib
import itertools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import keras
import numpy as np

from keras_remos.data import batches
from keras_remos.data.parts import set_aside
from keras_remos.errors import DivergedError, RemosError
from keras_remos.methods.trials import Trials, check_budget
from keras_remos.progress import track
from keras_remos.training.recipe import Recipe, default_recipe
from keras_remos.training.task import Task
from keras_remos.training.trained import Trained

RATES = (0.005, 0.01, 0.02, 0.05, 0.1)
"""Learning rates that are tried with SGD, as models of images are trained."""
RATES_OF_TEXT = (2e-5, 5e-5, 1e-4, 2e-4, 4e-4)
"""Learning rates that are tried with AdamW, as language models are trained."""

# Of the training data, where no validation data are given.
VALIDATION_SHARE = 0.2
# As many are trained in full at the end.
FINALISTS = 2


class Trainable(Protocol):
    """What is tuned: a configured method."""

    @property
    def name(self) -> str:
        """Its name, for messages."""

    @property
    def from_scratch(self) -> bool:
        """Whether its students keep no weight of the teacher."""

    @property
    def least_epochs(self) -> int:
        """How many epochs its stages take at least."""

    def get_config(self) -> dict[str, Any]:
        """Its options, as plain values for JSON."""

    @property
    def train(self) -> Callable[..., Trained]:
        """Makes a student: see `Method.train`."""


@dataclass(frozen=True)
class Trial:
    """One recipe that was tried.

    Args:
        changes: In what it differs from the recipe that tuning began with.
        epochs: For how many epochs it was tried.
        accuracy: On the validation data after them; `None` if training diverged.
        whole: Whether these are all epochs of the recipe.
    """

    changes: Mapping[str, Any]
    epochs: int
    accuracy: float | None
    whole: bool


@dataclass(frozen=True)
class Tuning:
    """What tuning found.

    Args:
        recipe: The recipe that was chosen.
        trials: All that was tried, in order.
        validation_samples: How many samples accuracies are of.
    """

    recipe: Recipe
    trials: tuple[Trial, ...]
    validation_samples: int

    @property
    def cost(self) -> float:
        """What it took, in trainings of the chosen length."""
        return sum(trial.epochs for trial in self.trials) / self.recipe.epochs

    def describe(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return {
            "recipe": self.recipe.get_config(),
            "trials": [{**vars(trial), "changes": dict(trial.changes)} for trial in self.trials],
            "validation_samples": self.validation_samples,
            "cost": self.cost,
        }


def tune_recipe(
    method: Trainable,
    teacher: keras.Model,
    train: Any,
    validation: Any = None,
    *,
    recipe: Recipe | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    budget: float = 4.0,
    seed: int = 0,
    verbose: bool | str = "auto",
    **options: Any,
) -> Tuning:
    """Chooses a recipe by validation accuracy: successive halving over a short list.

    All candidates are trained briefly, the better half for longer, and so on; the last ones in full. Among those that
    are within one standard error of the best the longest wins, then the one with the highest learning rate. So no
    control stays weak by chance, and nobody can choose by what an attack does.

    Args:
        method: The method that is tuned, configured.
        teacher: See `Method.train`.
        train: What students learn from: arrays `(x, y)` or a `Dataset`; with `validation` whatever else `fit` takes.
        validation: What accuracy is measured on. By default a fifth of every class of `train`, which is then not
            trained on.
        recipe: What tuning begins with, and how long candidates are trained; the method's default if not given.
        grid: The candidates: values by the name of a recipe's option. By default learning rates only, as fit images or
            texts. With `epochs` in it, candidates differ in length.
        budget: How many trainings of `recipe` it may cost, from 1; each trial takes at least one epoch, though.
        seed: Of every training, and of what is set aside.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.
        **options: More for `Method.train`: `num_classes`, `head`, `harden`, `space`.

    Returns:
        The recipe, and all that was tried.

    Raises:
        RemosError: If every training diverges, the grid is empty, or an option has no such value.
        DataError: If there are no validation data and none can be set aside.

    Example:
    ```python
    tuning = tune_recipe(METHODS["finetune"](), teacher, (x, y))
    trained = train("finetune", teacher, (x, y), recipe=tuning.recipe)
    ```

    Reference:
        K. Jamieson and A. Talwalkar, Non-stochastic Best Arm Identification and Hyperparameter Optimization, AISTATS
        2016 (successive halving). L. Breiman et al., Classification and Regression Trees, 1984 (one standard error).

    Note:
        Each stage trains anew, since a schedule spans the training that it is made for. KerasTuner and Optuna have no
        rule of one standard error, and would be one more dependency for a loop.
    """
    check_budget(budget)
    usual = default_recipe(teacher, from_scratch=method.from_scratch)
    base = recipe or usual
    if grid is None:
        grid = {"learning_rate": RATES_OF_TEXT if base.optimizer == "adamw" else RATES}
    if base.is_open:
        base = replace(base, learning_rate=usual.learning_rate)
    if validation is None:
        train, validation = set_aside(train, VALIDATION_SHARE, seed=seed)
    candidates = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    if not grid or not candidates:
        raise RemosError(f"`grid` must hold one or more values of one or more options, received {dict(grid)!r}.")
    for changes in candidates:
        replace(base, **changes)
    trials: list[Trial] = []
    samples = 0
    rounds = stages(len(candidates), budget)
    for number, (share, kept) in enumerate(rounds, start=1):
        accuracies = []
        what = f"Round {number} of {len(rounds)}, trial"
        with track(candidates, total=len(candidates), description=what, verbose=verbose, name=_told) as tracked:
            for changes in tracked:
                tried = replace(base, **changes)
                short = replace(tried, epochs=max(method.least_epochs, round(share * tried.epochs)))
                accuracy = None
                with contextlib.suppress(DivergedError):
                    right = right_after_training(
                        method, teacher, train, validation, short, seed=seed, verbose=verbose, **options
                    )
                    accuracy, samples = float(right.mean()), len(right)
                trials.append(Trial(changes, short.epochs, accuracy, whole=short.epochs == tried.epochs))
                accuracies.append(accuracy)
        if all(accuracy is None for accuracy in accuracies):
            raise DivergedError(
                f"Tuning {method.name}: training diverged with each of {candidates}. Add lower learning rates, and "
                "check that inputs are scaled as the teacher was trained and hold no NaN."
            )
        order = sorted(zip(accuracies, candidates, strict=True), key=lambda each: _rank(*each), reverse=True)
        candidates = [changes for _, changes in order[:kept]]
    chosen = choose(trials[-len(order) :], base, samples)
    return Tuning(replace(base, **chosen.changes), tuple(trials), samples)


def stages(candidates: int, budget: float) -> list[tuple[float, int]]:
    """How candidates are tried, stage by stage: `(share of their epochs, how many go on)`.

    The last stage has up to two candidates and as many whole trainings as half of the budget pays for; the stages
    before it halve the candidates, and share the rest of the budget equally.
    """
    counts = [candidates]
    while counts[-1] > FINALISTS:
        counts.append(math.ceil(counts[-1] / 2))
    if len(counts) == 1:
        return [(min(1.0, budget / candidates), candidates)]
    last = min(float(counts[-1]), budget / 2)
    each = (budget - last) / (len(counts) - 1)
    shares = [*(min(1.0, each / count) for count in counts[:-1]), last / counts[-1]]
    return list(zip(shares, [*counts[1:], counts[-1]], strict=True))


def choose(trials: Sequence[Trial], base: Recipe, samples: int) -> Trial:
    """The trial of the longest recipe, then the highest learning rate, within one standard error of the best.

    Args:
        trials: Of one stage.
        base: The recipe that they change.
        samples: How many samples accuracies are of.
    """
    known = [(trial.accuracy, trial) for trial in trials if trial.accuracy is not None]
    best = max(accuracy for accuracy, _ in known)
    error = math.sqrt(best * (1 - best) / samples)
    near = [trial for accuracy, trial in known if accuracy >= best - error]
    return max(
        near, key=lambda trial: (trial.changes.get("epochs", base.epochs), trial.changes.get("learning_rate", 0))
    )


def _told(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in changes.items())


def _rank(accuracy: float | None, changes: Mapping[str, Any]) -> tuple[float, float]:
    return (-1.0 if accuracy is None else accuracy), changes.get("learning_rate", 0.0)


def right_after_training(
    method: Trainable,
    teacher: keras.Model,
    train: Any,
    validation: Any,
    recipe: Recipe,
    *,
    seed: int,
    trials: Trials | None = None,
    **options: Any,
) -> np.ndarray:
    """Trains a student, and asks it about the validation data.

    Args:
        method: By what.
        teacher: See `Method.train`, as for what is not said here.
        train: What it learns from.
        validation: What it is asked about.
        recipe: How it is trained.
        seed: Of the training.
        trials: What was tried before, which is not trained again.
        **options: More for `Method.train`.

    Returns:
        For each validation sample whether it got that right: booleans.
    """
    told = {"method": method.name, "options": method.get_config(), "recipe": recipe.get_config()}

    def train_and_ask() -> np.ndarray:
        trained = trained_quietly(method, teacher, train, recipe, seed=seed, **options)
        return right_on(trained, teacher, validation, head=options.get("head"))

    return (trials or Trials()).right(told, train_and_ask)


def trained_quietly(method: Trainable, teacher: keras.Model, train: Any, recipe: Recipe, **options: Any) -> Trained:
    """Trains a student without a warning that the recipe teaches nothing: that is what is to be found out."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Training .* ended in a constant classifier")
        return method.train(teacher, train, recipe=recipe, **options)


def right_on(trained: Trained, teacher: keras.Model, data: Any, *, head: str | None = None) -> np.ndarray:
    """Which samples a student gets right: booleans.

    Args:
        trained: The student.
        teacher: Its teacher, which says how data are read.
        data: As it was trained on.
        head: The path of the teacher's head, where it is not found.
    """
    task = Task(
        teacher,
        data,
        num_classes=trained.options["num_classes"],
        recipe=replace(default_recipe(teacher), augment="none"),
        head=head,
    )
    return np.concatenate(
        [
            np.argmax(trained.student.predict_on_batch(x), axis=-1) == task.class_ids(y)
            for x, y, _ in batches(task.plain_data())
        ]
    )
