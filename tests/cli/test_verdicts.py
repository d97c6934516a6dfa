"""What figures come to, in the shell: sentences, a folder to hand over, limits, and an exit code for pipelines."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest
from shell import run, told

import keras_remos as kr

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that tells three colours apart, two students, a control and a floor that knows nothing."""
    folder = tmp_path_factory.mktemp("verdicts")
    rng = np.random.default_rng(0)
    y = np.arange(48) % 3
    x = rng.integers(0, 60, (48, 6, 6, 3))
    x[np.arange(48), :, :, y] += 150
    np.savez(folder / "data.npz", x_train=x.astype("uint8"), y_train=y, x_test=x[::-1].astype("uint8"), y_test=y[::-1])
    teacher = colours(1.0)
    teacher.save(folder / "teacher.keras")
    space = kr.PixelSpace("0-1")
    for name, scale in (("control", 1.0), ("mine", 0.9), ("floor", 0.0)):
        record = {"method": "finetune"} if name == "control" else {}
        kr.save_student(colours(scale), folder / f"{name}.keras", space=space, teacher=teacher, **record)
    done = run("attack", folder / "teacher.keras", *data(folder, "test"), "--defect", "displacement", "--steps", 3)
    assert done.exit_code == 0, done.output
    return folder


def colours(scale: float) -> keras.Model:
    inputs = keras.Input((6, 6, 3))
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(3, 1, name="conv")(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3, "softmax", name="head")(x))
    model.get_layer("conv").set_weights([np.eye(3, dtype=np.float32)[None, None], np.zeros(3, np.float32)])
    model.get_layer("head").set_weights([scale * 9 * np.eye(3, dtype=np.float32), np.zeros(3, np.float32)])
    return model


def data(folder: Path, split: str) -> list[object]:
    return ["--data", folder / "data.npz", "--split", split, "--preprocess", "0-1"]


def evaluate(folder: Path, *arguments: object) -> list[object]:
    beside = ["--control", folder / "control.keras", "--floor", folder / "floor.keras"]
    made = ["--inputs", folder / "teacher.displacement.npz", "--teacher", folder / "teacher.keras"]
    return ["evaluate", folder / "mine.keras", *data(folder, "test"), *beside, *made, *arguments]


def test_evaluate_knows_floor_and_teacher(folder: Path) -> None:
    result = told(run(*evaluate(folder, "--json")))
    assert result["floors"] == {"teacher.displacement": "floor"}
    assert result["teacher"]["accuracy"]["value"] == 1.0 and set(result["teacher"]["attacks"]) == {
        "teacher.displacement"
    }
    codes = {verdict["code"]: verdict for verdict in result["verdicts"]}
    assert "names one class only" in codes["constant"]["text"] and codes["constant"]["level"] == "note"
    shown = run(*evaluate(folder))
    assert codes["constant"]["text"] in " ".join(shown.stdout.split())
    alone = run("evaluate", folder / "mine.keras", *data(folder, "test"), "--floor", folder / "floor.keras")
    assert alone.exit_code == 2 and "give --control" in " ".join(alone.stderr.split())


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (["--min-accuracy", 0.5, "--strict-verdict"], 3),  # no attack is a test of it here
        (["--min-accuracy", 1.5, "--strict-verdict"], 3),
        (["--min-accuracy", 1.5], 0),
        (["--max-excess", 0.1, "--strict-verdict"], 3),
    ],
)
def test_limits_are_an_exit_code_where_that_is_asked_for(folder: Path, limits: list[object], code: int) -> None:
    done = run(*evaluate(folder, *limits, "--json"))
    assert done.exit_code == code
    bad = [verdict["code"] for verdict in told(done)["verdicts"] if verdict["level"] == "bad"]
    assert bool(bad) is (code == 3 or "--strict-verdict" not in limits)


