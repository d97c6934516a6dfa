"""Stand-ins for what stderr leads to: a terminal, a log file, a notebook."""

import io
import sys
from types import ModuleType
from typing import Any

import pytest
import rich.console


class FakeTerminal(io.StringIO):
    """Keeps what a terminal would show."""

    def isatty(self) -> bool:
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> FakeTerminal:
    """Has stderr lead to a terminal of 120 columns."""
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = FakeTerminal()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def log_file(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Has stderr lead to a file."""
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("TTY_COMPATIBLE", raising=False)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    return stream


def notebook(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Has a notebook's cell, which is written anew each time: returns all that stood there."""
    written: list[str] = []

    class Handle:
        def update(self, bundle: dict[str, str], *, raw: bool) -> None:
            written.append(bundle["text/plain"])

    def display(bundle: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        written.append(bundle["text/plain"])
        return Handle()

    fake: Any = ModuleType("IPython.display")
    fake.display = display
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    return written
