"""`keras-remos demo`: the whole story in a minute."""

import itertools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from keras_remos_cli.helping import Described
from keras_remos_cli.inputs import reserve_outputs
from keras_remos_cli.options import output_options, seed_option
from keras_remos_cli.running import emit, in_envelope, note, uses_keras

MISSING = 'For a page of this: pip install "keras-remos[report]"'


@click.command("demo", cls=Described, examples=[("On its own", "keras-remos demo")])
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The page that shows it. Default: demo.html here, or the first free of demo-2.html, ...",
)
@seed_option
@output_options
@uses_keras
def command(output: Path | None, seed: int, force: bool, as_json: bool) -> None:
    """Plant a backdoor in a small teacher and see which students inherit it. Takes a minute, needs no network."""
    with_page = find_spec("jinja2") is not None
    if output is not None and not with_page:
        raise click.UsageError(MISSING)
    page = output or next(path for path in map(Path, _names()) if not path.exists())
    reserve_outputs(("-o", page if with_page else None, ".html"), force=force)
    from keras_remos.demo import run_demo
    from keras_remos.report import write_report

    result = run_demo(seed=seed)
    outputs = {"page": page} if with_page else {}
    about: dict[str, Any] = {"seed": seed, "seconds": result.seconds, "outputs": outputs}
    if with_page:
        write_report(in_envelope(result.describe(), inputs=None, **about), page, overwrite=force)
    else:
        note(MISSING)
    shown = f"{result.summary()}\n\nPage: {page}" if with_page else result.summary()
    emit(result.describe(), shown, as_json=as_json, **about)


def _names() -> itertools.chain[str]:
    return itertools.chain(["demo.html"], (f"demo-{number}.html" for number in itertools.count(2)))
