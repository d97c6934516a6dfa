"""What is measured together belongs together: names, teachers, controls and recipes, from the shell."""

import json
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from shell import run, told

from keras_remos import save_student
from keras_remos.untrusted import read_record

CLASSES = 3
# Two epochs teach little.
pytestmark = pytest.mark.filterwarnings("ignore:Training .* ended in a constant classifier:UserWarning")
QUICK = ("--epochs", 2, "--augment", "none")


def build(seed: int) -> keras.Model:
    layers = keras.layers
    drawn = [keras.initializers.GlorotUniform(seed=seed + number) for number in range(2)]
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, activation="relu", kernel_initializer=drawn[0], name="conv"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, kernel_initializer=drawn[1], name="logits"),
        ]
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("belonging")
    for number, name in enumerate(("teacher", "another")):
        build(10 * number).save(folder / f"{name}.keras")
    rng = np.random.default_rng(0)

    def part(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = rng.integers(0, CLASSES, n)
        x = rng.integers(0, 60, (n, 8, 8, 3))
        x[np.arange(n), :, :, y] += 100
        return x.astype("uint8"), y

    (x_train, y_train), (x_test, y_test) = part(150), part(60)
    np.savez(folder / "data.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    for teacher in ("teacher", "another"):
        (folder / teacher).mkdir()
        transfer(folder, f"{teacher}.keras", "finetune", f"{teacher}/s.keras")
    return folder


def data(folder: Path, split: str) -> list[object]:
    return ["--data", folder / "data.npz", "--split", split, "--preprocess", "0-1"]


def made(*arguments: object) -> dict:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return told(done)


def unlike(report: dict) -> list[str]:
    return [verdict["text"] for verdict in report["verdicts"] if verdict["code"] == "unlike"]


def transfer(folder: Path, teacher: str, method: str, output: str, *more: object) -> dict:
    options = ("--method", method, *QUICK, "--budget", 1, "-o", folder / output, *more)
    return made("transfer", folder / teacher, *data(folder, "train"), *options)


def test_an_audit_trains_the_very_students_that_transfer_trains(folder: Path) -> None:
    transfer(folder, "teacher.keras", "retrain", "floor.keras")
    students = (folder / "teacher" / "s.keras", folder / "floor.keras")
    report = made(
        *("audit", folder / "teacher.keras", *students, *data(folder, "test")),
        *("--defect", "penultimate", "--floor", "--no-tune", *QUICK),
    )
    rows = {row["student"]: row for row in report["defects"]}
    assert list(rows) == ["fine-tuned", "retrained", "s", "floor"]
    counts = {name: row["accuracy"]["count"] for name, row in report["students"].items()}
    assert counts["s"] == counts["fine-tuned"] and counts["floor"] == counts["retrained"]
    assert report["students"]["s"]["relative_accuracy"]["value"] == 1
    assert rows["s"]["relative"]["value"] == 1 or rows["fine-tuned"]["flipped"]["count"] == 0
    assert rows["floor"]["flipped"] == rows["retrained"]["flipped"]
    rates = {name: trained["recipe"]["learning_rate"] for name, trained in report["trained"].items()}
    assert rates == {"fine-tuned": 0.005, "retrained": 0.1}
    assert {trained["recipe"]["batch_size"] for trained in report["trained"].values()} == {128}
    # The floor has a rate of its own, as it should; a student that was made so is unlike the control.
    assert [line.partition(" was ")[0] for line in unlike(report)] == ["floor"]


@pytest.mark.once
def test_the_control_of_an_audit_is_tuned_as_transfer_tunes(folder: Path) -> None:
    tuned = folder / "tuned.keras"
    record = made(
        *("transfer", folder / "teacher.keras", *data(folder, "train"), "--method", "finetune", *QUICK, "-o", tuned)
    )
    report = made("audit", folder / "teacher.keras", tuned, *data(folder, "test"), *QUICK, "--defect", "fgsm")
    control = report["trained"]["fine-tuned"]
    assert control["tuning"] == record["tuning"] and control["recipe"] == record["recipe"]
    assert report["students"]["tuned"]["accuracy"] == report["students"]["fine-tuned"]["accuracy"]
    assert unlike(report) == []


@pytest.mark.once
def test_what_is_left_to_the_attacker_is_found_again(folder: Path) -> None:
    share = ("--attacker-share", 0.3, "--learning-rate", 0.01, *QUICK, "--budget", 1, "-o", folder / "shared.keras")
    done = run("transfer", folder / "teacher.keras", *data(folder, "train"), *share, "--json")
    assert done.exit_code == 0, done.output
    # 150 samples without three tenths of each class.
    assert json.loads(done.stdout)["inputs"]["data"]["n"] == 105
    asked = ("audit", folder / "teacher.keras", folder / "shared.keras", *data(folder, "test"), *QUICK)
    report = made(*asked, "--learning-rate", 0.01, "--defect", "surrogate", "--defect", "adaptive")
    assert set(report["attacks"]) == {"surrogate", "adaptive shared"}
    assert report["attacks"]["adaptive shared"]["record"]["method"] == "remos"
    assert report["trained"]["fine-tuned"]["steps"] == report["trained"]["fine-tuned"]["recipe"]["epochs"]
    refused = run(*asked, "--attacker-split", "test")
    assert refused.exit_code == 2 and "--attacker-data" in refused.stderr
    other = ("--attacker-data", folder / "data.npz", "--attacker-split", "test")
    report = made(*asked, "--no-tune", "--defect", "surrogate", *other)
    assert set(report["attacks"]) == {"surrogate"}
    plain = ("audit", folder / "teacher.keras", folder / "teacher" / "s.keras", *data(folder, "test"), "--no-control")
    told = run(*plain)
    assert told.exit_code == 0, told.output
    for name in ("surrogate", "adaptive"):
        assert f"Not tried: {name}. It takes data of the attacker's own" in told.stdout
    assert "(--attacker-data)" in told.stdout


def test_two_files_of_one_name_are_two_students(folder: Path) -> None:
    students = [folder / name / "s.keras" for name in ("teacher", "another")]
    report = made("evaluate", *students, *data(folder, "test"), "--allow-other-teacher")
    assert list(report["students"]) == ["teacher/s", "another/s"]
    report = made("evaluate", students[0], "--control", students[1], *data(folder, "test"), "--allow-other-teacher")
    assert report["control"] == "another/s" and set(report["students"]) == {"teacher/s", "another/s"}
    again = made("evaluate", students[0], students[0], *data(folder, "test"))
    assert list(again["students"]) == ["s"]


def test_attacks_of_one_name_are_two_attacks(folder: Path) -> None:
    attacks = []
    for steps in (1, 2):
        attacks.append(folder / f"steps{steps}" / "pen.npz")
        attacks[-1].parent.mkdir(exist_ok=True)
        few = ("--defect", "penultimate", "--steps", steps, "-o", attacks[-1])
        made("attack", folder / "teacher.keras", *data(folder, "test"), *few)
    inputs = [part for path in attacks for part in ("--inputs", path)]
    report = made("evaluate", folder / "teacher" / "s.keras", *data(folder, "test"), *inputs)
    assert [row["defect"] for row in report["defects"]] == ["steps1/pen", "steps2/pen"]
    assert report["over_neurons"] == {}  # of one neuron both


def test_students_of_other_teachers_are_refused(folder: Path) -> None:
    own, other = (folder / name / "s.keras" for name in ("teacher", "another"))
    attack = folder / "pen.npz"
    few = ("--defect", "penultimate", "--steps", 1, "-o", attack)
    made("attack", folder / "teacher.keras", *data(folder, "test"), *few)
    commands: list[tuple[object, ...]] = [
        ("evaluate", other, "--inputs", attack),
        ("evaluate", own, other),
        ("evaluate", own, "--control", other),
        ("audit", folder / "teacher.keras", other, "--no-control"),
        ("audit", folder / "teacher.keras", own, "--control", other),
    ]
    for command in commands:
        refused = run(*command, *data(folder, "test"))
        assert refused.exit_code == 1 and "of another teacher than" in refused.stderr, command
        assert str(other) in refused.stderr and "--allow-other-teacher" in refused.stderr
    done = run("evaluate", other, "--inputs", attack, *data(folder, "test"), "--allow-other-teacher")
    assert done.exit_code == 0 and "of another teacher than" in done.stderr
    keras.saving.load_model(own).save(folder / "plain.keras")
    done = run("evaluate", folder / "plain.keras", "--inputs", attack, *data(folder, "test"))
    assert done.exit_code == 0 and "teacher unknown" in done.stderr


def test_students_of_the_clean_teacher_are_floors(folder: Path) -> None:
    poisoned, attack = folder / "poisoned.keras", folder / "patch.npz"
    made("poison", folder / "teacher.keras", *data(folder, "train"), "--size", 2, "--epochs", 1, "-o", poisoned)
    made("attack", poisoned, *data(folder, "test"), "--defect", "patch-backdoor", "-o", attack)
    transfer(folder, "poisoned.keras", "finetune", "inherits.keras")
    clean = folder / "teacher" / "s.keras"
    for command in (
        ("evaluate", clean, "--inputs", attack, "--control", folder / "inherits.keras"),
        ("audit", poisoned, clean, "--control", folder / "inherits.keras", "--defect", "patch-backdoor"),
    ):
        done = run(*command, *data(folder, "test"))
        assert done.exit_code == 0, done.output
        assert f"{clean}: a student of the clean teacher" in done.stderr


def test_a_control_is_fine_tuned(folder: Path) -> None:
    transfer(folder, "teacher.keras", "remos", "remos.keras")
    own = folder / "teacher" / "s.keras"
    refused = run("evaluate", own, "--control", folder / "remos.keras", *data(folder, "test"))
    assert refused.exit_code == 1 and "no control: it was made by remos" in refused.stderr


def test_what_was_trained_otherwise_is_said(folder: Path) -> None:
    transfer(folder, "teacher.keras", "remos", "slow.keras", "--learning-rate", 0.001, "--batch-size", 50)
    control = folder / "teacher" / "s.keras"
    report = made("evaluate", folder / "slow.keras", "--control", control, *data(folder, "test"))
    [line] = unlike(report)
    assert line.startswith("slow was trained otherwise than the control: ")
    for part in ("learning_rate 0.001 (the control: 0.005)", "batch_size 50 (the control: 128)", "steps 6"):
        assert part in line
    transfer(folder, "teacher.keras", "remos", "alike.keras")
    assert unlike(made("evaluate", folder / "alike.keras", "--control", control, *data(folder, "test"))) == []


def test_validation_data_are_other_data(folder: Path) -> None:
    def validate(*options: object) -> object:
        output = ("-o", folder / "validated.keras", "--force", "--budget", 1)
        return run("transfer", folder / "teacher.keras", *data(folder, "train"), *QUICK, *output, *options)

    same = ("--validation-data", folder / "data.npz")
    for options in (same, (*same, "--validation-split", "train")):
        refused = validate(*options)
        assert refused.exit_code == 2 and "--validation-split" in refused.stderr
    done = validate(*same, "--validation-split", "test")
    assert done.exit_code == 0 and "val_accuracy" in done.stdout
    with np.load(folder / "data.npz") as arrays:
        np.savez(folder / "own.npz", x=arrays["x_test"], y=arrays["y_test"])
    # A file of its own has no part of that name: --split is about --data alone.
    done = validate("--validation-data", folder / "own.npz")
    assert done.exit_code == 0 and "on the validation data" in done.stdout


def test_a_slice_has_as_many_classes_as_the_data(folder: Path) -> None:
    output = ("-o", folder / "sliced.keras", "--force")
    refused = run("slice", folder / "teacher.keras", *data(folder, "train"), "--num-classes", 2, *output)
    assert refused.exit_code == 2 and "the data has 3 classes" in refused.stderr
    made("slice", folder / "teacher.keras", *data(folder, "train"), *output)
    record = read_record(folder / "sliced.keras")
    assert record["class_names"] == ["0", "1", "2"] and record["space"]["scaling"] == "0-1" and record["teacher"]


@pytest.mark.parametrize("keep", [lambda y: y != 1, lambda y: y == 2], ids=["two", "one"])
def test_a_student_from_a_script_knows_its_classes(folder: Path, keep: Callable[[np.ndarray], np.ndarray]) -> None:
    student = keras.saving.load_model(folder / "teacher" / "s.keras")
    save_student(student, folder / "script.keras", class_names=["0", "1", "2"], overwrite=True)
    with np.load(folder / "data.npz") as arrays:
        x, y = arrays["x_test"], arrays["y_test"]
    np.savez(folder / "some.npz", x=x[keep(y)], y=y[keep(y)])
    report = made("evaluate", folder / "script.keras", "--data", folder / "some.npz", "--preprocess", "0-1")
    said = student.predict(x[keep(y)] / np.float32(255), verbose=0).argmax(axis=-1)
    assert report["students"]["script"]["accuracy"]["count"] == int((said == y[keep(y)]).sum())


def test_classes_may_be_listed(folder: Path) -> None:
    names = folder / "names.txt"
    names.write_text("2\n0\n1\n", encoding="utf-8")
    output = ("-o", folder / "listed.keras", "--force")
    done = run("slice", folder / "teacher.keras", *data(folder, "train"), "--class-names", names, *output)
    assert done.exit_code == 0 and "Classes: 0 2, 1 0, 2 1." in done.stderr
    assert read_record(folder / "listed.keras")["class_names"] == ["2", "0", "1"]
    names.write_text("2\n2\n", encoding="utf-8")
    refused = run("slice", folder / "teacher.keras", *data(folder, "train"), "--class-names", names, *output)
    assert refused.exit_code == 1 and "each class once" in refused.stderr


@pytest.mark.once
@pytest.mark.filterwarnings("ignore:.*validation samples tell")
def test_a_tuned_and_hardened_student_against_attackers_by_what_they_know(folder: Path, tmp_path: Path) -> None:
    quick = ("--epochs", 2, "--augment", "none")
    student = tmp_path / "hardened.keras"
    done = run("transfer", folder / "teacher.keras", *data(folder, "train"), *quick, "-o", student, "--json")
    assert done.exit_code == 0, done.output
    assert "epochs: 4 for the learning rate, 2 for how much to keep, 3.6 for twins, 1 for what twins are" in done.stderr
    assert done.stderr.count("as long as about") == 1
    record = read_record(student)
    assert record["hardening"]["share"] == 0.5
    assert record["recipe"]["learning_rate"] == record["tuning"]["recipe"]["recipe"]["learning_rate"]
    assert record["slice"]["keep_ratio"] == record["tuning"]["keep_ratio"]["keep_ratio"]
    assert record["tuning"]["keep_ratio"]["validation_samples"] == 30

    layers = ("--layer", "penultimate", "--layer", "conv")
    moved = tmp_path / "moved.npz"
    made("attack", folder / "teacher.keras", *data(folder, "test"), "--defect", "displacement", *layers, "-o", moved)
    assert sorted(each.name for each in tmp_path.glob("moved*")) == ["moved.conv.npz", "moved.penultimate.npz"]
    own = ("--attacker-data", folder / "data.npz", "--learning-rate", 0.02, *quick)
    surrogate = tmp_path / "surrogate.npz"
    told = made(
        "attack", folder / "teacher.keras", *data(folder, "test"), "--defect", "surrogate", *own, "-o", surrogate
    )
    assert told["options"]["recipe"]["learning_rate"] == 0.02 and told["options"]["recipe"]["epochs"] == 2
    inputs = [f for each in (*tmp_path.glob("moved*"), surrogate) for f in ("--inputs", each)]
    report = made("evaluate", student, *data(folder, "test"), *inputs)
    assert len(report["defects"]) == 3
