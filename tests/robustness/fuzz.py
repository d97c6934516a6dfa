"""Damaged files and argument lists by the thousand: `nox -s fuzz`, or `python tests/robustness/fuzz.py`.

Every one must end well, or in one of the library's own errors, within the bounds of time and memory that
docs/untrusted.md states. What does not is written down and fails the run; it can be made again from its seed.
"""

import argparse
import collections
import contextlib
import io
import math
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[1])]

from robustness import arguments, corpus, mutations  # noqa: E402

# For one file or one list of arguments.
MOST_SECONDS = 60
# What takes long to be read is tried so many times less often.
SLOW = 10


@dataclass
class Figures:
    """What a run of the fuzzer found."""

    tried: int = 0
    refused: int = 0
    longest: float = 0.0
    slowest: str = ""
    faults: dict[str, str] = field(default_factory=dict)

    def time(self, seconds: float, what: str) -> None:
        self.tried += 1
        if seconds > self.longest:
            self.longest, self.slowest = seconds, what

    def __str__(self) -> str:
        return (
            f"{self.tried:,} tried, {self.refused:,} refused, {len(self.faults)} faults; longest {self.longest:.2f} s "
            f"({self.slowest}); memory {peak():,} MiB"
        )


def peak() -> int:
    """The most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 if sys.platform != "darwin" else 1024) // 1024


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    """Stops what hangs."""

    def stop(*_: Any) -> None:
        raise TimeoutError(f"more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def where(error: BaseException) -> str:
    """The kind of an error and the line of ours that it came from: what is the same is said once."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "keras_remos" in f.filename]
    last = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno} {last.name}: {str(error)[:160]!a}"


def fuzz_files(kinds: dict[str, corpus.Kind], folder: Path, seeds: range) -> Figures:
    """Reads each kind of file once for each seed, damaged."""
    from click import ClickException

    from keras_remos.errors import RemosError

    figures = Figures()
    for number, (name, kind) in enumerate(kinds.items()):
        for seed in seeds[:: SLOW if kind.is_slow else 1]:
            place = folder / "damaged" / kind.name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(mutations.damage(kind.content, np.random.default_rng([number, seed])))
            start = time.perf_counter()
            try:
                with limited(MOST_SECONDS), warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
                    warnings.simplefilter("ignore")
                    kind.read(place)
            except (RemosError, ClickException):
                figures.refused += 1
            except BaseException as error:
                figures.faults.setdefault(where(error), f"{name}, seed {seed}")
                if isinstance(error, KeyboardInterrupt):
                    raise
            figures.time(time.perf_counter() - start, f"{name}, seed {seed}")
            shutil.rmtree(folder / "damaged")
    return figures


def fuzz_arguments(folder: Path, seeds: range) -> Figures:
    """Runs the program once for each seed, with arguments that nobody would type."""
    from shell import run

    figures, exits = Figures(), collections.Counter[int]()
    for seed in seeds:
        given = arguments.draw(np.random.default_rng([99, seed]), folder)
        start = time.perf_counter()
        with limited(MOST_SECONDS), warnings.catch_warnings(), contextlib.chdir(folder):
            warnings.simplefilter("ignore")
            result = run(*given)
        exits[result.exit_code] += 1
        error = result.exception
        if not isinstance(error, (SystemExit, type(None))) or result.exit_code not in (0, 1, 2, 3):
            assert error is not None
            figures.faults.setdefault(where(error), f"seed {seed}: {given}")
        figures.refused += result.exit_code != 0
        figures.time(time.perf_counter() - start, f"seed {seed}")
        arguments.clean(folder)
    print(f"exit codes: {dict(exits)}")
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000, help="how many, over all kinds")
    parser.add_argument("--arguments", type=int, default=5_000, help="how many lists")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--only", help="one kind of file")
    chosen = parser.parse_args()
    code = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kinds = corpus.make(folder)
        if find_spec("keras_hub") is not None:
            kinds |= corpus.of_folders(folder)
        if chosen.only:
            kinds = {chosen.only: kinds[chosen.only]}
        each = math.ceil(chosen.files / sum(1 / SLOW if kind.is_slow else 1 for kind in kinds.values()))
        for what, figures in (
            ("files", fuzz_files(kinds, folder, range(chosen.first, chosen.first + each))),
            ("argument lists", fuzz_arguments(folder, range(chosen.first, chosen.first + chosen.arguments))),
        ):
            print(f"{what}: {figures}")
            for fault, example in figures.faults.items():
                print(f"  {fault}\n    {example[:400]}")
            code |= bool(figures.faults)
    return code


if __name__ == "__main__":
    sys.exit(main())
