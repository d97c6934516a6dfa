"""Every real teacher of ../shared is profiled and sliced by the program, on every backend, with the same result."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

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


def keras_remos(backend: str, home: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("keras-remos")
    environment = {**os.environ, "KERAS_BACKEND": backend, "KERAS_HOME": str(home)}
    command = [str(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


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
    for backend in backends:
        student, slice_file = tmp_path / f"{backend}.keras", tmp_path / f"{backend}.npz"
        profile = tmp_path / "profile.npz"
        if not profile.exists():
            made = keras_remos(
                backend, tmp_path, "profile", TEACHERS / teacher, "--data", data, "--steps", 4, "-o", profile, *options
            )
            assert made.returncode == 0, made.stderr
        done = keras_remos(
            backend,
            tmp_path,
            *("slice", TEACHERS / teacher, "--data", data, "--steps", 4, "--json"),
            *("-o", student, "--slice-file", slice_file),
            *options,
        )
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["num_samples"] == 128
        kept = 0.95 if teacher.startswith("minilm") else 0.9
        assert _share_of_kernels(answer) == pytest.approx(kept, abs=0.01)
        assert answer["num_classes"] == {"cifar10_resnet20.keras": 20, "cifar10_resnet56.keras": 10}.get(teacher, 2)
        assert student.stat().st_size > 100_000
        from_profile = tmp_path / f"{backend}.from_profile.npz"
        again = keras_remos(
            backend,
            tmp_path,
            *("slice", TEACHERS / teacher, "--profile-file", profile, "--force", "-o", student),
            *("--slice-file", from_profile, *options),
        )
        assert again.returncode == 0, again.stderr
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
    short = ("--epochs", 1, "--learning-rate", 1e-4, "--json")
    students = {method: tmp_path / f"{method}.keras" for method in ("remos", "finetune")}
    commands = [
        ("poison", TEACHERS / "minilm_l6", *data["attackers"], "--trigger", "cf", *short, "-o", poisoned),
        *[
            ("transfer", poisoned, *data["own"], "--method", method, *short, "-o", path)
            for method, path in students.items()
        ],
        ("attack", poisoned, *data["test"], "--defect", "text-poisoning", "--json", "-o", attack),
    ]
    for command in commands:
        done = keras_remos("torch" if "torch" in BACKENDS else BACKENDS[0], tmp_path, *command)
        assert done.returncode == 0, done.stderr
    wanted = ("--inputs", attack, "--control", students["finetune"], "--json")
    done = keras_remos(BACKENDS[0], tmp_path, "evaluate", students["remos"], *data["test"], *wanted)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["students"]["remos"]["accuracy"]["n"] == 64
    assert {row["student"]: row["f1"] is not None for row in report["defects"]} == {"finetune": True, "remos": True}


@pytest.mark.skipif(find_spec("keras_hub") is None, reason="needs KerasHub")
def test_a_saved_text_student_reads_raw_text_in_a_process_of_its_own(tmp_path: Path) -> None:
    student = tmp_path / "student.keras"
    options = ["--steps", 2, "--sequence-length", 32, "-o", student]
    done = keras_remos(
        BACKENDS[0], tmp_path, "slice", TEACHERS / "minilm_l3", "--data", TEXT / "sst2" / "dev.tsv", *options
    )
    assert done.returncode == 0, done.stderr
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
