"""`keras-remos report`: a page that can be handed over, from whatever the other commands found."""

from pathlib import Path

import click
from keras_remos_cli.helping import Described
from keras_remos_cli.options import output_options
from keras_remos_cli.parameters import EXISTING, check_paths
from keras_remos_cli.running import emit, without_keras

FORMATS = ("html", "md", "png", "svg")


@click.command(
    "report",
    cls=Described,
    examples=[
        ("The page of an audit, anew", "keras-remos report audit/ --force"),
        ("Two results side by side, for a paper", "keras-remos report first.json second.json --format svg -o figures/"),
    ],
)
@click.argument("results", metavar="FILE|DIR...", nargs=-1, required=True, type=EXISTING)
@click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    default="html",
    show_default=True,
    help="One page that needs nothing else; Markdown; or every chart as a file of its own.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="The file, or for png and svg the folder. Default: beside the result; report.html here, of several.",
)
@output_options
@without_keras
def command(results: tuple[Path, ...], kind: str, output: Path | None, force: bool, as_json: bool) -> None:
    """Make a report of results: a page with verdicts, examples, tables and charts.

    FILE is what a command printed with --json (audit, evaluate, tradeoff, slice, profile, transfer, demo), the .jsonl
    of a trade-off, or the .npz of a slice or profile; DIR a folder of `audit -o`. Of several, what can be compared
    stands side by side first. Needs the extra `report`.
    """
    check_paths()
    from keras_remos.report import default_path, open_results, write_report

    target = output or default_path(results, kind)
    written = write_report(open_results(results), target, format=kind, overwrite=force)
    text = "\n".join(map(str, written)) if written else "There is nothing in it to draw."
    inputs = {"results": [{"path": path} for path in results]}
    outputs = {path.stem: path for path in written}
    emit({"format": kind}, text, as_json=as_json, inputs=inputs, outputs=outputs)
