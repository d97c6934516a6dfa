"""kill -9 at any moment: what was old or what is new, and the next run goes on and leaves nothing of the dead one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import keras_remos

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that can be killed"),
]
HERE = Path(__file__).parent
# How many: a hundred take ten minutes. Nobody waits for them in the default suite.
KILLS = os.environ.get("REMOS_KILLS")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_write_is_killed_at_every_step(kind: str, tmp_path: Path) -> None:
    package = Path(keras_remos.__file__).parent
    command = [sys.executable, HERE / "killed_at.py", package, tmp_path / "place", kind]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    steps, *wrong = done.stdout.splitlines()
    assert not wrong
    assert int(steps) > 10


@pytest.mark.slow
@pytest.mark.skipif(KILLS is None, reason="REMOS_KILLS says how many kills")
def test_commands_are_killed_at_random_moments(tmp_path: Path) -> None:
    command = [sys.executable, HERE / "kill_run.py", tmp_path / "runs", "--kills", str(KILLS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
