"""The `keras-remos` program."""

import importlib
from typing import Any

import click

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
    "slice": "Make a student from the relevant part of a teacher.",
    "tradeoff": "Train students that keep more or less of a teacher.",
    "transfer": "Train a student, by ReMoS or one of six other methods.",
}


class LazyGroup(click.Group):
    """Knows its commands by name and imports each from a module of that name."""

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


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="keras-remos", prog_name="keras-remos")
def main(**_: Any) -> None:
    """Start a student from only the part of a pretrained teacher that its task needs (ReMoS).

    \b
    keras-remos demo                               see it work, in a minute
    keras-remos slice teacher.keras --data dogs/   make teacher.student.keras

    Results go to stdout, progress and warnings to stderr. Exit codes: 0 done, 1 the run failed, 2 wrong usage.
    """  # noqa: D301 (Click's mark is the character)
