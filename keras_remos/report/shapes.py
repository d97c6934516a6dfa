"""What a result may hold, as far as a report shows it: the JSON of the commands, checked before it is read."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypedDict

from keras_remos.untrusted import Between, Count, Share

SCHEMA = "keras-remos/result/"
SCHEMA_VERSION = 1
# JSON has no NaN and no infinity, Python's reader takes both; and what is beyond these ends is no figure of ours.
Number = Annotated[float, Between(-1e100, 1e100)]
# An audit gives no confusion over 30 classes. A matrix of a million cells would be no page.
Counts = Annotated[list[Annotated[list[Count], Between(0, 100)]], Between(0, 100)]
Said = Annotated[list[str], Between(2, 2)]


class Rate(TypedDict):
    """So many out of so many."""

    count: Count
    n: Count
    value: Share | None
    low: Number | None
    high: Number | None


class Estimate(TypedDict):
    """A ratio and its interval."""

    value: Number | None
    low: Number | None
    high: Number | None
    n: Count


class Verdict(TypedDict):
    """A sentence about a student, or about the run."""

    student: str | None
    attack: str | None
    level: Literal["good", "note", "bad"]
    text: str


class PerClass(TypedDict):
    """Of the test inputs of one class."""

    n: Count
    right: Count


class Layer(TypedDict, total=False):
    """What is kept of one kernel."""

    excluded_by_magnitude: Annotated[list[Share], Between(1, 100)]


class KeptLayer(Layer):
    """The same, with what is always there."""

    path: str
    kept: Count
    total: Annotated[int, Between(1, 2**62)]


class Change(TypedDict):
    """A histogram of the student's weights over the teacher's."""

    edges: Annotated[list[Number], Between(2, 1000)]
    counts: Annotated[list[Count], Between(1, 1000)]
    below: Count
    above: Count


class Chosen(TypedDict, total=False):
    """How a slice was chosen."""

    keep_ratio: Number | None


class Record(TypedDict, total=False):
    """How a student says it was made."""

    method: str
    recipe: dict[str, Any]
    history: dict[str, list[Number | None]]
    slice: Chosen
    tuning: dict[str, Any]
    hardening: dict[str, Any]
    seed: Any
    teacher_name: str
    command: str | None


class _Student(TypedDict, total=False):
    relative_accuracy: Estimate | None
    balanced_accuracy: Share | None
    per_class: list[PerClass] | None
    confusion: Counts | None
    record: Record
    kept: list[KeptLayer] | None
    change: Change | None


class Student(_Student):
    """How a student does on the clean test set, and how it was made."""

    accuracy: Rate


class _Inherited(TypedDict, total=False):
    dir: Literal["flipped", "targeted"]
    targeted: Rate | None
    relative: Estimate | None
    excess: Estimate | None
    f1: Number | None
    confusion: Counts | None


class Inherited(_Inherited):
    """One student under one attack."""

    student: str
    defect: str
    flipped: Rate


class _Example(TypedDict, total=False):
    difference: str | None
    magnified: Number | None
    said: dict[str, Annotated[list[Count], Between(2, 2)]]


class Example(_Example):
    """An input, clean and malicious: data URIs of pictures, texts or pairs of texts."""

    index: Count
    label: Count
    clean: str | Said
    malicious: str | Said


class Attack(TypedDict, total=False):
    """How malicious inputs were made."""

    defect: str
    num_samples: Count
    class_names: list[str]
    target: Count | None
    options: dict[str, Any]
    bits: Count | None
    largest_change: Number | None
    mean_changed_words: Number | None
    seed: Any
    versions: dict[str, str]
    command: str | None
    knows: str | None
    examples: list[Example]


class Test(TypedDict, total=False):
    """The clean test set."""

    n: Count
    per_class: list[Count]
    kind: Literal["images", "texts"]


class Teacher(TypedDict, total=False):
    """How the teacher itself does."""

    name: str
    accuracy: Rate | None
    note: str
    attacks: dict[str, Rate]


class _Audit(TypedDict, total=False):
    class_names: list[str]
    test: Test
    verdicts: list[Verdict]
    teacher: Teacher | None
    attacks: dict[str, Attack]
    trained: dict[str, dict[str, Any]]
    left_out: dict[str, str]
    over_neurons: dict[str, dict[str, Number]]
    unlike_control: list[str]


class Audit(_Audit):
    """What `audit` and `evaluate` found."""

    control: str | None
    floors: dict[str, str]
    warnings: list[str]
    students: dict[str, Student]
    defects: list[Inherited]


class Point(TypedDict):
    """A student that keeps one share."""

    keep_ratio: Share
    accuracy: Rate
    inherited: dict[str, Rate]


class _Tradeoff(TypedDict, total=False):
    recipe: dict[str, Any]
    hardened: bool
    tuned: bool


class Tradeoff(_Tradeoff):
    """What `tradeoff` found."""

    points: Annotated[list[Point], Between(1, 10_000)]


class Skipped(TypedDict):
    """A layer that is left whole."""

    path: str
    reason: str


class _Slice(TypedDict, total=False):
    options: dict[str, Any]
    dropped_tokens: dict[str, Count]
    skipped: list[Skipped]


class Slice(_Slice):
    """What `slice` cut."""

    kept: Count
    total: Count
    layers: Annotated[list[KeptLayer], Between(1, 2**31)]


class Covered(TypedDict):
    """How much of a kernel's neurons data activate."""

    path: str
    input_coverage: Number | None
    output_coverage: Number | None


class _Profile(TypedDict, total=False):
    options: dict[str, Any]
    skipped: list[Skipped]


class Profile(_Profile):
    """What `profile` counted."""

    num_samples: Count
    layers: Annotated[list[Covered], Between(1, 2**31)]


class Transfer(Record):
    """What `transfer` trained."""

    last: dict[str, Number | None]


class DemoRow(TypedDict):
    """One model of the demo."""

    name: str
    accuracy: Share
    attack_success: Share
    num_clean: Count
    num_triggered: Count


class Demo(TypedDict):
    """What `demo` found."""

    rows: Annotated[list[DemoRow], Between(1, 1000)]
    keep_ratio: Number


class _Named(TypedDict, total=False):
    name: str | None
    path: str | None
    sha256: str | None


class _Data(TypedDict, total=False):
    path: str | None
    split: str | None
    fingerprint: str | None
    n: Count | None


class Inputs(TypedDict, total=False):
    """What a command was given."""

    teacher: _Named | None
    students: list[_Named]
    data: _Data | None
    attacks: list[_Named | str]


class Envelope(TypedDict, total=False):
    """What stands around the result of every command."""

    command_line: str | None
    versions: dict[str, str]
    seed: Any
    seconds: Number | None
    inputs: Inputs
    outputs: dict[str, Any]


SHAPES: dict[str, Any] = {
    "audit": Audit,
    "tradeoff": Tradeoff,
    "slice": Slice,
    "profile": Profile,
    "transfer": Transfer,
    "demo": Demo,
}
"""Of each kind of result that a report is made of, what it holds."""

COMMANDS = {**{kind: kind for kind in SHAPES}, "evaluate": "audit", "profile merge": "profile"}
"""Of each command that a report is made from, the kind of its result."""
