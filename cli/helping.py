"""How commands describe themselves: options by what they are about, and examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import click

# What an option is about, by the name of its argument. Those of a command alone come first; all have a place here that
# several share, or that come in numbers.
SECTIONS = {
    "Teacher": ("head", "sequence_length", "clean_teacher", "allow_other_teacher"),
    "Data": (
        *("data_path", "split", "train_data", "train_split", "validation_data", "validation_split"),
        *(
            "attacker_data",
            "attacker_split",
            "attack_paths",
            "class_names_path",
            "scaling",
            "image_size",
            "pixel_range",
        ),
        *("text_column", "pair_column", "label_column", "path_column", "limit", "batch_size", "strict"),
        *("workers", "cache", "decoding"),
    ),
    "Limits": ("strict_verdict", "max_excess", "min_accuracy"),
    "Slicing": ("preset", "keep_ratio", "ratios", "filters", "reset"),
    "Word swaps": ("synonyms_path", "antonyms_paths", "candidates", "min_similarity", "max_share", "swap_in"),
    "Training": (
        *("epochs", "learning_rate", "optimizer", "momentum", "weight_decay", "warmup", "schedule", "augment"),
        *("label_smoothing", "checkpoint"),
    ),
    "Output": ("output", "csv_path", "slice_file", "force", "as_json", "quiet", "verbose"),
    "Running": ("seed", "backend"),
    "Unsafe": ("allow_unsafe_deserialization",),
}


class Example(NamedTuple):
    """A command line, and what it is for."""

    purpose: str
    line: str


class WithExamples(click.Command):
    """Shows examples at the end of its help.

    Args:
        examples: Pairs of what is wanted and the command line for it.
    """

    def __init__(self, *args: Any, examples: Sequence[tuple[str, str]] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = [Example(*each) for each in examples]

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Examples"):
            formatter.write(self.in_lines())

    def in_lines(self) -> str:
        """The examples, each in a line that can be copied, however long."""
        return "".join(f"  # {purpose}\n  {line}\n" for purpose, line in self.examples)


class Described(WithExamples):
    """A command with its options in sections."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        for before, argument in zip(["", *args], args, strict=False):
            if not argument or (argument.startswith("--") and argument.endswith("=")):
                follows = argument or before
                what = f"What follows {follows.rstrip('=')}" if follows.startswith("-") else "An argument"
                raise click.UsageError(f"{what} is empty. Is a variable of the shell not set?", ctx)
        return super().parse_args(ctx, args)

    def sections(self, ctx: click.Context) -> Iterator[tuple[str, list[click.Option]]]:
        """Its options, by what they are about."""
        options = {option.name: option for option in self.get_params(ctx) if isinstance(option, click.Option)}
        listed = {name for names in SECTIONS.values() for name in names}
        # What Click calls --help depends on its version.
        helping = [name for name, option in options.items() if set(option.opts) & set(ctx.help_option_names)]
        yield "Options", [options[name] for name in options if name not in (*listed, *helping)]
        for title, names in SECTIONS.items():
            of_click = helping if title == "Running" else ()
            yield title, [options[name] for name in (*names, *of_click) if name in options]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, options in self.sections(ctx):
            records = [record for option in options if (record := option.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)
