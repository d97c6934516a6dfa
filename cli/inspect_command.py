"""`keras-remos inspect`: what a file is, and all that it says."""

from dataclasses import replace
from typing import TYPE_CHECKING

import click
from keras_remos_cli.helping import Described
from keras_remos_cli.messages import in_shell_words
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
    "--tokens",
    "teacher",
    metavar="TEACHER",
    type=TEACHER,
    help="Of a slice: also list the tokens whose rows it resets, in the words of that teacher's tokenizer.",
)
@json_option
@click.option(
    "--allow-unsafe-deserialization",
    is_flag=True,
    help="Open a model that carries code. The file can then do anything that you can.",
)
@uses_keras
def command(path: str, allow_unsafe_deserialization: bool, teacher: str | None, as_json: bool) -> None:
    """Show what a file is, and all that it says.

    A model (its size, SHA-256 and shapes, whether it holds code and where, which layers can be sliced, which not and
    why, how it was made), a profile, a slice, an attack, a checkpoint, a result, an exported student. A model that
    carries code is described without being opened.
    """
    check_paths()
    from keras_remos import RelevantSlice, load_teacher
    from keras_remos.inspection import inspect_file

    found = inspect_file(path, allow_unsafe_deserialization=allow_unsafe_deserialization)
    if "reason" in found.facts:
        found = replace(found, facts={**found.facts, "reason": in_shell_words(found.facts["reason"])})
    result, text = found.describe(), found.summary()
    if teacher is not None:
        if found.kind != RelevantSlice.kind:
            raise click.UsageError(f"--tokens is for slices, {path} is a {found.kind}.")
        opened = load_teacher(teacher, allow_unsafe_deserialization=allow_unsafe_deserialization)
        result["tokens"] = dropped_tokens(RelevantSlice.load(path), opened)
        text = "\n".join([text, "", "reset tokens:", *result["tokens"]])
    emit(result, text, as_json=as_json)


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
