"""What every command shares: choice of backend, errors as one line, results as text or JSON."""

import functools
import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable
from typing import Any

import click
from keras_remos_cli.messages import in_shell_words, out_of_memory, shown

Command = Callable[..., Any]


def note(message: str) -> None:
    """Says something to the user, on stderr, in one line, unless it is to be quiet."""
    from keras_remos.progress import say

    say(shown(message))


def emit(result: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Prints the result on stdout: as JSON for machines, else as text. Whoever reads it may stop when he has enough."""
    from keras_remos.untrusted import encodable

    written = json.dumps(_without_nan(result), indent=2) if as_json else shown(text, lines=True)
    try:
        click.echo(encodable(written, sys.stdout.encoding))
        sys.stdout.flush()
    except BrokenPipeError:
        # At its end Python would flush what is left, and say that it cannot.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _without_nan(value: Any) -> Any:
    # NaN is no JSON.
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value


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
        if isinstance(error, click.UsageError):
            raise click.UsageError(shown(error.message), error.ctx) from None
        if isinstance(error, click.ClickException):
            raise click.ClickException(shown(error.message)) from None
        if isinstance(error, KeyboardInterrupt):
            raise click.ClickException("Stopped. Nothing was left half-written.") from None
        # RemosError is a ValueError; naming it would import Keras before a backend is chosen.
        expected = {base.__name__ for base in type(error).__mro__} & {"RemosError", "ImportError", "OSError"}
        if expected:
            raise click.ClickException(shown(in_shell_words(str(error)))) from None
        if _is_out_of_memory(error):
            raise click.ClickException(shown(out_of_memory(str(error)))) from None


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
