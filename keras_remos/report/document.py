"""What a report consists of, whatever it is written as: page, Markdown and figures show the same document."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from keras_remos.report.charts import Bars, Curves, Heatmap, Intervals

Level = Literal["good", "note", "bad"]


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Args:
        text: What stands in it.
        value: The figure that `text` rounds, to the last digit.
        note: What belongs to it: its interval, or why it is undefined.
        role: Of the cell that names a row: what part that model plays.
    """

    text: str
    value: float | None = None
    note: str = ""
    role: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under a header. The first cell of each names the row.

    Args:
        caption: What the table shows.
        columns: The header.
        rows: The cells.
        words: How many columns, from the left, hold words; figures stand to the right.
    """

    kind: ClassVar[str] = "table"
    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    words: int = 1


@dataclass(frozen=True)
class Matrix:
    """How often a model said a class where another one is right.

    Args:
        caption: Which model, on what.
        labels: Of the classes.
        counts: Rows: the truth; columns: what was said.
    """

    kind: ClassVar[str] = "matrix"
    caption: str
    labels: Sequence[str]
    counts: Sequence[Sequence[int]]


@dataclass(frozen=True)
class Facts:
    """Names and what they are."""

    kind: ClassVar[str] = "facts"
    pairs: Sequence[tuple[str, str]]
    exact: bool = False
    """Whether these are paths, hashes and the like, in which every character counts."""


@dataclass(frozen=True)
class Paragraph:
    """Some sentences."""

    kind: ClassVar[str] = "paragraph"
    text: str


@dataclass(frozen=True)
class Listing:
    """Sentences one below the other."""

    kind: ClassVar[str] = "listing"
    items: Sequence[str]


@dataclass(frozen=True)
class Command:
    """A line to be typed in a shell."""

    kind: ClassVar[str] = "command"
    text: str


@dataclass(frozen=True)
class Verdict:
    """What to make of a student.

    Args:
        about: The student; empty for what holds for all.
        sentences: Each with how good or bad it is. The first is the headline.
    """

    about: str
    sentences: Sequence[tuple[Level, str]]

    @property
    def level(self) -> Level:
        """That of the worst sentence."""
        levels = [level for level, _ in self.sentences]
        return next(level for level in ("bad", "note", "good") if level in levels)


@dataclass(frozen=True)
class Verdicts:
    """Verdicts, one below the other."""

    kind: ClassVar[str] = "verdicts"
    verdicts: Sequence[Verdict]


@dataclass(frozen=True)
class Picture:
    """A picture.

    Args:
        caption: What stands below it.
        description: For whoever does not see it.
        uri: The picture itself, as a data URI that has been checked.
        is_small: Whether it is shown larger than it is, so that its pixels are to stay squares.
    """

    caption: str
    description: str
    uri: str
    is_small: bool


@dataclass(frozen=True)
class Passage:
    """A text in pieces, each with whether it was changed."""

    caption: str
    pieces: Sequence[tuple[str, bool]]
    is_attacked: bool = False


@dataclass(frozen=True)
class Example:
    """An input, clean and malicious.

    Args:
        label: Its true class.
        shows: Pictures or texts: clean, malicious and, of pictures, the difference.
        outcome: Whom it fools, in a sentence.
        answers: Student, what it says of the clean input, and of the malicious one.
    """

    label: str
    shows: Sequence[Picture | Passage]
    outcome: str
    answers: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Examples:
    """Some inputs of an attack."""

    kind: ClassVar[str] = "examples"
    examples: Sequence[Example]


@dataclass(frozen=True)
class Group:
    """Blocks under a heading of their own.

    Args:
        title: The heading.
        blocks: What stands below it.
        tag: A few words beside the heading.
    """

    kind: ClassVar[str] = "group"
    title: str
    blocks: Sequence[Block]
    tag: str = ""


@dataclass(frozen=True)
class Fold:
    """Blocks that are shown when asked for."""

    kind: ClassVar[str] = "fold"
    title: str
    blocks: Sequence[Block]


Chart = Intervals | Curves | Bars | Heatmap
Block = Table | Matrix | Facts | Paragraph | Listing | Command | Verdicts | Examples | Group | Fold | Chart


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Args:
        title: Its heading.
        blocks: What stands below it.
        lead: A sentence or two before them.
        terms: The figures in it, which the report then explains: names of `TERMS`.
    """

    title: str
    blocks: Sequence[Block]
    lead: str = ""
    terms: Sequence[str] = ()


@dataclass(frozen=True)
class Part:
    """The sections of one result; without a title, those of the only one."""

    sections: Sequence[Section]
    title: str = ""


@dataclass(frozen=True)
class Document:
    """A whole report.

    Args:
        title: What it is about.
        facts: The few things to know before reading on.
        parts: One for each result, and for what is said about all of them.
    """

    title: str
    facts: Sequence[tuple[str, str]]
    parts: Sequence[Part] = field(default_factory=tuple)

    def charts(self) -> Iterator[Chart]:
        """Every chart in it, in order."""
        for part in self.parts:
            for section in part.sections:
                yield from _charts(section.blocks)


def _charts(blocks: Sequence[Block]) -> Iterator[Chart]:
    for block in blocks:
        if isinstance(block, Intervals | Curves | Bars | Heatmap):
            yield block
        elif isinstance(block, Group | Fold):
            yield from _charts(block.blocks)
