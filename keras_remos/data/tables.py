"""Tables of texts or image paths with labels: `.csv`, `.tsv` and `.jsonl`, with the line named in each complaint."""

import csv
import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_remos.data.labels import read_labels
from keras_remos.errors import DataError
from keras_remos.untrusted import is_unicode

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl")
# In characters. What is longer is a quote that was never closed.
_LONGEST_CELL = 10_000_000
# Quantifiers with a second + never go back: what does not fit takes no longer than what does.
_TSV_CELL = re.compile(r"""(?:"((?:[^"]++|"")*+)"|([^"\t\r\n]*+))(\t|\r?\n|\Z)""")

Row = tuple[int, list[Any]]
"""Line number in the file, and the cells."""


@dataclass(frozen=True)
class Table:
    """The rows of a table file.

    Attributes:
        path: The file.
        columns: Names of the columns.
        rows: Line number and cells of each row.
    """

    path: Path
    columns: list[str]
    rows: list[Row]

    def first(self, names: tuple[str, ...]) -> str | None:
        """Returns the first of these columns that is there, whatever its case."""
        lowered = {column.lower(): column for column in reversed(self.columns)}
        return next((lowered[name] for name in names if name in lowered), None)

    def require(self, column: str, option: str) -> str:
        """Returns the column if it is there.

        Raises:
            DataError: If it is not; it lists those that are.
        """
        if column not in self.columns:
            raise DataError(
                f"Expected a column {column!r} ({option}) in {self.path}. Received columns: {', '.join(self.columns)}."
            )
        return column

    def texts(self, column: str) -> list[str]:
        """Returns the texts of a column.

        Raises:
            DataError: If a cell is empty or no text, or holds half of a character; it names the line.
        """
        texts = []
        for line, cell in self._cells(column):
            if not isinstance(cell, str):
                received = json.dumps(cell)[:60]
                raise DataError(
                    f"Expected text in column {column!r}, line {line} of {self.path}. Received: {received}."
                )
            if not is_unicode(cell):
                raise DataError(
                    f"Expected text in column {column!r}, line {line} of {self.path}. Received: half of a character "
                    "(a lone surrogate). Mend or remove it."
                )
            texts.append(cell)
        return texts

    def labels(self, column: str) -> np.ndarray:
        """Returns the labels of a column: int64 if all are whole numbers, else strings; see `read_labels`.

        Raises:
            DataError: If a cell is empty or no label; it names the line.
        """
        number = self.columns.index(column)
        return read_labels(
            (cells[number] for _, cells in self.rows),
            lambda row: f"column {column!r}, line {self.rows[row][0]} of {self.path}",
        )

    def _cells(self, column: str) -> Iterator[tuple[int, Any]]:
        place = self.columns.index(column)
        for line, cells in self.rows:
            cell = cells[place]
            if cell is None or (isinstance(cell, str) and not cell.strip()):
                raise DataError(
                    f"Expected a value in column {column!r}, line {line} of {self.path}. Received: an empty cell. "
                    "Fill it or remove the line."
                )
            yield line, cell


def read_table(path: Path) -> Table:
    """Reads a table.

    A `.csv` file is read with quotes as RFC 4180 has them. A `.tsv` file is read with quotes, as pandas and
    spreadsheets write them, if every cell that has one is wrapped in quotes (with those inside doubled) and all rows
    then have as many cells. Else, and where lines that fit by themselves would become one, it is split at tabs and
    lines and nothing else, and quotes are part of the text, as in the GLUE files. A `.jsonl` file has one object a
    line. Blank lines are skipped, and columns at the end that have no name and nothing in them. A `.csv` file whose
    first line has semicolons and no comma is split at semicolons.

    Args:
        path: A `.csv`, `.tsv` or `.jsonl` file in UTF-8, the first two with column names in the first line.

    Returns:
        The table.

    Raises:
        DataError: If the file cannot be read, has no rows, or a line does not fit; it names the line.
    """
    readers = {".csv": _csv_rows, ".tsv": _tsv_rows, ".jsonl": _jsonl_rows}
    try:
        rows = list(readers[path.suffix.lower()](path))
    except OSError as error:
        raise DataError(f"Expected a readable table at {path}. Received: {error}.") from error
    if len(rows) < 2:
        raise DataError(
            f"Expected column names and at least one row in {path}. Received: {len(rows)} lines with cells."
        )
    rows = _without_empty_ends(rows)
    columns = [str(name).strip() for name in rows[0][1]]
    if len(set(columns)) < len(columns):
        raise DataError(f"Expected each column name of {path} once. Received: {', '.join(columns)}.")
    for line, cells in rows[1:]:
        if len(cells) != len(columns):
            raise DataError(
                f"Expected {len(columns)} cells ({', '.join(columns)}) in line {line} of {path}. "
                f"Received: {len(cells)}. Mend the line (a missing quote, a tab or comma in a text?)."
            )
    return Table(path, columns, rows[1:])


