"""`page`: a report as one HTML file that needs nothing else: no network, no script, no font."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from keras_remos.report.build import build
from keras_remos.report.document import Document
from keras_remos.report.results import Source, as_results
from keras_remos.report.svg import about_curves, about_layer, dots, kept_bars, polylines, rows_of, shades
from keras_remos.untrusted import printable
from keras_remos.version import __version__

MISSING = 'Reports are made with Jinja2, which is not installed: pip install "keras-remos[report]"'
# A matrix has a shade for each tenth of what is in a row.
_SHADES = 10
_DRAWING = (about_curves, about_layer, dots, kept_bars, polylines, rows_of, shades)


def page(results: Source | Sequence[Source]) -> str:
    """A report as HTML.

    Args:
        results: What was found: an audit's report or whatever else has `describe()`, the same as JSON holds it, or what
            `open_results` read. Several are shown one after the other, compared first.

    Returns:
        The whole page. Whatever is in the results is text there: nothing of it is markup or code.

    Raises:
        FileError: If one is no result that a report can be made of.
        MismatchError: If they were measured on different inputs.
        ImportError: If Jinja2 is missing.
    """
    return html(build(as_results(results)))


def html(document: Document) -> str:
    """A document as HTML."""
    try:
        import jinja2
    except ImportError as error:
        raise ImportError(MISSING) from error

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("keras_remos.report"),
        autoescape=True,
        finalize=_shown,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["passage"] = _passage
    environment.globals |= {each.__name__: each for each in _DRAWING} | {
        "shade": _shade,
        "anchor": _anchor,
        "version": __version__,
    }
    return environment.get_template("page.html.j2").render(document=document)


def _shown(value: Any) -> Any:
    """The one way into the page. Names come from files, and may hold what turns the direction of writing."""
    # What is markup already has passed here.
    return printable(value) if type(value) is str else value


def _passage(text: str) -> Any:
    """A text, which may have lines where a name may not."""
    import markupsafe

    return markupsafe.escape(printable(text, lines=True))


def _shade(number: int, whole: int) -> int:
    """How dark a cell of a matrix is: 0 for nothing, up to 10 for all of its row."""
    return -(-_SHADES * number // whole) if whole else 0


def _anchor(part: int, title: str) -> str:
    """Where a link to a section leads. Titles of sections are ours."""
    return f"{'' if part == 1 else f'{part}-'}{re.sub(r'[^a-z]+', '-', title.lower()).strip('-')}"
