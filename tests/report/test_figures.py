"""Figures and files: every chart is drawn, the same way each time, and written whole or not at all."""

import sys
from pathlib import Path

import made_up
import pytest
from faults import disk_full_at

from keras_remos.errors import FileError, RemosError
from keras_remos.report import FORMATS, default_path, write_figures, write_report
from keras_remos.report.charts import Axis, Curve, Point

pytestmark = pytest.mark.once


def test_every_chart_is_drawn_as_png_and_svg(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra report")
    import matplotlib as mpl

    settings = dict(mpl.rcParams)
    found = [made_up.tradeoff(), made_up.sliced(), made_up.transferred(), made_up.demo()]
    made = write_figures(found, tmp_path / "a")
    names = [path.name for path in made]
    assert names == [f"{n}.{e}" for n in ("tradeoff", "kept-1", "training", "loss", "demo") for e in ("png", "svg")]
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in made if path.suffix == ".png")
    again = write_figures(found, tmp_path / "b")
    assert [path.read_bytes() for path in made] == [path.read_bytes() for path in again]
    # Whoever draws in the same process finds everything as it was.
    assert dict(mpl.rcParams) == settings
    with pytest.raises(FileError, match="exists already"):
        write_figures(found, tmp_path / "a")


def test_a_report_is_written_as_what_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("jinja2", reason="needs the extra report")
    for kind in ("html", "md"):
        (path,) = write_report(made_up.demo(), tmp_path / f"r.{kind}", format=kind)
        assert "from scratch" in path.read_text(encoding="utf-8")
    with pytest.raises(FileError, match="exists already"):
        write_report(made_up.demo(), tmp_path / "r.html")
    with pytest.raises(RemosError, match=r"`format` must be one of html, md, png, svg, received 'pdf'"):
        write_report(made_up.demo(), tmp_path / "r.pdf", format="pdf")
    assert FORMATS == ("html", "md", "png", "svg")


def test_a_full_disk_leaves_no_half_of_a_page(tmp_path: Path) -> None:
    (tmp_path / "r.md").write_text("before")
    with disk_full_at(100), pytest.raises(FileError, match="cannot be written"):
        write_report(made_up.demo(), tmp_path / "r.md", format="md", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["r.md"]
    assert (tmp_path / "r.md").read_text() == "before"


def test_a_report_goes_beside_its_result(tmp_path: Path) -> None:
    assert default_path([tmp_path], "html") == tmp_path / "report.html"
    assert default_path(["a/b.json"], "md") == Path("a/b.md")
    assert default_path(["a/b.json"], "svg") == Path("a/b-figures")
    assert default_path(["a.json", "b.json"], "html") == Path("report.html")


@pytest.mark.parametrize(("name", "needs"), [("jinja2", "html"), ("matplotlib", "png")])
def test_without_the_extra_the_pip_line_is_said(
    name: str, needs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r'not installed: pip install "keras-remos\[report\]"'):
        write_report(made_up.demo(), tmp_path / "out", format=needs)
    assert not list(tmp_path.iterdir())


def test_axes_have_round_figures_and_room() -> None:
    assert Axis.over([0.13, 0.94], low=0.0, high=1.0).ticks == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    for values in ([], [3.0], [1e-9, 2e-9], [-7.0, 1e6], [5.0, 5.0], [1e99, -1e99]):
        axis = Axis.over(values)
        assert all(0 <= axis.place(value) <= 100 for value in values)
        assert 2 <= len(axis.ticks) <= 9
        assert axis.low <= min(values, default=0) and axis.high >= max(values, default=0)


def test_a_curve_has_a_gap_where_it_is_undefined() -> None:
    points = [Point(1, 0.5), Point(2, None), Point(3, 0.4), Point(4, 0.3)]
    assert Curve("x", points).runs() == [[points[0]], points[2:]]
