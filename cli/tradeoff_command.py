"""`keras-remos tradeoff`: what students cost and inherit that keep more or less of their teacher."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from keras_remos_cli.helping import Described
from keras_remos_cli.inputs import DataChoice, Opening, ValidationChoice, report_skipped, reserve_outputs
from keras_remos_cli.numbers import NumberBetween
from keras_remos_cli.options import (
    PRESETS,
    adjusted,
    head_option,
    inputs_option,
    json_option,
    recipe_given,
    recipe_options,
    seed_option,
    source_options,
    validation_options,
)
from keras_remos_cli.origins import names_of
from keras_remos_cli.parameters import check_paths
from keras_remos_cli.running import emit, uses_keras


@click.command(
    "tradeoff",
    cls=Described,
    examples=[
        (
            "Accuracy and what is inherited, for seven shares",
            "keras-remos tradeoff teacher.keras --data dogs/ --inputs attack.npz -o shares.jsonl",
        ),
        ("Two shares", "keras-remos tradeoff teacher.keras --data dogs/ --keep-ratio 1 --keep-ratio .8"),
    ],
)
@source_options
@validation_options("What ACC is of. Default: a fifth of --data.")
@inputs_option
@click.option(
    "--keep-ratio",
    "ratios",
    multiple=True,
    type=NumberBetween(0, 1, min_open=True),
    help="A share that is kept; may be repeated. Default: 1 (fine-tuning), .95, .9, .8, .7, .6, .5.",
)
@click.option("--preset", type=click.Choice(PRESETS), default="recommended", show_default=True)
@click.option("--harden", is_flag=True, help="Harden all of them; a copy of the teacher is fine-tuned for it.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="A .jsonl file that each student is added to, a line each: a killed run goes on from it.",
)
@recipe_options
@head_option
@seed_option
@json_option
@uses_keras
def command(
    teacher: str,
    opening: Opening,
    data: DataChoice,
    validation: ValidationChoice,
    attack_paths: tuple[Path, ...],
    ratios: tuple[float, ...],
    preset: str,
    harden: bool,
    output: Path | None,
    recipe: dict[str, Any],
    head: str | None,
    seed: int,
    as_json: bool,
) -> None:
    """Train a student of TEACHER for each of several shares that are kept of it.

    All are trained alike, at a learning rate that is chosen for the fine-tuned one unless you give it. Prints a line
    for each share: its accuracy, and how much of each attack it inherits.
    """
    start = time.perf_counter()
    # It is added to: what is there already is no obstacle.
    reserve_outputs(("-o", output, ".jsonl"), force=True)
    check_paths()
    from keras_remos import AttackSet, tradeoff
    from keras_remos.methods import recipe_of

    model = opening.open(teacher)
    matched = data.open(model)
    matched.dataset.required_labels()
    titles = names_of(attack_paths)
    found = tradeoff(
        model,
        matched.dataset,
        validation.open(model, data, matched.dataset.class_names),
        inputs={titles[p]: AttackSet.load(p).numbered(matched.dataset.class_names) for p in attack_paths},
        ratios=ratios or None,
        preset=preset,
        recipe=adjusted(replace(recipe_of("finetune", model), learning_rate="auto"), recipe_given(data, recipe)),
        harden=harden,
        space=matched.space,
        num_classes=matched.dataset.num_classes,
        head=head,
        seed=seed,
        results=output,
    )
    report_skipped(matched)
    seconds = time.perf_counter() - start
    inputs = {
        "teacher": Path(teacher),
        "data": data.described(matched.dataset.num_samples),
        "attacks": [{"name": titles[path], "path": path} for path in attack_paths],
    }
    text = f"{found.summary()}\n\n{seconds:.1f} s"
    emit(
        found.describe(), text, as_json=as_json, seed=seed, seconds=seconds, inputs=inputs, outputs={"results": output}
    )
