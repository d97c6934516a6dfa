"""`build`: the document that tells what results say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from keras_remos.report.attacks import attacked, examples
from keras_remos.report.classes import by_class
from keras_remos.report.definitions import LIMITS, TERMS
from keras_remos.report.document import Document, Facts, Listing, Part, Section
from keras_remos.report.inherited import accuracy, attacks_of, inheritance, side_by_side, verdicts
from keras_remos.report.making import (
    change,
    demonstrated,
    kept,
    profiled,
    recipes,
    records_of,
    sliced,
    slices_side_by_side,
    tradeoff,
    training,
)
from keras_remos.report.origin import origin
from keras_remos.report.results import Result
from keras_remos.report.wording import seconds

Body = Mapping[str, Any]
_TITLES = {
    "audit": "Audit",
    "tradeoff": "Trade-off",
    "slice": "Slice",
    "profile": "Profile",
    "transfer": "Student",
    "demo": "Demo",
}


def build(results: Sequence[Result]) -> Document:
    """Puts together what there is to say; sections without data are left out.

    Args:
        results: One or more. Several stand one after the other, and what can be compared is compared first.
    """
    parts = []
    results = _told_apart(results)
    if len(results) > 1:
        compared = _compared(results)
        parts += [Part(compared, "Side by side")] if compared else []
        parts += [Part(_sections(result), f"{_TITLES[result.kind]}: {result.title}") for result in results]
        title, facts = "Report", [("results", f"{len(results)}")]
    else:
        parts.append(Part(_sections(results[0])))
        title, facts = _title(results[0]), _facts(results[0])
    closing = _closing([section for part in parts for section in part.sections], results)
    parts.append(Part(closing, "How to read this" if len(results) > 1 else ""))
    return Document(title, facts, parts)


def _told_apart(results: Sequence[Result]) -> list[Result]:
    """The results, no two of them of one name."""
    seen: Counter[str] = Counter()
    found = []
    for result in results:
        seen[result.title] += 1
        number = seen[result.title]
        found.append(replace(result, name=f"{result.title} ({number})") if number > 1 else result)
    return found


def _compared(results: Sequence[Result]) -> list[Section]:
    audits = [(result.title, result.body) for result in results if result.kind == "audit"]
    slices = {result.title: result.body for result in results if result.kind == "slice"}
    found = [side_by_side(audits)] if len(audits) > 1 else []
    return found + ([slices_side_by_side(slices)] if len(slices) > 1 else [])


def _sections(result: Result) -> list[Section]:
    found = [*_OF[result.kind](result.body), origin(result)]
    return [section for section in found if section is not None]


def _of_audit(body: Body) -> Iterable[Section | None]:
    layers = {name: its["kept"] for name, its in body["students"].items() if its.get("kept")}
    records = records_of(body)
    yield verdicts(body)
    yield attacked(body)
    yield examples(body)
    yield inheritance(body)
    yield accuracy(body)
    yield by_class(body)
    yield recipes(records)
    yield kept(layers)
    yield change(body)
    yield training(records)


def _of_transfer(body: Body) -> Iterable[Section | None]:
    records = {"student": body}
    yield recipes(records)
    yield training(records)


_OF: Mapping[str, Callable[[Body], Iterable[Section | None]]] = {
    "audit": _of_audit,
    "tradeoff": tradeoff,
    "slice": sliced,
    "profile": profiled,
    "transfer": _of_transfer,
    "demo": demonstrated,
}


def _closing(sections: Sequence[Section], results: Sequence[Result]) -> list[Section]:
    """What the figures above mean, and what they do not."""
    used = {term for section in sections for term in section.terms}
    found = []
    if used:
        found.append(Section("What the figures mean", [Facts([(term, TERMS[term]) for term in TERMS if term in used])]))
    if any(result.kind in ("audit", "tradeoff", "demo") for result in results):
        found.append(Section("What this report does not say", [Listing(LIMITS)]))
    return found


def _title(result: Result) -> str:
    teacher = result.inputs.get("teacher") or {}
    path = teacher.get("path") or teacher.get("name")
    of = f" of {PurePath(path).name or path}" if path else ""
    return f"{_TITLES[result.kind]}{of}"


def _facts(result: Result) -> list[tuple[str, str]]:
    body = result.body
    found = []
    if result.kind == "audit":
        tested = body.get("test", {}).get("n") or result.test_set().get("number of inputs")
        found += [("test inputs", f"{tested:,}")] if tested else []
        found += [("models tested", f"{len(body['students'])}"), ("attacks", f"{len(attacks_of(body))}")]
    made_by = (result.around.get("versions") or {}).get("keras-remos")
    found += [("keras-remos", made_by)] if made_by else []
    took = result.around.get("seconds")
    return found + ([("took", seconds(took))] if took is not None else [])
