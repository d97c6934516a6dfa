"""The folder of an audit: what is finished is kept there, and an interrupted audit goes on from it."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from keras_remos.defects.attack_set import AttackSet
from keras_remos.defects.resuming import partial_beside
from keras_remos.errors import FileError, MismatchError
from keras_remos.report.folder import MARK, check_audit_folder
from keras_remos.training.trained import Trained
from keras_remos.untrusted import PathLike
from keras_remos.writing import replacing, reserved

ATTACKS, CHECKPOINTS, STUDENTS, FIGURES = "attacks", "checkpoints", "students", "figures"
# Of a file's name, before what tells it apart and its ending.
LONGEST = 80
# What an attack set was made of, in its record.
MADE_OF = "made_of"


class AuditFolder:
    """A folder in which an audit keeps attack sets and unfinished trainings.

    Args:
        path: The folder; it is made if it is not there. `None` keeps nothing.
        whole: What the audit is of, as plain values for JSON: its teacher, test set and seed. Students may join later.

    Raises:
        FileError: If the folder holds other files.
        MismatchError: If it is of another audit; says in what that differs.
    """

    def __init__(self, path: PathLike | None, whole: Mapping[str, Any]) -> None:
        self.path = None if path is None else open_folder(path, whole)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keeps the folder from other audits until the block ends."""
        with contextlib.ExitStack() as stack:
            if self.path is not None:
                stack.enter_context(reserved(self.path / MARK, overwrite=True))
            yield

    def training(self, name: str, train: Callable[..., Trained]) -> Trained:
        """Trains a student, or goes on with its training, or takes it as it is if that has ended.

        Args:
            name: What the student is called.
            train: Trains it; it is given `checkpoint`, a folder.
        """
        if self.path is None:
            return train()
        checkpoint = self.path / CHECKPOINTS / file_name(name)
        try:
            return train(checkpoint=checkpoint)
        except MismatchError:
            # It is of what this audit asked for before it was changed: another recipe, other data, a student made anew.
            if not checkpoint.is_dir():
                raise
            shutil.rmtree(checkpoint)
            return train(checkpoint=checkpoint)

    def attack(
        self, title: str, of: Callable[[], Mapping[str, Any]], make: Callable[[Path | None], AttackSet]
    ) -> AttackSet:
        """An attack set: the one that is kept, if it was made of the same, else it is made, and kept.

        Args:
            title: What the attack is called.
            of: Tells everything that decides the result, as plain values for JSON.
            make: Makes it; it is given a file for partial results.
        """
        if self.path is None:
            return make(None)
        digest = hashlib.sha256(json.dumps(dict(of()), sort_keys=True, default=str).encode()).hexdigest()
        file = self.path / ATTACKS / f"{file_name(title)}.npz"
        if file.exists():
            kept = AttackSet.load(file)
            if kept.record.get(MADE_OF) == digest:
                return kept
            del kept  # it holds the file, which Windows lets nobody replace then
        partial = partial_beside(file)
        try:
            made = make(partial)
        except MismatchError:
            # The unfinished part of what this audit asked for before it was changed.
            if not partial.exists():
                raise
            partial.unlink()
            made = make(partial)
        replace(made, record={**made.record, MADE_OF: digest}).save(file, overwrite=True)
        # As the file gives it back: an audit that goes on says the same, in the same order, as one that was not
        # interrupted.
        return AttackSet.load(file)


def open_folder(path: PathLike, whole: Mapping[str, Any]) -> Path:
    """Makes the folder of an audit, or opens it.

    Args:
        path: The folder.
        whole: What the audit is of, as plain values for JSON.

    Raises:
        FileError: If it holds other files, or cannot be written to.
        MismatchError: If it is of another audit; says in what that differs.
    """
    check_audit_folder(path)
    folder = Path(path)
    mark = folder / MARK
    wanted = json.loads(json.dumps({"kind": "audit", **whole}))
    found = read_mark(mark) if mark.exists() else wanted
    differing = [name for name, value in wanted.items() if found.get(name) != value]
    if differing:
        raise MismatchError(
            f"{path} is the folder of another audit (its {', '.join(differing)} differ): choose another folder."
        )
    folder.mkdir(parents=True, exist_ok=True)
    if not mark.exists():
        # First of all: by it the folder is known as an audit's.
        with replacing(mark) as temporary:
            temporary.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
    for name in (ATTACKS, STUDENTS):
        (folder / name).mkdir(exist_ok=True)
    return folder


def read_mark(mark: Path) -> dict[str, Any]:
    """What a folder says of the audit that it is of.

    Raises:
        FileError: If that is damaged.
    """
    try:
        found = json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise FileError(f"{mark} cannot be read: it is damaged, or of another program.") from error
    if not isinstance(found, dict) or found.get("kind") != "audit":
        raise FileError(f"{mark} is of another program: choose another folder.")
    return found


def file_name(title: str) -> str:
    """A name for a file that holds what a title names; titles that differ have names that differ."""
    plain = title.replace(" ", "_")
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*( [A-Za-z0-9.-]+)*", title) and len(title) <= LONGEST:
        return plain
    # What cannot be told by the plain name is by its digest.
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", plain).strip("_-")[:LONGEST]
    return f"{plain}-{hashlib.sha256(title.encode()).hexdigest()[:8]}".lstrip("-")
