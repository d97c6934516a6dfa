"""`keras-remos export`: a student for programs without Keras, its input scaling inside."""

from pathlib import Path

import click
from keras_remos_cli.helping import Described
from keras_remos_cli.inputs import StudentChoice, beside
from keras_remos_cli.options import output_options, student_options
from keras_remos_cli.parameters import check_paths
from keras_remos_cli.running import emit, uses_keras

FORMATS = ("tf_saved_model", "onnx", "openvino", "litert", "torch")


@click.command(
    "export",
    cls=Described,
    examples=[("For a program that runs ONNX", "keras-remos export student.keras --format onnx")],
)
@student_options
@click.option("-o", "--output", type=click.Path(path_type=Path), help="A folder. Default: STUDENT.FORMAT beside it.")
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    default="tf_saved_model",
    show_default=True,
    help="Which of them Keras can write depends on the backend; some need a package more.",
)
@output_options
@uses_keras
def command(
    student: StudentChoice,
    output: Path | None,
    format: str,  # noqa: A002 (as Keras calls it)
    force: bool,
    as_json: bool,
) -> None:
    """Write a STUDENT in a format that runs without Keras.

    The exported model takes pixels as they are in image files, 0 to 255, and returns probabilities. Beside it stands
    student.json: the classes in the order of the outputs, and what the inputs are.
    """
    check_paths()
    from keras_remos.writing import reserved_folder

    folder = output or beside(str(student.student_path), f".{format}")
    # What else is in it is looked at when it is replaced.
    mine = reserved_folder(folder, is_ours=lambda found: (found / "student.json").is_file(), overwrite=force)
    click.get_current_context().with_resource(mine)
    from keras_remos import export_student

    exported = export_student(student.open(), folder, format=format, overwrite=force)
    inputs = {"student": student.student_path}
    emit(exported.describe(), exported.summary(), as_json=as_json, inputs=inputs, outputs={"folder": folder})
