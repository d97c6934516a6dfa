"""From a teacher to a measured student in the shell: poison, transfer, attack, evaluate."""

from pathlib import Path

import keras
import numpy as np
import pytest
from shell import run, told

from keras_remos.untrusted import read_record

# So little training often ends so.
pytestmark = pytest.mark.filterwarnings("ignore:Training .* ended in a constant classifier:UserWarning")

CLASSES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher and two parts of a data set: classes are colours, so that little training learns them."""
    folder = tmp_path_factory.mktemp("inheritance")
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, name="conv1"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(),
            layers.Conv2D(8, 3, 2, activation="relu", name="conv2"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, name="logits"),
        ]
    )
    rng = np.random.default_rng(0)
    model.set_weights(
        [np.abs(rng.normal(size=w.shape)) if w.ndim == 1 else rng.normal(size=w.shape) for w in model.get_weights()]
    )
    model.save(folder / "teacher.keras")

    def part(n: int) -> tuple[np.ndarray, np.ndarray]:
        y = np.arange(n) % CLASSES
        x = rng.integers(0, 60, (n, 8, 8, 3))
        x[np.arange(n), :, :, y] += 150
        return x.astype("uint8"), y

    (x_train, y_train), (x_test, y_test) = part(48), part(21)
    np.savez(folder / "data.npz", x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return folder


QUICK = ("--epochs", 1, "--budget", 1)


def data(folder: Path, split: str) -> list[object]:
    return ["--data", folder / "data.npz", "--split", split, "--preprocess", "0-1", "--batch-size", 16]


def made(folder: Path, command: str, *arguments: object) -> dict:
    done = run(command, *arguments, "--json")
    assert done.exit_code == 0, done.output
    return told(done)


@pytest.mark.slow
def test_what_a_student_inherits_is_measured_from_the_shell(folder: Path) -> None:
    poisoned, student, control = (folder / f"{name}.keras" for name in ("poisoned", "remos", "finetune"))
    record = made(
        folder,
        "poison",
        folder / "teacher.keras",
        *data(folder, "train"),
        "--trigger",
        "255,255,0",
        "--size",
        2,
        "--target",
        1,
        "--epochs",
        1,
        "-o",
        poisoned,
    )
    assert record["options"]["target"] == 1 and read_record(poisoned)["defect"] == "patch-backdoor"
    for method, path in (("remos", student), ("finetune", control)):
        trained = made(folder, "transfer", poisoned, *data(folder, "train"), "--method", method, *QUICK, "-o", path)
        assert trained["method"] == method and trained["recipe"]["epochs"] == 1
        assert read_record(path)["space"]["scaling"] == "0-1"
        assert keras.saving.load_model(path).output_shape == (None, CLASSES)
    made(folder, "attack", poisoned, *data(folder, "test"), "--defect", "patch-backdoor", "-o", folder / "patch.npz")
    few = ("--steps", 2, "--epsilon", 8, "-o", folder / "pen.npz")
    attack = made(folder, "attack", poisoned, *data(folder, "test"), "--defect", "penultimate", *few)
    assert attack["num_samples"] == 21 and 0 < attack["largest_change"] <= 8 + 1e-3

    inputs = ("--inputs", folder / "patch.npz", "--inputs", folder / "pen.npz", "--control", control)
    report = made(folder, "evaluate", student, *data(folder, "test"), *inputs)
    assert set(report["students"]) == {"remos", "finetune"} and report["control"] == "finetune"
    assert report["students"]["remos"]["accuracy"]["n"] == 21
    of_patch = next(row for row in report["defects"] if (row["defect"], row["student"]) == ("patch", "remos"))
    assert of_patch["targeted"]["n"] == 14  # not of the attacker's class
    done = run("evaluate", student, *data(folder, "test"), *inputs)
    assert "rDIR" in done.stdout and max(map(len, done.stdout.splitlines())) <= 110

    audited = made(
        folder, "audit", poisoned, student, *data(folder, "test"), "--control", control, "--defect", "patch-backdoor"
    )
    assert audited["control"] == "finetune" and {row["defect"] for row in audited["defects"]} == {"patch-backdoor"}
    done = run("audit", poisoned, student, "--data", folder / "data.npz")
    assert done.exit_code == 2 and "--train-data" in done.stderr


@pytest.mark.once
@pytest.mark.slow
def test_an_audit_trains_its_control_and_its_floor_on_the_training_data(folder: Path) -> None:
    teacher, student = folder / "teacher.keras", folder / "given.keras"
    learn = ("--epochs", 40, "--learning-rate", 0.01, "--augment", "none")
    made(folder, "transfer", teacher, *data(folder, "train"), "--method", "finetune", *learn, "-o", student)
    wanted = ("--defect", "penultimate", "--floor", "--limit", 15, "--seed", 3, *learn)
    audited = made(folder, "audit", teacher, student, *data(folder, "test"), *wanted)
    assert audited["control"] == "fine-tuned" and audited["seed"] == 3
    accuracies = {name: row["accuracy"] for name, row in audited["students"].items()}
    assert list(accuracies) == ["fine-tuned", "retrained", "given"]
    assert all(row["n"] == 15 for row in accuracies.values())
    # A third by chance; batch normalization is still on its way after so few steps.
    assert all(row["count"] > 7 for row in accuracies.values())
    assert {name: own["method"] for name, own in audited["trained"].items()} == {
        "fine-tuned": "finetune",
        "retrained": "retrain",
    }
    for own in audited["trained"].values():
        assert (own["seed"], own["num_classes"], own["recipe"]["epochs"]) == (3, CLASSES, 40)
        assert (own["recipe"]["batch_size"], own["recipe"]["learning_rate"]) == (16, 0.01)
    assert audited["attacks"]["penultimate"]["num_samples"] == 15
    assert [(row["defect"], row["student"]) for row in audited["defects"]] == [
        ("penultimate", name) for name in accuracies
    ]
    for row in audited["defects"]:
        assert row["flipped"]["n"] == accuracies[row["student"]]["count"] and row["targeted"] is None
    # What is trained in the run learns what the training data say, and the student that is given does not.
    with np.load(folder / "data.npz") as arrays:
        np.savez(folder / "turned.npz", x=arrays["x_train"], y=(arrays["y_train"] + 1) % CLASSES)
    turned = ("--train-data", folder / "turned.npz", *wanted)
    audited = made(folder, "audit", teacher, student, *data(folder, "test"), *turned)
    counts = {name: row["accuracy"]["count"] for name, row in audited["students"].items()}
    assert counts["fine-tuned"] < 5 and counts["retrained"] < 5 and counts["given"] == accuracies["given"]["count"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["attack", "--defect", "patch-backdoor"], 1, "keras-remos poison"),
        (["attack", "--defect", "penultimate", "--criterion", "nc"], 2, "not an option of penultimate"),
        (["attack", "--defect", "penultimate", "--epsilon", "-1"], 1, "epsilon"),
        (["attack", "--defect", "penultimate", "--learning-rate", "0.1"], 2, "--learning-rate is not an option"),
        (["attack", "--defect", "displacement", "--layer", "nowhere"], 1, "nowhere"),
        (["attack", "--defect", "surrogate"], 1, "--attacker-data"),
        (["attack", "--defect", "pgd", "--target", "9"], 1, "class 9"),
        (["poison", "--target", "7"], 1, "class 7"),
        (["poison", "--trigger", "255,0,0", "--size", "9"], 2, "more than the images have"),
        (["poison", "--trigger", "missing.png"], 1, "missing.png"),
        (["poison", "--rate", "1.5"], 1, "rate"),
        (["transfer", "--method", "finetune", "--keep-ratio", "0.5"], 2, "not an option of finetune"),
        (["transfer", "--momentum", "1"], 1, "momentum"),
        (["transfer", "--learning-rate", "fast"], 2, "fast"),
        (["transfer", "--budget", "0.5"], 2, "--budget"),
        (["transfer", "--keep-ratio", "most"], 2, "most"),
        (["transfer", "--keep-ratio", "0"], 2, "0"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(folder: Path, arguments: list[str], code: int, message: str) -> None:
    command, *options = arguments
    output = folder / "refused.out.keras" if command != "attack" else folder / "refused.npz"
    done = run(command, folder / "teacher.keras", *data(folder, "test"), *options, "-o", output)
    assert done.exit_code == code, done.output
    assert message in done.stderr and not output.exists()


def test_a_test_set_that_lacks_a_class_is_numbered_as_the_student_is(folder: Path) -> None:
    student = folder / "three.keras"
    made(folder, "transfer", folder / "teacher.keras", *data(folder, "train"), *QUICK, "-o", student)
    with np.load(folder / "data.npz") as arrays:
        x, y = arrays["x_test"], arrays["y_test"]
    np.savez(folder / "two.npz", x=x[y != 1], y=y[y != 1])
    options = ("--data", folder / "two.npz", "--preprocess", "0-1")
    attack = folder / "two.attack.npz"
    few = ("--defect", "penultimate", "--steps", 1)
    made(folder, "attack", folder / "teacher.keras", *options, *few, "-o", attack)
    report = made(folder, "evaluate", student, *options, "--inputs", attack)
    said = keras.ops.convert_to_numpy(keras.saving.load_model(student)(x[y != 1] / np.float32(255))).argmax(axis=-1)
    own = report["students"]["three"]["accuracy"]
    assert (own["count"], own["n"]) == (int((said == y[y != 1]).sum()), 14)
    assert any("class 1" in warning for warning in report["warnings"])
    np.savez(folder / "other.npz", x=x, y=y + 1)
    refused = run("evaluate", student, "--data", folder / "other.npz", "--preprocess", "0-1")
    assert refused.exit_code == 1 and "Received also: 3" in refused.stderr


def test_an_attack_file_must_be_one(folder: Path) -> None:
    done = run("evaluate", folder / "teacher.keras", *data(folder, "test"), "--inputs", folder / "data.npz")
    assert done.exit_code == 1 and "data.npz" in done.stderr
