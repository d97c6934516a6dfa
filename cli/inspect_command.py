"""`keras-remos inspect`: what is in a model, profile or slice."""

from pathlib import Path

import click
from keras_remos_cli.options import json_option
from keras_remos_cli.running import emit, uses_keras


@click.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--allow-unsafe-deserialization",
    is_flag=True,
    help="Open a model that carries code. The file can then do anything that you can.",
)
@json_option
@uses_keras
def command(path: Path, allow_unsafe_deserialization: bool, as_json: bool) -> None:
    """Show a model (which layers can be sliced, which not and why), a profile or a slice."""
    from keras_remos import CoverageProfile, RelevantSlice, describe_model, load_teacher
    from keras_remos.saving import read_archive

    if path.suffix == ".npz":
        header, _ = read_archive(path)
        loaded = CoverageProfile.load(path) if header["kind"] == "profile" else RelevantSlice.load(path)
        emit({"kind": header["kind"], **loaded.describe()}, loaded.summary(), as_json=as_json)
        return
    model = load_teacher(path, allow_unsafe_deserialization=allow_unsafe_deserialization)
    description = describe_model(model)
    emit({"kind": "model", **description.describe()}, description.summary(), as_json=as_json)
