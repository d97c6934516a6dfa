"""The page: its figures are those of the result, and it holds nothing but what it should."""

import copy
import random
import time
from itertools import pairwise
from typing import Any

import made_up
import pytest
from html_reader import Page

from keras_remos.report import page

pytest.importorskip("jinja2", reason="needs the extra report")
pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return made_up.whole(2)


@pytest.fixture(scope="module")
def read(whole: dict[str, Any]) -> Page:
    return Page(page(whole))


def interval(found: dict[str, Any]) -> str:
    return f"{found['value']:.3f} {found['low']:z.3f} to {found['high']:z.3f}"


def test_every_figure_of_inheritance_is_that_of_the_result(whole: dict[str, Any], read: Page) -> None:
    body = whole["result"]
    for row in body["defects"]:
        table = read.table(f"{row['defect']}: the share that is")
        rate = row["targeted"] or row["flipped"]
        assert table.of(row["student"], "DIR") == (interval(rate), rate["value"])
        assert table.of(row["student"], "n") == (f"{rate['n']:,}", rate["n"])
        assert table.of(row["student"], "rDIR") == (interval(row["relative"]), row["relative"]["value"])
        if row["defect"] != "adaptive":
            assert table.of(row["student"], "excess")[1] == row["excess"]["value"]
    for title, rate in body["teacher"]["attacks"].items():
        assert read.table(f"{title}: the share").of("teacher.keras", "DIR") == (interval(rate), rate["value"])


def test_every_figure_of_accuracy_is_that_of_the_result(whole: dict[str, Any], read: Page) -> None:
    table = read.table("Accuracy on the clean test set")
    for name, student in whole["result"]["students"].items():
        assert table.of(name, "ACC") == (interval(student["accuracy"]), student["accuracy"]["value"])
        assert table.of(name, "rACC")[1] == student["relative_accuracy"]["value"]
        assert table.of(name, "balanced accuracy")[1] == student["balanced_accuracy"]
    assert table.of("teacher.keras", "ACC") == ("undefined its head is for 1,000 other classes", None)


def test_every_figure_by_class_is_that_of_the_result(whole: dict[str, Any], read: Page) -> None:
    body = whole["result"]
    matrices = {f"{name}, clean:": student["confusion"] for name, student in body["students"].items()}
    matrices |= {f"{row['student']}, under {row['defect']}:": row["confusion"] for row in body["defects"]}
    for caption, matrix in matrices.items():
        shown = read.table(caption).rows[1:]
        assert [[int(each or 0) for each in row[1:]] for row in shown] == matrix
        assert [row[0] for row in shown] == body["class_names"]
    table = read.table("Right answers by class, clean:")
    for name, student in body["students"].items():
        for label, each in zip(body["class_names"], student["per_class"], strict=True):
            at = table.columns.index(name)
            (value,) = [v[at] for row, v in zip(table.rows, table.values, strict=True) if row[0] == label]
            assert value == each["right"] / each["n"]


def test_every_figure_of_the_others_is_that_of_the_result() -> None:
    found = made_up.tradeoff()
    table = Page(page(found)).table("Each share that was tried")
    assert [row[0] for row in table.rows[1:]] == ["1", "0.95", "0.9", "0.8", "0.7", "0.6", "0.5"]
    for point, values in zip(found["points"], table.values[1:], strict=True):
        rates = [point["accuracy"], *point["inherited"].values()]
        assert [values[1], *values[3:]] == [rate["value"] for rate in rates]
    body = made_up.sliced()
    table = Page(page(body)).table("slice: weights kept by layer")
    assert table.values[1:-1] == [[None, at["kept"], at["total"], at["kept"] / at["total"]] for at in body["layers"]]
    assert table.values[-1] == [None, body["kept"], body["total"], body["kept"] / body["total"]]
    body = made_up.profiled()
    table = Page(page(body)).table("Coverage by layer")
    assert table.values[1:] == [[None, at["input_coverage"], at["output_coverage"]] for at in body["layers"]]
    body = made_up.demo()
    table = Page(page(body)).table("A planted backdoor")
    keys = ("accuracy", "num_clean", "attack_success", "num_triggered")
    assert [values[1:] for values in table.values[1:]] == [[row[key] for key in keys] for row in body["rows"]]


def test_verdicts_come_first_and_every_section_has_its_place(whole: dict[str, Any], read: Page) -> None:
    assert read.sections() == [
        "In short",
        "What was attacked, and how",
        "Clean and malicious, side by side",
        "What was inherited",
        "Accuracy",
        "Class by class",
        "How the students were made",
        "What the slice kept",
        "Weight change",
        "Training curves",
        "Where it comes from",
        "What the figures mean",
        "What this report does not say",
    ]
    for said in (*(verdict["text"] for verdict in whole["result"]["verdicts"]), *whole["result"]["warnings"]):
        assert said in read.text
    for digest in ("c0" * 32, "ab" * 32, "1f" * 16, "keras-remos audit teacher.keras", "jax 0.10.2"):
        assert digest in read.text


