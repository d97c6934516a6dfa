"""`audit`: every attack that fits a teacher, tried on its students, beside a fine-tuned control."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_remos.data.datasets import Dataset
from keras_remos.data.pixels import PREPROCESSOR, PixelSpace
from keras_remos.data.texts import as_texts, holds_text, reads_text
from keras_remos.defects import (
    DEFECTS,
    AttackSet,
    CoverageGuidedAttack,
    Defect,
    GreedySwap,
    PenultimateAttack,
    Prepared,
    WordImportance,
)
from keras_remos.defects.synonyms import SynonymSource
from keras_remos.defects.word_swap import WordSwap
from keras_remos.errors import DataError, MismatchError, RemosError
from keras_remos.evaluation.inheritance import InheritanceReport, Students, measure
from keras_remos.evaluation.predictions import check_fits
from keras_remos.methods import METHODS, Recipe, Trained, recipe_of
from keras_remos.saving import versions

Wanted = str | Defect | AttackSet

CONTROL = "fine-tuned"
FLOOR = "retrained"
CLEAN = "from the clean teacher"


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Args:
        inheritance: The figures: see `InheritanceReport`.
        attacks: The attack sets that they were measured on, by name. Save them to try them on later students.
        trained: The control and the floors, where they were trained in the run.
        seed: Of everything that was drawn.
        left_out: Attacks that fit the teacher and were not tried, with the reason.
    """

    inheritance: InheritanceReport
    attacks: Mapping[str, AttackSet]
    trained: Mapping[str, Trained]
    seed: int
    left_out: Mapping[str, str] = field(default_factory=dict)

    def describe(self) -> dict[str, Any]:
        """The same as plain values for JSON."""
        return {
            **self.inheritance.describe(),
            "attacks": {name: attack.describe() for name, attack in self.attacks.items()},
            "trained": {name: dict(trained.options) for name, trained in self.trained.items()},
            "left_out": dict(self.left_out),
            "seed": self.seed,
            "versions": versions(),
        }

    def summary(self) -> str:
        """The same as two tables of at most 100 columns, and how to read them."""
        lines = [self.inheritance.summary()]
        lines += [f"{name}: {_made(trained)}, in this run." for name, trained in self.trained.items()]
        lines += [f"Not tried: {name}. {reason}" for name, reason in self.left_out.items()]
        return "\n".join(lines)


