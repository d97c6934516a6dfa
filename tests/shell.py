"""The command line, called in this process."""

import inspect
import json
from typing import Any

import jsonschema
from click.testing import CliRunner, Result
from keras_remos_cli import main

from keras_remos.report.json_schema import json_schema

# Before Click 8.2 the two streams came as one, unless one asked.
APART: dict[str, Any] = {"mix_stderr": False} if "mix_stderr" in inspect.signature(CliRunner).parameters else {}


def run(*arguments: object) -> Result:
    return CliRunner(**APART).invoke(main, [str(argument) for argument in arguments])


def told(done: Result) -> Any:
    """The result in the envelope that `--json` prints, which is as documented."""
    whole = json.loads(done.stdout)
    jsonschema.Draft202012Validator(json_schema()).validate(whole)
    return whole["result"]
