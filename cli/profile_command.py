"""`keras-remos profile`: counts what a data set activates; `keras-remos profile merge`: adds such counts."""

import time
from pathlib import Path

import click
from keras_remos_cli.inputs import DataChoice, Opening, beside, report_skipped, reserve_outputs
from keras_remos_cli.options import output_options, slicing_options, source_options
from keras_remos_cli.running import emit, uses_keras


class _WithDefault(click.Group):
    """A group whose command `count` need not be named: `profile TEACHER ...` beside `profile merge A B ...`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        known = {*self.commands, *ctx.help_option_names}
        return super().parse_args(ctx, args if not args or args[0] in known else ["count", *args])


@click.group("profile", cls=_WithDefault)
def command() -> None:
    """Count what a data set activates in a teacher.

    \b
    keras-remos profile TEACHER --data DATA -o FILE.npz     count
    keras-remos profile merge A.npz B.npz -o C.npz          add two counts: exact, in any order

    See `keras-remos profile count --help` for every option.
    """  # noqa: D301 (Click's mark is the character)


@command.command()
@source_options
@slicing_options
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: TEACHER.profile.npz beside it.")
@output_options
@uses_keras
def count(
    teacher: str,
    opening: Opening,
    data: DataChoice,
    output: Path | None,
    preset: str,
    head: str | None,
    filters: tuple[str, ...],
    force: bool,
    as_json: bool,
    steps: int | None,
) -> None:
    """Count what the data activates in TEACHER."""
    from keras_remos import RelevantSlicer

    start = time.perf_counter()
    output = output or beside(teacher, ".profile.npz")
    reserve_outputs(("-o", output, ".npz"), force=force)
    model = opening.open(teacher)
    slicer = RelevantSlicer(model, preset=preset, filters=filters or None, head=head)
    matched = data.open(model)
    profile = slicer.profile(matched.dataset, steps=steps)
    report_skipped(matched)
    profile.save(output, overwrite=force)
    seconds = time.perf_counter() - start
    emit(
        {**profile.describe(), "scaling": matched.scaling},
        f"{profile.summary()}\n\nProfile: {output} ({seconds:.1f} s)",
        as_json=as_json,
        seconds=seconds,
        inputs={"teacher": Path(teacher), "data": data.described(profile.num_samples, *profile.data)},
        outputs={"profile": output},
    )


@command.command()
@click.argument("profiles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path))
@output_options
@uses_keras
def merge(profiles: tuple[Path, ...], output: Path, force: bool, as_json: bool) -> None:
    """Add PROFILES of one teacher: exactly the profile of all the data."""
    from keras_remos import CoverageProfile

    reserve_outputs(("-o", output, ".npz"), force=force)
    first, *others = (CoverageProfile.load(path) for path in profiles)
    merged = sum(others, start=first)
    merged.save(output, overwrite=force)
    text = f"{output}: {merged.num_samples:,} samples from {len(profiles)} profiles"
    inputs = {"profiles": [{"path": path} for path in profiles]}
    emit(merged.describe(), text, as_json=as_json, inputs=inputs, outputs={"profile": output})
