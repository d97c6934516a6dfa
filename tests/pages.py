"""What README and docs/ hold: blocks of code, commands, links; and the folder that their examples run in."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))
}
README = PAGES["README.md"]
EVERYTHING = "\n".join(PAGES.values())

# Comes before a block that runs only where a package is installed: <!-- needs: keras_hub -->
_BLOCK = re.compile(r"(?:^<!-- needs: (?P<needs>\w+) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S)
_CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.M | re.S)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page, and the package that it needs besides the library's own."""

    code: str
    line: int
    needs: str | None


def blocks(page: str, language: str) -> list[Block]:
    text = PAGES[page]
    return [
        Block(found["code"], text[: found.start("code")].count("\n"), found["needs"])
        for found in _BLOCK.finditer(text)
        if found["language"] == language
    ]


def run(page: str, scripts: list[Block], names: dict[str, object]) -> None:
    """Runs blocks one after the other; a traceback shows the page and the line."""
    for script in scripts:
        exec(compile("\n" * script.line + script.code, page, "exec"), names)


def commands(page: str) -> list[list[str]]:
    """What a page tells the user to type, split as a shell would."""
    text = "\n".join(block.code for block in blocks(page, "console")).replace("\\\n", " ")
    return [shlex.split(line[2:], comments=True) for line in text.splitlines() if line.startswith("$ ")]


def links(page: str) -> Iterator[tuple[Path, str]]:
    """The file and the anchor of each link of a page that stays in this folder."""
    for target in _LINK.findall(_CODE.sub("`code`", PAGES[page])):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            yield ((ROOT / page).parent / path if path else ROOT / page).resolve(), anchor


def anchors(path: Path) -> set[str]:
    """Of the headings of a page, as Python-Markdown and GitHub name them."""
    text = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in found}


def users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a teacher and a few images where the examples look for them."""
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
