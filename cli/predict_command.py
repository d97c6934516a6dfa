"""`keras-remos predict`: which classes images or texts are of, by a student."""

from pathlib import Path

import click
from keras_remos_cli.inputs import class_names_in, reserve_outputs
from keras_remos_cli.options import SCALINGS, image_size_of, output_options
from keras_remos_cli.running import emit, note, uses_keras


@click.command("predict")
@click.argument("student_path", metavar="STUDENT", type=click.Path(path_type=Path))
@click.argument("paths", metavar="[PATH]...", nargs=-1, type=click.Path(path_type=Path))
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
    "--preprocess", "scaling", type=click.Choice(SCALINGS), help="How images are scaled, where STUDENT does not say."
)
@click.option("--image-size", callback=image_size_of, metavar="H[xW]", help="Of images, where STUDENT does not say.")
@click.option(
    "--class-names",
    "class_names_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The classes in the order in which STUDENT numbers them, one name a line, where it does not say.",
)
@click.option(
    "--csv", "csv_path", type=click.Path(path_type=Path), metavar="FILE", help="Write them to a table as well."
)
@output_options
@click.option(
    "--allow-unsafe-deserialization",
    is_flag=True,
    help="Open a model that carries code. The file can then do anything that you can.",
)
@uses_keras
def command(
    student_path: Path,
    paths: tuple[Path, ...],
    texts: tuple[str, ...],
    top: int,
    text_column: str | None,
    pair_column: str | None,
    path_column: str | None,
    batch_size: int,
    strict: bool,
    scaling: str | None,
    image_size: tuple[int, int] | None,
    class_names_path: Path | None,
    csv_path: Path | None,
    force: bool,
    as_json: bool,
    allow_unsafe_deserialization: bool,
) -> None:
    """Say which classes images or texts are of, by a STUDENT.

    A PATH is an image, a folder of images at any depth, a .csv, .tsv or .jsonl table of texts or image paths, or an
    .npz. The student's file says how its inputs are scaled and what its classes are called.
    """
    import numpy as np

    from keras_remos import load_student

    if bool(paths) == bool(texts):
        raise click.UsageError("Name what is to be classified: either PATHs or --text.")
    reserve_outputs(("--csv", csv_path, ".csv"), force=force)
    student = load_student(
        student_path,
        class_names=class_names_in(class_names_path),
        scaling=scaling,
        image_size=image_size,
        allow_unsafe_deserialization=allow_unsafe_deserialization,
    )
    if not student.class_names:
        note(f"{student_path} does not name its classes: they are shown by their numbers. --class-names names them.")
    found = student.predict(
        np.array(texts) if texts else paths,
        top=top,
        batch_size=batch_size,
        text_column=text_column,
        pair_column=pair_column,
        path_column=path_column,
        strict=strict,
    )
    for path, reason in found.skipped:
        note(f"Left out {path}: {reason}")
    if csv_path is not None:
        found.save_csv(csv_path, overwrite=force)
    emit({"student": str(student_path), **found.describe()}, found.summary(), as_json=as_json)
