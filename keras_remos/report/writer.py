"""`write_report`: results as a page, Markdown or figures, in files."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from keras_remos.errors import RemosError
from keras_remos.report.figures import FORMATS as FIGURES
from keras_remos.report.figures import MISSING as NO_FIGURES
from keras_remos.report.figures import write_figures
from keras_remos.report.markdown import markdown
from keras_remos.report.page import MISSING as NO_PAGE
from keras_remos.report.page import page
from keras_remos.report.results import IN_FOLDER, Source
from keras_remos.untrusted import PathLike
from keras_remos.writing import replacing, reserved

TEXTS = {"html": page, "md": markdown}
FORMATS = (*TEXTS, *FIGURES)
"""What a report can be written as."""


def check_installed() -> None:
    """Makes sure, before hours of work, that a page and figures can be made.

    Raises:
        ImportError: If Jinja2 or Matplotlib is missing.
    """
    for package, missing in (("jinja2", NO_PAGE), ("matplotlib", NO_FIGURES)):
        if find_spec(package) is None:
            raise ImportError(missing)


def write_report(
    results: Source | Sequence[Source],
    path: PathLike,
    *,
    format: str = "html",  # noqa: A002 (what one looks for, here and in the shell)
    overwrite: bool = False,
) -> list[Path]:
    """Writes a report: what was attacked, what was inherited, and what to make of it.

    Args:
        results: What an audit, a trade-off, a slice, a profile or a training gave, the same as JSON holds it, or what
            `open_results` read. Several are compared first, where they can be, and then shown one after the other.
        path: A file for `"html"` (one page that needs nothing else) and `"md"`; a folder for `"png"` and `"svg"`.
        format: `"html"`, `"md"`, `"png"` or `"svg"`.
        overwrite: Whether existing files may be replaced.

    Returns:
        The files that were written. They are written whole or not at all.

    Raises:
        FileError: If one is no result that a report can be made of, or a file cannot be written.
        MismatchError: If they were measured on different inputs: side by side their figures would mislead.
        ImportError: If Jinja2 (for the page) or Matplotlib (for figures) is missing.
        RemosError: If there is no such format.

    Example:
    ```python
    write_report(audit(teacher, {"mine": student}, test_ds, train=train_ds), "report.html")
    ```
    """
    if format not in FORMATS:
        raise RemosError(f"`format` must be one of {', '.join(FORMATS)}, received {format!r}.")
    if format not in TEXTS:
        return write_figures(results, path, formats=[format], overwrite=overwrite)
    with reserved(path, overwrite=overwrite, again=True):
        text = TEXTS[format](results)
        with replacing(path, overwrite=overwrite) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return [Path(path)]


def default_path(sources: Sequence[PathLike], kind: str) -> Path:
    """Where a report of files goes if nobody says: beside the only one, else into the current folder.

    Args:
        sources: The results.
        kind: The format: see `write_report`.
    """
    ending = f".{kind}" if kind in TEXTS else "-figures"
    if len(sources) > 1:
        return Path(f"report{ending}")
    source = Path(sources[0])
    if source.is_dir():
        source /= IN_FOLDER
    return source.with_name(f"{source.stem}{ending}")
