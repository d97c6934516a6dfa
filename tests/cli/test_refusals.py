"""Wrong usage is refused before any work, and files are called what they are."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from shell import run
from test_cli import arrays, save_teacher

from keras_remos import CoverageProfile
from keras_remos.saving import write_archive

pytestmark = pytest.mark.filterwarnings("ignore:Criterion:UserWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, data, and one file of each kind."""
    folder = tmp_path_factory.mktemp("made")
    teacher, data = save_teacher(folder / "teacher.keras"), arrays(folder / "data.npz")
    for arguments in (
        ["profile", teacher, "-o", folder / "profile.npz"],
        ["slice", teacher, "-o", folder / "student.keras", "--slice-file", folder / "slice.npz"],
        ["attack", teacher, "--defect", "penultimate", "--steps", 1, "-o", folder / "attack.npz"],
    ):
        result = run(*arguments, "--data", data)
        assert result.exit_code == 0, result.output
    write_archive(folder / "unknown.npz", "later kind", {}, {})
    return folder


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["slice", "-o", "student.h5"], "must end in .keras"),
        (["slice", "--slice-file", "slice.keras"], "must end in .npz"),
        (["profile", "-o", "profile.txt"], "must end in .npz"),
        (["attack", "--defect", "penultimate", "-o", "attack.csv"], "must end in .npz"),
        (["poison", "-o", "poisoned.npz"], "must end in .keras"),
        (["transfer", "-o", "student.npz"], "must end in .keras"),
        (["transfer", "--validation-split", "test"], "--validation-data"),
        (["transfer", "--seed", "-1"], "--seed"),
        (["slice", "--seed", "-1"], "--seed"),
    ],
)
def test_wrong_usage_is_told_before_the_teacher_is_opened(tmp_path: Path, arguments: list[str], message: str) -> None:
    """There is none."""
    command, *options = arguments
    result = run(command, tmp_path / "none.keras", "--data", tmp_path / "none.npz", *options)
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_options_of_the_data_do_not_go_with_a_profile(made: Path, tmp_path: Path) -> None:
    for option in (["--steps", 1], ["--split", "train"]):
        output = ["-o", tmp_path / "s.keras"]
        result = run("slice", made / "teacher.keras", "--profile-file", made / "profile.npz", *option, *output)
        assert result.exit_code == 2
        assert "--steps" in result.stderr


def test_inspect_calls_each_file_what_it_is(made: Path) -> None:
    shown = run("inspect", made / "attack.npz")
    assert shown.exit_code == 0, shown.output
    assert "penultimate" in shown.stdout
    for kind in ("profile", "slice", "attack"):
        assert f'"kind": "{kind}"' in run("inspect", made / f"{kind}.npz", "--json").stdout
    refused = run("inspect", made / "unknown.npz")
    assert refused.exit_code == 1
    assert "holds a later kind" in refused.stderr


def test_a_file_of_ours_that_is_no_model_is_not_called_a_pickle(made: Path) -> None:
    result = run("evaluate", made / "attack.npz", "--data", made / "data.npz")
    assert result.exit_code == 1
    assert "is no model, but a profile, slice or attack" in result.stderr
    assert "pickle" not in result.stderr


def test_a_student_that_was_only_sliced_is_no_control(made: Path) -> None:
    control = made / "student.keras"
    result = run("evaluate", control, "--data", made / "data.npz", "--control", control)
    assert result.exit_code == 1
    assert "not trained" in result.stderr


def test_images_too_small_for_the_model_are_told_by_the_option(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    for name in ("cat", "dog"):
        (tmp_path / "images" / name).mkdir(parents=True)
        image.fromarray(np.zeros((9, 7, 3), np.uint8)).save(tmp_path / "images" / name / "0.png")
    inputs: Any = keras.Input((None, None, 3))
    h = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(2, 3)(inputs))
    keras.Model(inputs, keras.layers.Dense(2)(h)).save(tmp_path / "any.keras")
    arguments = ["profile", tmp_path / "any.keras", "--data", tmp_path / "images", "-o", tmp_path / "p.npz"]
    result = run(*arguments, "--image-size", 2)
    assert result.exit_code == 1
    assert "no images of 2 x 2 pixels. Choose another --image-size." in result.stderr
    assert run(*arguments, "--image-size", 4).exit_code == 0
    assert CoverageProfile.load(tmp_path / "p.npz").num_samples == 2
