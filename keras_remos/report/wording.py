"""How figures are written: in cells with their interval or the reason why there is none, and in sentences."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from keras_remos.report.document import Cell

UNDEFINED = "undefined"


def share(value: float) -> str:
    """A share or ratio."""
    return f"{value:z.3f}"


def between(found: Mapping[str, Any]) -> str:
    """The interval of a rate or an estimate."""
    low, high = found["low"], found["high"]
    if low is None and high is None:
        return ""
    if high is None:
        return f"{share(low)} or more"
    return f"{share(high)} or less" if low is None else f"{share(low)} to {share(high)}"


def cell(found: Mapping[str, Any] | None, why: str) -> Cell:
    """A rate or an estimate.

    Args:
        found: What was measured; `None` where it was not.
        why: The reason, where it is undefined.
    """
    if found is None or found["value"] is None:
        return Cell(UNDEFINED, note=why)
    return Cell(share(found["value"]), found["value"], between(found))


def figure(value: float | None, why: str) -> Cell:
    """A figure without an interval."""
    return Cell(UNDEFINED, note=why) if value is None else Cell(share(value), value)


def count(number: int) -> Cell:
    """How many."""
    return Cell(f"{number:,}", number)


def said(found: Mapping[str, Any] | None, why: str) -> str:
    """A rate or an estimate in a sentence."""
    if found is None or found["value"] is None:
        return f"{UNDEFINED}: {why}"
    interval = between(found)
    return f"{share(found['value'])}{f' ({interval})' if interval else ''}, n = {found['n']:,}"


def plain(value: Any) -> str:
    """A value of a configuration."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None:
        return "none"
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def attacker(knows: str | None) -> str:
    """Who can make an attack."""
    if not knows:
        return ""
    return f"the attacker {knows}" if knows.startswith("planted") else f"the attacker knows {knows}"


def named(label: int, class_names: Any) -> str:
    """A class, by its name if it has one."""
    return str(class_names[label]) if label < len(class_names) else f"class {label}"


def some(names: list[str], most: int = 6) -> str:
    """Names in a sentence, not more than fit."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def seconds(duration: float) -> str:
    """How long something took."""
    return f"{duration:.1f} s" if duration < 120 else f"{duration / 60:.0f} min"
