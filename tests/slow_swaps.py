"""The two word-swap attacks as their papers give them: one text, one query at a time. Uses nothing of keras_remos."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

WORD = re.compile(r"[A-Za-z0-9']+")


@dataclass
class Attacker:
    """Options, and every text that the classifier was asked for."""

    classify: Callable[[Any], np.ndarray]  # one text (or pair) to probabilities
    synonyms: dict[str, list[tuple[str, float]]]
    stop_words: set[str] = field(default_factory=set)
    candidates: int = 50
    min_similarity: float = 0.5
    max_share: float = 1.0
    goal: float | None = None
    part: Callable[[list[str], int], str] | None = None
    likeness: Callable[[list[str], list[str], int], float] | None = None
    least_likeness: float = 0.0
    beside: Callable[[str], Any] = lambda text: text
    asked: set[Any] = field(default_factory=set)

    def ask(self, text: str) -> np.ndarray:
        self.asked.add(self.beside(text))
        return np.asarray(self.classify(self.beside(text)), np.float32)

    def reached(self, p: np.ndarray, label: int) -> bool:
        if self.goal is None:
            return int(p.argmax()) != label
        return max(p[c] for c in range(len(p)) if c != label) >= self.goal

    def allowed(self, words: list[str], index: int) -> list[tuple[str, tuple[float, ...]]]:
        """Words for a place, each with how alike the text remains and how like the word is."""
        old = words[index]
        found = []
        if old.lower() in self.stop_words:
            return []
        for word, near in self.synonyms.get(old.lower(), [])[: self.candidates]:
            if near < self.min_similarity:
                continue
            new = word.upper() if old.isupper() and len(old) > 1 else word
            new = new[0].upper() + new[1:] if old[0].isupper() else new
            changed = [*words[:index], new, *words[index + 1 :]]
            if self.part is not None and not same(self.part(words, index), self.part(changed, index)):
                continue
            if self.likeness is None:
                found.append((new, (near,)))
            elif (likeness := self.likeness(words, changed, index)) >= self.least_likeness:
                found.append((new, (likeness, near)))
        return found


def same(a: str, b: str) -> bool:
    return a == b or {a, b} == {"NOUN", "VERB"}


def put(text: str, words: list[str]) -> str:
    """The words of a text replaced by as many others."""
    rest = iter(words)
    return WORD.sub(lambda _: next(rest), text)


def textfooler(attacker: Attacker, text: str, label: int) -> tuple[str, str]:
    """Jin et al., Algorithm 1. Returns the status and the text."""
    words = WORD.findall(text)
    p = attacker.ask(text).astype(float)
    if p.argmax() != label or attacker.reached(p, label):
        return "skipped", text
    importance = []
    for index in range(len(words)):
        q = attacker.ask(removed(text, index)).astype(float)
        drop = p[label] - q[label]
        importance.append(drop if q.argmax() == label else drop + q[q.argmax()] - p[q.argmax()])
    true, swapped = p[label], 0
    for index in sorted(range(len(words)), key=lambda i: -importance[i]):
        if swapped + 1 > attacker.max_share * len(words) + 1e-9:
            break
        tried = []
        for new, near in attacker.allowed(words, index):
            q = attacker.ask(put(text, [*words[:index], new, *words[index + 1 :]]))
            tried.append((new, near, q))
        done = [(near, -q[label], new) for new, near, q in tried if attacker.reached(q, label)]
        if done:
            new = max(done, key=lambda entry: entry[:2])[2]
            return "success", put(text, [*words[:index], new, *words[index + 1 :]])
        if tried:
            new, _, q = min(tried, key=lambda entry: entry[2][label])
            if q[label] < true:
                true, words = q[label], [*words[:index], new, *words[index + 1 :]]
                swapped += 1
    return "failed", put(text, words)


def kuleshov(attacker: Attacker, text: str, label: int) -> tuple[str, str]:
    """Kuleshov et al., Algorithm 1. Returns the status and the text."""
    words = WORD.findall(text)
    p = attacker.ask(text)
    if p.argmax() != label or attacker.reached(p, label):
        return "skipped", text
    free = list(range(len(words)))
    most = attacker.max_share * len(words) + 1e-9
    while len(words) - len(free) + 1 <= most:
        best = None
        for index in free:
            for new, _ in attacker.allowed(words, index):
                q = attacker.ask(put(text, [*words[:index], new, *words[index + 1 :]]))
                worth = max(q[c] for c in range(len(q)) if c != label)
                if best is None or worth > best[0]:
                    best = worth, index, new, q
        if best is None:
            break
        _, index, new, q = best
        words = [*words[:index], new, *words[index + 1 :]]
        free.remove(index)
        if attacker.reached(q, label):
            return "success", put(text, words)
    return "failed", put(text, words)


def removed(text: str, index: int) -> str:
    match = list(WORD.finditer(text))[index]
    left, right = text[: match.start()], text[match.end() :]
    return left + (right.lstrip() if not left or left[-1].isspace() else right)
