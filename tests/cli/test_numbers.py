"""Numbers that nobody means: refused where they are given, or put up with. None ends in a traceback."""

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from keras_remos_cli.main import COMMANDS, main
from keras_remos_cli.numbers import MOST_SEED, Number, NumberBetween
from shell import run
from test_cli import arrays, save_teacher

from keras_remos.untrusted import check_seed, read_record

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore:Training .* ended in a constant classifier")]
LONG = "9" * 5_000


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_teacher(tmp_path / "teacher.keras")
    arrays(tmp_path / "data.npz")
    return tmp_path


def options() -> Iterator[tuple[str, click.Option]]:
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        inner = command.commands.values() if isinstance(command, click.Group) else [command]
        for each in inner:
            assert each is not None
            yield from ((f"{name} {param.opts}", param) for param in each.params if isinstance(param, click.Option))


def test_every_option_of_a_float_takes_finite_ones_only() -> None:
    found = [(name, option) for name, option in options() if isinstance(option.type, click.types.FloatParamType)]
    assert len(found) > 20
    assert not [name for name, option in found if not isinstance(option.type, Number)]


@pytest.mark.parametrize("kind", [Number(), NumberBetween(0), NumberBetween(max=1)])
@pytest.mark.parametrize("text", ["nan", "NaN", "inf", "-Infinity", "1e999"])
def test_what_is_not_finite_is_refused(kind: Number, text: str) -> None:
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)
    assert kind.convert("0.25", None, None) == 0.25


@pytest.mark.parametrize(
    "given",
    [
        ("--budget", "nan"),
        ("--weight-decay", "inf"),
        ("--learning-rate", "nan"),
        ("--keep-ratio", "nan"),
        ("--pixel-range", 0, "inf"),
    ],
)
def test_it_is_refused_before_any_work(given: tuple[object, ...]) -> None:
    result = run("transfer", "none.keras", "--data", "none", *given)
    assert result.exit_code == 2, result.output
    assert given[0] in result.stderr.splitlines()[-1]


@pytest.mark.parametrize("seed", [2**128, 10**60])
@pytest.mark.parametrize("command", ["transfer", "attack --defect penultimate", "slice", "poison", "tradeoff", "audit"])
def test_no_seed_is_taken_that_no_file_may_hold(command: str, seed: int) -> None:
    result = run(*command.split(), "none.keras", "--data", "none", "--seed", seed)
    assert result.exit_code == 2, result.output
    assert "'--seed': expected a whole number from 0 to 2**128 - 1" in result.stderr


@pytest.mark.parametrize("seed", [2**32 - 1, 2**32, MOST_SEED])
def test_large_seeds_can_be_read_again(folder: Path, seed: int) -> None:
    given = ("--data", "data.npz", "--epochs", 1, "--learning-rate", 0.01, "--seed", seed)
    result = run("transfer", "teacher.keras", *given, "-o", "student.keras")
    assert result.exit_code == 0, result.output
    assert read_record("student.keras")["seed"] == seed
    check_seed(MOST_SEED + 1)  # of attackers' own copies


@pytest.mark.parametrize(
    ("given", "code", "message"),
    [
        (("--size", 10**11), 2, "--size 100000000000 is more than the images have, 8 x 8 pixels"),
        (("--size", "9" * 20), 2, "more than the images have"),
        (("--size", 9, "--trigger", "255,0,0"), 2, "more than the images have"),
        (("--trigger", "²,1,1"), 1, "no file ²,1,1"),
        (("--trigger", f"{LONG},1,1"), 1, ""),
        (("--target", LONG), 2, "There is no class '999"),
        (("--target", "9" * 18), 1, ""),
    ],
)
def test_triggers_and_targets_of_many_digits(folder: Path, given: tuple[object, ...], code: int, message: str) -> None:
    result = run("poison", "teacher.keras", "--data", "data.npz", "--epochs", 1, *given)
    assert isinstance(result.exception, SystemExit) and result.exit_code == code, result.exception
    assert message in result.stderr


def test_as_many_samples_at_a_time_as_there_are(folder: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("a.png")
    result = run("predict", "teacher.keras", "a.png", "--preprocess", "0-1", "--batch-size", 10**20)
    assert result.exit_code == 0, result.output