def test_a_student_that_keeps_its_limits_passes(folder: Path) -> None:
    """By an attack of which a backdoor's target is the yardstick: a patch that every model takes for class 0."""
    x, y = (np.load(folder / "data.npz")[name] for name in ("x_test", "y_test"))
    attacked = x.copy()
    attacked[: len(x) // 2] = [255, 0, 0]
    source = (("conv", "0"),)
    made = kr.AttackSet(x, attacked, y, (), None, "mine", {}, kr.PixelSpace("0-1"), source, 0, {})
    made.save(folder / "half.npz")
    asked = ["--inputs", folder / "half.npz", "--control", folder / "control.keras", "--allow-other-teacher"]
    given = ["evaluate", folder / "mine.keras", *data(folder, "test"), *asked, "--strict-verdict"]
    assert run(*given, "--max-excess", 1.0, "--min-accuracy", 1.0).exit_code == 0
    assert run(*given, "--max-excess", 0.9).exit_code == 3


def test_an_audit_in_a_folder(folder: Path) -> None:
    pytest.importorskip("jinja2", reason="needs the extra report")
    own = ["--train-data", folder / "data.npz", "--train-split", "train", "--epochs", 1, "--no-tune"]
    asked = ["audit", folder / "teacher.keras", *data(folder, "test"), *own, "--defect", "displacement"]
    done = run(*asked, "-o", folder / "audit", "--json")
    assert done.exit_code == 0, done.output
    whole = json.loads(done.stdout)
    assert set(whole["outputs"]) == {"page", "json", "figures"} and all(
        Path(p).exists() for p in whole["outputs"].values()
    )
    kept = json.loads((folder / "audit" / "report.json").read_text(encoding="utf-8"))
    assert kept["inputs"] == whole["inputs"] and kept["inputs"]["teacher"]["sha256"]
    assert kept["result"]["verdicts"] == whole["result"]["verdicts"]
    again = run(*asked, folder / "mine.keras", "-o", folder / "audit")
    assert again.exit_code == 0 and again.stdout.count("fine-tuned: finetune, 1 epochs") == 1
    page = folder / "audit" / "report.html"
    assert f"Report: {page}" in again.stdout and "mine" in page.read_text(encoding="utf-8")
    assert run("report", folder / "audit", "--force").stdout == f"{page}\n"
    assert run(*asked, "-o", folder).exit_code == 1


def test_without_students_the_test_set_is_numbered_as_the_training_data(folder: Path) -> None:
    """Each alone would number its classes from 0."""
    x, y = (np.load(folder / "data.npz")[name] for name in ("x_test", "y_test"))
    names = np.array(["a", "b", "c"])
    np.savez(folder / "train.npz", x=x, y=names[y])
    np.savez(folder / "test.npz", x=x[y > 0], y=names[y[y > 0]])
    own = ["--train-data", folder / "train.npz", "--epochs", 1, "--no-tune", "--defect", "displacement"]
    done = run("audit", folder / "teacher.keras", "--data", folder / "test.npz", "--preprocess", "0-1", *own, "--json")
    assert done.exit_code == 0, done.output
    result = told(done)
    assert result["test"]["per_class"] == [0, 16, 16] and result["class_names"] == ["a", "b", "c"]


def test_without_the_extra_an_audit_for_a_page_does_not_begin(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras_remos.report.writer.find_spec", lambda name: None)
    done = run("audit", folder / "teacher.keras", *data(folder, "test"), "--no-control", "-o", folder / "new")
    assert done.exit_code == 1 and 'pip install "keras-remos[report]"' in done.stderr
    assert not (folder / "new").exists()


def test_poison_says_how_often_the_trigger_works(folder: Path) -> None:
    quick = ["--epochs", 1, "--trigger", "255,255,0", "--size", 2, "-o", folder / "poisoned.keras"]
    done = run("poison", folder / "teacher.keras", *data(folder, "train"), *quick, "--json")
    assert done.exit_code == 0, done.output
    assert told(done)["teacher"]["attacks"]["patch-backdoor"]["n"] == 32
    same = ["--validation-data", folder / "data.npz", "--validation-split", "train"]
    elsewhere = ["-o", folder / "new.keras"]
    assert (
        run("poison", folder / "teacher.keras", *data(folder, "train"), *quick[:-2], *elsewhere, *same).exit_code == 2
    )
    assert not (folder / "new.keras").exists()
    other = ["--validation-data", folder / "data.npz", "--validation-split", "test", "--force"]
    shown = run("poison", folder / "teacher.keras", *data(folder, "train"), *quick, *other)
    assert "of 32 inputs of other classes for the attacker's, of" in " ".join(shown.stdout.split())
