"""`nox` runs every check; `nox -s "tests(jax)"` runs one. CI runs the same sessions."""

import os
import sys
from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "types", "tests", "lowest", "parity", "docs", "package"]
nox.options.reuse_existing_virtualenvs = True

# The CPU build: the plain name brings several GB of CUDA libraries. `tensorflow` stands for nothing but itself.
BACKENDS = {"jax": "jax", "torch": "torch==2.13.0", "tensorflow": "tensorflow"}
# Of the dependency groups in pyproject.toml.
PROJECT = nox.project.load_toml("pyproject.toml")
EXTRAS = "image,demo,report"
# Sessions of their own run these.
ELSEWHERE = ("--ignore=tests/parity", "--ignore=tests/zoo")
# A process a core: most of the time goes into compiling, which one process does on one core.
WORKERS = ("-n", "auto", "--dist", "worksteal", "--durations=20")


def _pip(session: nox.Session, *arguments: str) -> None:
    # What is imported is compiled then (see `_environment`). All of TensorFlow beforehand takes longer.
    session.install("--no-compile", *arguments)


def _install(session: nox.Session, *backends: str, hub: bool = False) -> None:
    # PyTorch first: the project's own `torch` extra, or another package, must not bring the CUDA build.
    for backend in backends:
        _pip(session, BACKENDS[backend])
    _pip(session, f".[{EXTRAS}{',hub' if hub else ''}]", *nox.project.dependency_groups(PROJECT, "test"))


def _at_its_floor(requirement: str) -> str:
    """Pins a requirement to its lower bound; one without any stays as it is."""
    wanted = Requirement(requirement)
    floors = [bound.version for bound in wanted.specifier if bound.operator == ">="]
    return f"{wanted.name}=={floors[0]}" if floors else requirement


