"""`keras-remos export`: a student for programs without Keras, its input scaling inside."""

from pathlib import Path

import click
from keras_remos_cli.inputs import class_names_in
from keras_remos_cli.options import SCALINGS, image_size_of, output_options
from keras_remos_cli.running import emit, uses_keras

FORMATS = ("tf_saved_model", "onnx", "openvino", "litert", "torch")


@click.command("export")
@click.argument("student_path", metavar="STUDENT", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A folder. Default: STUDENT.FORMAT beside it.")
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    default="tf_saved_model",
    show_default=True,
    help="Which of them Keras can write depends on the backend; some need a package more.",
)
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
@output_options
@click.option(
    "--allow-unsafe-deserialization",
    is_flag=True,
    help="Open a model that carries code. The file can then do anything that you can.",
)
@uses_keras
def command(
    student_path: Path,
    output: Path | None,
    format: str,  # noqa: A002 (Keras calls it so)
    scaling: str | None,
    image_size: tuple[int, int] | None,
    class_names_path: Path | None,
    force: bool,
    as_json: bool,
    allow_unsafe_deserialization: bool,
) -> None:
    """Write a STUDENT in a format that runs without Keras.

    The exported model takes pixels as they are in image files, 0 to 255, and returns probabilities. Beside it stands
    student.json: the classes in the order of the outputs, and what the inputs are.
    """
    from keras_remos import export_student, load_student

    student = load_student(
        student_path,
        class_names=class_names_in(class_names_path),
        scaling=scaling,
        image_size=image_size,
        allow_unsafe_deserialization=allow_unsafe_deserialization,
    )
    folder = output or student_path.with_name(f"{student_path.stem}.{format}")
    exported = export_student(student, folder, format=format, overwrite=force)
    takes = "; ".join(f"{each['name']} {each['shape']} {each['dtype']}" for each in exported.about["inputs"])
    text = f"Exported: {exported.file} ({format})\nTakes: {takes}\nReturns: probabilities; student.json says of what."
    emit({"student": str(student_path), **exported.describe()}, text, as_json=as_json)
