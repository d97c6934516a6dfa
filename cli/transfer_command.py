"""`keras-remos transfer`: from a teacher and a data set to a trained student, by any of the methods."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from keras_remos_cli.inputs import DataChoice, Opening, beside, report_skipped
from keras_remos_cli.options import (
    PRESETS,
    options_of,
    output_options,
    recipe_options,
    seed_option,
    source_options,
)
from keras_remos_cli.running import command_line, emit, note, uses_keras

METHODS = ("remos", "finetune", "retrain", "delta", "delta-r", "mag-prune", "renofeation")


@click.command("transfer")
@source_options
@click.option("--method", type=click.Choice(METHODS), default="remos", show_default=True)
@click.option("--validation-data", type=click.Path(path_type=Path), help="Measured after each epoch.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: TEACHER.METHOD.keras beside it.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="A folder: a killed run goes on from there.")
@recipe_options
@click.option("--preset", type=click.Choice(PRESETS), help="remos: how the slice is chosen. Default: recommended.")
@click.option("--keep-ratio", type=click.FloatRange(0, 1, min_open=True), help="remos: the share of weights kept.")
@click.option("--feature-weight", type=click.FloatRange(0), help="delta, delta-r, renofeation: pull of the features.")
@click.option("--form", type=click.Choice(["mse", "attention"]), help="delta, delta-r: as released, or as published.")
@click.option(
    "--prune-ratio", type=click.FloatRange(0, 1), help="mag-prune: the share of weights. Default: 0.8; 0.3 for texts."
)
@click.option(
    "--keep-head", is_flag=True, default=None, help="finetune, mag-prune, remos: start with the teacher's own head."
)
@seed_option
@output_options
@uses_keras
def command(
    teacher: Path,
    opening: Opening,
    data: DataChoice,
    method: str,
    validation_data: Path | None,
    output: Path | None,
    checkpoint: Path | None,
    recipe: dict[str, Any],
    seed: int,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a student of TEACHER on your data.

    Every method trains on the same data in the same order, with the same augmentation and the same fresh head, unless
    --keep-head keeps the teacher's.
    The student is a plain .keras file.
    """
    from keras_remos.methods import METHODS, recipe_of
    from keras_remos.models.fingerprint import fingerprint
    from keras_remos.saving import check_writable, save_model

    start = time.perf_counter()
    output = output or beside(teacher, f".{method}.keras")
    if output.suffix != ".keras":
        raise click.UsageError(f"The student is a .keras file: -o must end in .keras, received {output}.")
    check_writable(output, overwrite=force)
    chosen = METHODS[method](**options_of(method, METHODS[method].option_names(), options))
    model = opening.open(teacher)
    matched = data.open(model)
    num_classes = matched.dataset.num_classes
    if num_classes is None:
        raise click.ClickException("The data has no labels: a student needs them to be trained.")
    validation = None if validation_data is None else data.open_other(model, validation_data).dataset
    trained = chosen.train(
        model,
        matched.dataset,
        validation,
        num_classes=num_classes,
        recipe=replace(recipe_of(method, model), batch_size=data.batch_size, **recipe),
        seed=seed,
        checkpoint=checkpoint,
    )
    report_skipped(matched)
    record = {
        **trained.options,
        "command": command_line(),
        "space": matched.space.get_config(),
        "class_names": matched.dataset.class_names,
        "teacher": fingerprint(model),
        "history": trained.history,
    }
    save_model(trained.student, output, record, overwrite=force)
    seconds = time.perf_counter() - start
    note("The accuracy above is on the training data." if validation is None else "val_: on the validation data.")
    figures = "\n".join(f"{name:<20}{value:>10.4f}" for name, value in trained.last.items())
    text = (
        f"{method}, after {trained.epochs} epochs on {matched.dataset.num_samples:,} samples of "
        f"{num_classes} classes\n\n{figures}\n\nStudent: {output} ({seconds:.1f} s)"
    )
    emit({**record, "last": trained.last, "student": str(output), "seconds": round(seconds, 3)}, text, as_json=as_json)