def _environment(session: nox.Session, backend: str) -> dict[str, str]:
    home = session.create_tmp()
    return {
        "KERAS_BACKEND": backend,
        # Of its own: Keras keeps settings there, and a backend chosen in them would hide a bug.
        "KERAS_HOME": home,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # Many tests start programs. Where this is set, each would compile all that it imports again.
        "PYTHONDONTWRITEBYTECODE": "",
        # Of what toys compile to, much has been compiled for another test.
        "JAX_COMPILATION_CACHE_DIR": str(Path(home, "compiled").resolve()),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


@nox.session
@nox.parametrize("backend", list(BACKENDS), ids=list(BACKENDS))
def tests(session: nox.Session, backend: str) -> None:
    """The test suite with one backend and no other. KerasHub needs TensorFlow's text library; PyTorch writes ONNX."""
    _install(session, backend, hub=backend == "tensorflow")
    if backend == "torch":
        _pip(session, *nox.project.dependency_groups(PROJECT, "onnx"))
    others = [name for name in BACKENDS if name != backend]
    absent = (
        f"from importlib.util import find_spec; assert not any(map(find_spec, {others})), 'another backend is there'"
    )
    session.run("python", "-c", absent)
    everywhere = ("-m", "not once", *ELSEWHERE)
    session.run("pytest", *WORKERS, *everywhere, *session.posargs, env=_environment(session, backend))


@nox.session
def lowest(session: nox.Session) -> None:
    """The quick tests on JAX with the lowest release of everything that pyproject.toml allows.

    Language models among them, for which KerasHub brings TensorFlow; PyTorch is not there: what the other sessions have
    is its one CPU build here. Coverage, attacks and methods are left out: they ask of a dependency what slicing
    does.
    """
    extras = [extra for extra in PROJECT["project"]["optional-dependencies"].items() if extra[0] != "torch"]
    wanted = [*PROJECT["project"]["dependencies"], *(name for _, names in extras for name in names)]
    _pip(session, *map(_at_its_floor, wanted), *nox.project.dependency_groups(PROJECT, "test"))
    _pip(session, "--no-deps", ".")
    # Old releases warn of what newer ones have mended. What takes long says nothing more about versions.
    others = (
        "cli/test_belonging.py",
        "cli/test_inheritance.py",
        "cli/test_texts_in_the_shell.py",
        "cli/test_verdicts.py",
        "coverage",
        "defects",
        "evaluation",
        "inspection",
        "methods",
        "models/test_text_models.py",
        "parity",
        "progress",
        "report/test_browser.py",
        "robustness/test_crafted_records.py",
        "robustness/test_full_disk.py",
        "robustness/test_fuzz.py",
        "robustness/test_kills.py",
        "test_demo.py",
        "test_docs.py",
        "test_examples.py",
        "training/test_callbacks.py",
        "training/test_resume.py",
        "zoo",
    )
    left_out = [f"--ignore=tests/{name}" for name in others]
    session.run(
        "pytest",
        *WORKERS,
        "-W",
        "default",
        "-m",
        "not slow",
        *left_out,
        *session.posargs,
        # JAX 0.4.30 computes something else with what it has from there.
        env={**_environment(session, "jax"), "JAX_ENABLE_COMPILATION_CACHE": "0"},
    )


@nox.session
def parity(session: nox.Session) -> None:
    """All backends side by side: the same files from each, and the real teachers of ../shared through the CLI.

    Language models are tested here on PyTorch: KerasHub brings TensorFlow along. So is what is marked `once`, as the
    examples and the demo; and NLTK and WordNet themselves, where the other sessions have stand-ins.
    """
    _install(session, "torch", "jax", "tensorflow", hub=True)
    _pip(session, ".[wordnet,opencv]")
    # For the files that it brings; what it needs to run stays away.
    _pip(session, "--no-deps", *nox.project.dependency_groups(PROJECT, "words-files"))
    session.run("pytest", *WORKERS, "tests/parity", *session.posargs, env=_environment(session, "jax"))
    here = ("-m", "text or once", *ELSEWHERE, "tests")
    session.run("pytest", *WORKERS, *here, *session.posargs, env=_environment(session, "torch"))


@nox.session(default=False)
def zoo(session: nox.Session) -> None:
    """Every model that people have, from profile to a student that opens without keras_remos; writes docs/zoo.md.

    On each backend, or on those that are named: `nox -s zoo -- torch`.
    """
    _install(session, "torch", "jax", "tensorflow", hub=True)
    rows = Path(session.create_tmp()).resolve()
    made: list[str] = []
    try:
        for backend in session.posargs or list(BACKENDS):
            made.append(str(rows / f"{backend}.json"))
            # One process: what is saved is opened by a single one at the end.
            session.run("pytest", "tests/zoo", env={**_environment(session, backend), "ZOO_ROWS": made[-1]})
    finally:
        session.run("python", "tests/zoo/table.py", "docs/zoo.md", *made)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and format."""
    _pip(session, *nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Type hints."""
    _pip(session, "jax", f".[{EXTRAS}]", *nox.project.dependency_groups(PROJECT, "types"))
    session.run("mypy")


@nox.session
def docs(session: nox.Session) -> None:
    """The site, into site/. Broken links and public names without a docstring stop it."""
    _pip(session, ".", *nox.project.dependency_groups(PROJECT, "docs"))
    session.run("mkdocs", "build", "--strict", *session.posargs, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def package(session: nox.Session) -> None:
    """A wheel from this checkout, in an environment with nothing else, runs the demo, and that shows what it should."""
    _pip(session, *nox.project.dependency_groups(PROJECT, "package"))
    built = Path(session.create_tmp()) / "dist"
    session.run("python", "-m", "build", "--wheel", "--outdir", str(built), silent=True)
    wheel = max(built.glob("*.whl"), key=os.path.getmtime)
    home = Path(session.create_tmp()) / "empty"
    session.run(sys.executable, "-m", "venv", "--clear", str(home), external=True)
    python = str(home / "bin" / "python")
    session.run(python, "-m", "pip", "install", "-q", "--no-compile", f"{wheel}[jax,demo]", external=True)
    told = Path(session.create_tmp()).resolve() / "demo.json"
    demo = (str(home / "bin" / "keras-remos"), "demo", "--json")
    with told.open("w", encoding="utf-8") as file:
        session.run(*demo, external=True, env={"KERAS_HOME": str(home)}, stdout=file, stderr=sys.stderr)
    session.run(python, "tests/check_demo.py", str(told), external=True)


@nox.session(default=False)
def fuzz(session: nox.Session) -> None:
    """Damaged files and argument lists by the thousand, and kills at random moments: an hour and more.

    `-- --files 500 --arguments 100` is less.
    """
    _install(session, "torch", hub=True)
    environment = _environment(session, "torch")
    session.run("python", "tests/robustness/fuzz.py", *session.posargs, env=environment)
    session.run("pytest", "tests/robustness/test_kills.py", env={**environment, "REMOS_KILLS": "100"})


@nox.session(default=False)
def benchmarks(session: nox.Session) -> None:
    """Speed, as ratios in one run. On an idle machine only."""
    _install(session, "torch", "jax", "tensorflow", hub=True)
    _pip(session, ".[opencv]", "psutil", "foolbox")
    for script in sorted(Path("tests/benchmarks").glob("bench_*.py")):
        session.run("python", str(script), *session.posargs)
