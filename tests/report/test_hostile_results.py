"""Names, texts and pictures of strangers: nothing of them is markup, code or a trick in a report."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import made_up
import pytest
from html_reader import Page

from keras_remos.errors import FileError
from keras_remos.report import markdown, page, write_figures
from keras_remos.report.pictures import check_picture, that_fit

pytestmark = pytest.mark.once
HTML = "</title></style></svg><script>alert(1)</script><img src=x onerror=alert(2)>\"' onload='x' {{7*7}} &amp;"
MARKDOWN = "![x](http://x.org)|[y](javascript:1)`*_# www.x.org @all"
TRICKS = ("\x1b", "\x07", "\u202e", "\u200b", "\ud800")
EVIL = f"{HTML}{MARKDOWN}{'[2J'.join(TRICKS)}$x_{{"
# What in a result comes from a stranger: names of models, classes, attacks, layers, files, versions; texts; reasons.
FROM_STRANGERS = (
    "student 1",
    "fine-tuned",
    "penultimate",
    "lobster",
    "negative",
    "teacher.keras",
    "quiet",
    "stage0/conv0",
    "numpy",
    "jax 0.10.2",
    "epsilon",
    "its head",
    "It is for texts",
    "--data sea",
    "learning_rate",
    "conv1/kernel",
    "normalization",
    "tokens/embeddings",
    "positive",
    "ReMoS",
)


def poisoned(found: dict[str, Any]) -> dict[str, Any]:
    """The same result with something hostile wherever a stranger's word stands."""
    text = json.dumps(found)
    # What plays which part in the demo is known by its name.
    words = [word for word in FROM_STRANGERS if found.get("command") != "demo" or word != "fine-tuned"]
    for word in words:
        text = text.replace(f'"{word}', f'"{json.dumps(EVIL)[1:-1]}{word}')
        text = text.replace(f" {word}", f" {json.dumps(EVIL)[1:-1]}{word}")
    hostile: dict[str, Any] = json.loads(text)
    return hostile


@pytest.mark.parametrize("kind", made_up.KINDS)
def test_nothing_becomes_markup(kind: str) -> None:
    pytest.importorskip("jinja2", reason="needs the extra report")
    found = made_up.KINDS[kind]()
    source = page(poisoned(found))
    read, harmless = Page(source), Page(page(found))
    assert read.tags == harmless.tags
    assert len(read.attributes) == len(harmless.attributes)
    assert not [name for _, name, _ in read.attributes if name.startswith("on")]
    assert not [trick for trick in TRICKS if trick in source]
    assert source.encode("utf-8")
    assert "alert(1)" in read.text
    assert r"\x1b[2J\x07[2J\u202e" in read.text
    assert "{{7*7}}" in read.text


@pytest.mark.parametrize("kind", made_up.KINDS)
def test_nothing_becomes_markdown(kind: str) -> None:
    def marks(text: str) -> list[str]:
        # Without what is escaped, and without commands, which are indented and shown as they are.
        lines = [line for line in text.splitlines() if not line.startswith("    ")]
        return [re.sub(r"[^|`*_#<>\[\]]", "", re.sub(r"\\.", "", line)) for line in lines]

    found = made_up.KINDS[kind]()
    hostile = markdown(poisoned(found))
    assert marks(hostile) == marks(markdown(found))
    assert not [trick for trick in TRICKS if trick in hostile]
    assert "alert(1)" in hostile


def test_nothing_becomes_a_formula_or_an_element_of_a_figure(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra report")
    found = [poisoned(made_up.KINDS[kind]()) for kind in ("tradeoff", "transfer", "demo", "slice")]
    found[1]["result"]["history"] = {"loss": [2.0, 1.0]}
    for path in write_figures(found, tmp_path / "figures", formats=["svg"]):
        tags = {element.tag.rpartition("}")[2] for element in ET.parse(path).getroot().iter()}
        assert "script" not in tags
        assert not [trick for trick in TRICKS if trick in path.read_text("utf-8")]


def test_names_on_axes_are_told_their_axes_anew_and_stay_harmless(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra report")
    whole = made_up.whole(1)
    text = json.dumps(whole).replace('"student 1', f'"{json.dumps("".join(TRICKS))[1:-1]}student 1')
    for path in write_figures([json.loads(text)], tmp_path / "figures", formats=["svg"]):
        ET.parse(path)
        assert not [trick for trick in TRICKS[:-1] if trick in path.read_text("utf-8")]


def picture(change: Callable[[bytes], bytes]) -> str:
    uri = made_up.png(made_up.random.Random(0), 8)
    prefix, _, encoded = uri.partition(",")
    return f"{prefix},{base64.b64encode(change(base64.b64decode(encoded))).decode()}"


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("data:image/svg+xml;base64,PHN2Zy8+", "expected a picture as data:image/png"),
        ("data:text/html,<script>alert(1)</script>", "expected a picture as data:image/png"),
        ("https://example.org/x.png", "expected a picture as data:image/png"),
        ('data:image/png;base64,iVBORw0KGgo=" onerror="alert(1)', "base64 is damaged"),
        ("data:image/png;base64,iVBORw0KGgo", "base64 is damaged"),
        ("data:image/png;base64,PHN2Zy8+PHN2Zy8+", "no PNG"),
        (picture(lambda png: png[:16] + b"\0\1\0\0\0\1\0\0" + png[24:]), "65536 x 65536 pixels"),
        (picture(lambda png: png[:20]), "no PNG"),
    ],
)
def test_a_picture_is_a_png_or_the_result_is_refused(uri: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_picture(uri, "it")
    found = made_up.whole(1)
    found["result"]["attacks"]["surrogate"]["examples"][1]["malicious"] = uri
    with pytest.raises(FileError, match=rf"attacks\.surrogate\.examples\[1\]\.malicious: .*{reason}"):
        markdown(found)


def test_a_text_that_looks_like_a_picture_is_a_text() -> None:
    pytest.importorskip("jinja2", reason="needs the extra report")
    found = made_up.whole(1, of_texts=True)
    found["result"]["attacks"]["surrogate"]["examples"][0]["clean"] = "data:image/png;base64,AAAA"
    assert Page(page(found)).tags["img"] == 0


def test_pictures_take_turns_until_the_page_is_full() -> None:
    assert that_fit([[10, 10, 10], [10, 10], []], room=100) == [3, 2, 0]
    assert that_fit([[10, 10, 10], [10, 10]], room=35) == [2, 1]
    assert that_fit([[50, 10], [10, 10]], room=35) == [0, 2]
    assert that_fit([], room=35) == []
