"""`keras-remos transfer`: from a teacher and a data set to a trained student, by any of the methods."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from keras_remos_cli.helping import Described
from keras_remos_cli.inputs import DataChoice, Opening, ValidationChoice, beside, report_skipped, reserve_outputs
from keras_remos_cli.numbers import NumberBetween
from keras_remos_cli.options import (
    PRESETS,
    adjusted,
    head_option,
    options_of,
    output_options,
    recipe_given,
    recipe_options,
    seed_option,
    share_or_auto,
    source_options,
    validation_options,
)
from keras_remos_cli.parameters import check_paths
from keras_remos_cli.running import command_line, emit, uses_keras

METHODS = ("remos", "finetune", "retrain", "delta", "delta-r", "mag-prune", "fine-pruning", "renofeation")


@click.command(
    "transfer",
    cls=Described,
    examples=[
        ("All that is open is chosen on a fifth of the data", "keras-remos transfer teacher.keras --data dogs/"),
        (
            "One training, which goes on where it was killed",
            "keras-remos transfer teacher.keras --data dogs/ --budget 1 --checkpoint run/",
        ),
        (
            "What to compare it with",
            "keras-remos transfer teacher.keras --data dogs/ --method finetune -o control.keras",
        ),
    ],
)
@source_options
@click.option("--method", type=click.Choice(METHODS), default="remos", show_default=True)
@validation_options("Measured after each epoch; what is left open is chosen on it instead of on a fifth of --data.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: TEACHER.METHOD.keras beside it.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="A folder: a killed run goes on from there.")
@recipe_options
@click.option("--preset", type=click.Choice(PRESETS), help="remos: how the slice is chosen. Default: recommended.")
@click.option(
    "--keep-ratio",
    callback=share_or_auto,
    metavar="SHARE|auto",
    help="remos: the share of weights kept. Default: auto, the smallest that costs no accuracy, unless --learning-rate "
    "is given: then the preset's.",
)
@click.option(
    "--harden/--no-harden",
    default=None,
    help="Train on malicious twins of the images beside them; a copy of the teacher is fine-tuned to make them from. "
    "Default: remos does, where the data are images.",
)
@click.option(
    "--budget",
    type=NumberBetween(1),
    help="How many trainings the student may cost, with all that is tried before. Default: 12, or with --learning-rate "
    "what the student takes; 1 tries nothing.",
)
@click.option(
    "--attacker-share",
    type=NumberBetween(0, 1, max_open=True),
    default=0.0,
    help="The share of the data that is left to an attacker, whom audit then sends. Default: 0.",
)
@click.option("--feature-weight", type=NumberBetween(0), help="delta, delta-r, renofeation: pull of the features.")
@click.option("--form", type=click.Choice(["mse", "attention"]), help="delta, delta-r: as released, or as published.")
@click.option(
    "--prune-ratio",
    type=NumberBetween(0, 1),
    help="mag-prune: the share of weights. Default: 0.8; 0.3 for texts. fine-pruning: of channels. Default: 0.5.",
)
@click.option(
    "--keep-head",
    is_flag=True,
    default=None,
    help="finetune, mag-prune, fine-pruning, remos: start with the teacher's own head.",
)
@head_option
@seed_option
@output_options
@uses_keras
def command(
    teacher: str,
    opening: Opening,
    data: DataChoice,
    method: str,
    validation: ValidationChoice,
    output: Path | None,
    checkpoint: Path | None,
    recipe: dict[str, Any],
    head: str | None,
    harden: bool | None,
    budget: float | None,
    attacker_share: float,
    seed: int,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a student of TEACHER on your data.

    Every method trains on the same data in the same order, with the same augmentation and the same fresh head, unless
    --keep-head keeps the teacher's.
    The student is a plain .keras file.

    Without further options the learning rate and, for remos, how much to keep are chosen on a fifth of the data, and
    images are hardened: that takes as long as some twelve trainings, and says so before it starts.
    """
    from keras_remos.writing import check_folder

    start = time.perf_counter()
    output = output or beside(teacher, f".{method}.keras")
    reserve_outputs(("-o", output, ".keras"), force=force)
    if checkpoint is not None:
        check_folder(checkpoint, "Checkpoints")
    check_paths()
    from keras_remos import save_student
    from keras_remos.data import set_aside
    from keras_remos.methods import METHODS, recipe_of

    chosen = METHODS[method](**options_of(method, METHODS[method].option_names(), options))
    model = opening.open(teacher)
    matched = data.open(model)
    matched.dataset.required_labels()
    num_classes = matched.dataset.num_classes
    given = recipe_given(data, recipe)
    measured = validation.open(model, data, matched.dataset.class_names)
    trained = chosen.train(
        model,
        matched.dataset,
        measured,
        num_classes=num_classes,
        recipe=adjusted(replace(recipe_of(method, model), learning_rate="auto"), given) if given else None,
        seed=seed,
        head=head,
        harden=harden,
        space=matched.space,
        budget=budget,
        attacker_share=attacker_share,
        checkpoint=checkpoint,
    )
    report_skipped(matched)
    record = save_student(
        trained,
        output,
        data=matched,
        teacher=model,
        overwrite=force,
        command=command_line(),
    )
    own = set_aside(matched.dataset, attacker_share, seed=seed)[0] if attacker_share else matched.dataset
    seconds = time.perf_counter() - start
    figures = "\n".join(f"{name:<20}{value:>10.4f}" for name, value in trained.last.items())
    where = "The accuracy is on the training data." if measured is None else "val_: on the validation data."
    text = (
        f"{method}, after {trained.epochs} epochs on {own.num_samples:,} samples of "
        f"{num_classes} classes\n{trained.settings}\n\n{figures}\n{where}\n\nStudent: {output} ({seconds:.1f} s)"
    )
    emit(
        {**record, "last": trained.last},
        text,
        as_json=as_json,
        seed=seed,
        seconds=seconds,
        inputs={"teacher": Path(teacher), "data": data.described(own.num_samples)},
        outputs={"student": output},
    )
