"""`build`: the document that tells what results say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from keras_remos.report import attacks, classes, inherited, making
from keras_remos.report.definitions import LIMITS, TERMS
from keras_remos.report.document import Document, Facts, Listing, Part, Section
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


def _compared(results: Sequence[Result]) -> list[Section]:
    audits = [(result.title, result.body) for result in results if result.kind == "audit"]
    slices = {result.title: result.body for result in results if result.kind == "slice"}
    found = [inherited.side_by_side(audits)] if len(audits) > 1 else []
    return found + ([making.slices_side_by_side(slices)] if len(slices) > 1 else [])


def _sections(result: Result) -> list[Section]:
    found = [*_OF[result.kind](result.body), origin(result)]
    return [section for section in found if section is not None]


def _of_audit(body: Body) -> Iterable[Section | None]:
    layers = {name: its["kept"] for name, its in body["students"].items() if its.get("kept")}
    records = making.records_of(body)
    yield inherited.verdicts(body)
    yield attacks.attacked(body)
    yield attacks.examples(body)
    yield inherited.inheritance(body)
    yield inherited.accuracy(body)
    yield classes.by_class(body)
    yield making.recipes(records)
    yield making.kept(layers)
    yield making.change(body)
    yield making.training(records)


def _of_transfer(body: Body) -> Iterable[Section | None]:
    records = {"student": body}
    yield making.recipes(records)
    yield making.training(records)


_OF: Mapping[str, Callable[[Body], Iterable[Section | None]]] = {
    "audit": _of_audit,
    "tradeoff": making.tradeoff,
    "slice": making.sliced,
    "profile": making.profiled,
    "transfer": _of_transfer,
    "demo": making.demonstrated,
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
        found += [("models tested", f"{len(body['students'])}"), ("attacks", f"{len(inherited.attacks_of(body))}")]
    made_by = (result.around.get("versions") or {}).get("keras-remos")
    found += [("keras-remos", made_by)] if made_by else []
    took = result.around.get("seconds")
    return found + ([("took", seconds(took))] if took is not None else [])
