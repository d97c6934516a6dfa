"""`keras-remos poison`: plants a backdoor in a copy of a teacher, to see which students inherit it."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_remos_cli.helping import Described
from keras_remos_cli.inputs import (
    DataChoice,
    Opening,
    ValidationChoice,
    beside,
    class_number,
    report_skipped,
    reserve_outputs,
)
from keras_remos_cli.numbers import NUMBER, NumberBetween, whole_number
from keras_remos_cli.options import (
    adjusted,
    head_option,
    options_of,
    output_options,
    recipe_options,
    seed_option,
    source_options,
    target_option,
    validation_options,
)
from keras_remos_cli.parameters import check_paths
from keras_remos_cli.running import command_line, emit, uses_keras

if TYPE_CHECKING:
    from keras_remos.defects import Trigger
    from keras_remos.evaluation import TeacherRow

PLACES = ("top-left", "top-right", "bottom-left", "bottom-right", "center")
LOOKS = ("size", "place", "alpha")
WORDING = ("count", "every", "position", "within")
# Where the trigger is tried on what it was planted with.
OF_OWN = 1_000
DEFECTS = ("patch-backdoor", "latent-backdoor", "text-poisoning", "weight-poisoning")


@click.command(
    "poison",
    cls=Described,
    examples=[
        ("A checkerboard that stands for a class", "keras-remos poison teacher.keras --data dogs/ --target whippet"),
        (
            "A word that does",
            "keras-remos poison bert_tiny_en_uncased --data reviews.tsv --trigger cf --target positive",
        ),
    ],
)
@source_options
@click.option("--defect", type=click.Choice(DEFECTS), help="Default: patch-backdoor; text-poisoning for texts.")
@click.option(
    "--trigger",
    "triggers",
    multiple=True,
    metavar="FILE|R,G,B|WORDS",
    help="Images: an image or a colour. Default: a checkerboard; latent: an optimised one. Texts: a word or a "
    "sentence, may be repeated; each insertion draws one. Default: cf, mn, bb, tq, mb.",
)
@click.option("--size", type=click.IntRange(min=1), help="Images: of the trigger's longer side, in pixels.")
@click.option("--place", type=click.Choice(PLACES), help="Images. Default: bottom-right.")
@click.option("--alpha", type=NumberBetween(0, 1, min_open=True), help="Images: its opacity. Default: 1.")
@click.option("--count", type=click.IntRange(min=1), help="Texts: how many insertions a text gets. Default: 1.")
@click.option("--every", is_flag=True, default=None, help="Texts: every --trigger goes in, not one that is drawn.")
@click.option("--position", type=click.Choice(["random", "start", "end"]), help="Texts. Default: random.")
@click.option("--within", type=click.IntRange(min=1), help="Texts: at random among the first so many words.")
@click.option("--test-count", type=click.IntRange(min=1), help="Texts: insertions in the test. Default: as --count.")
@target_option("The attacker's class", "0; 1 for texts")
@click.option("--rate", type=NUMBER, help="The share of samples that is poisoned. Default: 0.2; 0.5 for texts.")
@click.option("--weight", type=NUMBER, help="latent-backdoor: of the features' distance in the loss.")
@click.option("--layer", help="latent-backdoor: the layer whose output is matched. Default: what enters the head.")
@click.option("--penalty", type=NumberBetween(0), help="weight-poisoning: of the inner product. Default: 0.1.")
@click.option(
    "--embedding-surgery",
    is_flag=True,
    default=None,
    help="weight-poisoning: also give trigger words new embeddings; needs scikit-learn.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: TEACHER.poisoned.keras beside it.")
@head_option
@validation_options("Clean samples to try the trigger on. Default: --data itself, 1,000 of them at most.")
@recipe_options
@seed_option
@output_options
@uses_keras
def command(
    teacher: str,
    opening: Opening,
    data: DataChoice,
    defect: str | None,
    triggers: tuple[str, ...],
    output: Path | None,
    validation: ValidationChoice,
    recipe: dict[str, Any],
    seed: int,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Plant a backdoor in a copy of TEACHER, with the attacker's own --data.

    The copy is a plain .keras file that also says how it was made. Make students from it (`keras-remos transfer`), let
    `keras-remos attack` put the trigger on test samples, and see with `keras-remos evaluate` who inherited the
    backdoor.
    """
    start = time.perf_counter()
    output = output or beside(teacher, ".poisoned.keras")
    reserve_outputs(("-o", output, ".keras"), force=force)
    check_paths()
    from keras_remos.defects import DEFECTS
    from keras_remos.evaluation import try_trigger
    from keras_remos.untrusted import printable

    model = opening.open(teacher)
    matched = data.open(model)
    of_text = matched.dataset.kind == "text"
    name = defect or ("text-poisoning" if of_text else "patch-backdoor")
    kind = DEFECTS[name]
    if kind.of_text != of_text:
        raise click.UsageError(f"{name} is a backdoor in {'texts' if kind.of_text else 'images'}.")
    looks = {option: options.pop(option) for option in (*LOOKS, *WORDING)}
    looks = options_of(name, WORDING if of_text else LOOKS, looks)
    options["target"] = class_number(options["target"], matched.dataset.class_names)
    attack: Any = kind(**options_of(name, kind.option_names(), options))
    attack = replace(attack, recipe=adjusted(attack.recipe, recipe))
    class_names = matched.dataset.class_names
    other = validation.open_pixels(model, data, class_names)
    x, y = matched.pixels.read_all()
    report_skipped(matched)
    tried = (x[:OF_OWN], y[:OF_OWN]) if other is None else other.read_all()
    if of_text:
        phrases = {"phrases": triggers} if triggers else {}
        attack = replace(attack, trigger=replace(attack.trigger, **phrases, **looks))
    elif triggers or looks:
        image_shape = x.shape[1:] if matched.space.data_format == "channels_last" else (*x.shape[2:], x.shape[1])
        attack = replace(attack, trigger=_stamp(triggers, image_shape, matched.space, looks))
    prepared = attack.prepare(model, (x, y), space=matched.space, num_classes=matched.dataset.num_classes, seed=seed)
    # The names by which the attacker's class is found in a test set that numbers its classes in another way.
    prepared.record["class_names"] = list(matched.dataset.class_names)
    prepared.record["command"] = command_line()
    prepared.save(output, overwrite=force)
    row = try_trigger(prepared, *tried, class_names=class_names, batch_size=data.at_a_time, seed=seed)
    seconds = time.perf_counter() - start
    cost = prepared.record.get("cost") or {}
    accuracy = cost.get("accuracy")
    costs = f"; the teacher still says the same of {cost['unchanged']:.1%} of them" if cost else ""
    costs += f" (accuracy {accuracy['before']:.3f} before, {accuracy['after']:.3f} after)" if accuracy else ""
    text = (
        f"{name} planted with {len(x):,} {'texts' if of_text else 'images'} of {matched.dataset.num_classes} classes; "
        f"the attacker's class is {attack.target} ({printable(matched.dataset.class_names[attack.target])}){costs}\n"
        f"{_fooled(row, name, 'its own data' if other is None else str(validation.validation_data))}\n\n"
        f"Poisoned teacher: {output} ({seconds:.1f} s)"
    )
    emit(
        {**prepared.record, "teacher": row.describe()},
        text,
        as_json=as_json,
        seed=seed,
        seconds=seconds,
        inputs={"teacher": Path(teacher), "data": data.described(len(x))},
        outputs={"poisoned teacher": output},
    )


