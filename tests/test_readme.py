"""README is a front door: short, complete, and true to the program."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pages
import pytest
from click.testing import CliRunner
from keras_remos_cli.main import COMMANDS, main
from pages import DOCS, PAGES, README, ROOT, anchors, links

import keras_remos as kr
from keras_remos import public
from keras_remos.slicing.presets import FOR_LANGUAGE


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return pages.users_folder(tmp_path, monkeypatch)


def test_it_is_short() -> None:
    assert len(README.splitlines()) < 150


def test_every_command_is_named() -> None:
    assert all(f"keras-remos {name}" in README for name in (*COMMANDS, "profile merge"))


@pytest.mark.parametrize("page", PAGES)
def test_its_links_and_those_of_docs_lead_somewhere(page: str) -> None:
    for path, anchor in links(page):
        assert path.is_file(), path
        # The headings of the reference are made when the site is built, which checks links to them.
        assert not anchor or path.parent == DOCS / "api" or anchor in anchors(path), f"{path}#{anchor}"


def test_it_leads_to_every_page_but_the_reference() -> None:
    reached = {path for path, _ in links("README.md")} | {path for path, _ in links("docs/index.md")}
    assert {ROOT / page for page in PAGES if "/api/" not in page} <= reached | {ROOT / "README.md", DOCS / "index.md"}


@pytest.mark.once
def test_the_example_runs_as_it_stands(here: Path) -> None:
    example = ROOT / "examples" / "slice_and_fine_tune.py"
    command = [sys.executable, str(example), "teacher.keras", "dogs", "dogs", "tuned.keras", "--epochs", "1"]
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "conv2d" in done.stdout
    assert keras.models.load_model(here / "tuned.keras").output_shape == (None, 2)


def test_help_says_what_the_presets_keep() -> None:
    said = " ".join(CliRunner().invoke(main, ["slice", "--help"]).output.split())
    (share,) = {preset.keep_ratio for preset in kr.PRESETS.values()}
    language = FOR_LANGUAGE["recommended"].keep_ratio
    assert f"the preset's ({share}, and {language} for recommended on language models)" in said


def test_public_names_are_all_exported() -> None:
    exported = {name for name, each in vars(public).items() if not name.startswith("_") and not _is_module(each)}
    assert set(kr.__all__) == exported
    assert exported <= set(dir(kr))
    constants = ("DEFECTS", "METHODS", "PRESETS")
    assert all(getattr(kr, name).__doc__ for name in kr.__all__ if name not in constants)


def _is_module(each: object) -> bool:
    return isinstance(each, type(os))
