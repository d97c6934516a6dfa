"""`keras-remos poison`: plants a backdoor in a copy of a teacher, to see which students inherit it."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_remos_cli.inputs import DataChoice, Opening, beside, report_skipped
from keras_remos_cli.options import (
    data_options,
    opening_options,
    options_of,
    output_options,
    recipe_options,
    seed_option,
    teacher_argument,
)
from keras_remos_cli.running import command_line, emit, uses_keras

if TYPE_CHECKING:
    from keras_remos.defects import Trigger

PLACES = ("top-left", "top-right", "bottom-left", "bottom-right", "center")


@click.command("poison")
@teacher_argument
@opening_options
@data_options
@click.option(
    "--defect",
    type=click.Choice(["patch-backdoor", "latent-backdoor"]),
    default="patch-backdoor",
    show_default=True,
)
@click.option(
    "--trigger", metavar="FILE|R,G,B", help="An image, or a colour. Default: a checkerboard; latent: an optimised one."
)
@click.option("--size", type=click.IntRange(min=1), help="Of the trigger's longer side, in pixels.")
@click.option("--place", type=click.Choice(PLACES), help="Default: bottom-right.")
@click.option("--alpha", type=click.FloatRange(0, 1, min_open=True), help="Opacity of the trigger. Default: 1.")
@click.option("--target", type=click.IntRange(min=0), help="The attacker's class. Default: 0.")
@click.option("--rate", type=float, help="patch-backdoor: the share of images that is poisoned. Default: 0.2.")
@click.option("--weight", type=float, help="latent-backdoor: of the features' distance in the loss.")
@click.option("--layer", help="latent-backdoor: the layer whose output is matched. Default: what enters the head.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: TEACHER.poisoned.keras beside it.")
@recipe_options
@seed_option
@output_options
@uses_keras
def command(
    teacher: Path,
    opening: Opening,
    data: DataChoice,
    defect: str,
    trigger: str | None,
    size: int | None,
    place: str | None,
    alpha: float | None,
    output: Path | None,
    recipe: dict[str, Any],
    seed: int,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Plant a backdoor in a copy of TEACHER, with the attacker's own --data.

    The copy is a plain .keras file that also says how it was made. Make students from it (`keras-remos transfer`), let
    `keras-remos attack` stamp the test images, and see with `keras-remos evaluate` who inherited the backdoor.
    """
    from dataclasses import replace

    from keras_remos.defects import DEFECTS
    from keras_remos.saving import check_writable

    start = time.perf_counter()
    output = output or beside(teacher, ".poisoned.keras")
    check_writable(output, overwrite=force)
    kind = DEFECTS[defect]
    chosen = options_of(defect, kind.option_names(), options)
    attack: Any = kind(**chosen)
    model = opening.open(teacher)
    matched = data.open(model)
    x, y = matched.pixels.read_all()
    report_skipped(matched)
    attack = replace(attack, recipe=replace(attack.recipe, **recipe))
    looks = {"size": size, "place": place, "alpha": alpha}
    if trigger is not None or any(value is not None for value in looks.values()):
        image_shape = x.shape[1:] if matched.space.data_format == "channels_last" else (*x.shape[2:], x.shape[1])
        attack = replace(attack, trigger=_trigger(trigger, image_shape, matched.space, looks))
    prepared = attack.prepare(model, (x, y), space=matched.space, num_classes=matched.dataset.num_classes, seed=seed)
    prepared.record["command"] = command_line()
    prepared.save(output, overwrite=force)
    seconds = time.perf_counter() - start
    result = {**prepared.record, "poisoned": str(output), "seconds": round(seconds, 3)}
    text = (
        f"{defect} planted with {len(x):,} images of {matched.dataset.num_classes} classes; the attacker's class is "
        f"{attack.target} ({matched.dataset.class_names[attack.target]})\n\n"
        f"Poisoned teacher: {output} ({seconds:.1f} s)"
    )
    emit(result, text, as_json=as_json)


def _trigger(given: str | None, image_shape: tuple[int, ...], space: Any, looks: dict[str, Any]) -> "Trigger":
    """The trigger that the user describes; what was left out is as in the paper's experiments."""
    from keras_remos.defects import Trigger

    height, width, channels = image_shape
    chosen = {name: value for name, value in looks.items() if value is not None}
    chosen.setdefault("size", max(round(min(height, width) * 40 / 224), 1))
    if given is None:
        return Trigger.checkerboard(low=space.low, high=space.high, **chosen)
    parts = given.split(",")
    if all(part.strip().isdigit() for part in parts):
        levels = [space.low + int(part) * space.epsilon(1.0) for part in parts]
        return Trigger.from_color(levels, **chosen)
    return Trigger.from_file(given, channels=channels, low=space.low, high=space.high, **chosen)