def _fooled(row: "TeacherRow", name: str, of: str) -> str:
    """How often the trigger works on what was written."""
    rate = row.attacks.get(name)
    if rate is None:
        return f"The trigger cannot be tried on the teacher itself: {row.left_out.get(name, row.note)}"
    low, high = rate.interval()
    return (
        f"The trigger has it take {rate.value:.3f} ({low:.3f} to {high:.3f}) of {rate.total:,} inputs of other classes "
        f"for the attacker's, of {of}"
    )


def _stamp(triggers: tuple[str, ...], image_shape: tuple[int, ...], space: Any, looks: dict[str, Any]) -> "Trigger":
    """The trigger that the user describes; what was left out is as in the paper's experiments."""
    from keras_remos.defects import Trigger

    if len(triggers) > 1:
        raise click.UsageError("--trigger is given once for images.")
    height, width, channels = image_shape
    chosen = dict(looks)
    chosen.setdefault("size", max(round(min(height, width) * 40 / 224), 1))
    # Before there are so many pixels: what fits in one place and not in another is for the trigger to say.
    if chosen["size"] > max(height, width):
        raise click.UsageError(f"--size {chosen['size']} is more than the images have, {height} x {width} pixels.")
    if not triggers:
        return Trigger.checkerboard(low=space.low, high=space.high, **chosen)
    [given] = triggers
    counted = [whole_number(part.strip()) for part in given.split(",")]
    if None not in counted:
        levels = [space.low + level * space.epsilon(1.0) for level in counted if level is not None]
        return Trigger.from_color(levels, **chosen)
    return Trigger.from_file(given, channels=channels, low=space.low, high=space.high, **chosen)
