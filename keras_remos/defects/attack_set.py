"""`AttackSet`: malicious inputs for one test set, made once, tried on every student."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import keras
import numpy as np

from keras_remos.data.labels import number
from keras_remos.data.pixels import PixelSpace
from keras_remos.data.samples import AsLevels, Levels, Pixels, Samples, as_samples
from keras_remos.data.texts import holds_text
from keras_remos.defects.words import mean_changed_share
from keras_remos.errors import DataError
from keras_remos.models.fingerprint import WeightsFingerprint, check_fingerprint
from keras_remos.saving import Archived, write_archive
from keras_remos.untrusted import Count, Marks, PathLike, Rows, Seed, Space, complete, pieces, read_archive_in_parts


class _Record(TypedDict, total=False):
    """What makes an attack takes and reaches; each kind says more."""

    unchanged: Count
    clean_teacher: Marks


class _Header(TypedDict):
    class_names: list[str]
    target: Count | None
    defect: str
    options: dict[str, Any]
    space: Space
    teacher: Marks
    seed: Seed
    versions: dict[str, str]
    command: str | None
    record: _Record


@dataclass(frozen=True, eq=False, repr=False)
class AttackSet(Archived):
    """Malicious inputs for one test set.

    Images are kept as those of 8 bits that an attacker delivers as a file, where that is what they are; large sets stay
    on the disk, and what is asked for is read.

    Args:
        clean: The test set's samples: pixels of shape `(n, ...)`, as an array or `Samples`, which they become; or texts
            as strings of shape `(n,)`, pairs of texts `(n, 2)`.
        inputs: The malicious version of each, the same shape.
        labels: True classes, shape `(n,)`, int32.
        class_names: Of the test set; may be empty.
        target: The class that the attacker wants, or `None` for any wrong one.
        defect: The attack's name, a key of `DEFECTS`.
        options: The attack's options.
        space: The pixels' range, and the scaling of the teacher; for texts `PixelSpace("preprocessor")`.
        teacher: The fingerprint of the teacher that the attack was made with.
        seed: Of everything that was drawn.
        versions: Of the libraries that made it.
        command: The command line that made it, if one did.
        record: What making it took and reached, if the attack counts that; JSON values.
        partial: The file of partial results that it was made with, which `save` removes once all of it is on the disk.

    Raises:
        DataError: If the arrays do not fit each other, or hold values outside the pixel range.
    """

    kind: ClassVar[str] = "attack"
    header: ClassVar[type[Any]] = _Header

    clean: Any
    inputs: Any
    labels: np.ndarray
    class_names: tuple[str, ...]
    target: int | None
    defect: str
    options: Mapping[str, Any]
    space: PixelSpace
    teacher: WeightsFingerprint
    seed: int
    versions: Mapping[str, str]
    command: str | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    partial: PathLike | None = None
    _file: tuple[int, ...] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        # A frozen class lets its own constructor write only in this way.
        for name in ("clean", "inputs"):
            object.__setattr__(self, name, as_samples(getattr(self, name), self.space))
        object.__setattr__(self, "labels", np.asarray(self.labels).astype(np.int32, copy=False))
        if self.clean.shape != self.inputs.shape or self.labels.shape != self.clean.shape[:1]:
            raise DataError(
                "An attack set needs one malicious input and one label for each clean one, received shapes "
                f"{self.clean.shape}, {self.inputs.shape} and {self.labels.shape}."
            )
        for samples in (self.clean, self.inputs):
            if self.holds_text:
                _check_texts(samples)
            else:
                self.space.check(samples)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def holds_text(self) -> bool:
        """Whether the samples are texts, not pixels."""
        return holds_text(self.clean)

    @property
    def bits(self) -> int | None:
        """Of a pixel's value: 8 where all images, clean and malicious, are as image files hold them, else 32.

        `None` for texts.
        """
        if self.holds_text:
            return None
        return 8 if self.clean.are_levels and self.inputs.are_levels else 32

    def check_teacher(self, model: keras.Model) -> None:
        """Makes sure that the attack was made with this teacher.

        Raises:
            MismatchError: If the weights differ; names the first layer that does.
        """
        check_fingerprint(self.teacher, model, "attack set")

    def numbered(self, class_names: Sequence[str]) -> AttackSet:
        """The same set with its classes numbered as a student numbers them.

        Args:
            class_names: The classes that the student tells apart, in its order; the set is left as it is where they, or
                its own, have no names.

        Raises:
            DataError: If the set has a class that the student does not know.
        """
        if not class_names or not self.class_names or tuple(class_names) == self.class_names:
            return self
        labels, names = number(self.labels, list(self.class_names), list(class_names), f"the {self.defect} set")
        target = None if self.target is None else self.class_names[self.target]
        return replace(
            self,
            labels=labels,
            class_names=tuple(names),
            target=names.index(target) if target in names else None,
        )

    def __repr__(self) -> str:
        what = "texts" if self.holds_text else "images"
        return f"<AttackSet {self.defect}: {len(self):,} {what}, target {self.target}, seed {self.seed}>"

    def describe(self) -> dict[str, Any]:
        """What it is and how it was made, as plain values for JSON."""
        return {
            "defect": self.defect,
            "num_samples": len(self),
            "shape": list(self.clean.shape[1:]),
            "bits": self.bits,
            "class_names": list(self.class_names),
            "target": self.target,
            "options": dict(self.options),
            "space": self.space.get_config(),
            **self._change,
            "seed": self.seed,
            "versions": dict(self.versions),
            "command": self.command,
            "record": dict(self.record),
        }

    @cached_property
    def _change(self) -> dict[str, float]:
        """How far the malicious inputs are from the clean ones."""
        if self.holds_text:
            clean, inputs = ([" ".join(row) for row in x.reshape(len(self), -1)] for x in (self.clean, self.inputs))
            return {"mean_changed_words": mean_changed_share(clean, inputs)}
        change = 0.0
        for piece in pieces(self.inputs):
            if self.bits == 8:
                levels = self.inputs.levels(piece).astype(np.int16) - self.clean.levels(piece)
                change = max(change, float(np.abs(levels).max()))
            else:
                pixels = np.abs(self.inputs[piece] - self.clean[piece])
                change = max(change, float(pixels.max()) / self.space.epsilon(1.0))
        # In levels of 255.
        return {"largest_change": change}

    def save(self, path: PathLike, *, overwrite: bool = False) -> None:
        in_its_place = self.partial is not None and Path(self.partial).resolve() == Path(path).resolve()
        header, arrays = self.to_archive()
        # What is compressed could not be read in parts; texts are read whole, and shrink.
        overwrite = overwrite or in_its_place
        write_archive(path, self.kind, header, arrays, overwrite=overwrite, compress=self.holds_text)
        self._found_at(path)
        if self.partial is not None:
            self._read_from(path)
            if not in_its_place:
                Path(self.partial).unlink(missing_ok=True)

    def is_kept_at(self, path: PathLike) -> bool:
        """Whether this very set was written to a file, or read from it, and is still there."""
        return self._file is not None and self._file == _identity(path)

    def _found_at(self, path: PathLike) -> None:
        object.__setattr__(self, "_file", _identity(path))

    def _read_from(self, path: PathLike) -> None:
        """Lets the file of partial results go, which the inputs have been read from."""
        rows = getattr(self.inputs, "rows", None)
        if isinstance(rows, Rows):
            found = read_archive_in_parts(path, self.kind, self.header, ("inputs",), only=True)[1]["inputs"]
            # Pixels that all happened to be levels are written as such.
            self.inputs.rows = found if found.dtype == rows.dtype else Levels(found, self.space)
            rows.close()

    def to_archive(self) -> tuple[dict[str, Any], dict[str, Any]]:
        plain = ("class_names", "target", "defect", "options", "teacher", "seed", "versions", "command", "record")
        header = {"space": self.space.get_config(), **{name: getattr(self, name) for name in plain}}
        kept = {
            name: AsLevels(samples) if isinstance(samples, Samples) and samples.are_levels else samples
            for name, samples in (("clean", self.clean), ("inputs", self.inputs))
        }
        return header, {**kept, "labels": self.labels}

    @classmethod
    def load(cls, path: PathLike) -> AttackSet:
        header, arrays = read_archive_in_parts(path, cls.kind, cls.header, ("clean", "inputs"))
        with complete(path):
            found = cls.from_archive(header, arrays)
        found._found_at(path)
        return found

    @classmethod
    def from_archive(cls, header: Mapping[str, Any], arrays: Mapping[str, Any]) -> AttackSet:
        labels = arrays["labels"]
        most = len(header["class_names"]) or 2**31
        targets = np.array([] if header["target"] is None else [header["target"]], np.int64)
        if any(ids.dtype.kind not in "iu" or ((ids < 0) | (ids >= most)).any() for ids in (labels, targets)):
            raise ValueError("a class in it has no name")
        space = PixelSpace(**header["space"])
        # In format 1 whole numbers up to 255 were of the pixels' own range.
        kind = Pixels if header["format"] == 1 else Levels
        clean, inputs = (
            kind(each, space) if each.dtype == np.uint8 else as_samples(each, space)
            for each in (arrays["clean"], arrays["inputs"])
        )
        return cls(
            clean=clean,
            inputs=inputs,
            labels=labels.astype(np.int32),
            class_names=tuple(header["class_names"]),
            space=space,
            teacher=tuple((layer, digest) for layer, digest in header["teacher"]),
            **{name: header[name] for name in ("target", "defect", "options", "seed", "versions", "command", "record")},
        )


def _identity(path: PathLike) -> tuple[int, ...] | None:
    """What tells a file from another, and from what it was before."""
    with contextlib.suppress(OSError):
        found = Path(path).stat()
        return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns
    return None


def _check_texts(texts: np.ndarray) -> None:
    if texts.dtype.kind != "U" or not texts.size or texts.shape[1:] not in ((), (2,)):
        raise DataError(
            f"Expected texts as strings of shape (n,), or (n, 2) for pairs, received shape {texts.shape} of "
            f"{texts.dtype}."
        )
