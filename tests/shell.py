"""The command line, called in this process."""

import inspect
import json
from typing import Any

from click.testing import CliRunner, Result
from keras_remos_cli import main

# Before Click 8.2 the two streams came as one, unless one asked.
APART: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}


def run(*arguments: object) -> Result:
    return CliRunner(**APART).invoke(main, [str(argument) for argument in arguments])


def told(done: Result) -> Any:
    """The result in the envelope that `--json` prints."""
    return json.loads(done.stdout)["result"]
