"""`markdown`: a report as text that reads well as it is, and in issues, wikis and merge requests."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from keras_remos.report.build import build
from keras_remos.report.document import (
    Block,
    Cell,
    Command,
    Document,
    Examples,
    Facts,
    Fold,
    Group,
    Listing,
    Matrix,
    Paragraph,
    Passage,
    Table,
    Verdicts,
)
from keras_remos.report.results import Source, as_results
from keras_remos.untrusted import printable

_GRADES = {"good": "good", "note": "note", "bad": "**problem**"}
# What makes links, pictures, tables, emphasis and HTML of text: also what GitHub takes for an address or for a name.
_MARKUP = re.compile(r"[\\`*_{}\[\]#|~@!]|(?<=:)//|(?<=www)\.|^[-+=]", re.IGNORECASE)


def markdown(results: Source | Sequence[Source]) -> str:
    """A report as Markdown: its verdicts, tables and origins. Pictures and charts are left to the page and to figures.

    Args:
        results: See `page`.

    Raises:
        FileError: If one is no result that a report can be made of.
        MismatchError: If they were measured on different inputs.
    """
    return "\n".join(_lines(build(as_results(results)))) + "\n"


def _lines(document: Document) -> Iterator[str]:
    yield f"# {_text(document.title)}"
    if document.facts:
        yield from ("", ", ".join(f"{_text(name)}: {_text(value)}" for name, value in document.facts) + ".")
    for part in document.parts:
        level = 2
        if part.title:
            yield from ("", f"## {_text(part.title)}")
            level = 3
        for section in part.sections:
            blocks = [line for block in section.blocks for line in _block(block, level + 1)]
            if any(blocks):
                yield from ("", f"{'#' * level} {_text(section.title)}")
                yield from ("", _text(section.lead)) if section.lead else ()
                yield from blocks


def _block(block: Block, level: int) -> Iterator[str]:
    if isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, Matrix):
        yield from _matrix(block)
    elif isinstance(block, Facts):
        yield ""
        yield from (f"- {_text(name)}: {_text(value)}" for name, value in block.pairs)
    elif isinstance(block, Listing):
        yield ""
        yield from (f"- {_text(item)}" for item in block.items)
    elif isinstance(block, Paragraph):
        yield from ("", _text(block.text))
    elif isinstance(block, Command):
        # Indented, a line is shown as it is, whatever it holds.
        yield from ("", f"    {printable(block.text)}")
    elif isinstance(block, Verdicts):
        for verdict in block.verdicts:
            yield from ("", f"**{_text(verdict.about or 'About this run')}**", "")
            yield from (f"- {_GRADES[level]}: {_text(sentence)}" for level, sentence in verdict.sentences)
    elif isinstance(block, Examples):
        yield from _examples(block)
    elif isinstance(block, Group | Fold):
        inner = [line for each in block.blocks for line in _block(each, level + 1)]
        if any(inner):
            tag = f" ({_text(block.tag)})" if isinstance(block, Group) and block.tag else ""
            yield from ("", f"{'#' * level} {_text(block.title)}{tag}", *inner)


def _table(table: Table) -> Iterator[str]:
    rules = ["---" if number < table.words else "---:" for number in range(len(table.columns))]
    yield from ("", f"{_text(table.caption)}:", "", _row([_text(column) for column in table.columns]), _row(rules))
    yield from (_row([_cell(cell) for cell in row]) for row in table.rows)


def _matrix(matrix: Matrix) -> Iterator[str]:
    labels = [_text(label) for label in matrix.labels]
    yield from ("", f"{_text(matrix.caption)} (rows: truth, columns: said):", "")
    yield from (_row(["", *labels]), _row(["---", *["---:"] * len(labels)]))
    yield from (_row([label, *map(str, line)]) for label, line in zip(labels, matrix.counts, strict=True))


def _examples(block: Examples) -> Iterator[str]:
    for example in block.examples:
        texts = [each for each in example.shows if isinstance(each, Passage)]
        if texts:
            yield from ("", f"True class {_text(example.label)}. {_text(example.outcome)}", "")
        for text in texts:
            pieces = (f"**{_text(piece)}**" if changed else _text(piece) for piece, changed in text.pieces)
            yield f"- {text.caption}: {' '.join(''.join(pieces).split())}"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    role = f" ({cell.role})" if cell.role and cell.role != "student" else ""
    note = f" ({_text(cell.note)})" if cell.note else ""
    return f"{_text(cell.text)}{role}{note}"


def _text(text: str) -> str:
    """Text of which nothing is markup. Names come from files."""
    shown = _MARKUP.sub(lambda found: f"\\{found[0]}", printable(text))
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
