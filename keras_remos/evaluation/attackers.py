"""Who attacks a teacher's students: what they try, with what they have, and on which copies of the teacher."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from keras_remos.data.datasets import Dataset
from keras_remos.data.samples import scaled
from keras_remos.data.streams import Fingerprint, batches
from keras_remos.defects import (
    DEFECTS,
    CoverageGuidedAttack,
    DisplacementAttack,
    GreedySwap,
    PenultimateAttack,
    SurrogateAttack,
    TransferPGD,
    WordImportance,
)
from keras_remos.defects.attack_set import AttackSet
from keras_remos.defects.base import Defect, Request
from keras_remos.defects.prepared import Prepared
from keras_remos.defects.word_swaps.synonyms import SynonymSource
from keras_remos.defects.word_swaps.word_swap import WordSwap
from keras_remos.errors import DataError, RemosError
from keras_remos.evaluation.audit_folder import AuditFolder
from keras_remos.methods import FineTune, Hardening, find_method
from keras_remos.models.features import PENULTIMATE
from keras_remos.models.tokenizers import reads_text
from keras_remos.training.recipe import Recipe
from keras_remos.training.trained import Trained

Wanted = str | Defect | AttackSet

ADAPTIVE = "adaptive"
"""The attacker who knows how each student was made, and makes one like it to attack."""
COPY = "attacker's copy"
"""What the copy is called by which an attacker chooses a learning rate."""
NO_DATA = (
    "It takes data of the attacker's own, of the students' classes: give some (`attacker_data`), or leave a share of "
    "the training data to the attacker when students are trained."
)

DATA_LEFT = (
    "It takes data of the attacker's own: the students left a share of their training data to it, so give these "
    "(`train`), or other data of their classes (`attacker_data`)."
)


@dataclass(frozen=True, kw_only=True)
class Attacker:
    """What is tried on a teacher's students.

    Args:
        defects: Keys of `DEFECTS`, `"adaptive"`, configured attacks, or attack sets that were made with this teacher
            before. `None`: the backdoor that the teacher's file carries, and for images the penultimate attack, feature
            displacement and two coverage-guided ones (NC with DeepXplore, SNAC with DLFuzz), and with data of the
            attacker's own a surrogate and the adaptive attack; for texts both word swaps, if there are training data
            and a source of synonyms. Where there is a control, the adaptive attack brings the surrogate along: it is
            what the control meets.
        data: The attacker's own data of the students' classes `(x, y)`, in pixels or texts, or a `Dataset`: for copies
            of the teacher. Without them FGSM, PGD and word swaps take the students' training data; a surrogate and the
            adaptive attack need them, since an attacker hardly has the very samples that a student was trained on.
            Copies for FGSM, PGD and a surrogate are trained as the control was, else as a student whose record tells
            how, else by the audit's recipe; a learning rate that it leaves open is chosen on these data. Those of
            configured attacks are trained as these say.
        synonyms: Where word swaps take their words from; WordNet by default, where NLTK is installed.
    """

    defects: Iterable[Wanted] | None = None
    synonyms: SynonymSource | None = None
    data: Any = None

    def __post_init__(self) -> None:
        if self.defects is not None:
            # A frozen class lets its own constructor write only in this way.
            object.__setattr__(self, "defects", tuple(self.defects))


class Attempts:
    """What an attacker tries on one teacher, and the attacker's own copies of it.

    Args:
        attacker: What is tried.
        prepared: The teacher.
        train: The students' training data, or `None`.
        recipe: By which copies are trained for word swaps; the attacks' own by default.
        num_classes: How many classes copies tell apart: as many as the students, also where the data lack some.
        head: The path of the teacher's head, where it is not found.
        data_left: Whether students left the attacker a share of training data, which are not given.
        compared: Whether there is a control. It is fine-tuned, so that the adaptive attack on it is a surrogate.

    Attributes:
        wanted: The attacks, configured.
        adaptive: Whether the adaptive attack is among them.
        left_out: Attacks that fit the teacher and are not tried, with the reason.

    Raises:
        RemosError: If there is no such defect.
    """

    def __init__(
        self,
        attacker: Attacker,
        prepared: Prepared,
        train: Any,
        recipe: Recipe | None,
        *,
        num_classes: int,
        head: str | None = None,
        data_left: bool = False,
        compared: bool = False,
    ) -> None:
        self._prepared = prepared
        self._own = attacker.data
        self._train = train if attacker.data is None else attacker.data
        self._swapping: dict[str, Any] = {"synonyms": attacker.synonyms, "recipe": recipe}
        self._num_classes = num_classes
        self._no_data = DATA_LEFT if data_left else NO_DATA
        self._head = head
        self._copies: dict[Recipe | None, Prepared] = {}
        self.left_out: dict[str, str] = {}
        named = self._that_fit() if attacker.defects is None else list(attacker.defects)
        if attacker.defects is not None and attacker.data is None:
            for each in (SurrogateAttack.name, ADAPTIVE):
                if each in named:
                    raise DataError(f"{each}: {self._no_data}")
        self.adaptive = ADAPTIVE in named
        named = [each for each in named if each != ADAPTIVE]
        if self.adaptive and compared and not any(_is_surrogate(each) for each in named):
            named.append(SurrogateAttack.name)
        wanted = [self._configured(each) if isinstance(each, str) else each for each in named]
        self._by_name = [made for each, made in zip(named, wanted, strict=True) if isinstance(each, str)]
        # Several neurons are as many attacks.
        self.wanted = [one for each in wanted for one in (each.each() if isinstance(each, Defect) else (each,))]

    def train_copies_by(self, recipe: Recipe, kept: AuditFolder, *, seed: int, verbose: bool | str) -> None:
        """Has the copies for FGSM, PGD and surrogates that were wanted by name trained by a recipe, once it is known.

        Args:
            recipe: The recipe. If its learning rate is open, it is chosen on the data that copies learn from.
            kept: Where what is finished is kept.
            seed: Of the audit.
            verbose: See `Method.train`.
        """
        by_name = [
            isinstance(each, TransferPGD) and any(each is named for named in self._by_name) for each in self.wanted
        ]
        if self._train is None or not any(by_name):
            return
        if recipe.is_open:
            training = partial(
                FineTune().train,
                self._prepared.teacher,
                scaled(_as_given(self._train), self._prepared.space),
                num_classes=self._num_classes,
                recipe=recipe,
                seed=seed + 1,
                head=self._head,
                verbose=verbose,
            )
            recipe = Recipe.from_config(kept.training(COPY, training).options["recipe"])
        self.wanted = [
            replace(each, recipe=recipe) if isinstance(each, TransferPGD) and named else each
            for each, named in zip(self.wanted, by_name, strict=True)
        ]

    def source_of(self, defect: Defect, *, seed: int, verbose: bool | str) -> Prepared:
        """What an attack is made with: the teacher, or the attacker's copy of it, trained once for each recipe."""
        if defect.plants:
            # It is in the teacher already.
            return self._prepared
        own = _as_given(self._train) if defect.of_task and self._train is not None else None
        if own is not None and defect.copy_recipe in self._copies:
            return self._copies[defect.copy_recipe]
        # The attacker's copy gets another seed: it is not the control.
        made = defect.prepare(
            self._prepared.teacher,
            own,
            space=self._prepared.space,
            num_classes=None if own is None else self._num_classes,
            seed=seed + 1,
            verbose=verbose,
        )
        if own is not None:
            self._copies[defect.copy_recipe] = made
        return made

    def what_decides(self, defect: Defect, request: Request) -> dict[str, Any]:
        """Everything that decides what becomes of an attack on the test set, as plain values for JSON."""
        return {
            "defect": defect.name,
            "options": defect.get_config(),
            "seed": request.seed,
            "bits": request.bits,
            "class_names": list(request.class_names),
            "teacher": self._prepared.describe(),
            "sequence_length": getattr(getattr(self._prepared.teacher, "preprocessor", None), "sequence_length", None),
            "data": self._digest if defect.of_task and self._train is not None else None,
        }

    def against(self, name: str, student: Trained, request: Request, kept: AuditFolder) -> AttackSet | None:
        """The adaptive attack on one student: a surrogate is made as the student was, of the attacker's own data.

        Args:
            name: Of the student.
            student: How it was made is on its record.
            request: What is to be attacked.
            kept: Where what is finished is kept.

        Returns:
            The attack set; `None` if that cannot be done, for a reason that goes into `left_out`.
        """
        how = student.options
        try:
            method = find_method(student.method).from_record(how)
            recipe = Recipe.from_config(how["recipe"])
            hardening = Hardening.from_config(how["hardening"]) if "hardening" in how else False
            seed, num_classes = int(how["seed"]) + 1, int(how["num_classes"])
        except (KeyError, TypeError, ValueError) as error:
            self.left_out[f"{ADAPTIVE} ({name})"] = f"Its record does not tell how to make one like it: {error}."
            return None
        title = f"{ADAPTIVE} {name}"
        attack = SurrogateAttack(recipe=recipe, head=self._head)

        def make(resume: Path | None) -> AttackSet:
            teacher, space = self._prepared.teacher, self._prepared.space
            # The attacker knows all but what was drawn.
            training = partial(
                method.train,
                teacher,
                scaled(self._own, space),
                num_classes=num_classes,
                recipe=recipe,
                seed=seed,
                head=self._head,
                harden=hardening,
                space=space,
                verbose=request.verbose,
            )
            made = kept.training(title, training)
            record = attack.record(teacher, seed=seed, num_classes=num_classes)
            prepared = Prepared(made.student, space, record=record)
            found = attack.make_inputs(prepared, replace(request, resume=resume))
            return replace(found, defect=ADAPTIVE, record={**found.record, "made_like": name, "method": student.method})

        way = {key: how[key] for key in sorted(how) if key not in ("history", "kept", "command")}
        return kept.attack(title, lambda: {**self.what_decides(attack, request), "way": way}, make)

    @cached_property
    def _digest(self) -> str:
        data = _as_given(self._train)
        if not isinstance(data, Dataset):
            return Fingerprint.of(*data)
        marks = Fingerprint()
        for x, y, _ in batches(data):
            marks.update([x, y])
        return marks.hexdigest()

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
                *self._with_own_data(),
                DisplacementAttack(head=self._head),
                PenultimateAttack(head=self._head),
                CoverageGuidedAttack(criterion="nc", strategy="deepxplore", head=self._head),
                CoverageGuidedAttack(criterion="snac", strategy="dlfuzz", head=self._head),
            ]
        if self._prepared.trigger is not None:
            tried.append(DEFECTS[self._prepared.record["defect"]]())
        return tried

    def _with_own_data(self) -> list[Wanted]:
        named = (SurrogateAttack.name, ADAPTIVE)
        if self._own is not None:
            return list(named)
        self.left_out |= dict.fromkeys(named, self._no_data)
        return []

    def _configured(self, name: str) -> Defect:
        if name not in DEFECTS:
            raise RemosError(f"Unknown defect {name!r}: expected one of {', '.join(DEFECTS)}.")
        kind = DEFECTS[name]
        if issubclass(kind, WordSwap):
            return kind(**self._swapping)
        options: dict[str, Any] = {"head": self._head} if "head" in kind.option_names() else {}
        return kind(**options)


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


def _is_surrogate(wanted: Wanted) -> bool:
    return SurrogateAttack.name == (wanted if isinstance(wanted, str) else title_of(wanted))


def _as_given(data: Any) -> Any:
    """Arrays, also of texts on disk; a data set of images stays there."""
    if isinstance(data, Dataset):
        return data.read_all() if data.kind == "text" else data
    return tuple(np.asarray(part) for part in data)
