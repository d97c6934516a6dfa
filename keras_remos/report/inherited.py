"""Of an audit: verdicts, accuracy, and what was inherited."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keras_remos.report.charts import Interval, Intervals
from keras_remos.report.document import Block, Cell, Fold, Group, Level, Paragraph, Section, Table, Verdict, Verdicts
from keras_remos.report.wording import UNDEFINED, attacker, cell, count, figure, said

Body = Mapping[str, Any]
# A longer table is shown when asked for.
LONG = 16
_NOTHING = Cell("")


def folded(table: Table) -> Block:
    """The table; if it is long, folded."""
    return Fold(f"{table.caption}: {len(table.rows)} rows", [table]) if len(table.rows) > LONG else table


def role_of(name: str, body: Body) -> str:
    """What part a model plays."""
    if name == body["control"]:
        return "control"
    return "floor" if name in body["floors"].values() else "student"


def attacks_of(body: Body) -> list[str]:
    """The attacks that were tried, the worst first."""
    return list(dict.fromkeys([row["defect"] for row in body["defects"]]))


def rate_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """DIR of a row: what the attacker is after."""
    rate: Mapping[str, Any] = row.get("targeted") or row["flipped"]
    return rate


def why_no_rate(row: Mapping[str, Any]) -> str:
    """Why DIR is undefined, where it is."""
    return "no input is of another class" if row.get("targeted") else "it gets no input right when clean"


def verdicts(body: Body) -> Section | None:
    """What to make of each student, and what a reader has to know first."""
    about: dict[str, list[tuple[Level, str]]] = {"": []}
    about |= {name: [] for name in body["students"]}
    for verdict in body.get("verdicts", ()):
        about.setdefault(verdict["student"] or "", []).append((verdict["level"], verdict["text"]))
    known = {text for sentences in about.values() for _, text in sentences}
    about[""] += [("note", text) for text in _warnings(body) if text not in known]
    # Students first: that is what was asked.
    found = [Verdict(name, sentences) for name, sentences in about.items() if name and sentences]
    found += [Verdict("", about[""])] if about[""] else []
    return Section("In short", [Verdicts(found)], terms=("control", "floor")) if found else None


def _warnings(body: Body) -> Iterator[str]:
    yield from dict.fromkeys([*body["warnings"], *body.get("unlike_control", ())])
    for student, over in body.get("over_neurons", {}).items():
        if {"neurons", "worst", "mean"} <= over.keys():
            yield (
                f"{student}, over {over['neurons']:g} neurons: DIR {over['worst']:.3f} at worst, on average "
                f"{over['mean']:.3f}."
            )


def accuracy(body: Body) -> Section | None:
    """How good each model is on clean inputs."""
    students = body["students"]
    teacher = body.get("teacher")
    if not students and not teacher:
        return None
    has_ratio = any(student.get("relative_accuracy") for student in students.values())
    has_balanced = any(student.get("balanced_accuracy") is not None for student in students.values())
    columns = ["model", "ACC", "n", *(["rACC"] if has_ratio else []), *(["balanced accuracy"] if has_balanced else [])]
    rows, shown = [], []
    if teacher:
        why = teacher.get("note") or "it was not measured"
        rate = teacher.get("accuracy")
        name = teacher.get("name") or "teacher"
        line = [Cell(name, role="teacher"), cell(rate, why), count(rate["n"]) if rate else _NOTHING]
        rows.append([*line, *[_NOTHING] * (len(columns) - 3)])
        if rate:
            shown.append(_interval(name, "teacher", rate, why))
    for name, student in students.items():
        rate, role = student["accuracy"], role_of(name, body)
        line = [Cell(name, role=role), cell(rate, "there is no test input"), count(rate["n"])]
        if has_ratio:
            line.append(cell(student.get("relative_accuracy"), "the control gets nothing right, or was not measured"))
        if has_balanced:
            line.append(figure(student.get("balanced_accuracy"), "it was not measured"))
        rows.append(line)
        shown.append(_interval(name, role, rate, "there is no test input"))
    terms = ["ACC", *(["rACC"] if has_ratio else []), *(["balanced accuracy"] if has_balanced else []), "interval"]
    return Section(
        "Accuracy",
        [
            Intervals("accuracy", "Accuracy on clean inputs", "ACC", [("", shown)]),
            folded(Table("Accuracy on the clean test set", columns, rows)),
        ],
        lead="On clean test inputs. What a student inherits counts for little if it is no good at its own task.",
        terms=terms,
    )


def inheritance(body: Body) -> Section | None:
    """How each model does under each attack."""
    blocks: list[Block] = []
    for number, title in enumerate(attacks_of(body), start=1):
        rows = [row for row in body["defects"] if row["defect"] == title]
        blocks.append(_under(title, rows, body, number))
    if not blocks:
        return None
    has_excess = any(row.get("excess") for row in body["defects"])
    terms = ["DIR", *(["rDIR"] if any(row.get("relative") for row in body["defects"]) else [])]
    terms += ["excess", "floor"] if has_excess else []
    terms += ["F1"] if any(row.get("f1") is not None for row in body["defects"]) else []
    aim = (
        "0 is a student that cannot have inherited the attack, 1 is the control: that is the excess. "
        if has_excess
        else ""
    )
    return Section(
        "What was inherited",
        blocks,
        lead=f"How much of each attack works, the worst attack first. {aim}Lower is better in every column.",
        terms=[*terms, "teacher", "control", "interval"],
    )


def _under(title: str, rows: Sequence[Mapping[str, Any]], body: Body, number: int) -> Group:
    """One attack: a chart and a table of all models."""
    names = [row["student"] for row in rows]
    lines = [
        [
            Cell(name, role=_role_under(name, title, body)),
            cell(rate_of(row), why_no_rate(row)),
            count(rate_of(row)["n"]),
        ]
        for name, row in zip(names, rows, strict=True)
    ]
    shown = [
        _interval(name, line[0].role, rate_of(row), why_no_rate(row))
        for name, line, row in zip(names, lines, rows, strict=True)
    ]
    columns, remarks = ["model", "DIR", "n"], []
    for header, cells in _ratios(rows, body).items():
        reasons = {each.note for each in cells if each.value is None}
        if len(reasons) == 1 and all(each.value is None for each in cells):
            # In every row the same: once is enough.
            remarks.append(Paragraph(f"{header}: {UNDEFINED}, as {reasons.pop()}."))
        else:
            columns.append(header)
            for line, each in zip(lines, cells, strict=True):
                line.append(each)
    teacher = body.get("teacher") or {}
    rate = teacher.get("attacks", {}).get(title)
    if rate:
        name, why = teacher.get("name") or "teacher", "no input counts"
        line = [Cell(name, role="teacher"), cell(rate, why), count(rate["n"])]
        lines.insert(0, [*line, *[_NOTHING] * (len(columns) - len(line))])
        shown.insert(0, _interval(name, "teacher", rate, why))
    aimed = any(row.get("targeted") for row in rows)
    what = "taken for the attacker's class" if aimed else "right when clean, wrong when attacked"
    return Group(
        title,
        [
            Intervals(f"dir-{number}", f"{title}: {what}", "DIR", [(title, shown)]),
            folded(Table(f"{title}: the share that is {what}", columns, lines)),
            *remarks,
        ],
        tag=attacker(body.get("attacks", {}).get(title, {}).get("knows")),
    )


def _ratios(rows: Sequence[Mapping[str, Any]], body: Body) -> dict[str, list[Cell]]:
    """The columns that compare with control and floor, as far as there are any."""
    control = next((rate_of(row) for row in rows if row["student"] == body["control"]), None)
    found = {
        "rDIR": [cell(row.get("relative"), _why_no_ratio(rate_of(row), control)) for row in rows],
        "excess": [cell(row.get("excess"), "the control is not clearly above the floor") for row in rows],
        "F1": [figure(row.get("f1"), "there is no rate") for row in rows],
    }
    keys = {"rDIR": "relative", "excess": "excess", "F1": "f1"}
    return {header: cells for header, cells in found.items() if any(row.get(keys[header]) is not None for row in rows)}


def _role_under(name: str, title: str, body: Body) -> str:
    """A floor is one for the attacks that it cannot have inherited; under others it is a student."""
    if name == body["control"]:
        return "control"
    return "floor" if body["floors"].get(title) == name else "student"


def _why_no_ratio(rate: Mapping[str, Any], control: Mapping[str, Any] | None) -> str:
    if control is None:
        return "the control was not tried with it"
    if control["value"] is None:
        return "the control's DIR is undefined"
    return "the control's DIR is 0" if control["value"] == 0 else "its own DIR is undefined"


def _interval(name: str, role: str, rate: Mapping[str, Any], why: str) -> Interval:
    return Interval(name, role, rate["value"], rate["low"], rate["high"], f"{name} ({role}): {said(rate, why)}")


def side_by_side(audits: Sequence[tuple[str, Body]]) -> Section:
    """The students of several audits, under every attack."""
    titles = list(dict.fromkeys(title for _, body in audits for title in attacks_of(body)))
    rows = []
    for name, body in audits:
        found = {(row["student"], row["defect"]): row for row in body["defects"]}
        for student, its in body["students"].items():
            line = [Cell(name), Cell(student, role=role_of(student, body)), cell(its["accuracy"], "no test input")]
            for title in titles:
                row = found.get((student, title))
                line.append(Cell("not tried") if row is None else cell(rate_of(row), why_no_rate(row)))
            rows.append(line)
    columns = ["result", "model", "ACC", *(f"DIR, {title}" for title in titles)]
    return Section(
        "Audits side by side",
        [folded(Table("Accuracy and what was inherited, by result", columns, rows, words=2))],
        lead="All were measured on the same test set.",
        terms=("ACC", "DIR", "control", "floor", "interval"),
    )
