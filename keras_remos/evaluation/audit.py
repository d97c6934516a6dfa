"""`audit`: every attack that fits a teacher, tried on its students, beside a fine-tuned control."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from typing import Any, TypeAlias

import keras
import numpy as np

from keras_remos.data.datasets import Dataset
from keras_remos.data.labels import check_largest_id
from keras_remos.data.other_tasks import refuse_other_tasks
from keras_remos.data.parts import set_aside
from keras_remos.data.pixels import PREPROCESSOR, PixelSpace
from keras_remos.data.texts import as_texts, holds_text
from keras_remos.defects import AttackSet, Prepared, SurrogateAttack
from keras_remos.defects.base import Request
from keras_remos.errors import DataError, MismatchError, RemosError
from keras_remos.evaluation.attackers import ADAPTIVE, Attacker, Attempts, title_of
from keras_remos.evaluation.inheritance import Attacks, InheritanceReport, Students, measure
from keras_remos.evaluation.predictions import check_fits
from keras_remos.evaluation.verdict import plants
from keras_remos.methods import recipe_of
from keras_remos.methods import train as train_by
from keras_remos.models.loading import check_model
from keras_remos.models.tokenizers import reads_text
from keras_remos.progress import track, track_named
from keras_remos.saving import versions
from keras_remos.training.recipe import AUTO, Recipe, default_recipe
from keras_remos.training.trained import Trained
from keras_remos.untrusted import printable

Student: TypeAlias = keras.Model | Trained | tuple[keras.Model | Trained, PixelSpace]

CONTROL = "fine-tuned"
FLOOR = "retrained"
CLEAN = "from the clean teacher"


@dataclass(frozen=True, kw_only=True)
class Controls:
    """What students are compared with. All but a student that is named are trained in the run, which needs `train`.

    Args:
        control: What rACC and rDIR are relative to: `True` fine-tunes a student, the name of one of the students takes
            that one, `False` does without.
        floor: Also train a student from scratch, which inherits nothing: how far above it each student is, beside how
            far the control is, is the excess. The name of one of the students takes that one.
        clean_teacher: The teacher before an attacker touched it, where it is at hand: a student that is fine-tuned from
            it shows how often a trigger fools a student that never met it.
        head: The path of the teacher's head, where it is not found: theirs take its place, and attacks read what enters
            it.
        tune: Choose the learning rate of each that is trained on validation data, unless the recipe names one: five
            trainings in place of one. A ratio to a control that was trained at a poor rate says nothing.
    """

    control: bool | str = True
    floor: bool | str = False
    clean_teacher: keras.Model | None = None
    head: str | None = None
    tune: bool = True

    def trained_from(self, teacher: keras.Model) -> dict[str, tuple[keras.Model, str]]:
        """Who is trained in the run: by the name in the table, the teacher and the method."""
        trained = {CONTROL: (teacher, "finetune")} if self.control is True else {}
        trained |= {FLOOR: (teacher, "retrain")} if self.floor is True else {}
        return trained | ({CLEAN: (self.clean_teacher, "finetune")} if self.clean_teacher is not None else {})

    @property
    def compared(self) -> str | None:
        """The name in the table of what ratios are to."""
        return CONTROL if self.control is True else (self.control or None)


@dataclass(frozen=True, repr=False)
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

    def __repr__(self) -> str:
        return f"<AuditReport: {', '.join(self.attacks) or 'no attack'} on {', '.join(self.inheritance.accuracies)}>"

    def _repr_html_(self) -> str:
        notes = [f"{name}: {_made(trained)}, in this run." for name, trained in self.trained.items()]
        notes += [f"Not tried: {name}. {reason}" for name, reason in self.left_out.items()]
        return self.inheritance._repr_html_() + "".join(f"<p>{escape(note)}</p>" for note in notes)

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
        lines = [f"{name}: {_made(trained)}, in this run." for name, trained in self.trained.items()]
        lines += [f"Not tried: {name}. {reason}" for name, reason in self.left_out.items()]
        return "\n".join([self.inheritance.summary(), *map(printable, lines)])


def audit(
    teacher: keras.Model | Prepared,
    students: Mapping[str, Student],
    test: Any,
    *,
    train: Any = None,
    attacker: Attacker = Attacker(),  # noqa: B008 (frozen)
    controls: Controls = Controls(),
    recipe: Recipe | Mapping[str, Any] | None = None,
    space: PixelSpace | None = None,
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
        students: The students, by name: models, or what `train` returned, which an adaptive attacker can make one like;
            `(student, space)` for one whose inputs are scaled in another way than the teacher's. Range and data format
            of the pixels are those of the test set for all.
        test: `(x, y)`, x being pixels or texts, or a `Dataset` of them. All of it is used.
        train: The students' training data, as `test`, for control and floors: in the order in which the students had
            them (a `Dataset` as it was opened; what `read_all` returns comes in another order). Where students were
            trained with a share set aside for the attacker (`attacker_share`), it is set aside again, and the rest is
            trained on. Without data of the attacker's own, copies of the teacher that attacks are made with learn from
            these, too, with another seed.
        attacker: What is tried.
        controls: What the students are compared with.
        recipe: How control, floors and the attacker's copy are trained. Compare like with like: give the recipe that
            the students were trained by. Each has a default of its own (`recipe_of`; a floor has further to go), and
            what is given changes that: single options by name (`{"epochs": 10}`), or a `Recipe`, which stands for
            the options in which it differs from the teacher's `default_recipe`.
        space: How the teacher's inputs come from pixels; a `Prepared` teacher brings its own, and texts need none.
        class_names: Of the test set, if it does not bring them.
        batch_size: Samples at a time.
        seed: For training, attacks and intervals.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.

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
    given = {name: each if isinstance(each, tuple) else (each, prepared.space) for name, each in students.items()}
    ways = {name: student for name, (student, _) in given.items() if isinstance(student, Trained)}
    judged = {name: (_model(student), scaled) for name, (student, scaled) in given.items()}
    compared_with = controls.trained_from(prepared.teacher)
    _check_request(judged, train, controls, compared_with)
    num_classes = max(
        [check_fits(model, x, scaled, name) for name, (model, scaled) in judged.items()] or [int(y.max()) + 1]
    )
    train, attacker = _parted(train, attacker, ways)
    options = recipe.changes(default_recipe(prepared.teacher)) if isinstance(recipe, Recipe) else dict(recipe or {})
    if options.get("learning_rate") == AUTO:
        # As if it were not named: of controls it is chosen, attackers' copies have their default.
        del options["learning_rate"]
    of_copies = replace(default_recipe(prepared.teacher), **options) if options else None
    attempts = Attempts(attacker, prepared, train, of_copies, head=controls.head)
    with track_named(compared_with, description="Student to compare with", verbose=verbose) as tracked:
        trained = {
            name: train_by(
                method,
                source,
                _scaled(train, prepared.space),
                num_classes=num_classes,
                recipe=_recipe(method, source, options, tune=controls.tune),
                seed=seed,
                head=controls.head,
                harden=False,
                verbose=verbose,
            )
            for name, (source, method) in tracked
        }
    ways = {**trained, **ways}
    attempts.train_surrogates_by(_recipe_of(ways.get(controls.compared or "")))
    attacks: dict[str, AttackSet] = {}
    how: dict[str, Any] = {"seed": seed, "verbose": verbose}
    every = attempts.wanted
    with track(every, total=len(every), description="Attack", verbose=verbose, name=title_of) as each_attack:
        for wanted in each_attack:
            if isinstance(wanted, AttackSet):
                wanted.check_teacher(prepared.teacher)
                attack = wanted
            else:
                source = attempts.source_of(wanted, **how)
                attack = wanted.inputs(source, x, y, class_names=names, batch_size=batch_size, **how)
            attacks[_unique(title_of(wanted), attacks)] = attack
    tried: dict[str, AttackSet | Mapping[str, AttackSet]] = dict(attacks)
    if attempts.adaptive:
        request = Request(x, y, names, batch_size, seed, verbose, None)
        # Of a fine-tuned student it is the surrogate.
        is_surrogate = SurrogateAttack.name in attacks and controls.compared is not None
        own_way = judged.keys() - ({controls.compared} if is_surrogate else set())
        like = {name: way for name, way in ways.items() if name in own_way}
        with track_named(like, description="Adaptive attack, student", verbose=verbose) as tracked:
            made = {name: attempts.against(name, way, request) for name, way in tracked}
        own = {name: each for name, each in made.items() if each is not None}
        if is_surrogate and controls.compared is not None:
            own = {controls.compared: attacks[SurrogateAttack.name]} | own
        for name in judged.keys() - ways.keys():
            attempts.left_out[f"{ADAPTIVE} ({name})"] = "It is not known by which method the student was made."
        if own:
            tried[ADAPTIVE] = own
        attacks |= {f"{ADAPTIVE} {name}": each for name, each in made.items() if each is not None}
    ours = {name: (made.student, prepared.space) for name, made in trained.items()}
    inheritance = measure(
        {**ours, **judged},
        x,
        y,
        tried,
        control=controls.compared,
        floors=_floors(tried, trained, controls) if controls.compared is not None else None,
        batch_size=batch_size,
        seed=seed,
        verbose=verbose,
    )
    return AuditReport(inheritance, attacks, trained, seed, attempts.left_out)


def _model(student: keras.Model | Trained) -> keras.Model:
    return student.student if isinstance(student, Trained) else student


def _recipe(method: str, teacher: keras.Model, options: Mapping[str, Any], *, tune: bool) -> Recipe:
    """How a control or a floor is trained."""
    recipe = replace(recipe_of(method, teacher), **options)
    return replace(recipe, learning_rate=AUTO) if tune and "learning_rate" not in options else recipe


def _recipe_of(student: Trained | None) -> Recipe | None:
    """The recipe that a student was trained by, as far as its record tells."""
    if student is None:
        return None
    try:
        return Recipe.from_config(student.options["recipe"])
    except (KeyError, TypeError, RemosError):
        return None


def _parted(train: Any, attacker: Attacker, ways: Mapping[str, Trained]) -> tuple[Any, Attacker]:
    """The training data without the share that students left to the attacker, who gets it."""
    shares = {(way.options.get("attacker_share", 0.0), way.options["seed"]) for way in ways.values()}
    shares = {each for each in shares if each[0]}
    if attacker.data is not None or train is None or not shares:
        return train, attacker
    if len(shares) > 1:
        raise MismatchError(
            "The students were trained with different shares set aside for the attacker: give the attacker's data "
            "(`attacker_data`), or measure them one by one."
        )
    ((share, seed),) = shares
    rest, aside = set_aside(train, share, seed=seed)
    return rest, replace(attacker, data=aside)


def _floors(attacks: Attacks, trained: Mapping[str, Any], controls: Controls) -> dict[str, str]:
    """For each attack the student that cannot have inherited it, if one was trained.

    A backdoor is not in a student of the clean teacher. Adversarial inputs work on that one, too: there it takes a
    student from scratch.
    """
    usual = controls.floor if isinstance(controls.floor, str) else FLOOR
    found = {
        name: CLEAN if CLEAN in trained and isinstance(attack, AttackSet) and plants(attack.defect) else usual
        for name, attack in attacks.items()
    }
    return {name: floor for name, floor in found.items() if floor in trained or floor == controls.floor}


def _as_prepared(teacher: keras.Model | Prepared, space: PixelSpace | None) -> Prepared:
    if isinstance(teacher, Prepared):
        if space is not None and space != teacher.space:
            raise MismatchError(
                f"The teacher's file says that its inputs are scaled by {teacher.space}, received {space}. Leave space "
                "out."
            )
        return teacher
    check_model(teacher)
    if space is None and reads_text(teacher):
        space = PixelSpace(PREPROCESSOR)
    if space is None:
        raise RemosError(
            "How do the teacher's inputs come from pixels? Pass a PixelSpace as `space`: 'imagenet', '0-1', ... "
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
    refuse_other_tasks(test[1])
    x, y = (np.asarray(part) for part in test)
    if holds_text(x):
        x = as_texts(x, allow_empty=True)
    if y.shape != x.shape[:1] or y.dtype.kind not in "biu" or not len(y):
        raise DataError(
            f"Expected a class id for each test sample. Received: samples of shape {x.shape}, labels of shape {y.shape}"
            f" and type {y.dtype}."
        )
    check_largest_id(y)
    return x, y.astype(np.int32), tuple(class_names)


def _check_request(judged: Students, train: Any, controls: Controls, compared_with: Mapping[str, Any]) -> None:
    if train is None and compared_with:
        raise RemosError(
            f"Trained in this run: {', '.join(compared_with)}. For that give `train`, or name the student to "
            "compare with, or do without (`controls`)."
        )
    for named in (controls.control, controls.floor):
        if isinstance(named, str) and named not in judged:
            raise RemosError(f"There is no student {named!r} to compare with: expected one of {', '.join(judged)}.")
    taken = sorted(set(compared_with) & set(judged))
    if taken:
        raise RemosError(f"The name {' and '.join(taken)} is taken: rename that student.")
    if not judged and not compared_with:
        raise RemosError("There is no student to audit: name one or more (`students`).")
    if isinstance(train, Dataset):
        train.required_labels()
    elif isinstance(train, tuple) and len(train) > 1:
        refuse_other_tasks(train[1])


def _unique(title: str, taken: Mapping[str, Any]) -> str:
    numbered = (f"{title} {number}" if number > 1 else title for number in itertools.count(1))
    return next(name for name in numbered if name not in taken)


def _scaled(data: Any, space: PixelSpace) -> Any:
    """Training data as the teacher takes them."""
    if space.scaling == PREPROCESSOR:
        return data
    if isinstance(data, Dataset):
        return data.scaled(space)
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