def audit(
    teacher: keras.Model | Prepared,
    students: Mapping[str, keras.Model],
    test: Any,
    *,
    train: Any = None,
    defects: Iterable[Wanted] | None = None,
    control: bool | str = True,
    floor: bool = False,
    clean_teacher: keras.Model | None = None,
    synonyms: SynonymSource | None = None,
    space: PixelSpace | None = None,
    spaces: Mapping[str, PixelSpace] | None = None,
    recipe: Recipe | None = None,
    class_names: Iterable[str] = (),
    batch_size: int = 64,
    seed: int = 0,
    verbose: bool | str = "auto",
) -> AuditReport:
    """Attacks a teacher in every way that fits it, and measures how much of that its students inherited.

    Each attack is made once, with the teacher and never with a student, and tried on every student.

    Args:
        teacher: The teacher that the students come from. Load it with `Prepared.load` where its file may carry a
            backdoor: the trigger is then tried too.
        students: The students, by name.
        test: `(x, y)`, x being pixels or texts, or a `Dataset` of them. All of it is used.
        train: The students' training data, as `test`, for control and floors, and for the attacker's own copy of the
            teacher that attacks on classifiers of the task (`of_task`) are made with: the attacker has the students'
            data, and another seed.
        defects: Keys of `DEFECTS`, configured attacks, or attack sets that were made with this teacher before. `None`:
            the backdoor that the teacher's file carries, and for images the penultimate attack and two coverage-guided
            ones (NC with DeepXplore, SNAC with DLFuzz), for texts both word swaps, if there are `train` data and a
            source of synonyms.
        control: What rACC and rDIR are relative to: `True` fine-tunes a student in this run (needs `train`), the name
            of one of the students takes that one, `False` does without.
        floor: Also train a student from scratch (needs `train`), which inherits nothing.
        clean_teacher: The teacher before an attacker touched it, where it is at hand: a student that is fine-tuned from
            it (needs `train`) shows how often a trigger fools a student that never met it.
        synonyms: Where word swaps take their words from; WordNet by default, where NLTK is installed.
        space: How the teacher's inputs come from pixels; a `Prepared` teacher brings its own, and texts need none.
        spaces: The same for students that are scaled in another way, by name. Range and data format of the pixels are
            those of the test set for all.
        recipe: How control, floors and the attacker's copy are trained; their own defaults if not given. Compare like
            with like: give the recipe that the students were trained by.
        class_names: Of the test set, if it does not bring them.
        batch_size: Samples at a time.
        seed: For training, attacks and intervals.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for a terminal only.

    Returns:
        The report. Print its `summary()`.

    Raises:
        DataError: If the data do not fit the teacher or a student, or have classes that a student does not know.
        MismatchError: If an attack set was made with another teacher or of other pixels.
        RemosError: If there is nothing to compare with, no such defect, or a student is no classifier.

    Example:
    ```python
    teacher = Prepared.load("poisoned.keras")
    report = audit(teacher, {"remos": student}, (x_test, y_test), train=(x_train, y_train))
    print(report.summary())
    ```
    """
    prepared = _as_prepared(teacher, space)
    x, y, names = _samples(test, class_names)
    judged = {name: (model, (spaces or {}).get(name, prepared.space)) for name, model in students.items()}
    methods = {CONTROL: (prepared.teacher, "finetune")} if control is True else {}
    methods |= {FLOOR: (prepared.teacher, "retrain")} if floor else {}
    methods |= {CLEAN: (clean_teacher, "finetune")} if clean_teacher is not None else {}
    _check_request(judged, train, control, methods, spaces or {})
    num_classes = max(
        [check_fits(model, x, scaled, name) for name, (model, scaled) in judged.items()] or [int(y.max()) + 1]
    )
    attacks: dict[str, AttackSet] = {}
    swapping = {"synonyms": synonyms, "recipe": recipe}
    named, left_out = _applicable(prepared, train, swapping) if defects is None else (list(defects), {})
    copies: dict[Recipe | None, Prepared] = {}
    for wanted in [_named(name, swapping) if isinstance(name, str) else name for name in named]:
        if isinstance(wanted, AttackSet):
            wanted.check_teacher(prepared.teacher)
            attack = wanted
        else:
            source = _attacked(wanted, prepared, train, copies, seed=seed, verbose=verbose)
            attack = wanted.inputs(source, x, y, class_names=names, batch_size=batch_size, seed=seed, verbose=verbose)
        attacks[_unique(_title(wanted), attacks)] = attack
    trained: dict[str, Trained] = {}
    for name, (source, method) in methods.items():
        trained[name] = METHODS[method](
            source,
            _scaled(train, prepared.space),
            num_classes=num_classes,
            recipe=recipe or recipe_of(method, source),
            seed=seed,
            verbose=verbose,
        )
    ours = {name: (made.student, prepared.space) for name, made in trained.items()}
    compared = CONTROL if control is True else (control or None)
    inheritance = measure(
        {**ours, **judged}, x, y, attacks, control=compared, batch_size=batch_size, seed=seed, verbose=verbose
    )
    return AuditReport(inheritance, attacks, trained, seed, left_out)


def _as_prepared(teacher: keras.Model | Prepared, space: PixelSpace | None) -> Prepared:
    if isinstance(teacher, Prepared):
        if space is not None and space != teacher.space:
            raise MismatchError(
                f"The teacher's file says that its inputs are scaled by {teacher.space}, received {space}. Leave space "
                "out."
            )
        return teacher
    if space is None and reads_text(teacher):
        space = PixelSpace(PREPROCESSOR)
    if space is None:
        raise RemosError(
            "How do the teacher's inputs come from pixels? Pass space=PixelSpace(...): 'imagenet', '0-1', ... "
            "(keras_remos.open_for_model finds out), or a teacher from Prepared.load."
        )
    return Prepared(teacher, space)


def _samples(test: Any, class_names: Iterable[str]) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    if isinstance(test, Dataset):
        return *test.read_all(), tuple(class_names) or tuple(test.class_names)
    if not (isinstance(test, tuple) and len(test) == 2):
        raise DataError(
            f"Expected the test set as (x, y) in pixels or texts, or as a Dataset. Received: {type(test).__name__}."
        )
    x, y = (np.asarray(part) for part in test)
    if holds_text(x):
        x = as_texts(x, allow_empty=True)
    if y.shape != x.shape[:1] or y.dtype.kind not in "biu" or not len(y):
        raise DataError(
            f"Expected a class id for each test sample. Received: samples of shape {x.shape}, labels of shape {y.shape}"
            f" and type {y.dtype}."
        )
    return x, y.astype(np.int32), tuple(class_names)


