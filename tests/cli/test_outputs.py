"""Where commands write: what they refuse before any work, and what they leave when they cannot write."""

import os
from pathlib import Path

import numpy as np
import pytest
from faults import disk_full_at
from shell import run
from test_cli import arrays, save_teacher

from keras_remos import FileError
from keras_remos.demo import DemoResult, DemoRow
from keras_remos.writing import reserved, reserved_folder

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore:Criterion:UserWarning")]

WRITERS = {
    "profile": ["-o", "out.npz"],
    "slice": ["-o", "out.keras"],
    "attack": ["--defect", "penultimate", "-o", "out.npz"],
    "poison": ["-o", "out.keras"],
    "transfer": ["-o", "out.keras"],
}


@pytest.mark.parametrize("command", WRITERS)
def test_what_is_no_file_is_refused_before_the_teacher_is_opened(command: str, tmp_path: Path) -> None:
    """There is none."""
    *options, name = WRITERS[command]
    output, longer = tmp_path / name, tmp_path / ("n" * 252 + Path(name).suffix)
    arguments = [command, tmp_path / "none.keras", "--data", tmp_path / "none.npz", "--force", *options]
    os.mkfifo(output)
    for path, reason in {output: "is a device, a pipe or a socket", longer: "File name too long"}.items():
        result = run(*arguments, path)
        assert result.exit_code == 1
        assert reason in result.stderr
    output.unlink()
    with reserved(output):
        result = run(*arguments, output)
    assert result.exit_code == 1
    assert "to be written twice" in result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["demo", "export"])
def test_what_another_run_writes_is_refused_before_any_work(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def works(*arguments: object, **options: object) -> None:
        raise AssertionError("there is work to be done")

    monkeypatch.setattr("keras_remos.demo.run_demo", works)
    output, student = tmp_path / "out.html", tmp_path / "s.keras"
    student.touch()
    arguments = {"demo": [], "export": [student]}[command]
    keeps = reserved(output) if command == "demo" else reserved_folder(output, is_ours=bool)
    with keeps:
        result = run(command, *arguments, "-o", output, "--force")
    assert result.exit_code == 1
    assert "to be written twice" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["s.keras"]


def test_the_page_of_a_demo_is_kept_for_it_and_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "page.html"

    def works(**options: object) -> DemoResult:
        with pytest.raises(FileError, match="written twice"), reserved(page):
            pass
        return DemoResult((DemoRow("teacher", 1.0, 1.0, 9, 9),), 0.9, 0, "torch", 1.0)

    monkeypatch.setattr("keras_remos.demo.run_demo", works)
    assert run("demo", "-o", page).exit_code == 0
    assert page.read_text(encoding="utf-8").startswith("<!")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_two_outputs_of_one_command_are_two_files(tmp_path: Path) -> None:
    (tmp_path / "link.npz").symlink_to("student.keras")
    teacher = [tmp_path / "none.keras", "--data", tmp_path / "none.npz"]
    for arguments in (
        ["slice", *teacher, "-o", tmp_path / "student.keras", "--slice-file", tmp_path / "link.npz"],
        ["attack", *teacher, "--defect", "penultimate", "--neuron", 1, "--neuron", 1, "-o", tmp_path / "a.npz"],
        ["attack", *teacher, "--defect", "displacement", "--layer", "a/b", "--layer", "a-b", "-o", tmp_path / "a.npz"],
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert "to be written twice" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["link.npz"]


def test_checkpoints_need_a_folder_before_the_teacher_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = run("transfer", tmp_path / "none.keras", "--data", tmp_path / "d.npz", "--checkpoint", tmp_path / "file")
    assert result.exit_code == 1
    assert "Checkpoints need a folder" in result.stderr


def test_an_attack_takes_a_name_of_255_bytes_and_leaves_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras_remos.defects.resuming.INTERVAL", 0.0)
    teacher, data = save_teacher(tmp_path / "teacher.keras"), arrays(tmp_path / "data.npz")
    output = tmp_path / ("n" * 251 + ".npz")
    options = ["--preprocess", "0-1", "--defect", "penultimate", "--steps", 1]
    result = run("attack", teacher, "--data", data, *options, "-o", output)
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {"teacher.keras", "data.npz", output.name}


@pytest.mark.parametrize("command", WRITERS)
def test_a_full_disk_is_told_in_one_line(command: str, tmp_path: Path) -> None:
    teacher, data = save_teacher(tmp_path / "teacher.keras"), arrays(tmp_path / "data.npz")
    *options, name = WRITERS[command]
    more = {"attack": ["--steps", 1], "poison": ["--epochs", 1], "transfer": ["--epochs", 1, "--budget", 1]}.get(
        command, []
    )
    arguments = [command, teacher, "--data", data, "--preprocess", "0-1", *more, *options, tmp_path / name]
    with disk_full_at(1000):
        result = run(*arguments)
    assert result.exit_code == 1, result.output
    assert "Traceback" not in result.stderr
    [said] = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    # What is finished of an attack goes to the disk first.
    assert f"{'out.partial.npz' if command == 'attack' else name} cannot be written" in said
    assert "Make room" in said
    assert {path.name for path in tmp_path.iterdir()} == {"teacher.keras", "data.npz"}


def test_a_checkpoint_is_of_the_data_that_it_was_trained_on(tmp_path: Path) -> None:
    teacher, data = save_teacher(tmp_path / "teacher.keras"), arrays(tmp_path / "data.npz")
    arguments = ["transfer", teacher, "--data", data, "--checkpoint", tmp_path / "run", "--force", "--epochs", 2]
    arguments += ["-o", tmp_path / "student.keras", "--method", "finetune", "--budget", 1]
    assert run(*arguments, "--preprocess", "0-1").exit_code == 0
    other = run(*arguments, "--preprocess", "imagenet")
    assert other.exit_code == 1
    assert "is of another run: its data is" in other.stderr
    np.savez(tmp_path / "validation.npz", x=np.load(data)["x"][:6], y=np.load(data)["y"][:6])
    later = run(*arguments, "--preprocess", "0-1", "--validation-data", tmp_path / "validation.npz")
    assert later.exit_code == 0, later.output
    assert "val_accuracy" in later.stdout
    np.savez(data, x=255 - np.load(data)["x"], y=np.load(data)["y"])
    replaced = run(*arguments, "--preprocess", "0-1")
    assert replaced.exit_code == 1
    assert "is of another run: its data is" in replaced.stderr
