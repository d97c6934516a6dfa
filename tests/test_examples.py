"""The examples run as they stand, on small models and data."""

import io
import json
import os
import runpy
import subprocess
import sys
import warnings
from contextlib import redirect_stdout
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_remos import Recipe

EXAMPLES = Path(__file__).parents[1] / "examples"

pytestmark = [pytest.mark.slow, pytest.mark.once]


def run(example: str, folder: Path, *arguments: object) -> str:
    """What a script prints. It runs in this process: a start takes longer than what most of them do on toys."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # toys learn little
        patch.chdir(folder)
        patch.syspath_prepend(EXAMPLES)
        patch.setattr(sys, "argv", [example, *map(str, arguments)])
        runpy.run_path(str(EXAMPLES / example), run_name="__main__")
    return said.getvalue()


def test_a_script_runs_by_itself(images: Path) -> None:
    arguments = ["teacher.keras", "images.npz", "student.keras", "--epochs", "1"]
    command = [sys.executable, str(EXAMPLES / "quickstart_cv.py"), *arguments]
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=images)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rDIR" in done.stdout and "ReMoS" in done.stdout and "penultimate" in done.stdout
    assert keras.saving.load_model(images / "student.keras").output_shape == (None, 3)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A teacher, and images whose class is their colour."""
    layers = keras.layers
    body = [
        layers.Conv2D(4, 3, name="conv1"),
        layers.BatchNormalization(name="bn"),
        layers.ReLU(),
        layers.Conv2D(6, 3, 2, activation="relu", name="conv2"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(5),
    ]
    keras.Sequential([keras.Input((12, 12, 3)), *body]).save(tmp_path / "teacher.keras")
    rng = np.random.default_rng(0)
    arrays = {}
    for part, count in (("train", 48), ("test", 12)):
        y = np.arange(count) % 3
        x = rng.integers(0, 60, (count, 12, 12, 3))
        x[np.arange(count), :, :, y] += 150
        arrays |= {f"x_{part}": x.astype("uint8"), f"y_{part}": y}
    np.savez(tmp_path / "images.npz", **arrays)
    return tmp_path


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """A language model, and sentences with one judging word each."""
    pytest.importorskip("keras_hub")
    text_toys = pytest.importorskip("text_toys")
    text_toys.bert().save(tmp_path / "bert.keras")
    for seed, (name, count) in enumerate((("train", 96), ("test", 20), ("other", 48))):
        rows = [f"{text}\t{label}" for text, label in zip(*text_toys.sentences(count, seed), strict=True)]
        (tmp_path / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows]), encoding="utf-8")
    return tmp_path


def test_what_is_inherited_is_measured_over_seeds(images: Path) -> None:
    arguments = ("teacher.keras", "images.npz", "--epochs", 1, "--batch-size", 8, "--budget", 1)
    students = ("--students", "the default")
    said = run("measure_inheritance.py", images, *arguments, *students, "--seeds", 2, "--output", "measured")
    lines = said[said.index("seeds 0, 1;") :].splitlines()
    assert sum(line.startswith("ACC ") for line in lines) == 3
    assert any(line.startswith("adaptive, the default: DIR ") for line in lines)
    rows = (images / "measured" / "results.jsonl").read_text(encoding="utf-8").splitlines()
    again = run("measure_inheritance.py", images, *arguments, *students, "--seeds", 2, "--output", "measured")
    assert again.splitlines() == lines
    assert (images / "measured" / "results.jsonl").read_text(encoding="utf-8").splitlines() == rows
    assert json.loads(rows[0])["options"]["the default"]["hardening"]["share"] == 0.5
    planted = run(
        "measure_inheritance.py", images, *arguments, *students, "--seeds", 1, "--backdoor", "patch", "--output", "p"
    )
    (line,) = [line for line in planted.splitlines() if line.startswith("patch-backdoor, the default: DIR ")]
    assert "adaptive" not in planted and "excess" in line


