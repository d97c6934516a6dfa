"""`open_results`: what the commands found, out of the files that they wrote; checked before anything is shown of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from keras_remos.errors import FileError, MismatchError
from keras_remos.report.envelope import through_json
from keras_remos.report.pictures import check_picture, is_picture
from keras_remos.report.shapes import COMMANDS, SCHEMA, SCHEMA_VERSION, SHAPES, Envelope
from keras_remos.untrusted import PathLike, check, check_regular, complete, read_archive
from keras_remos.untrusted.containers import MOST_JSON, parse_json

# What an audit's folder calls its result.
IN_FOLDER = "report.json"
_NO_RESULT = "no result of keras-remos that a report can be made of"
_WAY_OUT = f"Reports are made of what {', '.join(sorted(COMMANDS))} give as JSON, and of slices and profiles (.npz)."
# Results without an envelope are known by what they hold.
_KNOWN_BY = {
    "audit": {"students", "defects", "control"},
    "tradeoff": {"points"},
    "slice": {"kept", "total", "layers"},
    "profile": {"num_samples", "layers"},
    "transfer": {"method", "history", "last"},
    "demo": {"rows", "keep_ratio"},
}


@dataclass(frozen=True)
class Result:
    """What a command found, and what it was given.

    Args:
        kind: A key of `SHAPES`.
        body: What that kind holds.
        name: Where it comes from; empty for one that was never a file.
        around: What else is known: `command_line`, `versions`, `seed`, `seconds`, `inputs`, `outputs`.
    """

    kind: str
    body: Mapping[str, Any]
    name: str = ""
    around: Mapping[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What the command was given, with paths and digests."""
        return self.around.get("inputs") or {}

    @property
    def title(self) -> str:
        """What to call it beside others."""
        return self.name or self.kind

    def test_set(self) -> dict[str, Any]:
        """What tells the inputs that it was measured on from others; only what is known, and empty where none is."""
        if self.kind in ("slice", "profile", "transfer"):
            return {}
        data = self.inputs.get("data") or {}
        sizes: list[int] = []
        if self.kind == "audit":
            sizes = [student["accuracy"]["n"] for student in self.body["students"].values()]
        elif self.kind == "tradeoff":
            sizes = [point["accuracy"]["n"] for point in self.body["points"]]
        else:
            sizes = [row["num_clean"] for row in self.body["rows"]]
        found = {
            "content": data.get("fingerprint"),
            "inputs of each class": self.body.get("test", {}).get("per_class"),
            "number of inputs": sizes[0] if sizes else None,
        }
        return {what: value for what, value in found.items() if value is not None}


class Describes(Protocol):
    """What tells of itself in plain values: an audit's report, a trade-off, a slice, a profile, a trained student."""

    def describe(self) -> Mapping[str, Any]: ...


Source = Result | Mapping[str, Any] | Describes


def open_results(paths: Iterable[PathLike]) -> list[Result]:
    """Reads results.

    Args:
        paths: Of each the `.json` that a command printed, the `.jsonl` of a trade-off, the `.npz` of a slice or
            profile, or the folder of an audit.

    Raises:
        FileError: If one is missing or damaged, or not a result of ours.
        MismatchError: If they were measured on different inputs.
    """
    found = [result for path in paths for result in _read(Path(path))]
    check_same_test_set(found)
    return found


def as_results(results: Source | Sequence[Source]) -> list[Result]:
    """Results that are at hand, as what has `describe()` or as JSON holds them, checked.

    Raises:
        FileError: If one is not a result of ours.
        MismatchError: If they were measured on different inputs.
    """
    given = list(results) if isinstance(results, Sequence) else [results]
    found = []
    for each in given:
        if isinstance(each, Result):
            found.append(each)
        else:
            with complete("The result", _NO_RESULT, _WAY_OUT):
                plain = through_json(each if isinstance(each, Mapping) else each.describe())
            found.append(_result(plain, "The result"))
    if not found:
        raise FileError(f"There is no result to report. {_WAY_OUT}")
    check_same_test_set(found)
    return found


def check_same_test_set(results: Sequence[Result]) -> None:
    """Makes sure that figures which are to stand side by side are of the same inputs.

    Raises:
        MismatchError: If they are not, with the names of two results.
    """
    for kind in SHAPES:
        alike = [result for result in results if result.kind == kind]
        for number, result in enumerate(alike):
            for other in alike[:number]:
                ours, theirs = result.test_set(), other.test_set()
                differ = [what for what in ours if what in theirs and ours[what] != theirs[what]]
                if differ:
                    raise MismatchError(
                        f"{other.title} and {result.title} were measured on different test sets (other "
                        f"{', '.join(differ)}): side by side their figures would mislead. Make a report of each."
                    )


