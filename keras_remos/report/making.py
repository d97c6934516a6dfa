"""How students were made: what was kept of the teacher, how far it moved, how training went, what more would cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from keras_remos.report.charts import Bars, Curve, Curves, Heatmap, Interval, Intervals, Point
from keras_remos.report.document import Block, Cell, Facts, Fold, Group, Listing, Section, Table
from keras_remos.report.inherited import folded
from keras_remos.report.wording import cell, count, figure, plain, said

Body = Mapping[str, Any]
Records = Mapping[str, Mapping[str, Any]]
# So many slices are seen at once.
AT_ONCE = 2
# Of what training reports, what is drawn from 0 to 1, by its name and what it is called.
_SHARES = {"accuracy": "accuracy, training data", "val_accuracy": "accuracy, validation data", "dir": "DIR"}
_LOSSES = {"loss": "loss, training data", "val_loss": "loss, validation data"}


def records_of(body: Body) -> dict[str, Mapping[str, Any]]:
    """What is known of how each student of an audit was made."""
    made = body.get("trained", {})
    return {name: its.get("record") or made.get(name) or {} for name, its in body["students"].items()}


def recipes(records: Records) -> Section | None:
    """By which method and recipe each student was trained."""
    rows = []
    for name, record in records.items():
        if "method" not in record:
            continue
        recipe, chosen = record.get("recipe") or {}, record.get("slice") or {}
        ratio = chosen.get("keep_ratio", record.get("keep_ratio"))
        cells = [
            record["method"],
            *(plain(recipe[key]) if key in recipe else "" for key in ("learning_rate", "epochs")),
        ]
        cells += [plain(ratio) if isinstance(ratio, int | float) else "", "yes" if record.get("hardening") else "no"]
        cells.append(plain(record["seed"]) if record.get("seed") is not None else "")
        rows.append([Cell(name), *map(Cell, cells)])
    columns = ["student", "method", "learning rate", "epochs", "share kept", "hardened", "seed"]
    table = folded(Table("Methods and recipes", columns, rows, words=2))
    return Section("How the students were made", [table], terms=("share kept",)) if rows else None


def kept(layers_of: Mapping[str, Sequence[Mapping[str, Any]]]) -> Section | None:
    """What the slice kept of each layer, and of which magnitudes (Fig. 10)."""
    blocks: list[Block] = []
    by_magnitude = False
    for number, (name, layers) in enumerate(layers_of.items(), start=1):
        excluded = [layer.get("excluded_by_magnitude") for layer in layers]
        known = [each for each in excluded if each]
        whole = len(known) == len(layers) and len({len(each) for each in known}) == 1
        by_magnitude |= whole
        paths = [layer["path"] for layer in layers]
        chart = Heatmap(
            f"kept-{number}",
            f"{name}: what was kept of each layer",
            paths,
            [min(layer["kept"] / layer["total"], 1.0) for layer in layers],
            known if whole else None,
        )
        rows = [
            [Cell(layer["path"]), count(layer["kept"]), count(layer["total"]), _share(layer["kept"], layer["total"])]
            for layer in layers
        ]
        total = [sum(layer[key] for layer in layers) for key in ("kept", "total")]
        rows.append([Cell("all"), *map(count, total), _share(*total)])
        table = Table(f"{name}: weights kept by layer", ["layer", "kept", "of", "share"], rows)
        own: list[Block] = [chart, Fold(f"{len(layers)} layers in figures", [table])]
        blocks.append(Group(name, own) if number <= AT_ONCE else Fold(name, own))
    terms = ["kept", *(["excluded by magnitude"] if by_magnitude else [])]
    lead = "Layer by layer, from the input on the left to the output on the right."
    return Section("What the slice kept", blocks, lead=lead, terms=terms) if blocks else None


def _share(part: int, whole: int) -> Cell:
    return figure(part / whole if whole else None, "it has no weights")


def change(body: Body) -> Section | None:
    """How far weights moved from the teacher's (Fig. 9)."""
    panels = []
    for name, student in body["students"].items():
        found = student.get("change")
        if not found:
            continue
        total = sum(found["counts"]) + found["below"] + found["above"]
        shares = [each / total if total else 0.0 for each in found["counts"]]
        rest = (
            f"{found['below']:,} weights lie below the first bar and {found['above']:,} above the last, of {total:,}."
        )
        panels.append((name, found["edges"], shares, rest))
    chart = Bars("change", "Weight of the student over that of the teacher", "ratio", "share of the weights", panels)
    lead = "How far training moved each weight from the teacher's: what stands at 1 is the teacher, unchanged."
    return Section("Weight change", [chart], lead=lead, terms=("weight change",)) if panels else None


