"""Train students in seven ways from one teacher, attack them through it, and see how much each of them inherited.

    python examples/compare_methods_cv.py teacher.keras images.npz --seeds 3 --output results.jsonl

The data are an .npz with x_train, y_train, x_test and y_test, or a folder with train/ and test/, each with one
sub-folder of images a class. For every seed the attacker owns one half of the training data and the students the other;
adversarial inputs need none of it, so that with --scenes adversarial --attacker-share 0 the students may have it all.
Three teachers are attacked: the one given (adversarial inputs made from it), and two copies of it with a backdoor (a
patch, and a latent one). Two more scenes run when they are named: displacement moves the given teacher's features, and
surrogate attacks the attacker's own fine-tune of it. Every method trains on the same data, in the same order, with the
same augmentation, the same head and for as many steps. Each student is a line of the output file once it is measured,
so that a run that was killed goes on where it stopped; lines of another teacher, other data or another recipe are left
alone. The table at the end gives means over seeds, with their intervals.
"""

import argparse
import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import keras_remos as kr
from keras_remos.defects import (
    CoverageGuidedAttack,
    Defect,
    DisplacementAttack,
    LatentBackdoor,
    PatchBackdoor,
    PenultimateAttack,
    SurrogateAttack,
)
from keras_remos.evaluation import measure, over_seeds
from keras_remos.methods import FRESH, recipe_of
from keras_remos.models.fingerprint import fingerprint

STUDENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "finetune": ("finetune", {}),
    "retrain": ("retrain", {}),
    "delta": ("delta", {}),
    "delta-r": ("delta-r", {}),
    "mag-prune": ("mag-prune", {}),
    "renofeation": ("renofeation", {}),
    "remos": ("remos", {}),
    "remos 0.95": ("remos", {"keep_ratio": 0.95}),
    "remos 0.80": ("remos", {"keep_ratio": 0.8}),
    "remos 0.70": ("remos", {"keep_ratio": 0.7}),
    "finetune hardened": ("finetune", {"harden": True}),
    "remos 0.70 hardened": ("remos", {"keep_ratio": 0.7, "harden": True}),
    "artifact 0.98": ("remos", {"preset": "artifact", "keep_ratio": 0.98}),
    "artifact 0.95": ("remos", {"preset": "artifact", "keep_ratio": 0.95}),
    "artifact 0.90": ("remos", {"preset": "artifact", "keep_ratio": 0.9}),
}
BACKDOORS: dict[str, Defect] = {"patch": PatchBackdoor(), "latent": LatentBackdoor()}
SCENES: dict[str, dict[str, Defect]] = {
    "adversarial": {
        "penultimate": PenultimateAttack(),
        "nc deepxplore": CoverageGuidedAttack(criterion="nc", strategy="deepxplore"),
        "snac dlfuzz": CoverageGuidedAttack(criterion="snac", strategy="dlfuzz"),
    },
    **{name: {name: defect} for name, defect in BACKDOORS.items()},
    "displacement": {
        "displacement": DisplacementAttack(steps=10),
        "displacement middle": DisplacementAttack(steps=10, layer="middle"),
    },
    # Configured in `attack`: it trains as the students do.
    "surrogate": {"surrogate": SurrogateAttack()},
}
CONTROL = "finetune"

Labelled = tuple[np.ndarray, np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("data")
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=list(STUDENTS), metavar="NAME")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=["adversarial", *BACKDOORS], metavar="NAME")
    parser.add_argument("--attacker-share", type=float, default=0.5, help="of the training images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--learning-rate", type=float, help="of students that start from weights of the teacher's")
    parser.add_argument("--test-limit", type=int, help="use only so many test images")
    parser.add_argument("--output", type=Path, default=Path("results.jsonl"))
    arguments = parser.parse_args()

    teacher = kr.load_teacher(arguments.teacher)
    train = kr.open_for_model(teacher, arguments.data, split="train")
    test = kr.open_for_model(teacher, arguments.data, split="test", scaling=train.scaling)
    x, y = (part[: arguments.test_limit] for part in test.pixels.read_all())
    whole = train.pixels.read_all()
    how = arguments.epochs, arguments.batch_size, arguments.learning_rate, arguments.attacker_share
    run = key_of(teacher, [*whole, x, y], how)
    for seed in range(arguments.seeds):
        attacker, own = divide(whole, arguments.attacker_share, seed)
        for scene in arguments.scenes:
            rows = read(arguments.output, run)
            done = {row["student"] for row in rows if (row["seed"], row["scene"]) == (seed, scene)}
            missing = [name for name in arguments.students if name not in done]
            if not missing:
                continue
            recipe = recipe_by(arguments, CONTROL, teacher)
            attacked, sets = attack(scene, teacher, train.space, attacker, (x, y), recipe, seed)
            for name in missing:
                method, options = STUDENTS[name]
                recipe = recipe_by(arguments, method, attacked)
                trained = kr.train(
                    method,
                    attacked,
                    (train.space.scale(own[0]), own[1]),
                    num_classes=train.dataset.num_classes,
                    recipe=recipe,
                    seed=seed,
                    space=train.space,
                    **{"harden": False, **options},
                )
                report = measure({name: (trained.student, train.space)}, x, y, sets)
                row = {"run": run, "seed": seed, "scene": scene, "student": name, **report.describe()}
                row["options"] = trained.options
                with arguments.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    print(table(read(arguments.output, run)))