def _without_empty_ends(rows: list[Row]) -> list[Row]:
    """Rows without the empty cells behind the last column that has a name or anything in it."""
    width = len(rows[0][1])
    while width > 1 and not any(_holds_any(cells[width - 1 :]) for _, cells in rows):
        width -= 1
    return [(line, cells if _holds_any(cells[width:]) else cells[:width]) for line, cells in rows]


def _holds_any(cells: list[Any]) -> bool:
    return any(str(cell).strip() for cell in cells)


def _csv_rows(path: Path) -> Iterator[Row]:
    lines = _lines(path)
    first = next(lines, "")
    semicolons = ";" in first and "," not in first
    reader = csv.reader(itertools.chain([first], lines), delimiter=";" if semicolons else ",", strict=True)
    start = 1
    # It is the process's, and too low for long texts.
    limit = csv.field_size_limit(_LONGEST_CELL)
    try:
        for cells in reader:
            if cells:
                yield start, cells
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"Expected a valid row from line {start} of {path}. Received: {error}. Mend it.") from error
    finally:
        csv.field_size_limit(limit)


def _tsv_rows(path: Path) -> Iterator[Row]:
    text = "".join(_lines(path))
    plain = [(line, row.rstrip("\r").split("\t")) for line, row in enumerate(text.split("\n"), start=1)]
    plain = [row for row in plain if any(row[1])]
    quoted = _quoted_rows(text) if '"' in text else None
    if quoted is None or not _fit(quoted) or (len(quoted) < len(plain) and _fit(plain)):
        return iter(plain)
    return iter(quoted)


def _fit(rows: list[Row]) -> bool:
    """Whether all rows have as many cells."""
    return len({len(cells) for _, cells in rows}) == 1


def _quoted_rows(text: str) -> list[Row] | None:
    """The rows of a table whose cells are wrapped in quotes where they have any; `None` if one is not."""
    rows: list[Row] = []
    line = following = 1
    cells: list[Any] = []
    place = 0
    while place <= len(text):
        found = _TSV_CELL.match(text, place)
        if found is None:
            return None
        quoted, plain, end = found.groups()
        cells.append(plain if quoted is None else quoted.replace('""', '"'))
        following += found[0].count("\n")
        if end != "\t":
            rows.append((line, cells))
            line, cells = following, []
        if not end:
            break
        place = found.end()
    return [row for row in rows if any(row[1])]


def _jsonl_rows(path: Path) -> Iterator[Row]:
    columns: list[str] = []
    for line, text in enumerate(_lines(path), start=1):
        if not text.strip():
            continue
        record = _json_object(text, line, path)
        if not columns:
            columns = list(record)
            yield 0, columns
        if set(record) != set(columns):
            raise DataError(
                f"Expected the keys {', '.join(columns)} in line {line} of {path}, as in the first one. "
                f"Received: {', '.join(record)}."
            )
        yield line, [record[column] for column in columns]


def _json_object(text: str, line: int, path: Path) -> dict[str, Any]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"Expected a JSON object in line {line} of {path}. Received: {error}.") from error
    if not isinstance(record, dict):
        raise DataError(f"Expected a JSON object in line {line} of {path}. Received: a {type(record).__name__}.")
    return record


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for line, raw in enumerate(file, start=1):
            try:
                yield raw.decode("utf-8-sig" if line == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"Expected UTF-8 text. Received other bytes in line {line} of {path} ({error.reason}). "
                    "Save the file as UTF-8."
                ) from error
