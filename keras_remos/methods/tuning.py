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
from keras_remos.data.pixels import PixelSpace
from keras_remos.errors import DivergedError, RemosError
from keras_remos.methods.hardening import Hardening
from keras_remos.methods.plan import rounds, spread, whole
from keras_remos.methods.trials import Trials, check_budget, told_apart
from keras_remos.progress import say, track
from keras_remos.training.recipe import Recipe, default_recipe
from keras_remos.training.task import Task
from keras_remos.training.trained import Trained

RATES = (0.005, 0.01, 0.02, 0.05, 0.1)
"""Learning rates that are tried with SGD, as models of images are trained."""
RATES_OF_TEXT = (2e-5, 5e-5, 1e-4, 2e-4, 4e-4)
"""Learning rates that are tried with AdamW, as language models are trained."""

# Of the training data, where no validation data are given.
VALIDATION_SHARE = 0.2
# A difference in accuracy that validation data should be able to tell.
TOLD = 0.01


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
    def keeps_head(self) -> bool:
        """Whether its students start with the teacher's head."""

    @property
    def hardens(self) -> bool:
        """Whether its students are hardened unless told otherwise."""

    @property
    def hardening(self) -> Callable[..., Hardening | None]:
        """How its students are hardened: see `Method.hardening`."""

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
    control stays weak by chance, and nobody can choose by what an attack does. Where that is more than one and the
    validation data cannot tell 1 % apart, it says so, and how many would.

    Args:
        method: The method that is tuned, configured.
        teacher: See `Method.train`.
        train: What students learn from: arrays `(x, y)` or a `Dataset`; with `validation` whatever else `fit` takes.
        validation: What accuracy is measured on. By default a fifth of every class of `train`, which is then not
            trained on.
        recipe: What tuning begins with, and how long candidates are trained; the method's default if not given.
        grid: The candidates: values by the name of a recipe's option. By default learning rates only, as fit images or
            texts. With `epochs` in it, candidates differ in length.
        budget: How many trainings of `recipe` it may cost, from 1. Where whole epochs are few there are fewer rounds,
            and then fewer candidates, spread over the list.
        seed: Of every training, and of what is set aside.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.
        **options: More for `Method.train`: `num_classes`, `head`, `harden`, `space`.

    Returns:
        The recipe, and all that was tried.

    Raises:
        RemosError: If every training diverges, the grid is empty, an option has no such value, or the budget does not
            pay for one training.
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
        grid = {"learning_rate": rates_of(base)}
    if base.is_open:
        base = replace(base, learning_rate=usual.learning_rate)
    if validation is None:
        train, validation = set_aside(train, VALIDATION_SHARE, seed=seed)
    candidates = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    if not grid or not candidates:
        raise RemosError(f"`grid` must hold one or more values of one or more options, received {dict(grid)!r}.")
    longest = max(replace(base, **changes).epochs for changes in candidates)
    plan = rounds(len(candidates), longest, budget * base.epochs / longest, least=method.least_epochs)
    if not plan:
        raise RemosError(
            f"`budget` must pay for one training: {method.name} takes at least {method.least_epochs} epochs, and "
            f"{budget:g} trainings of {base.epochs} are fewer."
        )
    candidates = spread(candidates, plan[0].count)
    options["harden"] = hardening_of_trials(method, teacher, train, recipe=base, seed=seed, **options)
    known = options.pop("trials", None) or Trials()
    trials: list[Trial] = []
    samples = 0
    for number, each in enumerate(plan, start=1):
        candidates = candidates[: each.count]
        accuracies = []
        what = f"Round {number} of {len(plan)}, trial"
        with track(candidates, total=len(candidates), description=what, verbose=verbose, name=_told) as tracked:
            for changes in tracked:
                tried = replace(base, **changes)
                share = each.epochs / longest
                short = replace(tried, epochs=max(method.least_epochs, whole(share * tried.epochs)))
                accuracy = None
                with contextlib.suppress(DivergedError):
                    right = right_after_training(
                        method, teacher, train, validation, short, seed=seed, verbose=verbose, trials=known, **options
                    )
                    accuracy, samples = float(right.mean()), len(right)
                trials.append(Trial(changes, short.epochs, accuracy, whole=short.epochs == tried.epochs))
                accuracies.append(accuracy)
        if all(accuracy is None for accuracy in accuracies):
            known.forget_diverged()
            raise DivergedError(
                f"Tuning {method.name}: training diverged with each of {candidates}. Add lower learning rates, and "
                "check that inputs are scaled as the teacher was trained and hold no NaN."
            )
        order = sorted(zip(accuracies, candidates, strict=True), key=lambda each: _rank(*each), reverse=True)
        candidates = [changes for _, changes in order]
    last = trials[-len(order) :]
    chosen = choose(last, base, samples)
    _say_if_blind(last, samples, verbose)
    return Tuning(replace(base, **chosen.changes), tuple(trials), samples)


