"""`keras-remos attack`: malicious inputs from a teacher, made once for all students."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from keras_remos_cli.helping import Described
from keras_remos_cli.inputs import (
    DataChoice,
    Opening,
    SynonymChoice,
    beside,
    class_number,
    report_skipped,
    reserve_outputs,
)
from keras_remos_cli.numbers import NUMBER, NumberBetween
from keras_remos_cli.options import (
    DEFECTS,
    adjusted,
    head_option,
    options_of,
    output_options,
    recipe_options,
    seed_option,
    source_options,
    synonym_options,
    target_option,
)
from keras_remos_cli.parameters import EXISTING, check_paths
from keras_remos_cli.running import command_line, emit, note, uses_keras


@click.command(
    "attack",
    cls=Described,
    examples=[
        ("With nothing but the teacher", "keras-remos attack teacher.keras --defect penultimate --data test/"),
        (
            "With a copy that was fine-tuned on other data",
            "keras-remos attack teacher.keras --defect pgd --data test/ --attacker-data own/ --target whippet",
        ),
        (
            "With the trigger that was planted",
            "keras-remos attack poisoned.keras --defect patch-backdoor --data test/ -o triggered.npz",
        ),
    ],
)
@source_options
@click.option("--defect", type=click.Choice(DEFECTS), required=True, help="What to attack.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Default: TEACHER.DEFECT.npz beside it.")
@click.option(
    "--attacker-data",
    type=EXISTING,
    help="fgsm, pgd, surrogate, word swaps: trains the attacker's own copy.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Attack only so many samples.")
@click.option(
    "--bits",
    type=click.Choice(["8", "32"]),
    default="8",
    show_default=True,
    help="Of a pixel's value: 8 as in an image file, or 32, not rounded.",
)
@click.option("--epsilon", type=NUMBER, help="Largest change of a pixel, of 255 levels. Default: 5.7 (the paper's).")
@click.option("--steps", type=click.IntRange(min=1), help="Gradient steps. Default: 40; surrogate: 20.")
@click.option("--step-size", type=NUMBER, help="Change of a pixel in one step, of 255 levels. Default: epsilon / 10.")
@target_option("fgsm, pgd, surrogate: the class to aim at", "any wrong one")
@click.option(
    "--neuron",
    multiple=True,
    type=click.IntRange(min=0),
    help="penultimate: the feature to drive up; may be repeated, each makes a file of its own. Default: 0.",
)
@click.option(
    "--layer",
    multiple=True,
    metavar="PATH|penultimate|middle",
    help="displacement: the layer whose features move; may be repeated, each makes a file of its own. Default: "
    "penultimate.",
)
@click.option(
    "--attack-momentum", type=NumberBetween(min=0), help="surrogate: of gradients from step to step. Default: 1."
)
@click.option("--restarts", type=click.IntRange(min=1), help="surrogate: random starts of each image. Default: 1.")
@click.option(
    "--diversity", type=NumberBetween(0, 1), help="surrogate: how often a step sees smaller images. Default: 0."
)
@click.option("--criterion", type=click.Choice(["nc", "tknc", "snac"]), help="coverage-guided. Default: nc.")
@click.option(
    "--strategy",
    type=click.Choice(["deepxplore", "dlfuzz", "dlfuzzrr"]),
    help="coverage-guided. Default: deepxplore.",
)
@synonym_options
@click.option("--candidates", type=click.IntRange(min=1), help="Word swaps: synonyms of a word that are tried.")
@click.option("--min-similarity", type=NumberBetween(-1, 1), help="Word swaps: of a synonym, for word vectors.")
@click.option("--max-share", type=NumberBetween(0, 1), help="Word swaps: of the words that may be swapped.")
@click.option("--swap-in", type=click.Choice(["first", "second"]), help="Word swaps in pairs. Default: first.")
@click.option("--test-count", type=click.IntRange(min=1), help="Text backdoors: triggers in a text of the test set.")
@recipe_options
@head_option
@seed_option
@output_options
@uses_keras
def command(
    teacher: str,
    opening: Opening,
    data: DataChoice,
    defect: str,
    output: Path | None,
    attacker_data: Path | None,
    limit: int | None,
    bits: str,
    neuron: tuple[int, ...],
    layer: tuple[str, ...],
    attack_momentum: float | None,
    synonyms: SynonymChoice,
    recipe: dict[str, Any],
    target: str | None,
    seed: int,
    force: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Make a malicious version of every sample of a test set, from TEACHER alone.

    The students are not needed: `keras-remos evaluate` tries the file on each of them. For a backdoor, TEACHER is a
    file that `keras-remos poison` wrote. Word swaps need a classifier of the task: TEACHER itself, or a copy of it that
    is trained on --attacker-data; so does a surrogate, which is always trained. --epochs and what follows it are for
    that copy. An attack that was interrupted goes on when it is started again.
    """
    start = time.perf_counter()
    output = output or beside(teacher, f".{defect}.npz")
    files = [output]
    for several in (neuron, layer):
        if len(several) > 1:
            files = [output.with_suffix(f".{str(each).replace('/', '-')}{output.suffix}") for each in several]
    reserve_outputs(*(("-o", file, ".npz") for file in files), force=force)
    check_paths()
    from keras_remos import defects
    from keras_remos.methods import LANGUAGE, Recipe
    from keras_remos.progress import track
    from keras_remos.untrusted import read_record

    kind = defects.DEFECTS[defect]
    driven, moved = (several[0] if len(several) == 1 else several or None for several in (neuron, layer))
    given = {**options, "target": target, "neuron": driven, "layer": moved, "synonyms": synonyms.open()}
    given["momentum"] = attack_momentum  # --momentum is that of the copy's training
    if recipe:
        if "recipe" not in kind.option_names():
            flag = next(iter(recipe)).replace("_", "-")
            raise click.UsageError(f"--{flag} is not an option of {defect}: it trains no copy by a recipe.")
        given["recipe"] = adjusted(LANGUAGE if kind.of_text else Recipe(), recipe)
    if kind.plants:
        if read_record(teacher).get("defect") != defect:
            raise click.ClickException(f"{teacher} carries no {defect}: plant one with `keras-remos poison` first.")
        # Its target and its trigger are in the teacher's file.
        attack: Any = kind(**options_of(defect, {"test_count"} & set(kind.option_names()), given))
        prepared = opening.prepared(teacher)
        matched = data.open_trained(prepared.teacher, teacher)
    else:
        chosen = options_of(defect, kind.option_names(), given)
        # Its name is known to the data.
        chosen.pop("target", None)
        attack = kind(**chosen)
        model = opening.open(teacher)
        matched = data.open(model)
        if kind.of_text != (matched.dataset.kind == "text"):
            raise click.UsageError(f"{defect} is an attack on {'texts' if kind.of_text else 'images'}.")
        if target is not None:
            attack = replace(attack, target=class_number(target, matched.dataset.class_names))
        own = None if attacker_data is None else data.open_other(model, attacker_data).pixels
        prepared = attack.prepare(model, own, space=matched.space, seed=seed)
    x, y = matched.samples(limit)
    report_skipped(matched)
    results = []
    pairs = list(zip(files, attack.each(), strict=True))
    with track(pairs, total=len(pairs), description="Attack", name=lambda pair: pair[0]) as tracked:
        for file, single in tracked:
            made = single.inputs(
                prepared,
                x,
                y,
                class_names=matched.dataset.class_names,
                batch_size=data.at_a_time,
                seed=seed,
                resume=defects.partial_beside(file),
                bits=int(bits),
            )
            made = replace(made, command=command_line())
            made.save(file, overwrite=force)
            results.append({**made.describe(), "attack": str(file)})
    seconds = time.perf_counter() - start
    inputs = " ".join(f"--inputs {file}" for file in files)
    note(f"Every student of this teacher can be tried on it: keras-remos evaluate STUDENT --data ... {inputs}")
    result = results[0] if len(results) == 1 else {"attacks": results}
    text = "\n\n".join(f"{defect}: {_described(each)}\n\nAttack: {each['attack']}" for each in results)
    emit(
        result,
        f"{text} ({seconds:.1f} s)",
        as_json=as_json,
        seed=seed,
        seconds=seconds,
        inputs={"teacher": Path(teacher), "data": data.described(len(made))},
        outputs={"attack" if len(files) == 1 else f"attack {number}": file for number, file in enumerate(files, 1)},
    )


def _described(made: dict[str, Any]) -> str:
    """What was made, in a sentence."""
    count = f"{made['num_samples']:,} malicious inputs"
    if "largest_change" in made:
        return f"{count}, no pixel changed by more than {made['largest_change']:.1f} of 255 levels"
    record = made["record"]
    if "outcomes" not in record:
        return f"{count}, each with {made['options']['test_count']} trigger(s)"
    outcomes = ", ".join(f"{number:,} {outcome}" for outcome, number in record["outcomes"].items())
    return (
        f"{count} ({outcomes}); {made['mean_changed_words']:.1%} of the words changed on average, "
        f"{record['queries_per_sample']['mean']:.0f} queries a text in {record['model_calls']:,} model calls"
    )
