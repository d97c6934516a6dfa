"""Small tables for notebooks: what `_repr_html_` returns."""

from collections.abc import Iterable, Sequence
from html import escape


def html_table(caption: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of plain HTML. Whatever is in it is shown as text.

    Args:
        caption: What stands above it.
        header: The names of the columns.
        rows: The cells, row by row.
    """

    def row(cells: Sequence[object], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(str(cell))}</{tag}>' for cell in cells)}</tr>"

    lines = [row(header, "th"), *(row(cells, "td") for cells in rows)]
    return f"<table><caption>{escape(caption)}</caption>{''.join(lines)}</table>"
