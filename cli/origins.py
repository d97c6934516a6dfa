"""What files are called in a table, and whether they belong together: one teacher, and a control trained alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_remos_cli.running import note

if TYPE_CHECKING:
    from keras_remos.defects import AttackSet

allow_other_teacher = click.option(
    "--allow-other-teacher", is_flag=True, help="Measure students and attacks of different teachers, to study transfer."
)


def names_of(paths: Iterable[Path]) -> dict[Path, str]:
    """A name for each file: as much of the end of its path as tells it from the others, without the suffix."""
    whole = {path: path.resolve() for path in paths}
    parts = {path: real.with_suffix("").parts for path, real in whole.items()}
    if len(set(parts.values())) < len(parts):
        parts = {path: real.parts for path, real in whole.items()}
    names: dict[Path, str] = {}
    for path, own in parts.items():
        others = [theirs for other, theirs in parts.items() if other != path and whole[other] != whole[path]]
        length = next((n for n in range(1, len(own)) if all(own[-n:] != theirs[-n:] for theirs in others)), len(own))
        names[path] = "/".join(own[-length:])
    return names


class Origins:
    """Collects which teacher each file says it comes from, and refuses what does not belong together.

    Args:
        expected: What students and attacks must come from, as `(file, fingerprint)`; `None` takes the first file's.
        allow_other: Only say what differs.
    """

    def __init__(self, expected: tuple[str | Path, Any] | None = None, *, allow_other: bool = False) -> None:
        self._first = None if expected is None else (expected[0], _plain(expected[1]))
        self._allow_other = allow_other
        self._clean: list[Any] = []

    def attack(self, path: Path, attack: AttackSet) -> None:
        """Takes an attack set in."""
        if attack.record.get("clean_teacher"):
            self._clean.append(_plain(attack.record["clean_teacher"]))
        self._compare(path, attack.teacher, "attack")

    def poisoned(self, record: Mapping[str, Any]) -> None:
        """Takes in what the file of a poisoned teacher says of the teacher before."""
        if record.get("source"):
            self._clean.append(_plain(record["source"]))

    def student(self, path: Path, record: Mapping[str, Any]) -> None:
        """Takes a student in, by the record in its file."""
        if not record.get("teacher"):
            note(f"{path}: teacher unknown, the file does not say.")
        elif _plain(record["teacher"]) in self._clean:
            note(f"{path}: a student of the clean teacher, from before it was poisoned: a floor.")
        else:
            self._compare(path, record["teacher"], "student")

    def _compare(self, path: Path, teacher: Any, what: str) -> None:
        if self._first is None:
            self._first = path, _plain(teacher)
        elif _plain(teacher) != self._first[1]:
            said = f"{path} is a{'n' if what == 'attack' else ''} {what} of another teacher than {self._first[0]}"
            if not self._allow_other:
                raise click.ClickException(f"{said}. --allow-other-teacher measures it all the same.")
            note(f"{said}.")


def check_control(path: Path, record: Mapping[str, Any]) -> None:
    """Makes sure that what is named as the control was fine-tuned.

    Raises:
        ClickException: If its file says that it was made in another way.
    """
    method = record.get("method", "`keras-remos slice` and not trained" if "slice" in record else "finetune")
    if method != "finetune":
        raise click.ClickException(
            f"{path} is no control: it was made by {method}, and ratios are to a fine-tuned student (keras-remos "
            "transfer --method finetune)."
        )


def _plain(fingerprint: Any) -> list[list[str]]:
    return [list(mark) for mark in fingerprint]
