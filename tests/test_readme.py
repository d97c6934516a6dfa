"""The README's code runs as it stands, and says only what is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from click.testing import CliRunner
from keras_remos_cli.main import COMMANDS, main

import keras_remos as kr
from keras_remos.presets import FOR_LANGUAGE

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.fixture
def in_a_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in ("dachshund", "whippet"):
        (tmp_path / "dogs" / name).mkdir(parents=True)
        for number in range(20):
            picture = rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            image.fromarray(picture).save(tmp_path / "dogs" / name / f"{number}.png")
    layers = [keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3, activation="relu"), keras.layers.Flatten()]
    keras.Sequential([*layers, keras.layers.Dense(5)]).save("teacher.keras")
    return tmp_path


def test_the_scripts_run_as_they_stand(in_a_users_folder: Path) -> None:
    names: dict[str, object] = {}
    for script in blocks("python"):
        exec(compile(script, "README.md", "exec"), names)
    assert (in_a_users_folder / "student.keras").exists()
    student = keras.models.load_model("student.keras")
    assert student.output_shape == (None, 2)


def test_the_example_runs_as_it_stands(in_a_users_folder: Path) -> None:
    example = Path(__file__).parents[1] / "examples" / "slice_and_fine_tune.py"
    command = [sys.executable, str(example), "teacher.keras", "dogs", "dogs", "tuned.keras", "--epochs", "1"]
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "conv2d" in done.stdout
    assert keras.models.load_model(in_a_users_folder / "tuned.keras").output_shape == (None, 2)


def test_every_command_is_described() -> None:
    assert all(f"`keras-remos {name}" in README for name in COMMANDS)
    for line in re.findall(r"`(keras-remos [a-z]+(?: merge)?)", README):
        arguments = line.split()[1:]
        assert CliRunner().invoke(main, [*arguments, "--help"]).exit_code == 0, line


def test_every_option_that_is_named_exists() -> None:
    runner = CliRunner()
    helps = "".join(runner.invoke(main, [name, "--help"]).output for name in COMMANDS)
    assert set(re.findall(r"`(--[a-z-]+)", README)) <= set(re.findall(r"--[a-z-]+", helps))


def test_the_presets_are_those_of_the_library() -> None:
    rows = re.findall(r"^\| `(\w+)`(, language models)?.*\| ([\d.]+) \|$", README, flags=re.MULTILINE)
    assert {(name, bool(language)): float(ratio) for name, language, ratio in rows} == {
        (name, language): presets[name].keep_ratio
        for language, presets in ((False, kr.PRESETS), (True, FOR_LANGUAGE))
        for name in presets
    }


def test_help_says_what_the_presets_keep() -> None:
    said = " ".join(CliRunner().invoke(main, ["slice", "--help"]).output.split())
    (share,) = {preset.keep_ratio for preset in kr.PRESETS.values()}
    language = FOR_LANGUAGE["recommended"].keep_ratio
    assert f"the preset's ({share}, and {language} for recommended on language models)" in said


def test_public_names_are_all_exported() -> None:
    exported = {name for name in vars(kr) if not name.startswith("_") and not _is_module(name)}
    assert set(kr.__all__) == exported - {"select_backend"}
    assert all(getattr(kr, name).__doc__ for name in kr.__all__ if name != "PRESETS")


def _is_module(name: str) -> bool:
    return isinstance(vars(kr)[name], type(os))
