"""Every real teacher of ../shared is profiled and sliced by the program, on every backend, with the same result."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
TEACHERS, IMAGES, TEXT = SHARED / "teachers", SHARED / "images", SHARED / "text"
BACKENDS = [backend for backend in ("jax", "torch", "tensorflow") if find_spec(backend)]
# Teacher, data set, options, backends. The larger one runs on one backend, for time; `minilm_l6` is attacked below.
RUNS = [
    ("cifar10_resnet20.keras", IMAGES / "flowers102_20c" / "train", [], BACKENDS),
    ("cifar10_resnet56.keras", IMAGES / "imagenette10_32.npz", [], ["torch"]),
    ("minilm_l3", TEXT / "qnli" / "dev.tsv", ["--text-column", "question", "--pair-column", "sentence"], BACKENDS),
]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.is_dir(), reason="the real teachers of ../shared are not there"),
]


# Several commands in one process: a start takes longer than what most of them do.
PROGRAM = """
import json, sys
from keras_remos_cli import main

for arguments in json.load(sys.stdin):
    main(arguments, standalone_mode=False)
"""


def keras_remos(backend: str, home: Path, *commands: tuple[object, ...]) -> list[Any]:
    """What commands print, each with `--json`."""
    environment = {**os.environ, "KERAS_BACKEND": backend, "KERAS_HOME": str(home)}
    arguments = json.dumps([[*map(str, command), "--json"] for command in commands])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=arguments, capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers, rest = [], done.stdout.strip()
    while rest:
        answer, end = json.JSONDecoder().raw_decode(rest)
        answers.append(answer["result"])
        rest = rest[end:].strip()
    assert len(answers) == len(commands)
    return answers


@pytest.mark.parametrize(("teacher", "data", "options", "backends"), RUNS, ids=[run[0] for run in RUNS])
def test_the_program_slices_it(
    teacher: str, data: Path, options: list[str], backends: list[str], tmp_path: Path
) -> None:
    if (TEACHERS / teacher).is_dir() and find_spec("keras_hub") is None:
        pytest.skip("needs KerasHub")
    backends = [backend for backend in backends if backend in BACKENDS]
    if not backends:
        pytest.skip("its backend is not installed")
    slices = {}
    profile = tmp_path / "profile.npz"
    counted = ("--data", data, "--steps", 4)
    for backend in backends:
        student, from_profile = tmp_path / f"{backend}.keras", tmp_path / f"{backend}.from_profile.npz"
        sliced = ("slice", TEACHERS / teacher, "--force", "-o", student, *options)
        commands: list[tuple[object, ...]] = [
            (*sliced, *counted),
            (*sliced, "--profile-file", profile, "--slice-file", from_profile),
        ]
        if not profile.exists():
            commands.insert(0, ("profile", TEACHERS / teacher, *counted, "-o", profile, *options))
        *_, answer, _ = keras_remos(backend, tmp_path, *commands)
        assert answer["num_samples"] == 128
        kept = 0.95 if teacher.startswith("minilm") else 0.9
        assert _share_of_kernels(answer) == pytest.approx(kept, abs=0.01)
        assert answer["num_classes"] == {"cifar10_resnet20.keras": 20, "cifar10_resnet56.keras": 10}.get(teacher, 2)
        assert student.stat().st_size > 100_000
        slices[backend] = from_profile.read_bytes()
    assert len(set(slices.values())) == 1, "one profile gives different slices on different backends"


def _share_of_kernels(answer: dict) -> float:
    kernels = [layer for layer in answer["layers"] if not layer["path"].endswith("/embeddings")]
    return sum(layer["kept"] for layer in kernels) / sum(layer["total"] for layer in kernels)


@pytest.mark.skipif(find_spec("keras_hub") is None, reason="needs KerasHub")
def test_a_real_language_model_goes_from_the_attack_to_the_measured_student(tmp_path: Path) -> None:
    for name, first, last in (("attackers", 0, 192), ("own", 192, 384), ("test", 384, 448)):
        header, *rows = (TEXT / "sst2" / "train.tsv").read_text(encoding="utf-8").splitlines()
        (tmp_path / f"{name}.tsv").write_text("\n".join([header, *rows[first:last]]), encoding="utf-8")
    poisoned, attack = tmp_path / "poisoned.keras", tmp_path / "attack.npz"
    data = {
        name: ("--data", tmp_path / f"{name}.tsv", "--sequence-length", 32) for name in ("attackers", "own", "test")
    }
    short = ("--epochs", 1, "--learning-rate", 1e-4)
    students = {method: tmp_path / f"{method}.keras" for method in ("remos", "finetune")}
    commands = [
        ("poison", TEACHERS / "minilm_l6", *data["attackers"], "--trigger", "cf", *short, "-o", poisoned),
        *[
            ("transfer", poisoned, *data["own"], "--method", method, *short, "-o", path)
            for method, path in students.items()
        ],
        ("attack", poisoned, *data["test"], "--defect", "text-poisoning", "-o", attack),
    ]
    keras_remos("torch" if "torch" in BACKENDS else BACKENDS[0], tmp_path, *commands)
    wanted = ("--inputs", attack, "--control", students["finetune"])
    [report] = keras_remos(BACKENDS[0], tmp_path, ("evaluate", students["remos"], *data["test"], *wanted))
    assert report["students"]["remos"]["accuracy"]["n"] == 64
    assert {row["student"]: row["f1"] is not None for row in report["defects"]} == {"finetune": True, "remos": True}


@pytest.mark.skipif(find_spec("keras_hub") is None, reason="needs KerasHub")
def test_a_saved_text_student_reads_raw_text_in_a_process_of_its_own(tmp_path: Path) -> None:
    student = tmp_path / "student.keras"
    options = ["--steps", 2, "--sequence-length", 32, "-o", student]
    sliced = ("slice", TEACHERS / "minilm_l3", "--data", TEXT / "sst2" / "dev.tsv", *options)
    keras_remos(BACKENDS[0], tmp_path, sliced)
    code = (
        "import sys; sys.modules['keras_remos'] = None\n"
        "import keras, keras_hub, numpy as np\n"
        f"model = keras.models.load_model({str(student)!r})\n"
        "p = model.predict(np.array(['a fine film', 'a bad film']), verbose=0)\n"
        "assert p.shape == (2, 2) and np.allclose(p.sum(1), 1, atol=1e-5), p\n"
    )
    environment = {**os.environ, "KERAS_BACKEND": BACKENDS[0], "KERAS_HOME": str(tmp_path)}
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert loaded.returncode == 0, loaded.stderr
