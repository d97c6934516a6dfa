"""Where a result comes from: files and their digests, versions, and how to make it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_remos.report.document import Block, Command, Facts, Group, Paragraph, Section
from keras_remos.report.results import Result
from keras_remos.report.wording import plain, seconds


def origin(result: Result) -> Section | None:
    """Everything that one needs to check a result, or to make it again."""
    blocks: list[Block] = []
    files = _files(result.inputs)
    if files:
        blocks.append(Group("What it is about", [Facts(files, exact=True)]))
    settings = list((result.around.get("versions") or {}).items())
    if result.around.get("seed") is not None:
        settings.append(("seed", plain(result.around["seed"])))
    if result.around.get("seconds") is not None:
        settings.append(("took", seconds(result.around["seconds"])))
    if settings:
        blocks.append(Group("What made it", [Facts(settings, exact=True)]))
    command = result.around.get("command_line")
    if command:
        said = "The same files, versions and seed give the same figures, up to what a device rounds."
        blocks.append(Group("To make it again", [Command(command), Paragraph(said)]))
    return Section("Where it comes from", blocks) if blocks else None


def _files(inputs: Mapping[str, Any]) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    if inputs.get("teacher"):
        pairs += _named("teacher", inputs["teacher"])
    for student in inputs.get("students") or ():
        pairs += _named(f"student {student.get('name') or ''}".strip(), student)
    data = inputs.get("data") or {}
    of_data = [
        ("data", data.get("path")),
        ("part of the data", data.get("split")),
        ("data, content", data.get("fingerprint")),
    ]
    pairs += [(name, str(value)) for name, value in of_data if value]
    if data.get("n") is not None:
        pairs.append(("data, inputs", f"{data['n']:,}"))
    for attack in inputs.get("attacks") or ():
        pairs += (
            [("attack", attack)]
            if isinstance(attack, str)
            else _named(f"attack {attack.get('name') or ''}".strip(), attack)
        )
    return pairs


def _named(role: str, named: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = [(role, named.get("path") or named.get("name")), (f"{role}, SHA-256", named.get("sha256"))]
    return [(name, str(value)) for name, value in found if value]