def _read(path: Path) -> list[Result]:
    if path.is_dir():
        inside = path / IN_FOLDER
        if not inside.is_file():
            raise FileError(f"{path} is a folder without a {IN_FOLDER}, expected the folder of an audit. {_WAY_OUT}")
        path = inside
    source = check_regular(path)
    if source.suffix == ".npz":
        return [_of_archive(source)]
    with complete(source, _NO_RESULT, _WAY_OUT):
        if source.stat().st_size > MOST_JSON:
            raise ValueError(f"more than {MOST_JSON:,} bytes")
        raw = source.read_bytes()
    if source.suffix == ".jsonl":
        return _of_lines(raw, str(source))
    with complete(source, _NO_RESULT, _WAY_OUT):
        found = parse_json(raw)
    return [_result(found, str(path))]


def _result(found: Any, name: str) -> Result:
    with complete(name, _NO_RESULT, _WAY_OUT):
        check(found, dict[str, Any], "it")
        kind, body, around = _unwrapped(found, name)
        check(around, Envelope, "it")
        check(body, SHAPES[kind], "result")
        if kind == "audit":
            _check_audit(body)
    return Result(kind, body, "" if name == "The result" else name, around)


def _unwrapped(found: dict[str, Any], name: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Kind, result, and what stands around it."""
    if "schema" in found:
        schema, command = str(found["schema"]), str(found.get("command"))
        version = schema.removeprefix(SCHEMA)
        if version == schema or not version.isdecimal():
            raise ValueError(f"its schema is {schema[:60]!r}, expected {SCHEMA}{SCHEMA_VERSION}")
        if int(version) > SCHEMA_VERSION:
            raise FileError(
                f"{name} has format {version[:9]}; this version reads up to {SCHEMA_VERSION}: update keras-remos."
            )
        if command not in COMMANDS:
            raise FileError(f"{name} is a result of {command[:40]!r}, of which there is nothing to show. {_WAY_OUT}")
        return COMMANDS[command], found.get("result"), found  # type: ignore[return-value]
    for kind, keys in _KNOWN_BY.items():
        if keys <= found.keys():
            known = [key for key in ("versions", "seed", "seconds") if key in found]
            return kind, found, {"command_line": found.get("command"), **{key: found[key] for key in known}}
    raise ValueError("it holds none of the things that a result does")


def _check_audit(body: Mapping[str, Any]) -> None:
    """What types alone do not say."""
    for row in body["defects"]:
        if row["student"] not in body["students"]:
            raise ValueError(f"defects: there is no student {row['student']!r}")
    for matrix in [
        *(s.get("confusion") for s in body["students"].values()),
        *(r.get("confusion") for r in body["defects"]),
    ]:
        if matrix and any(len(line) != len(matrix) for line in matrix):
            raise ValueError("confusion: a matrix that is not square")
    for name, student in body["students"].items():
        change = student.get("change")
        if change and (len(change["edges"]) != len(change["counts"]) + 1 or change["edges"] != sorted(change["edges"])):
            raise ValueError(f"students.{name}.change: its bins are out of order")
    kind = body.get("test", {}).get("kind")
    for title, attack in body.get("attacks", {}).items():
        for number, example in enumerate(attack.get("examples", ())):
            shown = {side: example.get(side) for side in ("clean", "malicious", "difference")}
            if kind == "images" or (kind is None and is_picture(shown["clean"])):
                for side, uri in shown.items():
                    if uri is not None:
                        check_picture(uri, f"attacks.{title}.examples[{number}].{side}")


def _of_lines(raw: bytes, name: str) -> list[Result]:
    """The trade-offs of a `.jsonl`, which may be of several runs."""
    runs: dict[str, list[dict[str, Any]]] = {}
    with complete(name, _NO_RESULT, _WAY_OUT):
        for line in raw.splitlines():
            row = parse_json(line)
            check(row, dict[str, Any], "a line")
            runs.setdefault(json.dumps(row["run"], sort_keys=True), []).append(row)
        if not runs:
            raise ValueError("it is empty")
    many = len(runs) > 1
    return [
        _result({"points": rows, "recipe": rows[0].get("recipe", {})}, f"{name} ({number})" if many else name)
        for number, rows in enumerate(runs.values(), start=1)
    ]


def _of_archive(source: Path) -> Result:
    """A slice or a profile, out of its own file."""
    header, arrays = read_archive(source)
    kind = header["kind"]
    with complete(source):
        if kind == "slice":
            layers = header["summaries"]
            body = {"kept": sum(each["kept"] for each in layers), "total": sum(each["total"] for each in layers)}
            body["layers"] = layers
        elif kind == "profile":
            body = {"num_samples": header["num_samples"], "layers": []}
            for number, path in enumerate(header["paths"]):
                inputs, outputs = (arrays[f"{number}.{side}"] for side in ("inputs", "outputs"))
                positions = arrays[f"{number}.positions"]
                shares = [
                    float(each.mean() / max(int(of), 1)) if each.size else None
                    for each, of in zip((inputs, outputs), positions, strict=True)
                ]
                body["layers"].append({"path": path, "input_coverage": shares[0], "output_coverage": shares[1]})
        else:
            raise FileError(f"{source} holds {kind[:40]!r}, of which there is nothing to show. {_WAY_OUT}")
        body["skipped"] = [{"path": path, "reason": reason} for path, reason in header.get("skipped", ())]
        body["options"] = header.get("options", {})
    return _result({**body, "versions": header.get("versions", {})}, str(source))
