"""`tradeoff`: what students cost and inherit that keep more or less of their teacher."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypedDict

import keras
import numpy as np

from keras_remos.data import Fingerprint
from keras_remos.data.parts import set_aside
from keras_remos.data.pixels import PREPROCESSOR, PixelSpace
from keras_remos.defects.attack_set import AttackSet
from keras_remos.errors import RemosError
from keras_remos.evaluation.measuring import dir_of
from keras_remos.evaluation.metrics import Rate
from keras_remos.evaluation.predictions import predict_classes
from keras_remos.methods import FineTune, Hardening, Method, Recipe, Remos, recipe_of, tune_recipe
from keras_remos.methods.plan import MOST_EACH, plan_student
from keras_remos.methods.tuning import VALIDATION_SHARE, rates_of, right_on, trained_quietly
from keras_remos.models.fingerprint import fingerprint
from keras_remos.notebooks import html_table
from keras_remos.progress import say, track
from keras_remos.slicing.scores import check_keep_ratio
from keras_remos.slicing.slicer import RelevantSlicer
from keras_remos.training.task import Task
from keras_remos.untrusted import Count, PathLike, Share, check, check_regular, check_seed, complete
from keras_remos.untrusted.containers import parse_json
from keras_remos.writing import replacing, reserved

RATIOS = (1.0, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)
"""The shares that are tried: 1 keeps all of the teacher, which is fine-tuning."""


@dataclass(frozen=True)
class Point:
    """A student that keeps one share.

    Args:
        keep_ratio: The share; 1 is fine-tuning.
        accuracy: On the validation data.
        inherited: DIR by the attack set's name: aimed at a class, how many inputs of others are called so; else how
            many that it gets right when clean it gets wrong.
    """

    keep_ratio: float
    accuracy: Rate
    inherited: Mapping[str, Rate]

    def describe(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        rates = {name: rate.describe() for name, rate in self.inherited.items()}
        return {"keep_ratio": self.keep_ratio, "accuracy": self.accuracy.describe(), "inherited": rates}

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Point:
        """The point that `describe` described."""
        rates = {name: _rate(found) for name, found in row["inherited"].items()}
        return cls(row["keep_ratio"], _rate(row["accuracy"]), rates)


@dataclass(frozen=True, repr=False)
class Tradeoff:
    """Students that keep more or less of one teacher.

    Args:
        points: One for each share, the largest first.
        recipe: How all were trained.
        hardened: Whether they were hardened.
        tuned: Whether the learning rate was chosen on the samples that accuracy is of.
    """

    points: tuple[Point, ...]
    recipe: Recipe
    hardened: bool
    tuned: bool = False

    def describe(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        points = [point.describe() for point in self.points]
        how = {"recipe": self.recipe.get_config(), "hardened": self.hardened, "tuned": self.tuned}
        return {"points": points, **how}

    def summary(self) -> str:
        """A line for each share."""
        names = list(self.points[0].inherited)
        widths = [max(len(name), 23) for name in names]
        head = "  ".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
        lines = [f"{'kept':<5}  {'ACC':>23}  {head}".rstrip()]
        for point in self.points:
            rates = [f"{_shown(point.inherited[name]):>{width}}" for name, width in zip(names, widths, strict=True)]
            lines.append("  ".join([f"{point.keep_ratio:<5g}", f"{_shown(point.accuracy):>23}", *rates]))
        lines.append(f"ACC: of {self.points[0].accuracy.total:,} samples that no student was trained on.")
        if self.tuned:
            lines.append("The learning rate was chosen by the fine-tuned student's accuracy on the same samples.")
        lines.append("Intervals are over those samples only: other training seeds would differ by more.")
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<Tradeoff of {len(self.points)} shares>"

    def _repr_html_(self) -> str:
        names = list(self.points[0].inherited)
        rows = [
            (f"{each.keep_ratio:g}", f"{each.accuracy.value:.3f}", *(f"{each.inherited[n].value:.3f}" for n in names))
            for each in self.points
        ]
        return html_table(repr(self)[1:-1], ("kept", "ACC", *(f"DIR of {name}" for name in names)), rows)


def tradeoff(
    teacher: keras.Model,
    train: Any,
    validation: Any = None,
    *,
    inputs: Mapping[str, AttackSet] | None = None,
    ratios: Sequence[float] | None = None,
    preset: str = "recommended",
    recipe: Recipe | None = None,
    harden: bool | Hardening = False,
    space: PixelSpace | None = None,
    num_classes: int | None = None,
    head: str | None = None,
    seed: int = 0,
    results: PathLike | None = None,
    verbose: bool | str = "auto",
) -> Tradeoff:
    """Trains a student for each of several shares that are kept of a teacher, and measures them.

    The slices are nested: they are cut from one ranking. All students are trained alike. `RelevantSlicer.sweep` shows
    what such slices hold, and trains nothing.

    Args:
        teacher: See `Method.train`.
        train: What students learn from: arrays `(x, y)` or a `Dataset`; with `validation` whatever else `fit` takes.
        validation: What accuracy is measured on. By default a fifth of every class of `train`, which is then not
            trained on.
        inputs: Attack sets by name, made with this teacher, to measure DIR on.
        ratios: The shares, in (0, 1]; `RATIOS` by default.
        preset: How the slices are chosen: see `RelevantSlicer`.
        recipe: How students are trained; by default the learning rate is chosen for the fine-tuned one, as long as four
            trainings take.
        harden: Harden all of them: see `Method.train`.
        space: How inputs come from pixels, for hardening and for attack sets; what `open_for_model` returns brings it
            along.
        num_classes: How many classes the students tell apart, where the data do not say.
        head: The path of the teacher's head, where it is not found.
        seed: Of everything that is drawn.
        results: A file that each point is added to, one JSON object a line. The same call goes on from it.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.

    Returns:
        The points. Print the `summary()`.

    Raises:
        RemosError: If there is no share, one is not in (0, 1], there is no such seed, or it is not known how
            inputs come from pixels.
        MismatchError: If an attack set was made with another teacher.
        FileError: If the results are damaged.
        DataError: If the data do not fit the teacher.

    Example:
    ```python
    found = open_for_model(teacher, "dogs")
    print(tradeoff(teacher, found.dataset, inputs={"penultimate": AttackSet.load("pen.npz")}).summary())
    ```
    """
    ratios = sorted({float(ratio) for ratio in (RATIOS if ratios is None else ratios)}, reverse=True)
    if not ratios:
        raise RemosError("`ratios` must be one or more shares, received none.")
    for ratio in ratios:
        check_keep_ratio(ratio)
    check_seed(seed)
    sets = dict(inputs or {})
    for attack in sets.values():
        attack.check_teacher(teacher)
    space = space or getattr(train, "space", None)
    if space is None and any(not attack.holds_text for attack in sets.values()):
        raise RemosError("How do inputs come from pixels? Attack sets hold pixels: pass `space=PixelSpace(...)`.")
    if validation is None:
        train, validation = set_aside(train, VALIDATION_SHARE, seed=seed)
    how: dict[str, Any] = {"num_classes": num_classes, "head": head}
    task = Task(teacher, train, recipe=recipe or recipe_of("finetune", teacher), seed=seed, **how)
    hardening = FineTune().hardening(task, harden, space)
    how |= {"harden": hardening or False, "space": space, "verbose": verbose}
    key = {
        "teacher": _digest(json.dumps(fingerprint(teacher)).encode()),
        **task.content(verbose=verbose),
        "validation": Task(teacher, validation, num_classes=task.num_classes, head=head).content(verbose=False)["data"],
        "inputs": {name: Fingerprint.of(attack.clean, attack.inputs, attack.labels) for name, attack in sets.items()},
        "asked": None if recipe is None else recipe.get_config(),
        "hardening": hardening.get_config() if hardening else None,
        "preset": preset,
        "num_classes": task.num_classes,
        "head": head,
        "space": None if space is None else space.get_config(),
        "seed": seed,
        "backend": keras.backend.backend(),
    }
    shown: dict[str, Any] = {"description": "Share", "verbose": verbose, "name": "{:g} kept".format}
    with contextlib.nullcontext() if results is None else reserved(results, overwrite=True, again=True):
        done = _Results(results, key)
        chosen = done.recipe or recipe
        missing = [ratio for ratio in ratios if ratio not in done.points]
        is_open = chosen is None or chosen.is_open
        controls = hardening.controls if hardening else 0
        plan = plan_student(
            task.recipe.epochs,
            1 + controls + MOST_EACH,
            rates=len(rates_of(task.recipe)) if is_open else 0,
            shares=0,
            least=FineTune().least_epochs,
            twins=hardening.passes if hardening else 0.0,
            # Of the teacher alone.
            twins_of_trials=hardening.by_teacher().passes if hardening and controls else 0.0,
            controls=controls,
        )
        if missing:
            say(replace(plan, students=len(missing)).summary(), verbose=verbose)
        if chosen is None or chosen.is_open:
            tuned = tune_recipe(
                FineTune(), teacher, train, validation, recipe=chosen, budget=MOST_EACH, seed=seed, **how
            )
            chosen = tuned.recipe
        methods: dict[float, Method] = {1.0: FineTune()}
        if any(ratio < 1 for ratio in missing):
            slicer = RelevantSlicer(teacher, preset=preset, head=task.head)
            below = [ratio for ratio in missing if ratio < 1]
            slices = slicer.sweep(slicer.profile(task.plain_data(), verbose=verbose), keep_ratios=below)
            methods |= {ratio: Remos(relevant=relevant) for ratio, relevant in slices.items()}
        with track(missing, total=len(missing), **shown) as tracked:
            for ratio in tracked:
                trained = trained_quietly(methods[ratio], teacher, train, chosen, seed=seed, **how)
                right = right_on(trained, teacher, validation, head=head)
                rates = {name: _dir(trained.student, attack, space) for name, attack in sets.items()}
                done.add(Point(ratio, Rate.of(right, np.ones(len(right), bool)), rates), chosen)
    points = tuple(done.points[ratio] for ratio in ratios)
    return Tradeoff(points, chosen, bool(hardening), tuned=recipe is None or recipe.is_open)


class _Share(TypedDict):
    count: Count
    n: Count


class _Row(TypedDict):
    """A point in a file, and what it is of."""

    run: dict[str, Any]
    recipe: dict[str, Any]
    keep_ratio: Share
    accuracy: _Share
    inherited: dict[str, _Share]


class _Results:
    """The points of one run, in memory and in a file that may hold those of other runs, too."""

    def __init__(self, path: PathLike | None, key: Mapping[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.key = json.loads(json.dumps(key))
        self.points: dict[float, Point] = {}
        self.recipe: Recipe | None = None
        self._lines: list[str] = []
        if self.path is not None and self.path.exists():
            self._read(self.path)

    def add(self, point: Point, recipe: Recipe) -> None:
        self.points[point.keep_ratio] = point
        if self.path is None:
            return
        self._lines.append(json.dumps({"run": self.key, "recipe": recipe.get_config(), **point.describe()}))
        with replacing(self.path, overwrite=True) as temporary:
            temporary.write_text("\n".join([*self._lines, ""]), encoding="utf-8")

    def _read(self, path: Path) -> None:
        with complete(path, "damaged, or holds no results of a trade-off", "Name another file."):
            self._lines = check_regular(path).read_text(encoding="utf-8").splitlines()
            for number, line in enumerate(self._lines, start=1):
                row = parse_json(line.encode())
                check(row, _Row, f"line {number}")
                if row["run"] == self.key:
                    if row["inherited"].keys() != self.key["inputs"].keys():
                        raise ValueError(f"line {number}: inherited is of other attack sets than its run")
                    point = Point.read(row)
                    self.points[point.keep_ratio] = point
                    self.recipe = Recipe.from_config(row["recipe"])


def _dir(student: keras.Model, attack: AttackSet, space: PixelSpace | None) -> Rate:
    space = space or PixelSpace(PREPROCESSOR)
    return dir_of(attack, lambda x: predict_classes(student, x, space))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _rate(described: Mapping[str, Any]) -> Rate:
    return Rate(described["count"], described["n"])


def _shown(rate: Rate) -> str:
    low, high = rate.interval()
    return f"{rate.value:.3f} ({low:.3f} to {high:.3f})"
