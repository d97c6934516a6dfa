"""`keras-remos predict`: which classes images or texts are of, by a student."""

from pathlib import Path
from typing import Any

import click
from keras_remos_cli.helping import Described
from keras_remos_cli.inputs import StudentChoice, reserve_outputs
from keras_remos_cli.options import output_options, student_options
from keras_remos_cli.parameters import EXISTING, check_paths
from keras_remos_cli.running import emit, note, uses_keras


@click.command(
    "predict",
    cls=Described,
    examples=[
        ("What is on a photo", "keras-remos predict student.keras photo.jpg"),
        ("A folder, as a table", "keras-remos predict student.keras photos/ --csv classes.csv"),
    ],
)
@student_options
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=EXISTING)
@click.option("--text", "texts", multiple=True, help="A text to classify, in place of a PATH; may be repeated.")
@click.option(
    "--top", type=click.IntRange(min=1), default=3, show_default=True, help="How many classes are shown of each."
)
@click.option("--text-column", help="Of a table. Default: text, sentence, review or content.")
@click.option("--pair-column", help="The second text of a pair.")
@click.option("--path-column", help="Image files in a table. Default: path, file, image or filename.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Samples at a time.")
@click.option("--strict", is_flag=True, help="Refuse damaged images instead of leaving them out.")
@click.option(
    "--csv", "csv_path", type=click.Path(path_type=Path), metavar="FILE", help="Write them to a table as well."
)
@output_options
@uses_keras
def command(
    student: StudentChoice,
    paths: tuple[Path, ...],
    texts: tuple[str, ...],
    csv_path: Path | None,
    force: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Say which classes images or texts are of, by a STUDENT.

    A PATH is an image, a folder of images at any depth, a .csv, .tsv or .jsonl table of texts or image paths, or an
    .npz. The student's file says how its inputs are scaled and what its classes are called.
    """
    if bool(paths) == bool(texts):
        raise click.UsageError("Name what is to be classified: either PATHs or --text.")
    check_paths()
    reserve_outputs(("--csv", csv_path, ".csv"), force=force)
    import numpy as np

    found = student.open().predict(np.array(texts) if texts else paths, **how)
    for path, reason in found.skipped:
        note(f"Left out {path}: {reason}")
    if csv_path is not None:
        found.save_csv(csv_path, overwrite=force)
    inputs = {"student": student.student_path, "paths": [str(path) for path in paths]}
    emit(found.describe(), found.summary(), as_json=as_json, inputs=inputs, outputs={"table": csv_path})