@pytest.mark.parametrize("kind", made_up.KINDS)
def test_every_kind_of_result_has_a_page_that_reads_in_order(kind: str) -> None:
    read = Page(page(made_up.KINDS[kind]()))
    levels = [level for level, _ in read.headings]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert all(said.strip() for _, said in read.headings)
    assert len(set(read.ids)) == len(read.ids)
    links = [value for _, name, value in read.attributes if name == "href"]
    assert {link.removeprefix("#") for link in links if link.startswith("#")} <= set(read.ids)
    assert not [said for said in ("nan", "None", "null", "inf") if said in read.text.replace("-", " ").split()]


def test_what_a_result_does_not_hold_is_left_out() -> None:
    read = Page(page(made_up.old()))
    assert read.sections() == [
        "In short",
        "What was inherited",
        "Accuracy",
        "Where it comes from",
        "What the figures mean",
        "What this report does not say",
    ]
    assert "balanced" not in read.text
    assert "keras-remos evaluate s.keras --data sea" in read.text


def test_what_is_undefined_says_why(whole: dict[str, Any]) -> None:
    found = copy.deepcopy(whole)
    rows = found["result"]["defects"]
    for row in rows:
        if row["defect"] == "surrogate" and row["student"] == "student 1":
            row["flipped"] = made_up.rate(0, 0)
        if row["defect"] == "penultimate":
            row["flipped"] = made_up.rate(0, 400) if row["student"] == "fine-tuned" else row["flipped"]
            row["relative"] = made_up.estimate(None)
    read = Page(page(found))
    assert read.table("surrogate: the share").of("student 1", "DIR")[0] == (
        "undefined it gets no input right when clean"
    )
    assert "rDIR: undefined, as the control's DIR is 0." in read.text
    assert "excess: undefined, as the control is not clearly above the floor." in read.text
    assert "rDIR" not in read.table("penultimate: the share").columns


def test_pictures_and_charts_are_described(read: Page) -> None:
    described = [value for tag, name, value in read.attributes if (tag, name) == ("img", "alt")]
    assert len(described) == read.tags["img"] == 4 * 4 * 3
    assert all("of class" in said for said in described)
    charts = [value for tag, name, value in read.attributes if (tag, name) == ("svg", "aria-label")]
    roles = [value for tag, name, value in read.attributes if (tag, name) == ("svg", "role")]
    assert len(charts) == len(roles) > 20 and all(charts)
    assert any("student 1 (student): 0.180 (" in said for said in read.titles)


def test_changed_words_are_marked_and_no_others() -> None:
    source = page(made_up.whole(1, of_texts=True))
    assert "is a <mark>muted,</mark> patient" in source
    assert "is a <del>quiet,</del> patient" in source
    assert source.count("<mark>") == source.count("<del>") == 2 * 4 * 4


def test_a_page_loads_nothing_and_runs_nothing(read: Page, whole: dict[str, Any]) -> None:
    source = page(whole)
    assert "default-src 'none'" in source
    assert not read.tags.keys() & {"script", "iframe", "object", "embed", "form", "base"}
    assert "url(" not in source and "@import" not in source and "http://" not in source and "https://" not in source
    for tag, name, value in read.attributes:
        assert not name.startswith("on")
        if name in ("src", "href"):
            assert value.startswith(("#", "data:image/png;base64,")) or (tag, value) == ("link", "data:,")


@pytest.mark.parametrize("classes", [10, 30])
def test_ten_students_and_four_attacks_are_quick_and_small(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(made_up, "CLASSES", [f"class number {number}" for number in range(classes)])
    monkeypatch.setattr(made_up, "LAYERS", 24 if classes == 10 else 160)
    found = made_up.whole(10, examples=6)
    # As large as a photo.
    photo = made_up.png(random.Random(0), 224, room=75_000)
    for attack in found["result"]["attacks"].values():
        for example in attack["examples"]:
            example |= dict.fromkeys(("clean", "malicious", "difference"), photo)
    start = time.perf_counter()
    source = page(found)
    assert time.perf_counter() - start < 5
    assert 2e6 < len(source.encode()) < 3e6
    assert "would make this page too large" in source


def test_the_students_of_several_results_stand_side_by_side() -> None:
    first, second = made_up.whole(1), made_up.whole(2)
    read = Page(page([first, second, made_up.tradeoff(), made_up.sliced(), made_up.sliced()]))
    table = read.table("Accuracy and what was inherited, by result")
    assert [row[:2] for row in table.rows[1:]] == [
        ["audit", "fine-tuned control"],
        ["audit", "from scratch floor"],
        ["audit", "student 1"],
        ["audit (2)", "fine-tuned control"],
        ["audit (2)", "from scratch floor"],
        ["audit (2)", "student 1"],
        ["audit (2)", "student 2"],
    ]
    assert table.columns[3:] == [f"DIR, {title}" for title in made_up.KNOWS]
    assert read.table("Share kept by layer").columns == ["layer", "slice", "slice (2)"]
    assert read.sections()[0] == "Side by side"
    levels = [level for level, _ in read.headings]
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert len(set(read.ids)) == len(read.ids)