def test_methods_for_images_are_compared_and_a_killed_run_goes_on(images: Path) -> None:
    arguments = ("teacher.keras", "images.npz", "--seeds", 1, "--epochs", 1, "--batch-size", 8)
    students = ("--students", "finetune", "remos")
    said = run("compare_methods_cv.py", images, *arguments, *students)
    assert {line.split("  ")[0] for line in said.splitlines()[1:]} == {
        "penultimate",
        "nc deepxplore",
        "snac dlfuzz",
        "patch",
        "latent",
    }
    lines = (images / "results.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 6
    (images / "results.jsonl").write_text("\n".join(lines[:5]) + "\n", encoding="utf-8")
    assert run("compare_methods_cv.py", images, *arguments, *students) == said
    # What another recipe left is none of this run's.
    one = ("--students", "finetune", "--scenes", "patch")
    other = run("compare_methods_cv.py", images, *arguments, *one, "--learning-rate", 0.001)
    assert [line.split("  ")[0] for line in other.splitlines()[1:]] == ["patch"]
    assert len((images / "results.jsonl").read_text(encoding="utf-8").splitlines()) == 7


def test_the_students_may_have_all_images_where_the_attacker_needs_none(images: Path) -> None:
    arguments = (
        "teacher.keras",
        "images.npz",
        "--seeds",
        1,
        "--epochs",
        1,
        "--batch-size",
        8,
        "--learning-rate",
        0.001,
    )
    adversarial = ("--students", "finetune", "retrain", "--scenes", "adversarial", "--attacker-share", 0)
    said = run("compare_methods_cv.py", images, *arguments, *adversarial)
    assert "patch" not in said and "latent" not in said
    rows = [json.loads(line) for line in (images / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    rates = {row["student"]: row["options"]["recipe"]["learning_rate"] for row in rows}
    assert rates == {"finetune": 0.001, "retrain": 0.1}


def test_a_hardened_student_meets_an_attacker_with_a_surrogate(images: Path) -> None:
    arguments = ("teacher.keras", "images.npz", "--seeds", 1, "--epochs", 1, "--batch-size", 8)
    chosen = ("--students", "finetune hardened", "--scenes", "surrogate")
    said = run("compare_methods_cv.py", images, *arguments, *chosen)
    assert [line.split("  ")[0] for line in said.splitlines()[1:]] == ["surrogate"]
    [row] = [json.loads(line) for line in (images / "results.jsonl").read_text(encoding="utf-8").splitlines()]
    assert row["options"]["hardening"]["share"] == 0.5


@pytest.mark.parametrize(("share", "attackers"), [(0, 0), (0.5, 4), (0.1, 1), (1, 7)])
def test_attacker_and_students_share_nothing(share: float, attackers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    from compare_methods_cv import divide

    attacker, own = divide((np.arange(7), np.arange(7) + 10), share, seed=0)
    assert len(attacker[0]) == attackers
    assert sorted([*attacker[0], *own[0]]) == list(range(7))
    assert all(np.array_equal(x + 10, y) for x, y in (attacker, own))


def test_the_quickstart_for_texts_audits_what_it_trained(texts: Path) -> None:
    arguments = ("--epochs", 8, "--learning-rate", 0.01, "--sequence-length", 16)
    said = run("quickstart_nlp.py", texts, "bert.keras", "train.tsv", "test.tsv", "student.keras", *arguments)
    assert "text-poisoning  from the clean teacher" in said and "F1" in said
    assert keras.saving.load_model(texts / "student.keras", compile=False).output_shape == (None, 2)


def test_methods_for_texts_are_compared(texts: Path) -> None:
    arguments = ("bert.keras", "train.tsv", "test.tsv", "--other", "other.tsv", "--seeds", 1, "--epochs", 1)
    students = ("--students", "finetune", "remos", "clean")
    said = run("compare_methods_nlp.py", texts, *arguments, "--sequence-length", 16, *students)
    rows = [line.split("  ")[0] for line in said.splitlines()[1:]]
    assert set(rows) == {"rare words", "rare words, shift", "sentence"} and len(rows) == 9


@pytest.mark.parametrize(("texts", "epochs"), [(100, 2), (29, 7), (200, 1), (10_000, 1)])
def test_an_attacker_with_other_texts_trains_for_as_many_steps(
    texts: int, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    from compare_methods_nlp import as_many_steps

    own, theirs = ((None, np.zeros(number)) for number in (100, texts))
    assert as_many_steps(Recipe(epochs=2), own, theirs) == Recipe(epochs=epochs)
