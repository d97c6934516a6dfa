"""`keras-remos evaluate`: what students inherited, by attacks that were made with their teacher."""

import time
from pathlib import Path

import click
from keras_remos_cli.inputs import DataChoice, Opening, classes_of, report_skipped
from keras_remos_cli.options import data_options, json_option, opening_options, seed_option
from keras_remos_cli.running import command_line, emit, uses_keras


@click.command("evaluate")
@click.argument("student_paths", metavar="STUDENT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@opening_options
@data_options
@click.option(
    "--inputs",
    "attack_paths",
    multiple=True,
    type=click.Path(path_type=Path),
    help="What `keras-remos attack` wrote; may be repeated.",
)
@click.option("--control", type=click.Path(path_type=Path), help="The fine-tuned student, for rACC and rDIR.")
@seed_option
@json_option
@uses_keras
def command(
    student_paths: tuple[Path, ...],
    opening: Opening,
    data: DataChoice,
    attack_paths: tuple[Path, ...],
    control: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Measure STUDENTs on the clean test set, --data, and on malicious inputs.

    Each student is measured on all of them; n is how many inputs a figure rests on.
    """
    from keras_remos.defects import AttackSet
    from keras_remos.evaluation import measure

    start = time.perf_counter()
    paths = list(dict.fromkeys([*([] if control is None else [control]), *student_paths]))
    known = classes_of(paths)
    attacks = {path.stem: AttackSet.load(path).numbered(known or ()) for path in attack_paths}
    students = {}
    for path in paths:
        model = opening.open(path)
        matched = data.open_trained(model, path, known)
        students[path.stem] = model, matched.space
    x, y = matched.pixels.read_all()
    report_skipped(matched)
    report = measure(
        students,
        x,
        y,
        attacks,
        control=None if control is None else control.stem,
        batch_size=data.batch_size,
        seed=seed,
    )
    seconds = round(time.perf_counter() - start, 3)
    emit({**report.describe(), "command": command_line(), "seconds": seconds}, report.summary(), as_json=as_json)
