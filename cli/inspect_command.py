"""`keras-remos inspect`: what is in a model, profile, slice or attack."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_remos_cli.helping import Described
from keras_remos_cli.options import json_option
from keras_remos_cli.parameters import TEACHER, check_paths
from keras_remos_cli.running import emit, uses_keras

if TYPE_CHECKING:
    import keras

    from keras_remos import RelevantSlice


@click.command(
    "inspect",
    cls=Described,
    examples=[
        ("What a downloaded model holds", "keras-remos inspect teacher.keras"),
        ("Which words a slice forgets", "keras-remos inspect slice.npz --tokens bert_tiny_en_uncased"),
    ],
)
@click.argument("path", type=TEACHER)
@click.option(
    "--allow-unsafe-deserialization",
    is_flag=True,
    help="Open a model that carries code. The file can then do anything that you can.",
)
@click.option(
    "--tokens",
    "teacher",
    metavar="TEACHER",
    type=TEACHER,
    help="Of a slice: also list the tokens whose rows it resets, in the words of that teacher's tokenizer.",
)
@json_option
@uses_keras
def command(path: str, allow_unsafe_deserialization: bool, teacher: str | None, as_json: bool) -> None:
    """Show a model (which layers can be sliced, which not and why), a profile, a slice or an attack."""
    check_paths()
    from keras_remos import CoverageProfile, RelevantSlice, describe_model, load_teacher
    from keras_remos.defects import AttackSet
    from keras_remos.untrusted import read_archive

    if Path(path).suffix == ".npz":
        header, _ = read_archive(path)
        kind = header["kind"]
        kinds = {each.kind: each for each in (CoverageProfile, RelevantSlice, AttackSet)}
        if kind not in kinds:
            raise click.ClickException(f"{path} holds a {kind}: there is nothing to show of it.")
        loaded: Any = kinds[kind].load(path)
        result = {"kind": kind, **loaded.describe()}
        text = "\n".join(_lines(result)) if isinstance(loaded, AttackSet) else loaded.summary()
        if teacher is not None:
            if not isinstance(loaded, RelevantSlice):
                raise click.UsageError(f"--tokens is for slices, {path} is a {kind}.")
            opened = load_teacher(teacher, allow_unsafe_deserialization=allow_unsafe_deserialization)
            result["tokens"] = dropped_tokens(loaded, opened)
            text = "\n".join([text, "", "reset tokens:", *result["tokens"]])
        emit(result, text, as_json=as_json)
        return
    if teacher is not None:
        raise click.UsageError(f"--tokens is for slices, {path} is a model.")
    model = load_teacher(path, allow_unsafe_deserialization=allow_unsafe_deserialization)
    description = describe_model(model)
    emit({"kind": "model", **description.describe()}, description.summary(), as_json=as_json)


def _lines(described: dict[str, Any]) -> list[str]:
    """What is known of a file, one thing a line; what is empty is left out."""
    from keras_remos.untrusted import printable

    return [f"{name:<20} {printable(value)}" for name, value in described.items() if value not in (None, "", [], {})]


def dropped_tokens(relevant: "RelevantSlice", teacher: "keras.Model") -> list[str]:
    """The tokens that a slice of a teacher resets, as its tokenizer writes them."""
    from keras_remos.models.tokenizers import tokenizer_of
    from keras_remos.untrusted import printable

    relevant.check_teacher(teacher)
    tokenizer = tokenizer_of(teacher)
    known = int(tokenizer.vocabulary_size())
    return [
        printable(tokenizer.id_to_token(int(token)))
        for path, tokens in relevant.dropped_tokens().items()
        if len(relevant.masks[path]) >= known
        for token in tokens
        if token < known
    ]
