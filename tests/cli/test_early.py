"""What can be checked without Keras is checked before it is imported, which takes seconds."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from keras_remos_cli.main import COMMANDS

pytestmark = pytest.mark.once

# Each with something wrong: command lines, and what is said of them. `there` is there, `none` is not.
REFUSED = [
    ("slice none.keras --data there", "no teacher at none.keras"),
    ("slice there.keras --data none", "--data none: there is no such file"),
    ("slice there.keras --data there -o there.keras", "there.keras exists already"),
    ("slice there.keras --profile-file none.npz", "--profile-file none.npz: there is no such file"),
    ("slice there.keras --data there --class-names none", "--class-names none: there is no such file"),
    ("slice there.keras", "Missing option"),
    ("profile there.keras --data none", "--data none: there is no such file"),
    ("profile there.keras --data there -o there.npz", "there.npz exists already"),
    ("profile merge there.npz none.npz -o new.npz", "none.npz: there is no such file"),
    ("transfer models/none --data there", "no teacher at models/none"),
    ("transfer there.keras --data there --validation-data none", "--validation-data none: there is no such file"),
    ("transfer there.keras --data there --checkpoint there.npz", "Checkpoints need a folder"),
    ("tradeoff there.keras --data there --inputs none.npz", "--inputs none.npz: there is no such file"),
    ("attack there.keras --defect pgd --data none", "--data none: there is no such file"),
    ("attack there.keras --defect pgd --data there -o there.npz", "there.npz exists already"),
    ("attack there.keras --defect greedy-swap --data there --synonyms none", "--synonyms none: there is no such file"),
    ("poison there.keras --data none", "--data none: there is no such file"),
    ("poison there.keras --data there -o there.keras", "there.keras exists already"),
    ("evaluate there.keras none.keras --data there", "no teacher at none.keras"),
    ("evaluate there.keras --data there --control none.keras", "no teacher at none.keras"),
    ("audit there.keras none.keras --data there --no-control", "no teacher at none.keras"),
    ("audit there.keras --data there", "give --train-data"),
    ("audit there.keras --data there --no-control -o .", "holds other files"),
    ("evaluate there.keras --data there --floor there.keras", "give --control, too"),
    ("audit there.keras --data there --attacker-split test", "--attacker-split is a part of"),
    ("inspect none.npz", "no file none.npz"),
    ("predict none.keras photo.jpg", "no teacher at none.keras"),
    ("predict there.keras", "Name what is to be classified"),
    ("predict there.keras there --csv there", "it must end in .csv"),
    ("export none.keras", "no teacher at none.keras"),
    ("export there.keras -o there", "there exists already"),
    ("report none.json", "none.json: there is no such file"),
    ("demo -o page.txt", "it must end in .html"),
    ("inspect there.npz --tokens none.keras", "no teacher at none.keras"),
]
PROGRAM = """
import json, shlex, sys
from click.testing import CliRunner
from keras_remos_cli import main
said = []
for line in json.loads(sys.argv[1]):
    result = CliRunner().invoke(main, shlex.split(line))
    said.append([result.exit_code, result.output])
    assert "keras" not in sys.modules, f"{line} imported Keras: {result.output}"
print(json.dumps(said))
"""


def test_it_is_refused_before_keras_is_imported(tmp_path: Path) -> None:
    for name in ("there", "there.keras", "there.npz"):
        (tmp_path / name).touch()
    lines = json.dumps([line for line, _ in REFUSED])
    command = [sys.executable, "-c", PROGRAM, lines]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for (line, message), (code, output) in zip(REFUSED, json.loads(done.stdout), strict=True):
        assert code in (1, 2), (line, output)
        assert message in output, line


def test_every_command_is_tried() -> None:
    assert {line.split()[0] for line, _ in REFUSED} == set(COMMANDS)
