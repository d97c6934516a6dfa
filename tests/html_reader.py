"""Reads a page as a program does: tables with their figures, headings, and every tag with its attributes."""

from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br"}
SHAPES = {"path", "circle", "line", "rect", "polyline"}


@dataclass
class Table:
    caption: str = ""
    rows: list[list[str]] = field(default_factory=list)
    values: list[list[float | None]] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        return self.rows[0]

    def of(self, name: str, column: str) -> tuple[str, float | None]:
        """The text and the exact value in the row that begins with a name."""
        at = self.columns.index(column)
        (row,) = [number for number, row in enumerate(self.rows) if number and row[0].startswith(name)]
        return self.rows[row][at], self.values[row][at]


class Page(HTMLParser):
    """What is in a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[Table] = []
        self.headings: list[tuple[int, str]] = []
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text = ""
        self.titles: list[str] = []
        self.open: list[str] = []
        self.ids: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, self.open
        for table in self.tables:
            table.rows = [[" ".join(cell.split()) for cell in row] for row in table.rows]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        given = {name: value or "" for name, value in attrs}
        self.attributes += [(tag, name, value) for name, value in given.items()]
        self.ids += [given["id"]] if "id" in given else []
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append(Table())
        elif tag == "tr":
            self.tables[-1].rows.append([])
            self.tables[-1].values.append([])
        elif tag in ("td", "th"):
            self.tables[-1].rows[-1].append("")
            self.tables[-1].values[-1].append(None)
        elif tag == "data":
            self.tables[-1].values[-1][-1] = float(given["value"])
        elif tag in ("h1", "h2", "h3", "h4", "h5", "h6"):
            self.headings.append((int(tag[1]), ""))
        elif tag == "title":
            self.titles.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.text += data
        if "title" in self.open:
            self.titles[-1] += data
        elif "caption" in self.open:
            self.tables[-1].caption += data
        elif "td" in self.open or "th" in self.open:
            self.tables[-1].rows[-1][-1] += data
        elif self.open and self.open[-1] in ("h1", "h2", "h3", "h4", "h5", "h6"):
            level, said = self.headings[-1]
            self.headings[-1] = (level, said + data)

    def table(self, caption: str) -> Table:
        (found,) = [table for table in self.tables if table.caption.startswith(caption)]
        return found

    def sections(self) -> list[str]:
        return [said.strip() for level, said in self.headings if level == 2]
