"""`keras-remos demo`: a planted backdoor, and what is left of it."""

import click
from keras_remos_cli.helping import Described
from keras_remos_cli.options import json_option, seed_option
from keras_remos_cli.running import emit, uses_keras


@click.command("demo", cls=Described, examples=[("With other chances", "keras-remos demo --seed 1")])
@seed_option
@json_option
@uses_keras
def command(seed: int, as_json: bool) -> None:
    """Plant a backdoor in a small teacher and see which students inherit it. Takes a minute, needs no network."""
    from keras_remos.demo import run_demo

    result = run_demo(seed=seed)
    emit(result.describe(), result.summary(), as_json=as_json, seed=seed, seconds=result.seconds)
