"""The page in a browser: nothing on the console, no wider than the window, and accessible where axe-core is at hand.

Chromium comes from Debian (`apt-get install chromium`). AXE_CORE names the file `axe.min.js` of the npm package
axe-core; SCREENSHOTS a folder to leave pictures in, to look at.
"""

import json
import os
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import made_up
import pytest

from keras_remos.report import page

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
AXE = os.environ.get("AXE_CORE")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr"]
# Windows are at least 500 wide: a narrower page stands in a frame.
FRAME = '<body style="margin:0"><iframe src="page.html" style="border:0;width:{}px;height:2000px"></iframe>'
MEASURE = """<script>addEventListener("load", () => {
  const wide = document.documentElement;
  console.log("width " + wide.scrollWidth + " of " + wide.clientWidth);
});</script></body>"""
pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("jinja2", reason="needs the extra report")
    folder = tmp_path_factory.mktemp("pages")
    # With what a name may do to a layout.
    found = (
        json.dumps(made_up.whole(3)).replace("student 2", f"student-{'x' * 90}").replace("krill", f"krill {'y' * 80}")
    )
    (folder / "page.html").write_text(page(json.loads(found)), encoding="utf-8")
    return folder


def browse(folder: Path, name: str, *flags: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, (folder / name).as_uri()]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)


@pytest.mark.parametrize(
    ("name", "width", "dark"), [("narrow", 400, False), ("wide", 1400, False), ("dark", 1400, True)]
)
def test_the_console_stays_empty(name: str, width: int, dark: bool, pages: Path) -> None:
    (pages / f"{name}.html").write_text(FRAME.format(width), encoding="utf-8")
    shot = pages / f"{name}.png"
    flags = [f"--screenshot={shot}", f"--window-size={max(width, 500)},2000"]
    done = browse(pages, f"{name}.html", *flags, *(["--blink-settings=preferredColorScheme=0"] if dark else []))
    assert "CONSOLE" not in done.stderr
    assert shot.stat().st_size > 20_000
    if "SCREENSHOTS" in os.environ:
        shutil.copy(shot, os.environ["SCREENSHOTS"])


@pytest.mark.parametrize("width", [400, 1400])
def test_no_name_makes_the_page_wider_than_its_window(width: int, pages: Path) -> None:
    """Measured by a script, for which the page's own rule against scripts is taken out."""
    source = re.sub(r"<meta http-equiv[^>]*>", "", (pages / "page.html").read_text("utf-8")).replace("</body>", MEASURE)
    (pages / "measured.html").write_text(source, encoding="utf-8")
    (pages / "frame.html").write_text(FRAME.format(width).replace("page.html", "measured.html"), encoding="utf-8")
    said = browse(
        pages, "frame.html", f"--window-size={max(width, 500)},2000", f"--screenshot={pages / 'measured.png'}"
    ).stderr
    (found,) = re.findall(r"width (\d+) of (\d+)", said)
    assert found == (str(width), str(width))


@pytest.mark.skipif(AXE is None, reason="AXE_CORE names no axe.min.js (npm install axe-core)")
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(dark: bool, pages: Path) -> None:
    assert AXE is not None
    source = re.sub(r"<meta http-equiv[^>]*>", "", (pages / "page.html").read_text("utf-8"))
    source = source.replace("<details>", "<details open>")
    run = 'axe.run().then(r => document.body.textContent = "AXE" + JSON.stringify(r.violations) + "END")'
    script = (
        f"<script>{Path(AXE).read_text('utf-8')}</script><script>addEventListener('load', () => {run})</script></body>"
    )
    (pages / "axe.html").write_text(source.replace("</body>", script), encoding="utf-8")
    flags = ["--dump-dom", "--virtual-time-budget=60000"]
    done = browse(pages, "axe.html", *flags, *(["--blink-settings=preferredColorScheme=0"] if dark else []))
    (found,) = re.findall(r"<body>AXE(.*)END</body>", done.stdout, re.S)
    violations = json.loads(unescape(found))
    assert not [(each["id"], each["nodes"][0]["html"][:200]) for each in violations]
