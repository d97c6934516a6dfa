"""What a student of the default call inherits, beside a tuned control and a floor, over several seeds.

    python examples/measure_inheritance.py teacher.keras images.npz --seeds 3 --output measured
    python examples/measure_inheritance.py teacher.keras images.npz --backdoor latent --output measured

The data are an .npz with x_train, y_train, x_test and y_test, or a folder with train/ and test/, each with one
sub-folder of images a class. For every seed the attacker gets one half of the training data and the students the other.
Every student is tuned by the same budget: its learning rate, and how much it keeps. The attackers have the teacher
alone, or the teacher and their data (surrogate), or know how the student was made, too (adaptive). With --backdoor they
plant one into the teacher, on their half, and nothing else is tried; the floor is then a student of the teacher as it
was before. What is finished is kept in the folder, so that a run that was killed goes on; each seed is a line of
results.jsonl there, with the whole report.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
from compare_methods_cv import key_of, read

import keras_remos as kr
from keras_remos.data import set_aside
from keras_remos.evaluation import over_seeds
from keras_remos.methods import Hardening, recipe_of
from keras_remos.models.fingerprint import fingerprint

CONTROL, FLOOR = "fine-tuned", "floor"
STUDENTS: dict[str, tuple[str, dict[str, Any]]] = {
    CONTROL: ("finetune", {}),
    FLOOR: ("retrain", {}),  # with a backdoor: fine-tuned, from the clean teacher
    "the default": ("remos", {}),
    "sliced only": ("remos", {"harden": False}),
    "hardened only": ("finetune", {"harden": True}),
}
# Twins are made by the first two kinds, with other seeds, and by attacks on a fine-tuned copy, as a surrogate is one.
# They are never made by the others.
ATTACKS = {
    "displacement": kr.DisplacementAttack(steps=10),
    "penultimate": kr.PenultimateAttack(steps=20),
    "displacement middle": kr.DisplacementAttack(steps=10, layer="middle"),
    "nc deepxplore": kr.CoverageGuidedAttack(steps=20),
    "displacement middle 8": kr.DisplacementAttack(steps=10, layer="middle", epsilon=8),
}
BACKDOORS = {"patch": kr.PatchBackdoor(), "latent": kr.LatentBackdoor()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("data")
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=list(STUDENTS), metavar="NAME")
    parser.add_argument("--backdoor", choices=BACKDOORS, help="plant it into the teacher, and try nothing else")
    parser.add_argument("--attacker-share", type=float, default=0.5, help="of the training images")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch-size", type=int, default=50)
    parser.add_argument("--budget", type=float, help="trainings that a student may cost")
    parser.add_argument("--test-limit", type=int, help="use only so many test images")
    parser.add_argument("--output", type=Path, default=Path("measured"))
    arguments = parser.parse_args()

    teacher = kr.load_teacher(arguments.teacher)
    train = kr.open_for_model(teacher, arguments.data, split="train")
    test = kr.open_for_model(teacher, arguments.data, split="test", scaling=train.scaling)
    x, y = (part[: arguments.test_limit] for part in test.pixels.read_all())
    whole = train.pixels.read_all()
    # All that decides a student, whoever stands beside it; and what attacks it.
    trained_by = [
        *(arguments.epochs, arguments.batch_size, arguments.budget, arguments.attacker_share, arguments.backdoor),
        *(kr.__version__, keras.__version__, keras.backend.backend(), Hardening().get_config(), repr(BACKDOORS)),
    ]
    trained = arguments.output / key_of(teacher, [*whole, x, y], trained_by)
    options = {name: STUDENTS[name] for name in dict.fromkeys([CONTROL, FLOOR, *arguments.students])}
    run = key_of(teacher, [*whole, x, y], [*trained_by, repr(options), repr(ATTACKS)])
    results = arguments.output / "results.jsonl"
    for seed in range(arguments.seeds):
        if seed in {row["seed"] for row in read(results, run)}:
            continue
        own, attackers = set_aside(whole, arguments.attacker_share, seed=seed)
        attacked: Any = teacher
        tried: list[Any] = [*ATTACKS.values(), "surrogate", "adaptive"]
        if arguments.backdoor:
            planted = trained / str(seed) / "attacked.keras"
            if not planted.exists():
                planted.parent.mkdir(parents=True, exist_ok=True)
                # The attacker draws other numbers than the students do.
                made = BACKDOORS[arguments.backdoor].prepare(teacher, attackers, space=train.space, seed=seed + 1)
                made.save(planted)
            attacked = kr.Prepared.load(planted)
            tried = [BACKDOORS[arguments.backdoor].inputs(attacked, x, y, seed=seed)]
        students = {}
        for name, (method, how) in options.items():
            source = attacked.teacher if arguments.backdoor else teacher
            if arguments.backdoor and name == FLOOR:
                method, source = "finetune", teacher
            recipe = replace(
                recipe_of(method, source),
                epochs=arguments.epochs,
                batch_size=arguments.batch_size,
                learning_rate="auto",
            )
            students[name] = kr.train(
                method,
                source,
                (train.space.scale(own[0]), own[1]),
                num_classes=train.dataset.num_classes,
                recipe=recipe,
                space=train.space,
                budget=arguments.budget,
                seed=seed,
                checkpoint=trained / str(seed) / name,
                **how,
            )
            print(f"seed {seed}, {name}: {students[name].settings}", flush=True)
        report = kr.audit(
            attacked,
            students,
            (x, y),
            attacker=kr.Attacker(defects=tried, data=attackers),
            controls=kr.Controls(control=CONTROL, floor=FLOOR),
            space=train.space,
            folder=trained / str(seed) / "audit",
            seed=seed,
        )
        print(report.summary(), flush=True)
        row = {
            "run": run,
            "seed": seed,
            "teacher": fingerprint(teacher),
            "backend": keras.backend.backend(),
            "options": {name: student.options for name, student in students.items()},
            **report.describe(),
        }
        results.parent.mkdir(parents=True, exist_ok=True)
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    print(table(read(results, run)))


def table(rows: list[dict[str, Any]]) -> str:
    """Every figure as its mean over seeds, with Student's t interval, and seed by seed."""
    lines = [f"seeds {', '.join(str(row['seed']) for row in rows)}; mean (95 % interval over seeds) [each seed]"]
    names = list(rows[0]["students"])
    for name in names:
        lines.append(f"ACC {name}: {shown([row['students'][name]['accuracy']['value'] for row in rows])}")
    for name in names:
        lines.append(f"rACC {name}: {shown([row['students'][name]['relative_accuracy']['value'] for row in rows])}")
    for defect in dict.fromkeys(found["defect"] for found in rows[0]["defects"]):
        for name in names:
            own = [
                next((each for each in row["defects"] if (each["defect"], each["student"]) == (defect, name)), None)
                for row in rows
            ]
            found = [each for each in own if each is not None]
            if len(found) < len(rows):
                continue
            rates = [(each["targeted"] or each["flipped"])["value"] for each in found]
            excess = [None if each["excess"] is None else each["excess"]["value"] for each in found]
            lines.append(f"{defect}, {name}: DIR {shown(rates)}; excess {shown(excess)}")
    return "\n".join(lines)


def shown(values: list[float | None]) -> str:
    """Mean, interval and each value; an undefined one makes the mean undefined."""
    known = [float("nan") if value is None else value for value in values]
    mean = over_seeds(known)
    return f"{mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f}) [{' '.join(f'{value:.3f}' for value in known)}]"


if __name__ == "__main__":
    main()
