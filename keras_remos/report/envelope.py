"""`envelope`: what stands around every result, so that a program finds the same things in the same places."""

from __future__ import annotations

import contextlib
import json
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from keras_remos.report.shapes import SCHEMA, SCHEMA_VERSION
from keras_remos.untrusted import PathLike, digest_of
from keras_remos.version import __version__


def envelope(
    command: str,
    result: Mapping[str, Any],
    *,
    command_line: str | None = None,
    seed: int | None = None,
    seconds: float | None = None,
    inputs: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A result with what made it, as plain values for JSON.

    Args:
        command: The name of the command, or of the function of the same name.
        result: What it found.
        command_line: What a user typed, so that it can be made again.
        seed: Of everything that was drawn; `None` where nothing was.
        seconds: How long it took.
        inputs: What it was given: see `of_file`.
        outputs: Paths of what it wrote, by what that is.
    """
    named = {name: str(path) for name, path in (outputs or {}).items() if path is not None}
    return without_nan(
        {
            "schema": f"{SCHEMA}{SCHEMA_VERSION}",
            "command": command,
            "command_line": command_line,
            "versions": _all_versions(),
            "seed": seed,
            "seconds": None if seconds is None else round(seconds, 3),
            "inputs": dict(inputs or {}),
            "outputs": named,
            "result": result,
        }
    )


def of_file(path: PathLike, **more: Any) -> dict[str, Any]:
    """A file that was an input: its path, and its SHA-256; `None` for a folder, or what is no path.

    Args:
        path: Of the file.
        **more: What else there is to say of it.
    """
    digest = digest_of(path) if Path(path).is_file() else None
    return {"path": str(path), "sha256": digest, **more}


def without_nan(value: Any) -> Any:
    """The same with `None` for what is no number: JSON has no word for it."""
    if isinstance(value, Mapping):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not abs(value) < float("inf") else value


def through_json(value: Any) -> Any:
    """The same as a file would hold it: lists for tuples, and `None` for what is no number.

    Raises:
        TypeError: If JSON cannot hold it.
    """
    return json.loads(json.dumps(without_nan(value)))


def _all_versions() -> dict[str, str]:
    ours = {"keras-remos": __version__, "python": platform.python_version()}
    return {**ours, **_versions("keras", "numpy"), **_backend()}


def _backend() -> dict[str, str]:
    """Keras' backend with its release, where Keras ran at all."""
    if "keras" not in sys.modules:
        return {}
    name = str(sys.modules["keras"].backend.backend())
    return {"backend": " ".join([name, *_versions(name).values()])}


def _versions(*packages: str) -> dict[str, str]:
    """The releases of packages; of one that was not installed as such nothing is known."""
    found = {}
    for name in packages:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
