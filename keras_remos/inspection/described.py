"""`FileDescription`: all that is known of a file, for people and as plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from keras_remos.untrusted import in_lines, printable

# How much of a value is shown in its line.
_SHOWN = 1000
_WIDTH = 28
# What the table below says, or another line in short.
_LEFT_OUT = frozenset(
    {"kernels", "skipped", "layers", "not_finite", "contents", "record", "teacher", "source"}
    | {"num_weights", "num_sliceable", "last"}
)


@dataclass(frozen=True, repr=False)
class FileDescription:
    """All that is known of a file or a folder.

    Args:
        path: As it was named.
        kind: What it is: `"model"`, `"student"`, `"poisoned teacher"`, `"profile"`, `"slice"`, `"attack"` ...
        facts: What is known of it, by name, as plain values for JSON.
        table: The same of its layers, as lines.
    """

    path: str
    kind: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    table: str = ""

    def describe(self) -> dict[str, Any]:
        """The same as plain values, for JSON."""
        return {"path": self.path, "kind": self.kind, **self.facts}

    def summary(self) -> str:
        """What is known, a line each, and what there is of layers as a table below."""
        record = dict(self.facts.get("record") or {})
        names, target = record.get("class_names"), record.get("target")
        if isinstance(names, list) and isinstance(target, int) and 0 <= target < len(names):
            record["target"] = f"{target} ({names[target]})"
        lines = [_line("kind", self.kind)]
        lines += [_line(name, _shown(name, value)) for name, value in self.facts.items() if _is_shown(name, value)]
        # What a file says of itself may be of any form.
        lines += [_line(name, _said(name, value)) for name, value in record.items() if _is_shown(name, value)]
        return in_lines(lines) + (f"\n\n{self.table}" if self.table else "")

    def __repr__(self) -> str:
        return f"<FileDescription of {self.path}: {self.kind}>"


def _is_shown(name: str, value: Any) -> bool:
    return name not in _LEFT_OUT and not _is_empty(value)


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", [], {}, ())


def _line(name: str, shown: str) -> str:
    return f"{name.replace('_', ' '):<{_WIDTH}} {shown}"


def _said(name: str, value: Any) -> str:
    curves = value if name == "history" and isinstance(value, Mapping) else {}
    return _last(curves) if curves and all(isinstance(each, list) for each in curves.values()) else _plain(value)


def _last(curves: Mapping[str, list[Any]]) -> str:
    """How training curves ended."""
    last = ", ".join(f"{figure} {_inner(values[-1])}" for figure, values in curves.items() if values)
    return f"{max(map(len, curves.values()), default=0)} epochs; last: {last}"


def _shown(name: str, value: Any) -> str:
    if name == "bytes":
        return f"{value:,}"
    if name == "code":
        where = f", {', '.join(value['where'])}" if value["where"] else ""
        return f"{value['holds']}{where}"
    if name == "history":
        return _last(value)
    if name == "arguments":
        return _plain({key: inner for key, inner in value.items() if key not in _LEFT_OUT})
    if name == "trials":
        return "; ".join(_trial(each) for each in value)
    if name == "files":
        return "; ".join(f"{each['name']} ({each['bytes']:,} bytes)" for each in value)
    if name in ("inputs", "outputs"):
        return "; ".join(f"{each['name']} {_shape(each['shape'])} {each['dtype']}" for each in value)
    return _plain(value)


def _trial(trial: Mapping[str, Any]) -> str:
    came_to = "diverged" if trial["accuracy"] is None else f"{trial['accuracy']:.4g} of {trial['n']}"
    return f"{came_to}: {_plain(trial['trial'])}"


def _shape(shape: list[int | None]) -> str:
    return " x ".join("any" if side is None else str(side) for side in shape)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float)):
        return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"
    if isinstance(value, Mapping):
        text = ", ".join(f"{key} {_inner(inner)}" for key, inner in value.items() if not _is_empty(inner))
    elif isinstance(value, (list, tuple)):
        text = ", ".join(map(_inner, value))
    else:
        text = str(value)
    text = printable(text)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _inner(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
