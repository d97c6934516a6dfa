"""Opens the teacher and the data that commands are given."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from keras_remos_cli.numbers import whole_number
from keras_remos_cli.running import note

if TYPE_CHECKING:
    import keras

    from keras_remos import Student
    from keras_remos.data import Dataset, MatchedDataset
    from keras_remos.defects import Prepared, SynonymSource


@dataclass(frozen=True)
class Opening:
    """How the user wants models opened."""

    allow_unsafe_deserialization: bool
    sequence_length: int

    def open(self, path: str | Path) -> keras.Model:
        """The model; cuts texts to `sequence_length` tokens if it reads texts."""
        from keras_remos import load_teacher

        return self._cut(load_teacher(path, allow_unsafe_deserialization=self.allow_unsafe_deserialization))

    def prepared(self, path: str | Path) -> Prepared:
        """A teacher as an attacker left it, with the trigger; texts are cut as in `open`."""
        from keras_remos.defects import Prepared

        found = Prepared.load(path)
        self._cut(found.teacher)
        return found

    def _cut(self, model: keras.Model) -> keras.Model:
        preprocessor: Any = getattr(model, "preprocessor", None)
        longest = getattr(preprocessor, "sequence_length", None)
        if longest is not None:
            preprocessor.sequence_length = min(self.sequence_length, longest)
        return model


@dataclass(frozen=True)
class DataChoice:
    """A data set on disk, and how the user wants it read."""

    data_path: Path | None
    split: str | None
    scaling: str | None
    image_size: tuple[int, int] | None
    pixel_range: tuple[float, float] | None
    text_column: str | None
    pair_column: str | None
    label_column: str | None
    path_column: str | None
    batch_size: int | None
    class_names_path: Path | None
    strict: bool
    workers: int | None
    cache: str | None
    decoding: str | None

    def described(self, num_samples: int, fingerprint: str | None = None) -> dict[str, Any]:
        """What a result says of the data that it is of."""
        return {
            "path": self.data_path,
            "split": self.split,
            "n": num_samples,
            **({} if fingerprint is None else {"fingerprint": fingerprint}),
        }

    @property
    def required_path(self) -> Path:
        """Where the data are."""
        if self.data_path is None:
            raise click.UsageError("Missing option '--data'.")
        return self.data_path

    @property
    def at_a_time(self) -> int:
        """How many samples a model gets at once where nothing is trained."""
        return self.batch_size or 32

    def open(self, model: keras.Model, class_names: Sequence[str] | None = None) -> MatchedDataset:
        """The data set in the form that the model takes; says what was read and how inputs are scaled.

        Its classes are numbered as in `class_names`, if these are given.
        """
        return self.open_other(model, self.required_path, class_names)

    def open_trained(
        self, model: keras.Model, path: str | Path, class_names: Sequence[str] | None = None
    ) -> MatchedDataset:
        """The data set for a model of ours, whose file says how its inputs are scaled; the user's word comes first."""
        from keras_remos.untrusted import read_record

        recorded = read_record(path).get("space", {}).get("scaling")
        return replace(self, scaling=self.scaling or (None if recorded == "preprocessor" else recorded)).open(
            model, class_names
        )

    def open_other(self, model: keras.Model, path: Path, class_names: Sequence[str] | None = None) -> MatchedDataset:
        """Another data set, read in the same way."""
        from keras_remos.data import open_for_model

        chosen = ("data_path", "class_names_path")
        how = {name: value for name, value in vars(self).items() if name not in chosen and value is not None}
        matched = open_for_model(model, path, class_names=class_names_in(self.class_names_path) or class_names, **how)
        note(f"Data: {matched.dataset.description}.")
        names = matched.dataset.class_names
        if matched.dataset.unread:
            note("Its labels are of another task than telling one of several classes: they are left out.")
        if names:
            more = f", ... ({len(names)})" if len(names) > 6 else ""
            note(f"Classes are numbered {matched.dataset.numbering}.")
            note(f"Classes: {', '.join(f'{number} {name}' for number, name in enumerate(names[:6]))}{more}.")
        note(f"Input scaling: {matched.scaling}. {matched.reason}")
        return matched