def recipe_by(arguments: argparse.Namespace, method: str, teacher: Any) -> kr.Recipe:
    """How students of a method are trained."""
    recipe = replace(recipe_of(method, teacher), epochs=arguments.epochs, batch_size=arguments.batch_size)
    if arguments.learning_rate is None or method in FRESH:
        return recipe
    return replace(recipe, learning_rate=arguments.learning_rate)


def key_of(teacher: Any, data: Iterable[np.ndarray], how: Iterable[Any]) -> str:
    """What decides a row beside its student, scene and seed: the teacher's weights, the data, and how it is trained."""
    digest = hashlib.sha256(json.dumps([fingerprint(teacher), *how]).encode())
    for array in data:
        # Texts may be objects, of which an array holds addresses.
        digest.update(json.dumps(array.tolist()).encode() if array.dtype == object else array.tobytes())
    return digest.hexdigest()[:16]


def divide(data: Labelled, share: float, seed: int) -> tuple[Labelled, Labelled]:
    """The attacker's images and the student's."""
    x, y = data
    order = np.random.default_rng(seed).permutation(len(x))
    first, second = np.split(order, [math.ceil(share * len(x))])
    return (x[first], y[first]), (x[second], y[second])


def attack(
    scene: str,
    teacher: Any,
    space: kr.PixelSpace,
    attacker: Labelled,
    test: Labelled,
    recipe: kr.Recipe,
    seed: int,
) -> tuple[Any, dict[str, kr.AttackSet]]:
    """The teacher as the attacker leaves it, and malicious versions of the test images."""
    sets = {}
    attacked = teacher
    for name, defect in SCENES[scene].items():
        if isinstance(defect, SurrogateAttack):
            defect = replace(defect, recipe=recipe)
        of_attacker = attacker if scene in (*BACKDOORS, "surrogate") else None
        # The attacker draws other numbers than the students do.
        prepared = defect.prepare(teacher, of_attacker, space=space, seed=seed + (scene == "surrogate"))
        attacked = prepared.teacher if scene in BACKDOORS else teacher
        sets[name] = defect.inputs(prepared, *test, seed=seed)
    return attacked, sets


def read(path: Path, run: str) -> list[dict[str, Any]]:
    """The rows of a run."""
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    return [row for row in rows if row.get("run") == run]


def table(rows: list[dict[str, Any]]) -> str:
    """ACC and DIR of each student under each attack: the mean over seeds, its interval over seeds, and each seed's DIR.

    Students of several seeds answer the same images: three seeds are three figures, not three times as many images.
    """
    figures: dict[tuple[str, str], dict[int, tuple[float, float]]] = defaultdict(dict)
    for row in rows:
        (own,) = row["students"].values()
        for found in row["defects"]:
            rate = found["targeted"] or found["flipped"]
            both = (value_of(own["accuracy"]), value_of(rate))
            figures[found["defect"], row["student"]][row["seed"]] = both
    lines = [f"{'defect':<19}{'student':<20}{'ACC':>6}{'rACC':>7}{'DIR':>7}{'over seeds':>17}{'rDIR':>7}  each seed"]
    for (defect, student), own in figures.items():  # the control need not be among them
        accuracy, rate = (over_seeds([each[part] for each in own.values()]) for part in (0, 1))
        control = figures.get((defect, CONTROL), {})
        relative = [
            over_seeds([own[seed][part] / (control[seed][part] or math.nan) for seed in own]).value
            if own.keys() <= control.keys()
            else math.nan
            for part in (0, 1)
        ]
        between = f"{rate.low:.3f} to {rate.high:.3f}" if len(own) > 1 else "one seed"
        lines.append(
            f"{defect:<19}{student:<20}{accuracy.value:>6.3f}{relative[0]:>7.3f}{rate.value:>7.3f}{between:>17}"
            f"{relative[1]:>7.3f}  {' '.join(f'{each[1]:.3f}' for each in own.values())}"
        )
    return "\n".join(lines)


def value_of(rate: dict[str, float | None]) -> float:
    value = rate["value"]
    return math.nan if value is None else value


if __name__ == "__main__":
    main()
