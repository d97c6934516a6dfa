"""What the library says, in the words of the shell: options in place of arguments, and memory that runs out."""

import re
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from keras_remos_cli.main import COMMANDS, main
from keras_remos_cli.messages import in_shell_words
from shell import run
from test_cli import arrays, save_teacher

from keras_remos.errors import RemosError

pytestmark = pytest.mark.filterwarnings("ignore:Criterion:UserWarning")


def command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)
    assert found is not None
    return found


@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "said", "shown"),
    [
        ("slice", "Let it be replaced (`overwrite=True`).", "Let it be replaced (--force)."),
        ("slice", "`head='path/of/layer'`", "--head path/of/layer"),
        ("audit", "try `batch_size=16`, or less", "try --batch-size 16, or less"),
        ("audit", "give `train`, or name (`students`)", "give --train-data, or name (STUDENTS)"),
        # An option is found by the name of the argument, and by its own.
        ("slice", "(`scaling`)", "(--preprocess)"),
        ("slice", "`preprocess`", "--preprocess"),
        ("transfer", "leave `keep_head` out", "leave --keep-head out"),
        # What the command has no option for stays.
        ("slice", "`custom_objects` and `batch(...)`", "`custom_objects` and `batch(...)`"),
        ("slice", "two\n  lines", "two lines"),
    ],
)
def test_arguments_are_said_as_options(name: str, said: str, shown: str) -> None:
    with click.Context(command(name)):
        assert in_shell_words(said) == shown


@pytest.mark.once
def test_the_library_names_no_option_of_the_program() -> None:
    """It is used from Python, too."""
    root = Path(__file__).parents[2] / "keras_remos"
    flags = {
        flag
        for name in COMMANDS
        for each in (command(name), *getattr(command(name), "commands", {}).values())
        for option in each.params
        if isinstance(option, click.Option)
        for flag in (*option.opts, *option.secondary_opts)
    }
    assert {"--force", "-o", "--backend"} <= flags
    named = re.compile("|".join(rf"(?<![\w-]){re.escape(flag)}(?![\w-])" for flag in sorted(flags)))
    found = [
        f"{path.name}: {line.strip()}"
        for path in root.rglob("*.py")
        for line in path.read_text(encoding="utf-8").splitlines()
        if named.search(line)
    ]
    assert not found


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    return save_teacher(tmp_path / "teacher.keras")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: not enough memory: you tried to allocate"
        ),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes.\nBufferAssignment OOM Debugging."),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA"),
        type("ResourceExhaustedError", (Exception,), {})("OOM when allocating tensor with shape[1]"),
    ],
    ids=["python", "torch-cpu", "xla", "torch-cuda", "tensorflow"],
)
def test_memory_that_runs_out_is_one_line_with_a_way_out(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("keras_remos.RelevantSlicer.profile", fail)
    result = run("profile", teacher, "--data", arrays(tmp_path / "data.npz"))
    assert result.exit_code == 1
    [line] = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert "Out of memory" in line
    assert "a smaller --batch-size, a smaller --image-size" in line


def test_an_error_that_nobody_expected_keeps_its_traceback(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("keras_remos.RelevantSlicer.profile", fail)
    result = run("profile", teacher, "--data", arrays(tmp_path / "data.npz"))
    assert isinstance(result.exception, RuntimeError)


def test_what_the_library_refuses_is_said_in_options(teacher: Path, tmp_path: Path) -> None:
    data = arrays(tmp_path / "data.npz")
    result = run("transfer", teacher, "--data", data, "--momentum", 2)
    assert result.exit_code == 1
    assert "Error: --momentum must be at least 0" in result.stderr
    result = run("audit", teacher, "--data", data, "--no-control")
    assert result.exit_code == 1
    assert "STUDENTS" in result.stderr
    assert "`" not in result.stderr


def test_a_momentum_that_adamw_does_not_use_is_refused(teacher: Path, tmp_path: Path) -> None:
    data, adamw = arrays(tmp_path / "data.npz"), ("--optimizer", "adamw", "--momentum", 0.9)
    given = {
        "transfer": ("-o", tmp_path / "a.keras"),
        "audit": ("--no-control",),
        "poison": ("-o", tmp_path / "b.keras"),
    }
    for command, more in given.items():
        result = run(command, teacher, "--data", data, *adamw, *more)
        assert result.exit_code == 2
        assert "--momentum is for sgd: leave it out with adamw" in result.stderr


def test_what_an_audit_would_train_is_named_with_how_to_do_without(teacher: Path, tmp_path: Path) -> None:
    data = arrays(tmp_path / "data.npz")
    given = ("audit", teacher, teacher, "--data", data)
    result = run(*given, "--no-control", "--clean-teacher", teacher)
    assert result.exit_code == 2
    assert "Trained in this run: the student of the clean teacher. For that give --train-data" in result.stderr
    assert "To do without it: leave --clean-teacher out." in result.stderr
    result = run(*given, "--floor")
    assert "Trained in this run: the control and the student from scratch." in result.stderr
    assert "To do without it: give --control, or --no-control; leave --floor out." in result.stderr


def test_the_words_for_python_are_pythons(tmp_path: Path) -> None:
    from keras_remos.writing import check_writable

    np.savez(tmp_path / "a.npz", x=1)
    with pytest.raises(RemosError, match="`overwrite=True`"):
        check_writable(tmp_path / "a.npz")