def training(records: Records) -> Section | None:
    """How training went, epoch by epoch (Fig. 8)."""
    blocks: list[Block] = []
    for key, title, wanted in (("training", "Accuracy and DIR by epoch", _SHARES), ("loss", "Loss by epoch", _LOSSES)):
        panels = [
            (name, curves)
            for name, record in records.items()
            if (curves := _curves(record.get("history") or {}, wanted))
        ]
        if panels:
            is_share = wanted is _SHARES
            blocks.append(Curves(key, title, "epoch", "share" if is_share else "loss", panels, is_share=is_share))
    return Section("Training curves", blocks, terms=("training curves",)) if blocks else None


def _curves(history: Mapping[str, Sequence[float | None]], wanted: Mapping[str, str]) -> list[Curve]:
    epochs = max(map(len, history.values()), default=0)
    return [
        # What begins later ends with the last epoch, too.
        Curve(label, [Point(epochs - len(history[key]) + at, y) for at, y in enumerate(history[key], start=1)])
        for key, label in wanted.items()
        if history.get(key)
    ]


def tradeoff(body: Body) -> list[Section]:
    """What keeping more or less of a teacher costs, and what is inherited then."""
    points = sorted(body["points"], key=lambda point: float(point["keep_ratio"]))
    titles = list(dict.fromkeys(title for point in points for title in point["inherited"]))
    accuracy = Curve("ACC", [_point(each["keep_ratio"], each["accuracy"]) for each in points])
    panels = [
        (title, [accuracy, Curve("DIR", [_point(p["keep_ratio"], p["inherited"].get(title)) for p in points])])
        for title in titles
    ]
    rows = []
    for each in reversed(points):
        line = [
            Cell(f"{each['keep_ratio']:g}"),
            cell(each["accuracy"], "there is no sample"),
            count(each["accuracy"]["n"]),
        ]
        rows.append([*line, *(cell(each["inherited"].get(title), "no input counts") for title in titles)])
    columns = ["share kept", "ACC", "n", *(f"DIR, {title}" for title in titles)]
    chart = Curves(
        "tradeoff", "Accuracy and DIR by the share that is kept", "share kept", "rate", panels or [("", [accuracy])]
    )
    terms = ("share kept", "ACC", *(["DIR"] if titles else []), "interval")
    sections = [
        Section(
            "More or less of the teacher",
            [chart, folded(Table("Each share that was tried", columns, rows))],
            lead="Students that are trained alike and start from more or less of the teacher. 1 is fine-tuning.",
            terms=terms,
        )
    ]
    recipe = [(key.replace("_", " "), plain(value)) for key, value in (body.get("recipe") or {}).items()]
    if recipe:
        recipe.append(("hardened", "yes" if body.get("hardened") else "no"))
        if body.get("tuned"):
            recipe.append(("learning rate chosen on", "the samples that ACC is of"))
        sections.append(Section("How all were trained", [Facts(recipe)]))
    return sections


def _point(ratio: float, rate: Mapping[str, Any] | None) -> Point:
    return Point(ratio, None) if rate is None else Point(ratio, rate["value"], rate["low"], rate["high"])


