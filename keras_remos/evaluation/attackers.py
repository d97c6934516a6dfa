"""Who attacks a teacher's students: what they try, with what they have, and on which copies of the teacher."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from keras_remos.data.datasets import Dataset
from keras_remos.defects import (
    DEFECTS,
    CoverageGuidedAttack,
    DisplacementAttack,
    GreedySwap,
    PenultimateAttack,
    WordImportance,
)
from keras_remos.defects.attack_set import AttackSet
from keras_remos.defects.base import Defect
from keras_remos.defects.prepared import Prepared
from keras_remos.defects.word_swaps.synonyms import SynonymSource
from keras_remos.defects.word_swaps.word_swap import WordSwap
from keras_remos.errors import DataError, RemosError
from keras_remos.models.features import PENULTIMATE
from keras_remos.models.tokenizers import reads_text
from keras_remos.training.recipe import Recipe

Wanted = str | Defect | AttackSet


@dataclass(frozen=True, kw_only=True)
class Attacker:
    """What is tried on a teacher's students.

    Args:
        defects: Keys of `DEFECTS`, configured attacks, or attack sets that were made with this teacher before. `None`:
            the backdoor that the teacher's file carries, and for images the penultimate attack and two coverage-guided
            ones (NC with DeepXplore, SNAC with DLFuzz), for texts both word swaps, if there are training data and a
            source of synonyms.
        synonyms: Where word swaps take their words from; WordNet by default, where NLTK is installed.
    """

    defects: Iterable[Wanted] | None = None
    synonyms: SynonymSource | None = None

    def __post_init__(self) -> None:
        if self.defects is not None:
            # A frozen class lets its own constructor write only in this way.
            object.__setattr__(self, "defects", tuple(self.defects))


class Attempts:
    """What an attacker tries on one teacher, and the attacker's own copies of it.

    Args:
        attacker: What is tried.
        prepared: The teacher.
        train: The students' training data, which the attacker has too; or `None`.
        recipe: By which copies are trained for word swaps; the attacks' own by default.
        head: The path of the teacher's head, where it is not found.

    Attributes:
        wanted: The attacks, configured.
        left_out: Attacks that fit the teacher and are not tried, with the reason.

    Raises:
        RemosError: If there is no such defect.
    """

    def __init__(
        self, attacker: Attacker, prepared: Prepared, train: Any, recipe: Recipe | None, *, head: str | None = None
    ) -> None:
        self._prepared = prepared
        self._train = train
        self._swapping: dict[str, Any] = {"synonyms": attacker.synonyms, "recipe": recipe}
        self._head = head
        self._copies: dict[Recipe | None, Prepared] = {}
        self.left_out: dict[str, str] = {}
        named = self._that_fit() if attacker.defects is None else list(attacker.defects)
        wanted = [self._configured(each) if isinstance(each, str) else each for each in named]
        # Several neurons are as many attacks.
        self.wanted = [one for each in wanted for one in (each.each() if isinstance(each, Defect) else (each,))]

    def source_of(self, defect: Defect, *, seed: int, verbose: bool | str) -> Prepared:
        """What an attack is made with: the teacher, or the attacker's copy of it, trained once for each recipe."""
        if defect.plants:
            # It is in the teacher already.
            return self._prepared
        own = _in_memory(self._train) if defect.of_task and self._train is not None else None
        if own is not None and defect.copy_recipe in self._copies:
            return self._copies[defect.copy_recipe]
        # The attacker's copy gets another seed: it is not the control.
        made = defect.prepare(self._prepared.teacher, own, space=self._prepared.space, seed=seed + 1, verbose=verbose)
        if own is not None:
            self._copies[defect.copy_recipe] = made
        return made

    def _that_fit(self) -> list[Wanted]:
        tried: list[Wanted] = []
        if reads_text(self._prepared.teacher):
            for kind in (WordImportance, GreedySwap):
                try:
                    if self._train is None:
                        raise DataError("It attacks a classifier of the task: give the training data.")
                    tried.append(kind(**self._swapping).resolved())
                except (DataError, ImportError) as error:
                    self.left_out[kind.name] = str(error)
        else:
            tried += [
                PenultimateAttack(head=self._head),
                CoverageGuidedAttack(criterion="nc", strategy="deepxplore", head=self._head),
                CoverageGuidedAttack(criterion="snac", strategy="dlfuzz", head=self._head),
            ]
        if self._prepared.trigger is not None:
            tried.append(DEFECTS[self._prepared.record["defect"]]())
        return tried

    def _configured(self, name: str) -> Defect:
        if name not in DEFECTS:
            raise RemosError(f"Unknown defect {name!r}: expected one of {', '.join(DEFECTS)}.")
        kind = DEFECTS[name]
        if issubclass(kind, WordSwap):
            return kind(**self._swapping)
        return kind(**({"head": self._head} if "head" in kind.option_names() else {}))


def title_of(wanted: Defect | AttackSet) -> str:
    """What an attack is called in a table: its name, for coverage what is counted and how neurons are chosen.

    A neuron other than the first is named, too, and so is a layer that is not the one before the head.
    """
    name: str
    options: Mapping[str, Any]
    if isinstance(wanted, AttackSet):
        name, options = wanted.defect, wanted.options
    else:
        name, options = wanted.name, wanted.get_config()
    if name == CoverageGuidedAttack.name:
        return f"{options['criterion']['name']} {options['strategy']}"
    if name == DisplacementAttack.name and options["layer"] != PENULTIMATE:
        return f"{name} {options['layer']}"
    return f"{name} {options['neuron']}" if options.get("neuron") else name


def _in_memory(data: Any) -> Any:
    return data.read_all() if isinstance(data, Dataset) else data
