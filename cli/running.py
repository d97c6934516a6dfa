"""What every command shares: choice of backend, errors as one line, results as text or JSON."""

import functools
import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import click
from keras_remos_cli.messages import in_shell_words, out_of_memory, shown

Command = Callable[..., Any]


def note(message: str) -> None:
    """Says something to the user, on stderr, in one line, unless it is to be quiet."""
    from keras_remos.progress import say

    say(shown(message))


def emit(
    result: dict[str, Any],
    text: str,
    *,
    as_json: bool,
    seed: int | None = None,
    seconds: float | None = None,
    inputs: dict[str, Any] | None = None,
    outputs: dict[str, Any] | None = None,
) -> None:
    """Prints the result on stdout: for machines as JSON in the envelope that all commands share, else as text.

    Whoever reads it may stop when he has enough.

    Args:
        result: What was found, as plain values.
        text: The same for people.
        as_json: Which of the two.
        seed: Of everything that was drawn.
        seconds: How long it took.
        inputs: What the command was given: a `Path` in it comes with its digest.
        outputs: What it wrote, by what that is.
    """
    from keras_remos.untrusted import encodable

    if as_json:
        whole = in_envelope(result, seed=seed, seconds=seconds, inputs=inputs, outputs=outputs)
        text = json.dumps(whole, indent=2)
    written = text if as_json else shown(text, lines=True)
    try:
        click.echo(encodable(written, sys.stdout.encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)


@contextmanager
def streams() -> Iterator[None]:
    """Has the three standard streams lead somewhere, until the block ends.

    One that the shell has closed (`>&-`) leads nowhere from the start: a file that is opened later would otherwise have
    its number, and receive what is printed. One that takes nothing any more does at the end: Python would flush what is
    left, say that it cannot, and exit with a code of its own.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))  # noqa: SIM115 (as long as the program)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except OSError:
                _discard(stream)


def _discard(stream: TextIO) -> None:
    """Lets go what is left to be written, and what comes."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def in_envelope(result: dict[str, Any], *, inputs: dict[str, Any] | None, **about: Any) -> dict[str, Any]:
    """The result of the command that runs, with what made it. See `emit`."""
    from keras_remos.report import envelope

    _, *names = click.get_current_context().command_path.split()
    return envelope(" ".join(names), result, command_line=command_line(), inputs=digested(inputs or {}), **about)


def digested(inputs: Any) -> Any:
    """Inputs with the digests of the files among them; what has one keeps it."""
    from keras_remos.report import of_file

    if isinstance(inputs, Path):
        return of_file(inputs)
    if isinstance(inputs, dict):
        more = {name: digested(value) for name, value in inputs.items() if name != "path"}
        return of_file(inputs["path"], **more) if "path" in inputs and "sha256" not in inputs else inputs | more
    return [digested(each) for each in inputs] if isinstance(inputs, list) else inputs


def command_line() -> str:
    """What the user typed: recorded in every file, so that it can be made again."""
    return shlex.join(["keras-remos", *sys.argv[1:]])


def uses_keras(command: Command) -> Command:
    """Adds what every command takes that runs something: on what, and how much it says meanwhile.

    Brings Keras up, and turns expected errors into one line and exit code 1.
    """

    @click.option(
        "--backend",
        type=click.Choice(["tensorflow", "torch", "jax"]),
        help="What Keras runs on. Default: KERAS_BACKEND, else what is installed.",
    )
    @click.option("-q", "--quiet", is_flag=True, help="No progress and no notes. Warnings stay.")
    @click.option(
        "-v",
        "--verbose",
        is_flag=True,
        help="Progress in a log file, too: a line an epoch, or a minute.",
    )
    @functools.wraps(command)
    def run(*args: Any, backend: str | None, quiet: bool, verbose: bool, **kwargs: Any) -> Any:
        warnings.formatwarning = _in_one_line
        with _failing_in_one_line():
            if quiet and verbose:
                raise click.UsageError("--quiet and --verbose exclude each other.")
            chosen = _select_backend(backend)
            from keras_remos.progress import showing

            with showing(False if quiet else verbose or "auto"):
                if chosen is not None:
                    note(chosen)
                return command(*args, **kwargs)

    return run


def without_keras(command: Command) -> Command:
    """For a command that reads files alone: expected errors become one line, and Keras is not imported."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        warnings.formatwarning = _in_one_line
        with _failing_in_one_line():
            return command(*args, **kwargs)

    return run


def _in_one_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as a user reads it: without the line of the library that gave it."""
    return f"Warning: {shown(in_shell_words(str(message)))}\n"


class _failing_in_one_line:  # noqa: N801 (reads as a statement)
    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None:
            return
        if isinstance(error, click.ClickException):
            return
        if isinstance(error, KeyboardInterrupt):
            raise click.ClickException("Stopped. Nothing was left half-written.") from None
        # RemosError is a ValueError; naming it would import Keras before a backend is chosen.
        expected = {base.__name__ for base in type(error).__mro__} & {"RemosError", "ImportError", "OSError"}
        if expected:
            raise click.ClickException(in_shell_words(str(error))) from None
        if _is_out_of_memory(error):
            raise click.ClickException(out_of_memory(str(error))) from None


def _is_out_of_memory(error: BaseException) -> bool:
    # Without a backend it is Python's own error: nothing of ours may be imported then.
    if "keras" not in sys.modules:
        return isinstance(error, MemoryError)
    from keras_remos.models.gradients import is_out_of_memory

    return is_out_of_memory(error)


def _select_backend(backend: str | None) -> str | None:
    """Decides what Keras will run on, before it is imported: returns what to say of that."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # PyTorch's threads spin while they wait, and starve each other where something else wants the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    chosen_by_user = backend or os.environ.get("KERAS_BACKEND")
    if backend:
        if "keras" in sys.modules:
            import keras

            if keras.backend.backend() != backend:
                raise click.UsageError(f"Keras runs on {keras.backend.backend()} already, not on {backend}.")
        os.environ["KERAS_BACKEND"] = backend
    from keras_remos.backend import installed_backends, select_backend

    chosen, reason = select_backend()
    if chosen_by_user or len(installed_backends()) < 2:
        return None
    return f"Backend: {chosen} ({reason}). Choose with --backend or KERAS_BACKEND."
