"""`keras-remos evaluate`: what students inherited, by attacks that were made with their teacher."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from keras_remos_cli.helping import Described
from keras_remos_cli.inputs import DataChoice, Opening, classes_of, report_skipped
from keras_remos_cli.options import (
    data_options,
    inputs_option,
    json_option,
    limit_options,
    opening_options,
    seed_option,
)
from keras_remos_cli.origins import Origins, allow_other_teacher, check_control, names_of
from keras_remos_cli.parameters import STUDENT, TEACHER, check_paths
from keras_remos_cli.running import emit, uses_keras
from keras_remos_cli.verdicts import Limits


@click.command(
    "evaluate",
    cls=Described,
    examples=[
        (
            "What two students inherited, beside a fine-tuned one",
            "keras-remos evaluate remos.keras delta.keras --data test/ --inputs attack.npz --control control.keras",
        ),
    ],
)
@click.argument("student_paths", metavar="STUDENT...", nargs=-1, required=True, type=STUDENT)
@opening_options
@data_options
@inputs_option
@click.option("--control", type=STUDENT, help="The fine-tuned student, for rACC and rDIR.")
@click.option("--floor", type=STUDENT, help="A student from scratch: how far above it each is.")
@click.option("--teacher", type=TEACHER, help="The teacher: how often the attacks fool it, too.")
@allow_other_teacher
@limit_options
@seed_option
@json_option
@uses_keras
def command(
    student_paths: tuple[Path, ...],
    opening: Opening,
    data: DataChoice,
    attack_paths: tuple[Path, ...],
    control: Path | None,
    floor: Path | None,
    teacher: str | None,
    allow_other_teacher: bool,
    limits: Limits,
    seed: int,
    as_json: bool,
) -> None:
    """Measure STUDENTs on the clean test set, --data, and on malicious inputs.

    Each student is measured on all of them; n is how many inputs a figure rests on.
    """
    if floor is not None and control is None:
        raise click.UsageError(
            "--floor says how far a student is above it, and the control tells how far that may be: "
            "give --control, too."
        )
    check_paths()
    from keras_remos.defects import AttackSet, Prepared
    from keras_remos.evaluation import measure, unlike
    from keras_remos.models.fingerprint import fingerprint
    from keras_remos.untrusted import read_record

    start = time.perf_counter()
    beside = [path for path in (control, floor) if path is not None]
    paths = list(dict.fromkeys([*beside, *student_paths]))
    names, titles = names_of(paths), names_of(attack_paths)
    records = {path: read_record(path) for path in paths}
    known = classes_of(records)
    source, of_source = (None, {}) if teacher is None else (opening.open(teacher), read_record(teacher))
    origins = Origins(None if source is None else (str(teacher), fingerprint(source)), allow_other=allow_other_teacher)
    origins.poisoned(of_source)
    attacks = {}
    for path in attack_paths:
        attacks[titles[path]] = AttackSet.load(path).numbered(known or ())
        origins.attack(path, attacks[titles[path]])
    for path, record in records.items():
        origins.student(path, record)
    if control is not None:
        check_control(control, records[control])
    students = {}
    for path in paths:
        model = opening.open(path)
        matched = data.open_trained(model, path, known)
        students[names[path]] = model, matched.space
    of_teacher = None
    if source is not None:
        space = data.open_trained(source, str(teacher), known).space
        of_teacher = Prepared(source, space, None, of_source)
    x, y = matched.samples()
    report_skipped(matched)
    report = measure(
        students,
        x,
        y,
        attacks,
        control=None if control is None else names[control],
        floors={} if floor is None else dict.fromkeys(attacks, names[floor]),
        teacher=of_teacher,
        beside=[] if floor is None else [names[floor]],
        class_names=matched.dataset.class_names,
        batch_size=data.at_a_time,
        seed=seed,
    )
    seconds = round(time.perf_counter() - start, 3)
    made = {names[path]: record for path, record in records.items()}
    report = replace(report, verdicts=(*report.verdicts, *unlike(made, report), *limits.judge(report)))
    result = {
        **report.describe(),
        "class_names": list(matched.dataset.class_names),
        "attacks": {name: attack.describe() for name, attack in attacks.items()},
    }
    inputs: dict[str, Any] = {
        "students": [{"name": names[path], "path": path} for path in paths],
        "attacks": [{"name": titles[path], "path": path} for path in attack_paths],
        "data": data.described(len(y)),
    }
    if teacher is not None:
        inputs["teacher"] = Path(teacher)
    emit(result, report.summary(), as_json=as_json, seed=seed, seconds=seconds, inputs=inputs)
    limits.leave(report.verdicts)
