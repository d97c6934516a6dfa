"""The rules of the house that a linter cannot check."""

import ast
import os
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOME = ROOT / "keras_remos"
LIBRARY = sorted(HOME.rglob("*.py"))
PROGRAM = sorted((ROOT / "cli").rglob("*.py"))
# The rooms from the outside in: what is further down may not import what is further up. Every folder and file is here.
ROOMS = ["public", "demo", "inspection", "students", "evaluation", "methods", "report", "defects", "training"]
ROOMS += ["slicing", "coverage", "data", "models"]
ROOMS += ["saving", "writing", "progress", "untrusted", "notebooks", "errors", "version", "backend"]
# The same within the room that has rooms of its own; its files stand between them.
OF_DEFECTS = ["adversarial", "backdoors", "text_backdoors", "word_swaps"]
OF_DEFECTS += ["base", "attackers_data", "samples", "prepared", "attack_set", "words", "resuming", "triggers"]


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", LIBRARY + PROGRAM, ids=lambda path: path.stem)
def test_no_file_but_gradients_imports_a_backend(path: Path) -> None:
    backends = set() if path.stem == "gradients" else {"tensorflow", "torch", "jax"}
    assert not {name.split(".")[0] for name in imports(path)} & (backends | {"pickle"})


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)
def test_the_library_knows_nothing_of_the_program(path: Path) -> None:
    assert not any(name.startswith(("keras_remos_cli", "click")) for name in imports(path))


def test_the_program_uses_what_the_rooms_hand_out() -> None:
    """What stands in a file inside a room may change without touching the program."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PROGRAM]
    imported = [node.module or "" for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    inside = {name for name in imported if name.startswith("keras_remos.") and name.count(".") > 1}
    assert inside == {f"keras_remos.models.{name}" for name in ("fingerprint", "gradients", "names", "tokenizers")}


@pytest.mark.parametrize("path", LIBRARY + PROGRAM, ids=lambda path: path.stem)
def test_only_two_files_know_what_layers_look_like_inside(path: Path) -> None:
    if path.stem in ("layers", "kernels"):
        return
    inside = {"_layers", "_kernel", "_embeddings", "_trainable_variables", "_outbound_nodes", "_functional"}
    used = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert not used & inside
    assert not any(name.startswith("keras.src") for name in imports(path))


def test_every_room_is_in_the_plan() -> None:
    assert {path.stem for path in HOME.iterdir() if path.name not in ("__init__.py", "__pycache__", "py.typed")} == set(
        ROOMS
    )
    assert rooms_of(HOME / "defects") == set(OF_DEFECTS)
    assert len(list(HOME.glob("*.py"))) <= 9


@pytest.mark.parametrize("home", [HOME, HOME / "defects"], ids=lambda path: path.name)
def test_the_arrows_run_one_way(home: Path) -> None:
    rooms = ROOMS if home == HOME else OF_DEFECTS
    families = set(OF_DEFECTS[:4])
    for number, name in enumerate(rooms):
        used = used_of(home, name)
        assert not used & set(rooms[:number]), f"{name} imports {used & set(rooms[:number])}"
        if home != HOME and name in families:
            assert not used & families, f"{name} imports another family of attacks: {used & families}"


def test_a_report_reads_what_was_written_and_knows_no_model() -> None:
    bottom = {"writing", "untrusted", "notebooks", "errors", "version"}
    assert used_of(HOME, "report") <= bottom
    others = {name for room in bottom for name in used_of(HOME, room)}
    assert others <= bottom


def test_no_files_import_each_other_in_a_circle() -> None:
    uses = {module(path): {found for found in resolved(path) if found != module(path)} for path in LIBRARY}
    while uses:
        # What imports nothing that is left stands on the ground: take it away.
        ground = {name for name, used in uses.items() if not used & uses.keys()}
        assert ground, f"a circle among {sorted(uses)}"
        uses = {name: used for name, used in uses.items() if name not in ground}


def rooms_of(home: Path) -> set[str]:
    """Files and folders of a package."""
    return {path.stem for path in home.iterdir() if path.stem not in ("__init__", "__pycache__")}


def used_of(home: Path, name: str) -> set[str]:
    """What a file or folder of a package uses of the others in that package."""
    files = (home / name).rglob("*.py") if (home / name).is_dir() else [home / f"{name}.py"]
    prefix = ".".join(("keras_remos", *home.relative_to(HOME).parts))
    found = {imported for path in files for imported in imports(path) if imported.startswith(f"{prefix}.")}
    return {imported.removeprefix(f"{prefix}.").split(".")[0] for imported in found} & rooms_of(home) - {name}


def module(path: Path) -> str:
    """The name by which a file is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def resolved(path: Path) -> set[str]:
    """The files of the library that a file imports from; packages hand names on, and count as what they are."""
    known = {module(file) for file in LIBRARY}
    return {name for name in imports(path) if name in known}


def test_scores_import_numpy_alone() -> None:
    for name in ("scores", "ranking"):
        outside = {imported.split(".")[0] for imported in imports(HOME / "slicing" / f"{name}.py")}
        assert outside - set(sys.stdlib_module_names) <= {"numpy", "keras_remos"}


def test_every_package_is_in_the_wheel() -> None:
    folders = {".".join(path.parent.relative_to(ROOT).parts) for path in HOME.rglob("__init__.py")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert set(project["tool"]["setuptools"]["packages"]) == folders | {"keras_remos_cli"}


def test_no_file_passes_400_lines() -> None:
    assert not [path.name for path in LIBRARY + PROGRAM if len(path.read_text().splitlines()) > 400]


def test_without_a_backend_the_error_says_how_to_get_one() -> None:
    code = (
        "import importlib.util as util\nfind = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name in ('tensorflow', 'torch', 'jax') else find(name, *rest)\n"
        "import keras_remos\nkeras_remos.train"
    )
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert 'pip install "keras-remos[jax]"' in done.stderr


@pytest.mark.once
def test_rooms_are_there_without_keras_and_the_reason_for_a_backend_is_remembered() -> None:
    code = (
        "import sys, keras_remos\n"
        "from keras_remos import errors, progress\n"
        "from keras_remos.backend import select_backend\n"
        "assert errors.RemosError and progress.track and 'keras' not in sys.modules\n"
        "assert 'KERAS_BACKEND' not in select_backend()[1], select_backend()"
    )
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.once
def test_keras_is_imported_with_the_first_public_name() -> None:
    code = (
        "import sys, keras_remos as kr, keras_remos.progress, keras_remos.untrusted, keras_remos.writing\n"
        "assert kr.__version__ and not hasattr(kr, '_none') and 'keras' not in sys.modules\n"
        "from keras_remos import *\n"
        "assert train is kr.train and 'keras' in sys.modules and not hasattr(kr, 'none')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.once
def test_of_several_backends_the_first_is_taken_unless_one_is_chosen() -> None:
    installed = [name for name in ("tensorflow", "jax", "torch") if find_spec(name)]
    code = "import keras_remos, keras; print(keras.backend.backend())"
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    environment["KERAS_HOME"] = os.devnull
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.strip() == installed[0], done.stderr


def test_a_backend_that_does_not_exist_is_named() -> None:
    environment = {**os.environ, "KERAS_BACKEND": "foo"}
    code = "import keras_remos"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert "ImportError: There is no backend 'foo' (KERAS_BACKEND says so): choose one of" in done.stderr
