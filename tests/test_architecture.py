"""The rules of the house that a linter cannot check."""

import ast
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = sorted((ROOT / "keras_remos").rglob("*.py"))
PROGRAM = sorted((ROOT / "cli").rglob("*.py"))
# From the outside in: what is further down may not import what is further up.
ARROWS = [
    "evaluation",
    "defects",
    "methods",
    "demo",
    "slicing",
    "presets",
    "profiling",
    "counting",
    "slices",
    "teachers",
    "student",
    "inspection",
]
ARROWS += ["features", "gradients"]
ARROWS += ["activations", "coverage", "layers", "kernels", "scoring", "ranking", "errors"]


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


@pytest.mark.parametrize("path", LIBRARY + PROGRAM, ids=lambda path: path.stem)
def test_only_two_files_know_what_layers_look_like_inside(path: Path) -> None:
    if path.stem in ("layers", "kernels"):
        return
    inside = {"_layers", "_kernel", "_embeddings", "_trainable_variables", "_outbound_nodes", "_functional"}
    used = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
    assert not used & inside
    assert not any(name.startswith("keras.src") for name in imports(path))


def test_the_arrows_run_one_way() -> None:
    for name in ARROWS:
        used = {imported.split(".")[1] for imported in _own(name)} - {name}
        above = set(ARROWS[: ARROWS.index(name)])
        assert not used & above, f"{name} imports {used & above}"


def _own(name: str) -> set[str]:
    """What a module, or a package as a whole, uses of the library."""
    home = ROOT / "keras_remos" / name
    files = home.glob("*.py") if home.is_dir() else [home.with_suffix(".py")]
    return {found for path in files for found in imports(path) if found.startswith("keras_remos.")}


def test_scoring_imports_numpy_alone() -> None:
    for name in ("scoring", "ranking"):
        outside = {imported.split(".")[0] for imported in imports(ROOT / "keras_remos" / f"{name}.py")}
        assert outside - set(sys.stdlib_module_names) <= {"numpy", "keras_remos"}


def test_no_file_passes_400_lines() -> None:
    assert not [path.name for path in LIBRARY + PROGRAM if len(path.read_text().splitlines()) > 400]


def test_without_a_backend_the_error_says_how_to_get_one() -> None:
    code = (
        "import importlib.util as util\nfind = util.find_spec\n"
        "util.find_spec = lambda name, *rest: None if name in ('tensorflow', 'torch', 'jax') else find(name, *rest)\n"
        "import keras_remos"
    )
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1
    assert 'pip install "keras-remos[jax]"' in done.stderr


def test_of_several_backends_the_first_is_taken_unless_one_is_chosen() -> None:
    installed = [name for name in ("tensorflow", "jax", "torch") if find_spec(name)]
    code = "import keras_remos, keras; print(keras.backend.backend())"
    environment = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    environment["KERAS_HOME"] = os.devnull
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    assert done.stdout.strip() == installed[0], done.stderr