def rates_of(recipe: Recipe) -> tuple[float, ...]:
    """The learning rates that are tried with a recipe."""
    return RATES_OF_TEXT if recipe.optimizer == "adamw" else RATES


def choose(trials: Sequence[Trial], base: Recipe, samples: int) -> Trial:
    """The trial of the longest recipe, then the highest learning rate, within one standard error of the best.

    Args:
        trials: Of one stage.
        base: The recipe that they change.
        samples: How many samples accuracies are of.
    """
    return max(
        _near(trials, samples)[0],
        key=lambda trial: (trial.changes.get("epochs", base.epochs), trial.changes.get("learning_rate", 0)),
    )


def _near(trials: Sequence[Trial], samples: int) -> tuple[list[Trial], float]:
    """The trials within one standard error of the best, and that error, which is not 0 where the best is perfect."""
    known = [(trial.accuracy, trial) for trial in trials if trial.accuracy is not None]
    best = max(accuracy for accuracy, _ in known)
    # By Laplace's rule of succession: one more of each.
    share = (best * samples + 1) / (samples + 2)
    error = math.sqrt(share * (1 - share) / (samples + 2))
    return [trial for accuracy, trial in known if accuracy >= best - error], error


def _say_if_blind(trials: Sequence[Trial], samples: int, verbose: bool | str) -> None:
    """Says so where the validation data left the choice open, and could not tell what is meant to be told."""
    near, error = _near(trials, samples)
    if len(near) < 2 or error <= TOLD:
        return
    equal = f"By that {len(near)} of the last {len(trials)} candidates are equal: the highest learning rate is taken."
    say(f"{told_apart(samples, error, TOLD)} {equal}", verbose=verbose)


def _told(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in changes.items())


def _rank(accuracy: float | None, changes: Mapping[str, Any]) -> tuple[float, float]:
    return (-1.0 if accuracy is None else accuracy), changes.get("learning_rate", 0.0)


def hardening_of_trials(
    method: Trainable,
    teacher: keras.Model,
    train: Any,
    *,
    recipe: Recipe,
    seed: int,
    harden: bool | Hardening | None = None,
    space: PixelSpace | None = None,
    num_classes: int | None = None,
    head: str | None = None,
    **options: Any,
) -> bool | Hardening:
    """How the students of trials are hardened: by twins that are made once for all of them, from the teacher alone.

    Args:
        method: By what they are trained.
        teacher: See `Method.train`, as for what is not said here.
        train: What they learn from.
        recipe: How they are trained.
        seed: Of every training.
        harden: What was asked for.
        space: How inputs come from pixels.
        num_classes: How many classes they tell apart.
        head: The path of the teacher's head.
        **options: More for `Method.train`, which has no say in it.
    """
    if harden is False or (harden is None and not method.hardens):
        return False
    if not isinstance(harden, Hardening):
        of_task: dict[str, Any] = {"num_classes": num_classes, "head": head, "keep_head": method.keeps_head}
        task = Task(teacher, train, recipe=recipe, seed=seed, **of_task)
        harden = method.hardening(task, harden, space or getattr(train, "space", None))
    return False if harden is None else harden.for_one_student().by_teacher()


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
        # It settles nothing of its own.
        trained = trained_quietly(method, teacher, train, recipe, seed=seed, budget=1, **options)
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
