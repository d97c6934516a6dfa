"""README and docs/: their scripts run as they stand, their commands parse, and they name only what is there."""

import importlib.util
import re
import tomllib
from pathlib import Path

import click
import keras
import pages
import pytest
from click.testing import CliRunner
from keras_remos_cli.main import COMMANDS, main
from pages import EVERYTHING, PAGES, ROOT, blocks, commands, run

import keras_remos as kr
from keras_remos.slicing.presets import FOR_LANGUAGE

TEXTS = "keras_hub"
# Which sessions of noxfile.py install it: nothing that a block needs is missing from all of them.
INSTALLED = {TEXTS: "hub", "sklearn": "demo"}
WITH_SCRIPTS = [page for page in PAGES if blocks(page, "python")]
WITH_TEXTS = [page for page in WITH_SCRIPTS if any(block.needs == TEXTS for block in blocks(page, "python"))]
WITH_COMMANDS = [page for page in PAGES if commands(page)]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return pages.users_folder(tmp_path, monkeypatch)


@pytest.mark.once
@pytest.mark.parametrize("page", WITH_SCRIPTS)
def test_the_scripts_run_as_they_stand(page: str, here: Path) -> None:
    scripts = [block for block in blocks(page, "python") if block.needs != TEXTS]
    missing = {block.needs for block in scripts if block.needs and importlib.util.find_spec(block.needs) is None}
    if missing:
        pytest.skip(f"none of the {len(scripts)} blocks of {page} run: one needs {', '.join(missing)}")
    run(page, scripts, {"__name__": "__main__"})
    if Path("student.keras").exists():  # a plain model, with a head for the two classes
        assert keras.models.load_model("student.keras").output_shape == (None, 2)


@pytest.mark.once
@pytest.mark.text
@pytest.mark.parametrize("page", WITH_TEXTS)
def test_the_scripts_on_texts_run_as_they_stand(page: str, here: Path) -> None:
    scripts = [block for block in blocks(page, "python") if block.needs == TEXTS]
    pytest.importorskip(TEXTS, reason=f"{len(scripts)} blocks of {page} need KerasHub")
    import text_toys

    text_toys.bert().save_to_preset("bert")
    rows = (f"{text}\t{label}" for text, label in zip(*text_toys.sentences(), strict=True))
    Path("reviews.tsv").write_text("\n".join(["sentence\tlabel", *rows]), encoding="utf-8")
    run(page, scripts, {"kr": kr})


def test_no_script_is_skipped_everywhere() -> None:
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    needed = {block.needs for page in WITH_SCRIPTS for block in blocks(page, "python") if block.needs}
    assert needed == set(INSTALLED)
    assert all(re.search(rf"\b{extra}\b", noxfile) for extra in INSTALLED.values())
    assert set(INSTALLED.values()) <= set(PROJECT["project"]["optional-dependencies"])


@pytest.mark.parametrize("page", WITH_COMMANDS)
def test_what_is_to_be_typed_exists(page: str) -> None:
    for program, *arguments in commands(page):
        if program == "keras-remos":
            parse(arguments)
        elif program == "pip":
            extras = re.findall(r"\[(.*)\]", arguments[1])
            known = PROJECT["project"]["optional-dependencies"]
            assert arguments[0] == "install"
            assert all(extra in known for extra in ",".join(extras).split(",") if extra), arguments
        elif program == "nox":
            sessions = re.findall(r"^def (\w+)\(session", (ROOT / "noxfile.py").read_text("utf-8"), re.M)
            assert not arguments or arguments[1].partition("(")[0] in sessions
        else:
            assert program == "python", program
            script = (ROOT / arguments[0]).read_text(encoding="utf-8")
            assert options_in(arguments) <= set(re.findall(r'"(--[a-z-]+)"', script)), arguments


def parse(arguments: list[str]) -> None:
    """Reads a command line as the program does, and runs nothing."""
    context = click.Context(main, info_name="keras-remos")
    name, *rest = arguments
    command = main.get_command(context, name)
    assert command is not None, name
    if isinstance(command, click.Group):
        name, *rest = rest if rest[0] in command.commands else ["count", *rest]
        command = command.commands[name]
    command.make_context(name, rest, parent=context)


def options_in(arguments: list[str]) -> set[str]:
    return {argument for argument in arguments if argument.startswith("--")}


def test_every_command_that_is_named_exists() -> None:
    for line in set(re.findall(r"`(keras-remos [a-z]+(?: merge)?)", EVERYTHING)):
        arguments = line.split()[1:]
        assert CliRunner().invoke(main, [*arguments, "--help"]).exit_code == 0, line


def test_the_page_of_commands_has_every_command() -> None:
    rows = re.findall(r"^\| `keras-remos ([a-z]+)", PAGES["docs/commands.md"], re.M)
    assert set(rows) == set(COMMANDS)
    assert "<!-- commands -->" in PAGES["docs/commands.md"]


def test_every_option_that_is_named_exists() -> None:
    runner = CliRunner()
    known = "".join(runner.invoke(main, [name, "--help"]).output for name in COMMANDS)
    known += runner.invoke(main, ["profile", "count", "--help"]).output
    known += "".join(script.read_text("utf-8") for script in (ROOT / "examples").glob("*.py"))
    known += "".join(script.read_text("utf-8") for script in (ROOT / "tests" / "benchmarks").glob("*.py"))
    assert set(re.findall(r"`(--[a-z-]+)", EVERYTHING)) <= set(re.findall(r"--[a-z-]+", known))


def test_the_presets_are_those_of_the_library() -> None:
    rows = re.findall(r"^\| `(\w+)`(, language models)?.*\| ([\d.]+) \|$", PAGES["docs/choosing.md"], re.M)
    assert {(name, bool(language)): float(ratio) for name, language, ratio in rows} == {
        (name, language): presets[name].keep_ratio
        for language, presets in ((False, kr.PRESETS), (True, FOR_LANGUAGE))
        for name in presets
    }


@pytest.mark.parametrize(("page", "names"), [("docs/methods.md", kr.METHODS), ("docs/defects.md", kr.DEFECTS)])
def test_every_method_and_defect_has_a_section(page: str, names: dict[str, type]) -> None:
    sections = re.findall(r"^#{2,3} ([a-z-]+)$", PAGES[page], re.M)
    assert set(sections) == set(names)


def test_every_public_name_is_in_the_reference() -> None:
    asked = [
        name
        for page, text in PAGES.items()
        if page.startswith("docs/api/")
        for name in re.findall(r"^::: keras_remos\.(\w+)$", text, re.M)
    ]
    assert sorted(asked) == sorted(kr.__all__)
