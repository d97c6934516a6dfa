"""`audit`: every attack that fits a teacher, tried on its students, beside a fine-tuned control."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import keras

from keras_remos.data.pixels import PixelSpace
from keras_remos.data.samples import scaled
from keras_remos.data.streams import Fingerprint
from keras_remos.defects import AttackSet, Defect, Prepared, SurrogateAttack
from keras_remos.defects.base import Request
from keras_remos.evaluation.attackers import ADAPTIVE, Attacker, Attempts, title_of
from keras_remos.evaluation.audit_folder import AuditFolder
from keras_remos.evaluation.audit_report import AuditReport
from keras_remos.evaluation.audit_request import (
    as_prepared,
    check_attackers_classes,
    check_request,
    classes_of,
    parted,
    samples,
)
from keras_remos.evaluation.controls import Controls, floors_of, recipe_for, recipe_of_copies
from keras_remos.evaluation.measuring import measure
from keras_remos.evaluation.predictions import check_fits
from keras_remos.evaluation.verdict import unlike
from keras_remos.evaluation.weight_change import weight_change
from keras_remos.methods import train as train_by
from keras_remos.models.fingerprint import fingerprint
from keras_remos.progress import track, track_named
from keras_remos.training.recipe import AUTO, Recipe, default_recipe
from keras_remos.training.trained import Trained
from keras_remos.untrusted import PathLike, check_seed

Student: TypeAlias = keras.Model | Trained | tuple[keras.Model | Trained, PixelSpace]


def audit(
    teacher: keras.Model | Prepared,
    students: Mapping[str, Student],
    test: Any,
    *,
    train: Any = None,
    attacker: Attacker = Attacker(),  # noqa: B008 (frozen)
    controls: Controls = Controls(),  # noqa: B008
    recipe: Recipe | Mapping[str, Any] | None = None,
    space: PixelSpace | None = None,
    class_names: Iterable[str] = (),
    folder: PathLike | None = None,
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
        test: `(x, y)`, x being pixels (an array, or `Samples`) or texts, or a `Dataset` of them. All of it is used.
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
        folder: Where trainings and attack sets are kept as they are finished: the same call goes on from there, and one
            with more students makes only what it has to. `AuditReport.save` puts the report beside them.
        batch_size: Samples at a time.
        seed: For training, attacks and intervals.
        verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.

    Returns:
        The report. Print its `summary()`.

    Raises:
        DataError: If the data do not fit the teacher or a student, or have classes that a student does not know, or
            the attacker's own data are of other classes.
        MismatchError: If an attack set was made with another teacher or of other pixels, students left different shares
            to the attacker or were trained on other data, as far as their records tell, or the folder is of an audit of
            another teacher, test set or seed.
        FileError: If the folder holds other files, or another audit uses it.
        RemosError: If there is nothing to compare with, no such defect or seed, or a student is no classifier.

    Example:
    ```python
    teacher = Prepared.load("poisoned.keras")
    report = audit(teacher, {"remos": student}, (x_test, y_test), train=(x_train, y_train))
    print(report.summary())
    ```
    """
    check_seed(seed)
    check_seed(seed + 1)  # of copies that attackers train
    prepared = as_prepared(teacher, space)
    x, y, names = samples(test, class_names, prepared.space)
    given = {name: each if isinstance(each, tuple) else (each, prepared.space) for name, each in students.items()}
    ways = {name: student for name, (student, _) in given.items() if isinstance(student, Trained)}
    judged = {name: (_model(student), own) for name, (student, own) in given.items()}
    compared_with = controls.trained_from(prepared.teacher)
    check_request(judged, train, controls, compared_with)
    num_classes = max(
        [check_fits(model, x, own, name) for name, (model, own) in judged.items()]
        or [int(y.max()) + 1, len(names), classes_of(train)]
    )
    check_attackers_classes(attacker.data, names, num_classes)
    train, attacker = parted(train, attacker, ways)
    options = recipe.changes(default_recipe(prepared.teacher)) if isinstance(recipe, Recipe) else dict(recipe or {})
    if options.get("learning_rate") == AUTO:
        # As if it were not named: of controls it is chosen, copies for word swaps have their default.
        del options["learning_rate"]
    for_texts = replace(default_recipe(prepared.teacher), **options) if options else None
    attempts = Attempts(
        attacker,
        prepared,
        train,
        for_texts,
        num_classes=num_classes,
        head=controls.head,
        data_left=train is None and any(way.options.get("attacker_share") for way in ways.values()),
        compared=controls.compared is not None,
    )
    whole: dict[str, Any] = {"teacher": fingerprint(prepared.teacher), "test set": Fingerprint.of(x, y), "seed": seed}
    kept = AuditFolder(folder, whole)
    with kept.in_use():
        with track_named(compared_with, description="Student to compare with", verbose=verbose) as tracked:
            trained = {
                name: kept.training(
                    name,
                    partial(
                        train_by,
                        method,
                        source,
                        scaled(train, prepared.space),
                        num_classes=num_classes,
                        recipe=recipe_for(method, source, options, tune=controls.tune),
                        seed=seed,
                        head=controls.head,
                        harden=False,
                        verbose=verbose,
                    ),
                )
                for name, (source, method) in tracked
            }
        ways = {**trained, **ways}
        of_copies = recipe_of_copies(ways, controls.compared, prepared.teacher, options, tune=controls.tune)
        attempts.train_copies_by(of_copies, kept, seed=seed, verbose=verbose)
        request = Request(x, y, names, batch_size, seed, verbose, None)
        attacks: dict[str, AttackSet] = {}
        every = attempts.wanted
        with track(every, total=len(every), description="Attack", verbose=verbose, name=title_of) as each_attack:
            for wanted in each_attack:
                title = _unique(title_of(wanted), attacks)
                attacks[title] = _made(wanted, title, attempts, prepared, request, kept)
        tried: dict[str, AttackSet | Mapping[str, AttackSet]] = dict(attacks)
        if attempts.adaptive:
            own = _made_for_each(attempts, attacks, ways, judged, controls, request, kept)
            if own:
                tried[ADAPTIVE] = own
            attacks |= {f"{ADAPTIVE} {name}": each for name, each in own.items() if each.defect == ADAPTIVE}
        ours = {name: (each.student, prepared.space) for name, each in trained.items()}
        inheritance = measure(
            {**ours, **judged},
            x,
            y,
            tried,
            control=controls.compared,
            floors=floors_of(tried, trained, controls) if controls.compared is not None else None,
            teacher=prepared,
            class_names=names,
            beside=trained.keys() | {each for each in (controls.floor,) if isinstance(each, str)},
            batch_size=batch_size,
            seed=seed,
            verbose=verbose,
        )
        records = {name: {**way.options, "method": way.method, "history": way.history} for name, way in ways.items()}
        inheritance = replace(inheritance, verdicts=(*inheritance.verdicts, *unlike(records, inheritance)))
        return AuditReport(
            inheritance,
            attacks,
            trained,
            seed,
            attempts.left_out,
            records=records,
            changes={
                name: change
                for name, (student, _) in {**ours, **judged}.items()
                if (change := weight_change(prepared.teacher, student)) is not None
            },
            prepared=prepared,
            class_names=names,
            whole=whole,
        )