def sliced(body: Body) -> list[Section]:
    """What a slice holds."""
    found = [kept({"slice": body["layers"]})]
    dropped = [
        f"{path}: {tokens:,} tokens are in no sample; their rows are reset"
        for path, tokens in body.get("dropped_tokens", {}).items()
    ]
    if dropped:
        found.append(Section("Tokens that no sample has", [Listing(dropped)]))
    return [section for section in [*found, *_chosen(body)] if section]


def profiled(body: Body) -> list[Section]:
    """What a profile counted."""
    why = "a table of tokens has no neurons there"
    rows = [
        [Cell(layer["path"]), figure(layer["input_coverage"], why), figure(layer["output_coverage"], why)]
        for layer in body["layers"]
    ]
    sides = {"inputs": "input_coverage", "outputs": "output_coverage"}
    curves = [
        Curve(label, [Point(number, layer[key]) for number, layer in enumerate(body["layers"], start=1)])
        for label, key in sides.items()
    ]
    blocks = [
        Curves("coverage", "Mean share that covers a neuron, by layer", "layer", "share", [("", curves)]),
        folded(Table("Coverage by layer", ["layer", "inputs covered", "outputs covered"], rows)),
    ]
    samples = f"Counted on {body['num_samples']:,} samples."
    return [Section("What the data activate", blocks, lead=samples, terms=("coverage",)), *_chosen(body)]


def _chosen(body: Body) -> list[Section]:
    """Options, and what was left whole."""
    sections = []
    options = [(key.replace("_", " "), plain(value)) for key, value in (body.get("options") or {}).items()]
    if options:
        sections.append(Section("How it was made", [Facts(options)]))
    if body.get("skipped"):
        rows = [[Cell(each["path"]), Cell(each["reason"])] for each in body["skipped"]]
        table = folded(Table("Layers that are left whole", ["layer", "reason"], rows, words=2))
        sections.append(Section("Left whole", [table], lead="These layers cannot be sliced, or were not to be."))
    return sections


def demonstrated(body: Body) -> list[Section]:
    """What the demo found."""
    rows, shown = [], []
    for each in body["rows"]:
        role = {"teacher": "teacher", "fine-tuned": "control", "from scratch": "floor"}.get(each["name"], "student")
        hit = {"value": each["attack_success"], "low": None, "high": None, "n": each["num_triggered"]}
        good = figure(each["accuracy"], ""), count(each["num_clean"])
        rows.append([Cell(each["name"], role=role), *good, figure(hit["value"], ""), count(hit["n"])])
        shown.append(Interval(each["name"], role, hit["value"], None, None, f"{each['name']}: {said(hit, '')}"))
    columns = ["model", "accuracy", "n", "fooled by the trigger", "n"]
    return [
        Section(
            "What was inherited",
            [
                Intervals("demo", "Fooled by the trigger", "share", [("", shown)]),
                Table("A planted backdoor, and what is left of it", columns, rows),
            ],
            lead=(
                "A small teacher carries a planted backdoor. The students saw clean images only, the same ones in the "
                f"same order; ReMoS kept {body['keep_ratio']:.0%} of the weights that can be sliced."
            ),
            terms=("accuracy", "fooled by the trigger", "teacher", "control", "floor"),
        )
    ]


def slices_side_by_side(slices: Mapping[str, Body]) -> Section:
    """What several slices keep of each layer."""
    shares = {
        name: {each["path"]: each["kept"] / each["total"] for each in body["layers"]} for name, body in slices.items()
    }
    paths = list(dict.fromkeys(path for its in shares.values() for path in its))
    rows = [[Cell(path), *(figure(its.get(path), "it has no such layer") for its in shares.values())] for path in paths]
    whole = [body["kept"] / body["total"] if body["total"] else None for body in slices.values()]
    rows.insert(0, [Cell("all"), *(figure(value, "it has no weights") for value in whole)])
    table = folded(Table("Share kept by layer, by slice", ["layer", *shares], rows))
    return Section("Slices side by side", [table], terms=("kept",))
