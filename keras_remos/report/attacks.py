"""Of an audit: what was attacked and how, with examples."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from keras_remos.report.document import (
    Block,
    Cell,
    Command,
    Example,
    Examples,
    Facts,
    Fold,
    Group,
    Listing,
    Paragraph,
    Passage,
    Picture,
    Section,
    Table,
)
from keras_remos.report.inherited import attacks_of, folded
from keras_remos.report.pictures import is_picture, is_small, that_fit
from keras_remos.report.wording import attacker, cell, count, named, plain, some

Body = Mapping[str, Any]
# Of a text, so many words are compared: that takes time by their square.
MOST_WORDS = 1_000
# In characters: no page is to pass 3 MB.
MOST = 2_900_000
# Of each attack, so many examples are seen at once.
AT_ONCE = 2


def attacked(body: Body) -> Section | None:
    """Each attack: who could make it, and how far its inputs are from clean ones."""
    attacks = _in_order(body)
    blocks: list[Block] = []
    if attacks:
        of_teacher = (body.get("teacher") or {}).get("attacks", {})
        columns = [
            "attack",
            "who can make it",
            "aims at",
            "change",
            *(["fools the teacher"] if of_teacher else []),
            "n",
        ]
        rows = []
        for title, attack in attacks.items():
            line = [Cell(title), Cell(attacker(attack.get("knows"))), Cell(_wants(attack, body)), Cell(_change(attack))]
            if of_teacher:
                line.append(cell(of_teacher.get(title), "it was not tried on it"))
            rows.append([*line, count(attack["num_samples"]) if "num_samples" in attack else Cell("")])
        blocks.append(folded(Table("Attacks", columns, rows, words=4)))
        blocks += [
            Fold(f"{title}: how it was made", made) for title, attack in attacks.items() if (made := _made(attack))
        ]
    if body.get("left_out"):
        blocks.append(Paragraph("Not tried:"))
        blocks.append(Listing([f"{title}: {reason}" for title, reason in body["left_out"].items()]))
    lead = "Malicious inputs were made with the teacher, as anyone can who has it, and then tried on every model."
    return Section("What was attacked, and how", blocks, lead=lead, terms=("teacher",)) if blocks else None


def _in_order(body: Body) -> dict[str, Mapping[str, Any]]:
    """The attacks, the worst first; those of which no row is known, last."""
    attacks = body.get("attacks", {})
    return {title: attacks[title] for title in [*attacks_of(body), *attacks] if title in attacks}


def _wants(attack: Mapping[str, Any], body: Body) -> str:
    target = attack.get("target")
    return "any wrong class" if target is None else named(target, _class_names(attack, body))


def _class_names(attack: Mapping[str, Any], body: Body) -> Sequence[str]:
    return attack.get("class_names") or body.get("class_names") or ()


def _change(attack: Mapping[str, Any]) -> str:
    if attack.get("largest_change") is not None:
        rounded = ", in images of 8 bits" if attack.get("bits") == 8 else ""
        return f"at most {attack['largest_change']:.3g} of 255 levels a pixel{rounded}"
    if attack.get("mean_changed_words") is not None:
        return f"{attack['mean_changed_words']:.1%} of the words"
    return ""


def _made(attack: Mapping[str, Any]) -> list[Block]:
    pairs = [("kind", attack["defect"])] if "defect" in attack else []
    pairs += [(name.replace("_", " "), plain(value)) for name, value in attack.get("options", {}).items()]
    pairs += [("seed", plain(attack["seed"]))] if attack.get("seed") is not None else []
    pairs += [(name, version) for name, version in attack.get("versions", {}).items()]
    blocks: list[Block] = [Facts(pairs, exact=True)] if pairs else []
    return [*blocks, Command(attack["command"])] if attack.get("command") else blocks


def examples(body: Body) -> Section | None:
    """Clean and malicious inputs side by side, as many as there is room for."""
    attacks = {title: attack for title, attack in _in_order(body).items() if attack.get("examples")}
    sizes = [[_size(example) for example in attack["examples"]] for attack in attacks.values()]
    fitting = that_fit(sizes, MOST - _all_else(body))
    blocks: list[Block] = []
    of_images = False
    for (title, attack), room in zip(attacks.items(), fitting, strict=True):
        own: list[Block] = []
        shown = [_example(example, attack, body) for example in attack["examples"][:room]]
        of_images |= any(isinstance(each, Picture) for example in shown for each in example.shows)
        if shown:
            own.append(Examples(shown[:AT_ONCE]))
        if len(shown) > AT_ONCE:
            own.append(Fold(f"{len(shown) - AT_ONCE} more examples", [Examples(shown[AT_ONCE:])]))
        if room < len(attack["examples"]):
            left = len(attack["examples"]) - room
            own.append(Paragraph(f"{left} more of its examples would make this page too large; the result holds them."))
        blocks.append(Group(title, own, tag=attacker(attack.get("knows"))))
    if not blocks:
        return None
    lead = (
        "The difference is magnified, as it would be invisible: grey is no change."
        if of_images
        else "What the attack changed is marked."
    )
    return Section("Clean and malicious, side by side", blocks, lead=lead)


def _all_else(body: Body) -> int:
    """About how many characters the rest of a page takes: what grows with models, classes and layers, generously."""
    students = body["students"].values()
    matrices = [found for each in (*students, *body["defects"]) if (found := each.get("confusion"))]
    return (
        30_000 * len(students)
        + 20 * sum(len(matrix) ** 2 for matrix in matrices)
        + 100 * sum(len(rates) for rates in (*matrices, *(each.get("per_class") or () for each in students)))
        + 600 * sum(len(each.get("kept") or ()) for each in students)
    )


def _size(example: Mapping[str, Any]) -> int:
    """In characters: of pictures these are by far the most of a page."""
    shown = [example.get(side) or "" for side in ("clean", "malicious", "difference")]
    return sum(len("".join(each)) for each in shown)


def _example(example: Mapping[str, Any], attack: Mapping[str, Any], body: Body) -> Example:
    names = _class_names(attack, body)
    label, target = example["label"], attack.get("target")
    heard = example.get("said", {})
    fooled = [
        student
        for student, (clean, malicious) in heard.items()
        if (malicious == target != label if target is not None else clean == label != malicious)
    ]
    outcome = f"Fools {some(fooled)}." if fooled else "Fools none of the models."
    answers = [(student, named(clean, names), named(wrong, names)) for student, (clean, wrong) in heard.items()]
    kind = body.get("test", {}).get("kind")
    of_images = kind == "images" or (kind is None and is_picture(example["clean"]))
    shows = _pictures(example) if of_images else _passages(example["clean"], example["malicious"])
    return Example(named(label, names), shows, outcome if heard else "", answers)


def _pictures(example: Mapping[str, Any]) -> list[Picture]:
    times = example.get("magnified")
    said = {
        "clean": ("clean", "the clean input"),
        "malicious": ("malicious", "the same input, attacked"),
        "difference": (
            f"difference{'' if times is None else f', {times:.3g} times'}",
            "what the attack changed, magnified",
        ),
    }
    return [
        Picture(caption, description, example[side], is_small(example[side]))
        for side, (caption, description) in said.items()
        if example.get(side)
    ]


def _passages(clean: str | Sequence[str], malicious: str | Sequence[str]) -> list[Passage]:
    before, after = (" \u2016 ".join([text] if isinstance(text, str) else text) for text in (clean, malicious))
    marked = compare(before, after)
    return [Passage("clean", marked[0]), Passage("malicious", marked[1], is_attacked=True)]


def compare(before: str, after: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Marks the words in which two texts differ.

    Returns:
        Each of the two in pieces, with whether the piece is only in that one.
    """
    ours, theirs = _words(before), _words(after)
    found: tuple[list[tuple[str, bool]], list[tuple[str, bool]]] = ([], [])
    for tag, a, b, c, d in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        for side, words in zip(found, (ours[a:b], theirs[c:d]), strict=True):
            text = "".join(words)
            marked = text.lstrip() if tag != "equal" else ""
            # The space before a word that was changed was not.
            side += [(piece, piece is marked) for piece in (text[: len(text) - len(marked)], marked) if piece]
    return found


def _words(text: str) -> list[str]:
    """Words, each with the space before it: joined they are the text again, unless that is too long."""
    words = re.findall(r"\s*\S+|\s+$", text)
    return [*words[:MOST_WORDS], " ..."] if len(words) > MOST_WORDS else words
