"""`keras-remos evaluate`: what students inherited, by attacks that were made with their teacher."""

import time
from pathlib import Path

import click
from keras_remos_cli.helping import Described
from keras_remos_cli.inputs import DataChoice, Opening, classes_of, report_skipped
from keras_remos_cli.options import data_options, inputs_option, json_option, opening_options, seed_option
from keras_remos_cli.origins import Origins, allow_other_teacher, check_control, names_of, unlike_control
from keras_remos_cli.parameters import STUDENT, check_paths
from keras_remos_cli.running import command_line, emit, uses_keras


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
@allow_other_teacher
@seed_option
@json_option
@uses_keras
def command(
    student_paths: tuple[Path, ...],
    opening: Opening,
    data: DataChoice,
    attack_paths: tuple[Path, ...],
    control: Path | None,
    allow_other_teacher: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Measure STUDENTs on the clean test set, --data, and on malicious inputs.

    Each student is measured on all of them; n is how many inputs a figure rests on.
    """
    check_paths()
    from keras_remos.defects import AttackSet
    from keras_remos.evaluation import measure
    from keras_remos.untrusted import printable, read_record

    start = time.perf_counter()
    paths = list(dict.fromkeys([*([] if control is None else [control]), *student_paths]))
    names, titles = names_of(paths), names_of(attack_paths)
    records = {path: read_record(path) for path in paths}
    known = classes_of(records)
    origins = Origins(allow_other=allow_other_teacher)
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
    x, y = matched.pixels.read_all()
    report_skipped(matched)
    report = measure(
        students,
        x,
        y,
        attacks,
        control=None if control is None else names[control],
        batch_size=data.at_a_time,
        seed=seed,
    )
    seconds = round(time.perf_counter() - start, 3)
    unlike = unlike_control(
        {names[path]: record for path, record in records.items()}, None if control is None else names[control]
    )
    result = {**report.describe(), "unlike_control": unlike, "command": command_line(), "seconds": seconds}
    emit(result, "\n".join([report.summary(), *map(printable, unlike)]), as_json=as_json)
