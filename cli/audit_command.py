"""`keras-remos audit`: attacks a teacher in every way that fits it, and measures what its students inherited."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from keras_remos_cli.helping import Described
from keras_remos_cli.inputs import DataChoice, Opening, SynonymChoice, classes_of, report_skipped
from keras_remos_cli.messages import in_shell_words
from keras_remos_cli.options import (
    DEFECTS,
    adjusted,
    head_option,
    json_option,
    limit_options,
    recipe_given,
    recipe_options,
    seed_option,
    source_options,
    synonym_options,
)
from keras_remos_cli.origins import Origins, allow_other_teacher, check_control, names_of
from keras_remos_cli.parameters import EXISTING, STUDENT, TEACHER, check_paths
from keras_remos_cli.running import command_line, digested, emit, uses_keras
from keras_remos_cli.verdicts import Limits


@click.command(
    "audit",
    cls=Described,
    examples=[
        (
            "A teacher and a student, with a control that is trained for it",
            "keras-remos audit teacher.keras remos.keras --data dogs/ --split test",
        ),
        (
            "Two attacks, and a control that is there",
            "keras-remos audit teacher.keras remos.keras --data test/ --control control.keras "
            "--defect penultimate --defect displacement",
        ),
    ],
)
@source_options
@click.argument("students", nargs=-1, type=STUDENT)
@click.option("--train-data", type=EXISTING, help="The students' training data. Default: --data.")
@click.option("--train-split", type=click.Choice(["train", "test"]), help="A part of it. Default: train, with --split.")
@click.option(
    "--defect",
    "defects",
    multiple=True,
    type=click.Choice((*DEFECTS, "adaptive")),
    help="Default: every attack that fits; may be repeated.",
)
@click.option("--control", type=STUDENT, help="A fine-tuned student. Default: trained in this run.")
@click.option("--no-control", is_flag=True, help="Train no control, and give no ratios.")
@click.option("--floor", is_flag=True, help="Train a student from scratch, too.")
@click.option(
    "--tune/--no-tune",
    default=True,
    help="Choose the learning rates of control and floor, and of an attacker's copy where no record tells one, on a "
    "fifth of their data: 4 trainings more for each.",
)
@click.option("--clean-teacher", type=TEACHER, help="TEACHER before it was poisoned: another floor.")
@click.option(
    "--attacker-data",
    type=EXISTING,
    help="The attacker's own data, for a surrogate of TEACHER. Default: what the students' training left to it.",
)
@click.option("--attacker-split", type=click.Choice(["train", "test"]), help="A part of --attacker-data.")
@allow_other_teacher
@head_option
@synonym_options
@click.option("--limit", type=click.IntRange(min=1), help="Use only so many test samples.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="A folder for the report, as a page too, and all that it rests on. An interrupted audit goes on from it.",
)
@recipe_options
@limit_options
@seed_option
@json_option
@uses_keras
def command(
    teacher: str,
    students: tuple[Path, ...],
    opening: Opening,
    data: DataChoice,
    train_data: Path | None,
    train_split: str | None,
    defects: tuple[str, ...],
    control: Path | None,
    no_control: bool,
    floor: bool,
    tune: bool,
    clean_teacher: str | None,
    attacker_data: Path | None,
    attacker_split: str | None,
    allow_other_teacher: bool,
    head: str | None,
    synonyms: SynonymChoice,
    limit: int | None,
    output: Path | None,
    recipe: dict[str, Any],
    limits: Limits,
    seed: int,
    as_json: bool,
) -> None:
    """Attack TEACHER, and measure what each STUDENT inherited, on the test set --data.

    A control is fine-tuned in the same run, at a learning rate that is chosen for it, unless you name one. A TEACHER
    that `keras-remos poison` wrote is also tried with its trigger. Without STUDENTs the control alone is tried: what
    fine-tuning inherits.
    """
    if control is not None and no_control:
        raise click.UsageError("--control and --no-control exclude each other.")
    if attacker_split is not None and attacker_data is None:
        raise click.UsageError("--attacker-split is a part of --attacker-data: name that too.")
    trained = {
        "the control": (control is None and not no_control, "give --control, or --no-control"),
        "the student from scratch": (floor, "leave --floor out"),
        "the student of the clean teacher": (clean_teacher is not None, "leave --clean-teacher out"),
    }
    asked = {name: otherwise for name, (wanted, otherwise) in trained.items() if wanted}
    own_split = train_split or ("train" if data.split is not None and train_data is None else None)
    if asked and train_data is None and own_split == data.split:
        raise click.UsageError(
            f"Trained in this run: {' and '.join(asked)}. For that give --train-data, which is not the test set. "
            f"To do without it: {'; '.join(asked.values())}."
        )
    check_paths()
    if output is not None:
        from keras_remos.report import check_audit_folder, check_installed

        check_audit_folder(output)
        check_installed()
    from keras_remos import Trained
    from keras_remos.evaluation import Attacker, Controls, audit
    from keras_remos.methods import recipe_of
    from keras_remos.models.fingerprint import fingerprint
    from keras_remos.untrusted import read_record

    start = time.perf_counter()
    model = opening.open(teacher)
    paths = list(dict.fromkeys([*([] if control is None else [control]), *students]))
    names, of_teacher = names_of(paths), read_record(teacher)
    records = {path: read_record(path) for path in paths}
    known = classes_of(records)
    origins = Origins((teacher, fingerprint(model)), allow_other=allow_other_teacher)
    origins.poisoned(of_teacher)
    for path, record in records.items():
        origins.student(path, record)
    if control is not None:
        check_control(control, records[control])
    own = None
    if asked or train_data is not None:
        own = replace(data, split=own_split).open_other(model, train_data or data.required_path, known).pixels
        # Where no student says how classes are numbered, those that are trained here have them so.
        known = known or list(own.class_names) or None
    matched = data.open_trained(model, teacher, known)
    poisoned = opening.prepared(teacher) if "defect" in of_teacher else None
    judged = {}
    for path in paths:
        opened = opening.open(path)
        record = records[path]
        made = Trained(opened, record.get("history", {}), record["method"], record) if "method" in record else opened
        judged[names[path]] = made, data.open_trained(opened, path, known).space
    given = recipe_given(data, recipe)
    adjusted(recipe_of("finetune", model), given)
    of_attacker = None
    if attacker_data is not None:
        of_attacker = replace(data, split=attacker_split).open_other(model, attacker_data, known).pixels
    test = matched.samples(limit)
    report_skipped(matched)
    report = audit(
        poisoned or model,
        judged,
        test,
        train=own,
        attacker=Attacker(defects=defects or None, synonyms=synonyms.open(), data=of_attacker),
        controls=Controls(
            control=names[control] if control is not None else not no_control,
            floor=floor,
            clean_teacher=None if clean_teacher is None else opening.open(clean_teacher),
            head=head,
            tune=tune,
        ),
        space=None if poisoned is not None else matched.space,
        recipe=given,
        class_names=matched.dataset.class_names,
        folder=output,
        batch_size=data.at_a_time,
        seed=seed,
    )
    seconds = round(time.perf_counter() - start, 3)
    # Reasons are the library's: here, and on the page, arguments are options.
    report = replace(report, left_out={name: in_shell_words(reason) for name, reason in report.left_out.items()})
    report = report.with_verdicts(limits.judge(report.inheritance))
    inputs = {
        "teacher": Path(teacher),
        "students": [{"name": names[path], "path": path} for path in paths],
        "data": data.described(len(test[1]), report.whole["test set"]),
    }
    about: dict[str, Any] = {"seed": seed, "seconds": seconds, "inputs": inputs}
    written: dict[str, Path] = {}
    try:
        if output is not None:
            about["inputs"] = digested(inputs)
            written = report.save(output, command_line=command_line(), seconds=seconds, inputs=about["inputs"])
    finally:
        # Whatever becomes of the page, what was found is not lost.
        said = [report.summary(), *([f"Report: {written['page']}"] if written else []), f"\n{seconds:.1f} s"]
        emit(report.describe(), "\n".join(said), as_json=as_json, outputs=written, **about)
    limits.leave(report.verdicts)
