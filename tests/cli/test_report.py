"""`keras-remos report`: from a result to a file, without Keras."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import keras
import made_up
import pytest
from keras_remos_cli.report_command import FORMATS as OFFERED
from shell import run

from keras_remos.report import FORMATS

pytestmark = pytest.mark.once
needs_jinja = pytest.mark.skipif(find_spec("jinja2") is None, reason="needs the extra report")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("audit.json").write_text(json.dumps(made_up.whole(1)), encoding="utf-8")
    return tmp_path


def program(code: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, in which there is no Keras and no backend."""
    hidden = "import sys; sys.modules |= dict.fromkeys(('keras', 'tensorflow', 'torch', 'jax'))\n"
    return subprocess.run([sys.executable, "-c", hidden + code], capture_output=True, text=True, check=False)


@needs_jinja
def test_it_needs_neither_keras_nor_a_backend(here: Path) -> None:
    done = program("from keras_remos_cli.main import main; main(['report', 'audit.json'])")
    assert (done.returncode, done.stdout, done.stderr) == (0, "audit.html\n", "")
    assert "student 1" in Path("audit.html").read_text("utf-8")
    done = program("from keras_remos_cli.main import main; main(['report', 'none.json'])")
    assert (done.returncode, done.stderr) == (1, "Error: FILE|DIR... none.json: there is no such file or folder.\n")


@needs_jinja
def test_the_library_is_whole_again_afterwards(here: Path) -> None:
    code = (
        "from keras_remos_cli.main import main; import sys\n"
        "main(['report', 'audit.json'], standalone_mode=False)\n"
        "assert 'keras' not in sys.modules\n"
        "import keras_remos as kr; from keras_remos import audit\n"
        "assert audit is kr.audit and kr.write_report and not hasattr(kr, 'no such name')"
    )
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


@needs_jinja
def test_it_writes_what_is_asked_for_where_it_is_asked_for(here: Path) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra report")
    Path("t.json").write_text(json.dumps(made_up.tradeoff()), encoding="utf-8")
    assert run("report", "t.json").stdout == "t.html\n"
    assert run("report", "t.json", "--format", "md", "-o", "x.md").stdout == "x.md\n"
    done = run("report", "t.json", "--format", "svg", "--json")
    assert json.loads(done.stdout)["outputs"] == {"tradeoff": str(Path("t-figures", "tradeoff.svg"))}
    assert run("report", "audit.json", "t.json", "--format", "md").stdout == "report.md\n"
    Path("folder").mkdir()
    Path("audit.json").rename("folder/report.json")
    assert run("report", "folder").stdout == f"{Path('folder', 'report.html')}\n"
    assert run("report", "t.json").exit_code == 1
    assert run("report", "t.json", "--force").exit_code == 0
    assert OFFERED == FORMATS


def test_what_cannot_be_done_is_said_in_one_line(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = made_up.whole(1)
    other["inputs"]["data"]["fingerprint"] = "other"
    Path("other.json").write_text(json.dumps(other), encoding="utf-8")
    Path("evil\x1b[2J.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "jinja2", None)
    for arguments, reason in (
        (["audit.json", "other.json"], "audit.json and other.json were measured on different test sets"),
        (["evil\x1b[2J.json"], r"evil\x1b[2J.json is no result of keras-remos"),
        (["."], "a folder without a report.json"),
        (["audit.json"], 'pip install "keras-remos[report]"'),
        (["audit.json", "-o", "no/such/place.html"], "does not exist: create it"),
    ):
        done = run("report", *arguments)
        assert done.exit_code == 1
        assert reason in done.stderr and done.stderr.count("\n") == 1 and "\x1b" not in done.stderr
    assert run("report").exit_code == 2
    assert run("report", "audit.json", "--format", "pdf").exit_code == 2
