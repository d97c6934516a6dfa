"""`keras-remos slice`: from a teacher and a data set to a student file."""

import time
from pathlib import Path
from typing import Any

import click
from keras_remos_cli.helping import Described
from keras_remos_cli.inputs import DataChoice, Opening, beside, class_names_in, report_skipped, reserve_outputs
from keras_remos_cli.numbers import NumberBetween
from keras_remos_cli.options import output_options, seed_option, slicing_options, source_or_profile_options
from keras_remos_cli.parameters import EXISTING, check_paths
from keras_remos_cli.running import command_line, emit, note, uses_keras


@click.command(
    "slice",
    cls=Described,
    examples=[
        ("A student for the classes of dogs/, beside the teacher", "keras-remos slice teacher.keras --data dogs/"),
        (
            "Keep less of a published model",
            "keras-remos slice keras.applications/VGG16 --data dogs/ --keep-ratio .8",
        ),
        (
            "From what was counted before",
            "keras-remos slice teacher.keras --profile-file dogs.npz --num-classes 2 -o student.keras",
        ),
    ],
)
@source_or_profile_options
@slicing_options
@click.option(
    "--keep-ratio",
    type=NumberBetween(0, 1, min_open=True),
    help="The share of weights that is kept. Default: the preset's (0.9, and 0.95 for recommended on language models).",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: TEACHER.student.keras beside it.")
@click.option("--slice-file", type=click.Path(path_type=Path), help="Save the slice itself, to apply or compare it.")
@click.option("--profile-file", type=EXISTING, help="Use this profile instead of --data.")
@click.option("--num-classes", type=click.IntRange(min=2), help="Default: as many as the data has.")
@click.option("--keep-head", is_flag=True, help="Keep the teacher's classifier instead of a fresh one.")
@click.option("--reset", type=click.Choice(["zeros", "initializer"]), default="zeros", show_default=True)
@seed_option
@output_options
@uses_keras
def command(
    teacher: str,
    opening: Opening,
    data: DataChoice,
    output: Path | None,
    slice_file: Path | None,
    profile_file: Path | None,
    num_classes: int | None,
    keep_head: bool,
    keep_ratio: float | None,
    preset: str,
    head: str | None,
    filters: tuple[str, ...],
    reset: Any,
    seed: int,
    force: bool,
    as_json: bool,
    steps: int | None,
) -> None:
    """Make a student from the part of TEACHER that the data needs.

    TEACHER is a .keras file, a KerasHub preset folder, a Hugging Face folder, or the name of a published model:
    keras.applications/ResNet50, bert_tiny_en_uncased, hf://OWNER/NAME. The student is a plain .keras file: compile it,
    fit it on your data as usual. The teacher is not modified.
    """
    if keep_head and num_classes is not None:
        raise click.UsageError("--keep-head and --num-classes exclude each other.")
    if data.data_path is not None and profile_file is not None:
        raise click.UsageError("--data and --profile-file exclude each other.")
    if data.data_path is None and profile_file is None:
        raise click.UsageError("Missing option '--data' or '--profile-file'.")
    if profile_file is not None and (steps is not None or data.split is not None):
        raise click.UsageError("--split and --steps are for --data: the profile is counted already.")
    start = time.perf_counter()
    output = output or beside(teacher, ".student.keras")
    reserve_outputs(("-o", output, ".keras"), ("--slice-file", slice_file, ".npz"), force=force)
    check_paths()
    from keras_remos import CoverageProfile, PixelSpace, RelevantSlicer, save_student

    model = opening.open(teacher)
    slicer = RelevantSlicer(model, preset=preset, keep_ratio=keep_ratio, filters=filters or None, head=head)
    scaling, matched, class_names = None, None, []
    if profile_file is not None:
        profile = CoverageProfile.load(profile_file)
        class_names = [] if keep_head else class_names_in(data.class_names_path) or []
        if num_classes is None and class_names:
            num_classes = len(class_names)
        scaling = data.scaling
        note(
            "A profile does not say how images are scaled and what classes are called: --preprocess and --class-names "
            "put it into the student's file."
        )
    else:
        matched = data.open(model)
        profile = slicer.profile(matched.dataset, steps=steps)
        report_skipped(matched)
        scaling = matched.scaling
        found = matched.dataset.num_classes
        if num_classes is not None and found is not None and num_classes != found:
            raise click.UsageError(f"--num-classes {num_classes}: the data has {found} classes. Leave the option out.")
        if not keep_head:
            class_names = matched.dataset.class_names
        if not keep_head and num_classes is None:
            num_classes = matched.dataset.num_classes
            if matched.dataset.unread:
                raise click.ClickException(f"{matched.dataset.unread} In the shell: --keep-head.")
            if num_classes is None:
                note("The data has no labels: the student keeps the teacher's head. --num-classes gives it a new one.")
    chosen = slicer.slice(profile)
    student = chosen.apply(model, num_classes=num_classes, reset=reset, seed=seed)
    if slice_file is not None:
        chosen.save(slice_file, overwrite=force)
    save_student(
        student,
        output,
        data=matched,
        space=None if matched is not None or scaling is None else PixelSpace(scaling),
        class_names=class_names,
        teacher=model,
        overwrite=force,
        kept=chosen.kept_by_layer(),
        command=command_line(),
    )
    seconds = time.perf_counter() - start
    head = f"a fresh head for {num_classes} classes" if num_classes is not None else "the teacher's head"
    text = (
        f"{chosen.summary()}\n\n"
        f"Student: {output} ({head}; {profile.num_samples:,} samples profiled; {seconds:.1f} s)"
        + (f"\nIt takes inputs scaled as the teacher's: {scaling}." if scaling not in (None, "preprocessor") else "")
    )
    result = {
        **chosen.describe(),
        "num_classes": num_classes,
        "scaling": scaling,
        "num_samples": profile.num_samples,
    }
    given = {"profile": profile_file} if profile_file is not None else {"data": data.described(profile.num_samples)}
    emit(
        result,
        text,
        as_json=as_json,
        seed=seed,
        seconds=seconds,
        inputs={"teacher": Path(teacher), **given},
        outputs={"student": output, "slice": slice_file},
    )
