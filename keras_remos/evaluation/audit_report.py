"""`AuditReport`: what an audit found, to print, to keep and to hand over."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import Any

from keras_remos.defects import DEFECTS, AttackSet, Prepared
from keras_remos.evaluation.attackers import ADAPTIVE
from keras_remos.evaluation.audit_folder import ATTACKS, FIGURES, STUDENTS, file_name, open_folder
from keras_remos.evaluation.exhibits import exhibits
from keras_remos.evaluation.inheritance import InheritanceReport
from keras_remos.evaluation.inherited import Verdict
from keras_remos.evaluation.weight_change import WeightChange
from keras_remos.models.tokenizers import reads_text
from keras_remos.report import envelope, write_report
from keras_remos.report.envelope import through_json
from keras_remos.report.shapes import KeptLayer, Record
from keras_remos.saving import versions
from keras_remos.training.student_file import save_student
from keras_remos.training.trained import Trained
from keras_remos.untrusted import PathLike, check, printable
from keras_remos.writing import replacing

# Of all attacks together: more make a page that nobody scrolls to the end of.
EXHIBITS, OF_EACH = 24, 4


@dataclass(frozen=True, repr=False)
class AuditReport:
    """What an audit found.

    Args:
        inheritance: The figures: see `InheritanceReport`.
        attacks: The attack sets that they were measured on, by name. Save them to try them on later students.
        trained: The control and the floors, where they were trained in the run.
        seed: Of everything that was drawn.
        left_out: Attacks that fit the teacher and were not tried, with the reason.
        records: How each student was made, as far as that is known: plain values for JSON.
        changes: How far each student's weights are from the teacher's: see `weight_change`.
        prepared: The teacher, and how its inputs come from pixels.
        class_names: Of the test set.
        whole: What the audit is of: the teacher, the test set and the seed, as digests.
    """

    inheritance: InheritanceReport
    attacks: Mapping[str, AttackSet]
    trained: Mapping[str, Trained]
    seed: int
    left_out: Mapping[str, str]
    records: Mapping[str, Mapping[str, Any]]
    changes: Mapping[str, WeightChange]
    prepared: Prepared
    class_names: Sequence[str]
    whole: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"<AuditReport: {', '.join(self.attacks) or 'no attack'} on {', '.join(self.inheritance.accuracies)}>"

    def _repr_html_(self) -> str:
        notes = [f"{name}: {_made(trained)}, in this run." for name, trained in self.trained.items()]
        notes += [f"Not tried: {name}. {reason}" for name, reason in self.left_out.items()]
        return self.inheritance._repr_html_() + "".join(f"<p>{escape(note)}</p>" for note in notes)

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """What the figures come to, and where they say nothing, in sentences."""
        return self.inheritance.verdicts

    def with_verdicts(self, verdicts: Sequence[Verdict]) -> AuditReport:
        """The same report with more sentences: of limits, of how students were trained."""
        return replace(self, inheritance=replace(self.inheritance, verdicts=(*self.verdicts, *verdicts)))

    def describe(self, *, pictures: bool = False) -> dict[str, Any]:
        """The same as plain values for JSON.

        Args:
            pictures: Also some inputs of each attack, to look at: images as PNGs in data URIs.
        """
        found = self.inheritance.describe()
        for name, student in found["students"].items():
            record = {key: value for key, value in self.records.get(name, {}).items() if key != "teacher"}
            change = self.changes.get(name)
            # They come from students' files, and those from anywhere.
            kept = record.pop("kept", None)
            student["kept"] = kept if _fits(kept, list[KeptLayer] | None) else None
            student["record"] = record if _fits(record, Record) else {}
            student["change"] = None if change is None else change.describe()
        counts = [row.sum(axis=1) for row in self.inheritance.confusions.values()]
        return {
            **found,
            "class_names": list(self.class_names),
            "test": {
                "n": int(counts[0].sum()) if counts else 0,
                "per_class": counts[0].tolist() if counts else [],
                "kind": "texts" if reads_text(self.prepared.teacher) else "images",
            },
            "attacks": {name: self._attack(name, attack, pictures) for name, attack in self.attacks.items()},
            "trained": {name: dict(trained.options) for name, trained in self.trained.items()},
            "left_out": dict(self.left_out),
            "seed": self.seed,
            "versions": versions(),
        }

    def _attack(self, name: str, attack: AttackSet, pictures: bool) -> dict[str, Any]:
        described = {**attack.describe(), "knows": _knows(attack)}
        if not pictures:
            return described
        # One that was made for one student is in the table under one name for all of them.
        of_one = attack.record.get("made_like")
        title = ADAPTIVE if of_one is not None else name
        rows = [row for row in self.inheritance.inherited if row.defect == title and of_one in (None, row.student)]
        count = min(OF_EACH, max(1, EXHIBITS // len(self.attacks)))
        first = of_one or self.inheritance.control or next(iter(self.inheritance.accuracies))
        return {**described, "examples": exhibits(attack, rows, first=first, count=count, seed=self.seed)}

    def summary(self) -> str:
        """The same as two tables of at most 100 columns, and how to read them."""
        lines = [f"{name}: {_made(trained)}, in this run." for name, trained in self.trained.items()]
        lines += [f"Not tried: {name}. {reason}" for name, reason in self.left_out.items()]
        return "\n".join([self.inheritance.summary(), *map(printable, lines)])

    def save(
        self,
        path: PathLike,
        *,
        command_line: str | None = None,
        seconds: float | None = None,
        inputs: Mapping[str, Any] | None = None,
    ) -> dict[str, Path]:
        """Puts all that there is to look at, and to try again, into a folder.

        `report.html` is one page that can be handed over, `report.json` the same for programs. Beside them lie the
        attack sets, the students that were trained in the run, and the figures as PNG and SVG.

        Args:
            path: The folder: a new or empty one, or that of this audit (`audit(folder=...)`). What is there of an
                earlier report is replaced.
            command_line: What a user typed, so that it can be made again.
            seconds: How long the audit took.
            inputs: What it was given: see `keras_remos.report.envelope`.

        Returns:
            The files that were written, by what they are.

        Raises:
            FileError: If the folder holds other files, or a file cannot be written.
            ImportError: If an extra that the page takes is not installed: the rest is written by then.

        Example:
        ```python
        report = kr.audit(teacher, {"mine": student}, test, train=train)
        report.save("audit")
        ```
        """
        folder = open_folder(path, self.whole)
        for name, attack in self.attacks.items():
            file = folder / ATTACKS / f"{file_name(name)}.npz"
            if not attack.is_kept_at(file):
                attack.save(file, overwrite=True)
        for name, trained in self.trained.items():
            save_student(
                trained,
                folder / STUDENTS / f"{file_name(name)}.keras",
                class_names=self.class_names,
                space=self.prepared.space,
                teacher=self.prepared.teacher,
                overwrite=True,
            )
        about: dict[str, Any] = {"seconds": seconds, "inputs": inputs, "command_line": command_line}
        files = {"page": folder / "report.html", "json": folder / "report.json", "figures": folder / FIGURES}
        whole = envelope("audit", self.describe(pictures=True), seed=self.seed, outputs=files, **about)
        with replacing(files["json"], overwrite=True) as temporary:
            temporary.write_text(json.dumps(whole, indent=1), encoding="utf-8")
        write_report(whole, files["page"], overwrite=True)
        for kind in ("png", "svg"):
            write_report(whole, files["figures"], format=kind, overwrite=True)
        return files


def _fits(value: Any, expected: Any) -> bool:
    """Whether a value is one that a report takes."""
    try:
        check(through_json(value), expected, "value")
    except (ValueError, TypeError):
        return False
    return True


def _knows(attack: AttackSet) -> str:
    """What whoever makes an attack has to know, as the report orders attackers."""
    if attack.defect == ADAPTIVE:
        return "the method"
    kind = DEFECTS.get(attack.defect)
    if kind is not None and kind.plants:
        return "planted it"
    return "the teacher and data of the task" if kind is not None and kind.of_task else "the teacher only"


def _made(trained: Trained) -> str:
    recipe = trained.options["recipe"]
    return f"{trained.method}, {recipe['epochs']} epochs, learning rate {recipe['learning_rate']:g}"