def _check_request(
    judged: Students, train: Any, control: bool | str, methods: Mapping[str, Any], spaces: Mapping[str, PixelSpace]
) -> None:
    if train is None and methods:
        raise RemosError(
            f"Trained in this run: {', '.join(methods)}. For that pass train=(x, y), or name the student to compare "
            "with (control='...'), or do without (control=False, floor=False)."
        )
    if isinstance(control, str) and control not in judged:
        raise RemosError(f"There is no student {control!r} to compare with: expected one of {', '.join(judged)}.")
    taken = sorted(set(methods) & set(judged))
    if taken:
        raise RemosError(f"The name {' and '.join(taken)} is taken: rename that student.")
    if not judged and not methods:
        raise RemosError("There is no student to audit: pass students={name: model}.")
    if set(spaces) - set(judged):
        raise RemosError(
            f"spaces names {', '.join(sorted(set(spaces) - set(judged)))}, which is none of the students: "
            f"{', '.join(judged)}."
        )


def _applicable(prepared: Prepared, train: Any, swapping: Mapping[str, Any]) -> tuple[list[Wanted], dict[str, str]]:
    """What can be tried on a teacher, and what could be if more were there."""
    tried: list[Wanted] = []
    left_out: dict[str, str] = {}
    if reads_text(prepared.teacher):
        for kind in (WordImportance, GreedySwap):
            try:
                if train is None:
                    raise DataError("It attacks a classifier of the task: give the training data.")
                tried.append(kind(**swapping).resolved())
            except (DataError, ImportError) as error:
                left_out[kind.name] = str(error)
    else:
        tried += [
            PenultimateAttack(),
            CoverageGuidedAttack(criterion="nc", strategy="deepxplore"),
            CoverageGuidedAttack(criterion="snac", strategy="dlfuzz"),
        ]
    if prepared.trigger is not None:
        tried.append(DEFECTS[prepared.record["defect"]]())
    return tried, left_out


def _attacked(
    wanted: Defect,
    prepared: Prepared,
    train: Any,
    copies: dict[Recipe | None, Prepared],
    *,
    seed: int,
    verbose: bool | str,
) -> Prepared:
    """What an attack is made with: the teacher, or the attacker's copy of it, which is added to `copies`."""
    if wanted.plants:
        # It is in the teacher already.
        return prepared
    own = _unscaled(train) if wanted.of_task and train is not None else None
    if own is not None and wanted.copy_recipe in copies:
        return copies[wanted.copy_recipe]
    # The attacker's copy gets another seed: it is not the control.
    made = wanted.prepare(prepared.teacher, own, space=prepared.space, seed=seed + 1, verbose=verbose)
    if own is not None:
        copies[wanted.copy_recipe] = made
    return made


def _named(name: str, swapping: Mapping[str, Any]) -> Defect:
    if name not in DEFECTS:
        raise RemosError(f"Unknown defect {name!r}: expected one of {', '.join(DEFECTS)}.")
    kind = DEFECTS[name]
    return kind(**swapping) if issubclass(kind, WordSwap) else kind()


def _title(wanted: Defect | AttackSet) -> str:
    """What an attack is called in a table: its name, and for coverage what is counted and how neurons are chosen."""
    name, options = (
        (wanted.defect, wanted.options) if isinstance(wanted, AttackSet) else (wanted.name, wanted.get_config())
    )
    if name == CoverageGuidedAttack.name:
        return f"{options['criterion']['name']} {options['strategy']}"
    return name


def _unique(title: str, taken: Mapping[str, Any]) -> str:
    numbered = (f"{title} {number}" if number > 1 else title for number in itertools.count(1))
    return next(name for name in numbered if name not in taken)


def _unscaled(data: Any) -> Any:
    """Training data as attacks take them: all of them in memory."""
    return data.read_all() if isinstance(data, Dataset) else data


def _scaled(data: Any, space: PixelSpace) -> Any:
    """Training data as the teacher takes them."""
    if space.scaling == PREPROCESSOR:
        return data
    if isinstance(data, Dataset):
        return data.map(space.scale)
    if not (isinstance(data, tuple) and len(data) == 2):
        raise DataError(
            f"Expected training data as (x, y) in pixels, or as a Dataset. Received: {type(data).__name__}."
        )
    x, y = (np.asarray(part) for part in data)
    space.check(x)
    return space.scale(x), y


def _made(trained: Trained) -> str:
    recipe = trained.options["recipe"]
    return f"{trained.method}, {recipe['epochs']} epochs, learning rate {recipe['learning_rate']:g}"
