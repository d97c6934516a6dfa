"""The `keras-remos` program."""

import importlib
from typing import Any

import click
from keras_remos_cli.helping import WithExamples
from keras_remos_cli.messages import escaping
from keras_remos_cli.running import streams

# Commands are imported when they are asked for, and import Keras when they run: --help has to answer at once.
COMMANDS = {
    "attack": "Make malicious inputs from a teacher, for all its students.",
    "audit": "Attack a teacher in every way that fits, and measure its students.",
    "demo": "Plant a backdoor, then see what ReMoS leaves of it.",
    "export": "Write a student in a format that runs without Keras.",
    "evaluate": "Measure what students inherited.",
    "inspect": "Show what a file is, and all that it says.",
    "poison": "Plant a backdoor in a copy of a teacher.",
    "predict": "Say which classes images or texts are of.",
    "profile": "Count what a data set activates in a teacher.",
    "report": "Make a page of results, to be handed over.",
    "slice": "Make a student from the relevant part of a teacher.",
    "tradeoff": "Train students that keep more or less of a teacher.",
    "transfer": "Train a student, by ReMoS or one of seven other methods.",
}


# What somebody may have come for, and what to type first.
FIRST_STEPS = (
    ("See it work, in a minute", "keras-remos demo"),
    ("Train a student on your own data", "keras-remos transfer teacher.keras --data dogs/"),
    ("Know what a downloaded model holds", "keras-remos inspect teacher.keras"),
    ("Measure what students inherit", "keras-remos audit teacher.keras student.keras --data dogs/ --split test"),
)


class LazyGroup(WithExamples, click.Group):
    """Knows its commands by name and imports each from a module of that name."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        with streams():
            return super().main(*args, **kwargs)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with escaping():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with escaping():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"keras_remos_cli.{cmd_name}_command").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    examples=FIRST_STEPS,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="keras-remos", prog_name="keras-remos")
@click.pass_context
def main(context: click.Context) -> None:
    """Start a student from only the part of a pretrained teacher that its task needs (ReMoS).

    Results go to stdout, progress and warnings to stderr. Exit codes: 0 done, 1 the run failed, 2 wrong usage,
    3 a limit is not kept that --strict-verdict holds students to.
    """
    if context.invoked_subcommand is None:
        click.echo(
            f"What do you want to do first?\n\n{main.in_lines()}\n"
            "keras-remos --help lists every command, keras-remos NAME --help all that it takes."
        )