def class_names_in(path: Path | None) -> list[str] | None:
    """The classes as the user's file lists them; `None` if there is none."""
    if path is None:
        return None
    from keras_remos.untrusted import check_regular

    try:
        lines = check_regular(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise click.ClickException(f"--class-names {path} cannot be read: {error}.") from error
    names = [line.strip() for line in lines if line.strip()]
    if not names or len(set(names)) < len(names):
        raise click.ClickException(f"--class-names {path} must hold each class once, one a line.")
    return names


@dataclass(frozen=True)
class StudentChoice:
    """A student to be used, and what the user says of it where its file does not."""

    student_path: Path
    scaling: str | None
    image_size: tuple[int, int] | None
    pixel_range: tuple[float, float] | None
    class_names_path: Path | None
    allow_unsafe_deserialization: bool

    def open(self) -> Student:
        """The student; says so if its classes have no names."""
        from keras_remos import load_student

        student = load_student(
            self.student_path,
            class_names=class_names_in(self.class_names_path),
            scaling=self.scaling,
            pixel_range=self.pixel_range,
            image_size=self.image_size,
            allow_unsafe_deserialization=self.allow_unsafe_deserialization,
        )
        if not student.class_names:
            note(f"{self.student_path} does not say what its classes are called: they are numbered. See --class-names.")
        return student


@dataclass(frozen=True)
class ValidationChoice:
    """Data that nothing is trained on, as the user names them."""

    validation_data: Path | None
    validation_split: str | None

    def __post_init__(self) -> None:
        if self.validation_split is not None and self.validation_data is None:
            raise click.UsageError("--validation-split is a part of --validation-data: name that too.")

    def open(self, model: keras.Model, data: DataChoice, class_names: Sequence[str]) -> Dataset | None:
        """The data as the model takes them, their classes numbered as the training data's; `None` if none are named."""
        matched = self._open(model, data, class_names)
        return None if matched is None else matched.dataset

    def open_pixels(self, model: keras.Model, data: DataChoice, class_names: Sequence[str]) -> Dataset | None:
        """The same in pixels, or texts."""
        matched = self._open(model, data, class_names)
        return None if matched is None else matched.pixels

    def _open(self, model: keras.Model, data: DataChoice, class_names: Sequence[str]) -> MatchedDataset | None:
        if self.validation_data is None:
            return None
        is_same = data.data_path is not None and self.validation_data.resolve() == data.data_path.resolve()
        if is_same and self.validation_split in (None, data.split):
            raise click.UsageError("--validation-data is the training data: name another part by --validation-split.")
        other = replace(data, split=self.validation_split)
        return other.open_other(model, self.validation_data, class_names)


@dataclass(frozen=True)
class SynonymChoice:
    """Where the user takes the words from that word swaps put in place of others."""

    synonyms_path: str | None
    antonyms_paths: tuple[Path, ...]

    def open(self) -> SynonymSource | None:
        """The source; `None` if none was named: the attack then looks for WordNet."""
        from keras_remos.defects import open_synonyms

        if self.synonyms_path is None and not self.antonyms_paths:
            return None
        return open_synonyms(self.synonyms_path, antonyms=self.antonyms_paths)


def classes_of(records: Mapping[Path, Mapping[str, Any]]) -> list[str] | None:
    """The names of the classes that students were trained on, as the records in their files say; `None` if none does.

    Raises:
        ClickException: If two of them disagree.
    """
    found: dict[Path, list[str]] = {}
    for path, record in records.items():
        if record.get("class_names") and "defect" not in record:
            found[path] = record["class_names"]
    for path, names in found.items():
        first, expected = next(iter(found.items()))
        if names != expected:
            raise click.ClickException(
                f"{first} and {path} were trained on different classes: {', '.join(expected)}; {', '.join(names)}. "
                "Measure them one by one."
            )
    return next(iter(found.values()), None)


def class_number(given: str | None, class_names: Sequence[str]) -> int | None:
    """The number of a class that the user named, or numbered.

    Args:
        given: Its name, or its number from 0; a name comes first.
        class_names: In the order in which the model numbers them.

    Raises:
        UsageError: If it is neither.
    """
    if given is None:
        return None
    if given in class_names:
        number = list(class_names).index(given)
        if whole_number(given) not in (None, number):
            note(f"Class {given} is number {number}: names come before numbers.")
        return number
    counted = whole_number(given)
    if counted is not None:
        return counted
    close = difflib.get_close_matches(given, class_names)
    known = ", ".join(f"{number} {name}" for number, name in list(enumerate(class_names))[:10])
    more = f", ... ({len(class_names)})" if len(class_names) > 10 else ""
    meant = f" Close to it: {', '.join(close)}." if close else ""
    raise click.UsageError(f"There is no class {given[:60]!r} among {known}{more}.{meant}")


def reserve_outputs(*files: tuple[str, Path | None, str], force: bool) -> None:
    """Keeps the files that a command is to write for it alone, until it ends. Before any work is done.

    Args:
        files: For each the option that names it, its path (`None` if it is not asked for), and its ending.
        force: Whether existing ones may be replaced.

    Raises:
        UsageError: If one has not the ending that tells what it holds.
        FileError: If one may not be written, is named twice, or is being written by another run.
    """
    from keras_remos.writing import reserved

    wanted = [(flag, path, ending) for flag, path, ending in files if path is not None]
    for flag, path, ending in wanted:
        if path.suffix != ending:
            raise click.UsageError(f"{flag} names a {ending} file: it must end in {ending}, received {path}.")
    for _, path, _ in wanted:
        click.get_current_context().with_resource(reserved(path, overwrite=force))


def beside(teacher: str, ending: str) -> Path:
    """The default name of what is made from a teacher.

    It is beside its file, with another ending; in this folder, for a published model: after the last part of its name
    that is more than the number of a version.
    """
    path = Path(teacher)
    if path.exists():
        path = path if path.name else path.resolve()  # this folder
        return path.with_name(f"{path.stem}{ending}") if path.name else Path(f"teacher{ending}")
    parts = [part for part in teacher.split("/") if part and not part.isdigit()]
    return Path(f"{parts[-1] if parts else 'teacher'}{ending}")


def report_skipped(matched: MatchedDataset) -> None:
    """Names the files that could not be read."""
    skipped = matched.dataset.skipped
    if skipped:
        note(f"Left out {len(skipped)} file(s) of the data set; --strict refuses them:")
        for path, reason in skipped[:10]:
            note(f"  {path}: {reason}")
        if len(skipped) > 10:
            note(f"  and {len(skipped) - 10} more")
