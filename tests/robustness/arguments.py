"""Argument lists that nobody would type: every command with its own options, and values of any kind."""

import shutil
from pathlib import Path
from typing import Any

import click
import numpy as np
from keras_remos_cli.main import COMMANDS, main

NUMBERS = (
    "0",
    "1",
    "2",
    "3",
    "-1",
    "99999999999999999999",
    "1e308",
    "nan",
    "inf",
    "-0.5",
    "0.5",
    "1e-320",
    "0x10",
    "٣",
    "²",
    "²,1,1",
    "9" * 5_000,
    str(2**128 + 1),
)
WORDS = (
    "",
    "x",
    "-",
    "--",
    "\x1b[2J",
    "é",
    "\udcff",
    "a/b",
    "x{99999999999}",
    "(",
    "[",
    "*",
    "a" * 300,
    "head",
    "conv",
)
FILES = (
    *("teacher.keras", "student.keras", "poisoned.keras", "slice.npz", "profile.npz", "attack.npz", "partial.npz"),
    *("data.npz", "none.npz", ".", "/dev/null", "", "\x1b.keras", "out.keras", "out.npz", "a" * 260 + ".keras"),
)
# What would train for long, in the place of what would be drawn.
SHORT = {"epochs": ("1", "-1", "x"), "steps": ("1", "0", "x"), "limit": ("1", "2", "0"), "batch_size": ("4", "0", "x")}
# Training on toys takes seconds; the demo's a minute, and it takes no argument that others do not.
_LONG = {"demo"}


def draw(rng: np.random.Generator, folder: Path) -> list[str]:
    """A command with some of its options."""
    if not (folder / "data.npz").exists():
        pixels = np.random.default_rng(0).uniform(size=(6, 8, 8, 3)).astype(np.float32)
        np.savez(folder / "data.npz", x=pixels, y=np.arange(6) % 3)
    name = str(rng.choice(sorted(COMMANDS.keys() - _LONG)))
    command = main.get_command(click.Context(main), name)
    assert command is not None
    given = [name]
    if isinstance(command, click.Group):
        name = str(rng.choice(sorted(command.commands)))
        given, command = [*given, name], command.commands[name]
    options = [option for option in command.params if isinstance(option, click.Option) and option.name != "backend"]
    if rng.random() < 0.7 and any(option.name == "data_path" for option in options):
        given += ["--data", "data.npz"]
    for option in rng.permutation(np.array(options, object))[: int(rng.integers(0, 5))]:
        given += _given(option, rng)
    if name in ("transfer", "tradeoff", "audit"):
        given += ["--epochs", "1"]
    if name in ("transfer", "tradeoff"):
        given += ["--learning-rate", "0.01"]
    if name == "audit":
        given += ["--no-tune", "--defect", "displacement"]
    if any(option.name == "steps" for option in options) and rng.random() < 0.9:
        given += ["--steps", "1"]
    count = int(rng.choice([0, 1, 1, 1, 1, 1, 2]))
    positional = [str(rng.choice(FILES[:6])) if rng.random() < 0.7 else _value(rng) for _ in range(count)]
    return [*given, *positional]


def _given(option: click.Option, rng: np.random.Generator) -> list[str]:
    flag = str(rng.choice([*option.opts, *option.secondary_opts]))
    if option.is_flag:
        return [flag]
    if option.name in SHORT:
        return [flag, str(rng.choice(SHORT[option.name]))]
    kind: Any = option.type
    if isinstance(kind, click.Choice) and rng.random() < 0.8:
        return [flag, str(rng.choice(kind.choices))]
    if isinstance(kind, click.types.IntParamType) and rng.random() < 0.6:
        return [flag, str(int(rng.integers(0, 4)))]
    if isinstance(kind, click.types.FloatParamType) and rng.random() < 0.6:
        return [flag, *(f"{value:.3f}" for value in sorted(rng.uniform(0, 1, option.nargs)))]
    return [flag, *(_value(rng) for _ in range(option.nargs))]


def _value(rng: np.random.Generator) -> str:
    pool = (NUMBERS, WORDS, FILES)[int(rng.integers(0, 3))]
    return str(pool[int(rng.integers(0, len(pool)))])


def clean(folder: Path) -> None:
    """Removes what the last command wrote, as far as its name can tell."""
    keep = {"teacher.keras", "student.keras", "poisoned.keras", "worded.keras"}
    keep |= {"shares.jsonl", "slice.npz", "profile.npz", "attack.npz", "partial.npz", "checkpoint.npz", "data.npz"}
    for path in folder.iterdir():
        if path.name not in keep:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