def _made(
    wanted: Defect | AttackSet,
    title: str,
    attempts: Attempts,
    prepared: Prepared,
    request: Request,
    kept: AuditFolder,
) -> AttackSet:
    """An attack set, if it is not given or kept."""
    if isinstance(wanted, AttackSet):
        wanted.check_teacher(prepared.teacher)
        return wanted

    def make(resume: Path | None) -> AttackSet:
        source = attempts.source_of(wanted, seed=request.seed, verbose=request.verbose)
        return wanted.inputs(
            source,
            request.x,
            request.y,
            class_names=request.class_names,
            batch_size=request.batch_size,
            seed=request.seed,
            verbose=request.verbose,
            resume=resume,
        )

    return kept.attack(title, lambda: attempts.what_decides(wanted, request), make)


def _made_for_each(
    attempts: Attempts,
    attacks: Mapping[str, AttackSet],
    ways: Mapping[str, Trained],
    judged: Iterable[str],
    controls: Controls,
    request: Request,
    kept: AuditFolder,
) -> dict[str, AttackSet]:
    """The adaptive attack: a set for each student of which it is known how it was made."""
    # Of a fine-tuned student it is the surrogate.
    surrogate = attacks.get(SurrogateAttack.name) if controls.compared is not None else None
    own_way = set(judged) - ({controls.compared} if surrogate is not None else set())
    like = {name: way for name, way in ways.items() if name in own_way}
    with track_named(like, description="Adaptive attack, student", verbose=request.verbose) as tracked:
        made = {name: attempts.against(name, way, request, kept) for name, way in tracked}
    for name in set(judged) - ways.keys():
        attempts.left_out[f"{ADAPTIVE} ({name})"] = "It is not known by which method the student was made."
    found = {name: each for name, each in made.items() if each is not None}
    return found if surrogate is None else {str(controls.compared): surrogate, **found}


def _model(student: keras.Model | Trained) -> keras.Model:
    return student.student if isinstance(student, Trained) else student


def _unique(title: str, taken: Mapping[str, Any]) -> str:
    numbered = (f"{title} {number}" if number > 1 else title for number in itertools.count(1))
    return next(name for name in numbered if name not in taken)
