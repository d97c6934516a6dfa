"""Inputs of an attack that a person can look at: clean, malicious, and what lies between."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects.attack_set import AttackSet
from keras_remos.evaluation.inherited import Inherited

# Larger pictures say no more on a page, and ten students' are to fit into one file.
LARGEST = 96


def exhibits(
    attack: AttackSet, rows: Sequence[Inherited], *, first: str | None, count: int, seed: int
) -> list[dict[str, Any]]:
    """Some inputs of an attack, drawn at random among those that fool a student.

    Args:
        attack: The attack set.
        rows: What students say of it.
        first: The student whose inputs are shown: those that it gets right when clean and wrong when attacked. Others
            follow where these are too few.
        count: How many at most.
        seed: Of the draw.

    Returns:
        Plain values for JSON: number in the set, class, the input in both forms, the difference, and what each student
        says. Images are PNGs as data URIs, for which it takes Pillow: without it there are none of them.
    """
    if not attack.holds_text and (find_spec("PIL") is None or not _is_picture(attack.clean.shape[1:], attack.space)):
        return []
    order = np.random.default_rng(seed).permutation(len(attack))
    shown = next((row.answers for row in rows if row.student == first and row.answers is not None), None)
    if shown is not None:
        fooled = (shown.clean == attack.labels) & (shown.attacked != attack.labels)
        order = order[np.argsort(~fooled[order], kind="stable")]
    made = []
    for index in order[:count].tolist():
        said = {
            row.student: [int(row.answers.clean[index]), int(row.answers.attacked[index])]
            for row in rows
            if row.answers is not None
        }
        label = int(attack.labels[index])
        made.append({"index": index, "label": label, **_both(attack, index), "said": said})
    return made


def _both(attack: AttackSet, index: int) -> dict[str, Any]:
    if attack.holds_text:
        texts = {"clean": attack.clean[index].tolist(), "malicious": attack.inputs[index].tolist()}
        return {**texts, "difference": None, "magnified": None}
    clean, malicious = (_levels(pixels[index], attack.space) for pixels in (attack.clean, attack.inputs))
    change = malicious - clean
    largest = float(np.abs(change).max())
    # Grey is no change, and the largest one is as far from it as a picture can show.
    magnified = max(1.0, 127.0 / largest) if largest else 1.0
    difference = np.clip(127.5 + change * magnified, 0, 255)
    return {
        "clean": _png(clean),
        "malicious": _png(malicious),
        "difference": _png(difference),
        "magnified": round(magnified, 1),
    }


def _levels(pixels: np.ndarray, space: PixelSpace) -> np.ndarray:
    """An image of any range as levels from 0 to 255, channels last."""
    image = np.moveaxis(pixels, space.channel_axis % 4 - 1, -1)
    return space.as_levels(image.astype(np.float32))


def _is_picture(shape: tuple[int, ...], space: PixelSpace) -> bool:
    return len(shape) == 3 and shape[space.channel_axis % 4 - 1] in (1, 3)


def _png(levels: np.ndarray) -> str:
    """A PNG as a data URI."""
    from PIL import Image

    whole = np.rint(levels).astype(np.uint8)
    image = Image.fromarray(whole[..., 0] if whole.shape[-1] == 1 else whole)
    image.thumbnail((LARGEST, LARGEST))
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
