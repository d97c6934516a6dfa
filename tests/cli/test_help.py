"""How commands describe themselves, and what they say to whoever types too little."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from click.shell_completion import BashComplete
from keras_remos_cli.helping import SECTIONS, Described, WithExamples
from keras_remos_cli.inputs import class_number
from keras_remos_cli.main import main
from shell import run, told
from test_cli import arrays, save_teacher

pytestmark = pytest.mark.once


def every(group: click.Group = main, *above: str) -> Iterator[tuple[list[str], click.Command]]:
    """All commands, by what is typed for them."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield [*above, name], command
        if isinstance(command, click.Group):
            yield from every(command, *above, name)


def described() -> list[tuple[list[str], Described]]:
    return [(typed, command) for typed, command in every() if isinstance(command, Described)]


def titles(shown: str) -> list[str]:
    return [line[:-1] for line in shown.splitlines() if line.endswith(":") and line[0].isupper()]


@pytest.mark.parametrize(("typed", "command"), [pytest.param(*each, id=" ".join(each[0])) for each in every()])
def test_options_are_in_sections_and_examples_at_the_end(typed: list[str], command: click.Command) -> None:
    shown = run(*typed, "--help").stdout
    assert "\\b" not in shown and "\b" not in shown
    assert titles(shown)[-1] == "Examples"
    if isinstance(command, Described):
        expected = [title for title in SECTIONS if title in titles(shown)]
        assert [title for title in titles(shown) if title in SECTIONS] == expected
        assert {"Output", "Running"} <= set(expected)
        if "--allow-unsafe" in shown:
            assert titles(shown)[-2] == "Unsafe"
            assert "  --" not in shown.partition("--allow-unsafe-deserialization")[2]
    else:
        assert isinstance(command, click.Group)


def test_every_section_is_of_options_that_there_are() -> None:
    known = {param.name for _, command in described() for param in command.params}
    assert {name for names in SECTIONS.values() for name in names} <= known
    listed = [name for names in SECTIONS.values() for name in names]
    assert len(set(listed)) == len(listed)


@pytest.mark.parametrize("shown", [command for _, command in every() if isinstance(command, WithExamples)] + [main])
def test_every_example_can_be_typed(shown: WithExamples) -> None:
    assert shown.examples
    for example in shown.examples:
        program, *arguments = shlex.split(example.line)
        assert program == "keras-remos"
        command: click.Command = main
        context = click.Context(main, info_name=program)
        while isinstance(command, click.Group):
            # `count` need not be typed.
            name = arguments.pop(0) if command.get_command(context, arguments[0]) else "count"
            found = command.get_command(context, name)
            assert found is not None, example
            command, context = found, click.Context(found, parent=context, info_name=name)
        command.make_context(command.name, arguments)


@pytest.mark.parametrize("typed", [["transfer"], ["attack"], ["profile", "count"], ["evaluate"], ["audit"]])
def test_what_is_required_says_so(typed: list[str]) -> None:
    data = run(*typed, "--help").stdout.partition("  --data ")[2].partition("\n  --")[0]
    assert "[required]" in data
    missing = run(*typed, "none.keras", *(["--defect", "pgd"] if typed == ["attack"] else []))
    assert missing.exit_code == 2
    assert "Missing option '--data'" in missing.stderr
    assert "Missing option '--data' or '--profile-file'" in run("slice", "none.keras").stderr


def test_the_program_alone_shows_the_first_steps() -> None:
    result = run()
    assert result.exit_code == 0
    named = [line.split()[1] for line in result.stdout.splitlines() if line.startswith("  keras-remos ")]
    assert named == ["demo", "transfer", "inspect", "audit"]
    assert "keras-remos --help" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["slice", "", "--data", "x"], "An argument is empty."),
        (["slice", "x", "--data", ""], "What follows --data is empty."),
        (["inspect", "x", "--tokens="], "What follows --tokens is empty."),
    ],
)
def test_an_empty_name_is_no_name(arguments: list[str], message: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr


def test_shells_complete_commands_and_choices() -> None:
    shell = BashComplete(main, {}, "keras-remos", "_KERAS_REMOS_COMPLETE")
    assert [each.value for each in shell.get_completions([], "tra")] == ["tradeoff", "transfer"]
    for command in ("attack", "audit"):
        found = [each.value for each in shell.get_completions([command, "--defect"], "p")]
        assert found == ["penultimate", "pgd", "patch-backdoor"]
    assert [each.type for each in shell.get_completions(["slice"], "")] == ["file"]


def test_a_class_is_found_by_its_name_or_its_number(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["ant", "bee", "crab"]
    assert class_number("crab", names) == class_number("2", names) == 2
    assert class_number(None, names) is None
    assert class_number("2", []) == 2
    assert capsys.readouterr().err == ""
    with pytest.raises(click.UsageError, match="no class 'crap' among 0 ant, 1 bee, 2 crab. Close to it: crab."):
        class_number("crap", names)
    assert class_number("10", ["1", "10", "2"]) == 1
    assert "Class 10 is number 1" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Criterion:UserWarning")
def test_targets_are_named_in_the_shell_which_says_as_much_as_it_is_asked_to(tmp_path: Path) -> None:
    teacher = save_teacher(tmp_path / "teacher.keras")
    data = arrays(tmp_path / "data.npz", classes=2, class_names=np.array(["cat", "dog"]))
    arguments = [teacher, "--data", data, "--epochs", 1, "--target", "dog", "--json"]
    planted = run("poison", *arguments, "-v", "-o", tmp_path / "poisoned.keras")
    assert planted.exit_code == 0, planted.output
    assert told(planted)["options"]["target"] == 1
    assert "Training (patch-backdoor): epoch 1 of 1, accuracy " in planted.stderr
    made = run("attack", *arguments, "--defect", "surrogate", "--attacker-data", data, "-q", "-o", tmp_path / "a.npz")
    assert made.exit_code == 0, made.output
    assert told(made)["options"]["target"] == 1
    assert made.stderr == ""
    wrong = run("attack", *arguments[:-2], "dgo", "--defect", "surrogate", "-o", tmp_path / "b.npz")
    assert wrong.exit_code == 2
    assert "Close to it: dog." in wrong.stderr
    both = run("inspect", teacher, "-q", "-v")
    assert both.exit_code == 2
    assert "exclude each other" in both.stderr
