"""`WordSwap`: what the attacks share that swap words for synonyms until a text is misread."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, ClassVar

import keras
import numpy as np

from keras_remos.data import Fingerprint
from keras_remos.data.pixels import PREPROCESSOR
from keras_remos.data.texts import as_texts
from keras_remos.defects.attack_set import AttackSet
from keras_remos.defects.attackers_data import AttackersTexts
from keras_remos.defects.base import Defect, Preparation, Request, check_batch_size
from keras_remos.defects.prepared import Prepared
from keras_remos.defects.samples import check_classes
from keras_remos.defects.word_swaps.checks import TextCheck
from keras_remos.defects.word_swaps.lockstep import Lockstep, Scorer, in_groups
from keras_remos.defects.word_swaps.parts_of_speech import NltkTagger, Tagger, find_tagger
from keras_remos.defects.word_swaps.search import CLASSES, Outcome, Rules, Search, Subject
from keras_remos.defects.word_swaps.stop_words import STOP_WORDS
from keras_remos.defects.word_swaps.synonyms import SynonymSource, open_synonyms
from keras_remos.defects.words import Passage, plain
from keras_remos.errors import DataError, RemosError
from keras_remos.models.fingerprint import fingerprint
from keras_remos.models.text_models import Predict, TextClassifier, probabilities
from keras_remos.progress import track
from keras_remos.training.recipe import Recipe
from keras_remos.training.trainer import fine_tune
from keras_remos.untrusted import PathLike


@dataclass(frozen=True)
class Swapped:
    """What an attack made of texts.

    Args:
        texts: The malicious texts, in the shape of the clean ones.
        outcomes: How each search ended.
        queries: How many different texts each asked the classifier for.
        record: The totals, and what was used: plain values for JSON.
    """

    texts: np.ndarray
    outcomes: tuple[Outcome, ...]
    queries: tuple[int, ...]
    record: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class WordSwap(Defect):
    """Swaps words for synonyms until a text is misread. Nothing but the swapped words changes, not even their case.

    With texts of the students' task and their classes, `prepare` fine-tunes the attacker's own copy of the teacher, a
    KerasHub text classifier with its preprocessor. Without data the teacher is attacked as it is, and must be a
    classifier of that task.

    The options are the published constraints; each can be switched off, and `get_config` says which are on.

    Args:
        synonyms: Where words come from. `None` takes WordNet, if NLTK is installed.
        candidates: How many of a word's synonyms are tried, the most similar first.
        min_similarity: The least similarity of a word to the one that it replaces; -1 allows all. Sources that know no
            degrees give 1 to all.
        max_share: Which share of a text's words may be swapped; 1 allows all.
        stop_words: Words, in lower case, that stay as they are; `()` lets any be swapped.
        tagger: What tells parts of speech apart: a word stays in the same one, or a noun becomes a verb or a verb a
            noun. `"auto"` takes NLTK's where it is installed with its files, `"nltk"` insists on it, `None` does
            without. `get_config` says what is used.
        checks: What a whole text must pass after each swap: `SentenceSimilarity`, `Fluency`.
        goal_probability: A wrong class must reach this probability; `None` wants the text to be misread, no more.
        swap_in: Which text of a pair is attacked: `"first"` or `"second"`.
        max_words: Only the first so many words of a text are attacked, and shown to the classifier meanwhile; the rest
            stays as it is. The default is more than a BERT reads; `inputs` lowers it to what the teacher reads.
        max_places: Only the first so many words that have synonyms are tried; `None` tries all.
        recipe: How `prepare` trains the attacker's copy, if it is given data; `default_recipe` by default.

    Raises:
        RemosError: If an option is out of range.
    """

    synonyms: SynonymSource | None = None
    candidates: int = 50
    min_similarity: float = 0.5
    max_share: float = 1.0
    stop_words: Collection[str] = field(default=STOP_WORDS, repr=False)
    tagger: Tagger | str | None = "auto"
    checks: Sequence[TextCheck] = ()
    goal_probability: float | None = None
    swap_in: str = "first"
    max_words: int = 512
    max_places: int | None = None
    recipe: Recipe | None = None

    targeted: ClassVar[bool] = False
    of_task: ClassVar[bool] = True
    of_text: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("candidates", "max_words", "max_places"):
            least = getattr(self, name)
            if (not isinstance(least, int) or least < 1) and (name, least) != ("max_places", None):
                raise RemosError(f"`{name}` must be a whole number of at least 1, received {least!r}.")
        for name, value, low in (("max_share", self.max_share, 0), ("min_similarity", self.min_similarity, -1)):
            if not low <= value <= 1:
                raise RemosError(f"`{name}` must be from {low} to 1, received {value!r}.")
        if self.goal_probability is not None and not 0 < self.goal_probability < 1:
            raise RemosError(
                f"`goal_probability` must be between 0 and 1, or None, received {self.goal_probability!r}."
            )
        if self.swap_in not in ("first", "second"):
            raise RemosError(f"`swap_in` must be 'first' or 'second', received {self.swap_in!r}.")
        if isinstance(self.tagger, str) and self.tagger not in ("auto", "nltk"):
            raise RemosError(f"`tagger` must be 'auto', 'nltk', None or a Tagger, received {self.tagger!r}.")
        if isinstance(self.stop_words, str):
            raise RemosError(f"`stop_words` must be a collection of words, received the text {self.stop_words[:40]!r}.")
        names = [CLASSES, *(check.name for check in self.checks)]
        if len(set(names)) < len(names):
            raise RemosError(f"Each check must have a name of its own, received {', '.join(names[1:])}.")

    @abstractmethod
    def search(self, subject: Subject, rules: Rules) -> Search:
        """Starts the search for one text."""

    def get_config(self) -> dict[str, Any]:
        plain_values = {option.name: getattr(self, option.name) for option in fields(self)}
        return {
            **plain_values,
            "synonyms": None if self.synonyms is None else self.synonyms.describe(),
            "stop_words": "english" if frozenset(self.stop_words) == STOP_WORDS else sorted(self.stop_words),
            "tagger": self.tagger if self.tagger is None or isinstance(self.tagger, str) else self.tagger.name,
            "checks": {check.name: check.get_config() for check in self.checks},
            "recipe": None if self.recipe is None else self.recipe.get_config(),
        }

    @property
    def copy_recipe(self) -> Recipe | None:
        return self.recipe

    def make_prepared(self, teacher: keras.Model, how: Preparation) -> Prepared:
        """Fine-tunes the attacker's copy of the teacher, if there are data of the students' task to do that on.

        The attack transfers: made on a classifier of the students' task, it is tried on the students. Without data the
        teacher is attacked as it is, and must be a classifier of that task.
        """
        space, seed, num_classes = how.space, how.seed, how.num_classes
        if space.scaling != PREPROCESSOR:
            raise DataError(
                f"Word swaps are for texts, which the teacher's own preprocessor reads: expected PixelSpace(\""
                f'{PREPROCESSOR}"), received {space.scaling!r}.'
            )
        ready = self.resolved()
        if how.data is not None:
            texts = AttackersTexts.read(how.data, num_classes)
            copy = fine_tune(
                teacher,
                (texts.x, texts.y),
                num_classes=texts.num_classes,
                recipe=self.recipe,
                seed=seed,
                verbose=how.verbose,
            )
            return Prepared(copy, space, record=ready.record(teacher, seed=seed, num_classes=texts.num_classes))
        classes = TextClassifier(teacher).num_classes
        if num_classes is not None and num_classes != classes:
            raise DataError(
                f"Teacher {teacher.name!r} tells {classes} classes apart, the data have {num_classes}. Attack a "
                "classifier of this task: give data of the attacker's, on which a copy of the teacher is fine-tuned."
            )
        return Prepared(teacher, space, record=ready.record(teacher, seed=seed))

    def make_inputs(self, prepared: Prepared, request: Request) -> AttackSet:
        """The texts as they are when their search ends, whether it reached its goal or not; empty ones stay empty.

        Nothing is drawn, so `seed` makes no difference. The set's record counts model calls and queries.
        """
        clean = as_texts(request.x, allow_empty=True)
        labels = check_classes(clean, request.y, request.class_names)
        model = prepared.teacher
        ready = self.resolved()
        classify = TextClassifier(model, request.batch_size)
        # A word is a token or more: what comes after so many is never read.
        ready = replace(ready, max_words=min(ready.max_words, classify.sequence_length or ready.max_words))
        whole = {"model": [list(mark) for mark in fingerprint(model)]}
        swapped = ready._attack(classify, clean, labels, request.batch_size, request.verbose, request.resume, whole)
        return self.attack_set(
            request,
            clean,
            swapped.texts,
            labels,
            space=prepared.space,
            teacher=prepared.source,
            options=ready.get_config(),
            record=swapped.record,
            partial=request.resume,
        )

    def attack(
        self,
        predict: Predict,
        x: Any,
        y: Any,
        *,
        batch_size: int = 64,
        verbose: bool | str = "auto",
        resume: PathLike | None = None,
    ) -> Swapped:
        """Attacks any classifier.

        Args:
            predict: A list of texts, or of tuples of two, to probabilities: `(texts,)` to `(texts, classes)`.
            x: Texts of shape `(n,)`, or pairs `(n, 2)`; empty ones stay empty.
            y: True classes, shape `(n,)`.
            batch_size: How many texts `predict` gets at most.
            verbose: Progress on stderr: `True`, `False`, or `"auto"` for terminals and notebooks only.
            resume: A file for partial results. See `Defect.inputs`; what `predict` computes is taken to be the same.
                It stays: remove it once you have saved what comes back.

        Raises:
            DataError: If these are no texts, labels are missing or unknown, or `predict` returns no probabilities.
            MismatchError: If the file to resume from is of another attack.

        Example:
        ```python
        source = open_synonyms("ppdb_synonyms.txt", antonyms=["ppdb_antonyms.txt"])
        swapped = WordImportance(synonyms=source).attack(classify, ["A fine film."], [1])
        ```
        """
        return self.resolved()._attack(predict, x, y, batch_size, verbose, resume, {})

    def resolved(self) -> WordSwap:
        """The attack with its source of synonyms and its tagger found.

        Raises:
            DataError: If there is no source; says how to get one.
            ImportError: The same, where NLTK is missing.
        """
        tagger = self.tagger
        if isinstance(tagger, str):
            tagger = NltkTagger() if tagger == "nltk" else find_tagger()
        source = open_synonyms() if self.synonyms is None else self.synonyms
        return replace(self, synonyms=source, tagger=tagger)

    def _attack(
        self,
        predict: Predict,
        x: Any,
        y: Any,
        batch_size: int,
        verbose: bool | str,
        resume: PathLike | None,
        whole: dict[str, Any],
    ) -> Swapped:
        clean = as_texts(x, allow_empty=True)
        labels = check_classes(clean, y)
        check_batch_size(batch_size)
        data = Fingerprint()
        data.update([clean, labels])
        whole |= {"defect": self.name, "options": self.get_config(), "data": data.hexdigest(), "batch_size": batch_size}
        subjects, rests = self._subjects(clean, labels)
        rules = self._rules(subjects)
        scorers = {check.name: Scorer(check.score, batch_size) for check in self.checks}
        checked = partial(probabilities, predict, int(labels.max()))
        lockstep = Lockstep({**scorers, CLASSES: Scorer(checked, batch_size)}, resume, whole)
        searches = [partial(self.search, subject, rules) for subject in subjects]
        groups = in_groups(searches, [len(subject.passage.words) for subject in subjects])
        finished = (None for count in lockstep.run(groups) for _ in range(count))
        with track(finished, total=len(subjects), description=self.name, verbose=verbose) as tracked:
            for _ in tracked:
                pass
        attacked = [
            _apply(subject.passage, outcome).text + rest
            for subject, outcome, rest in zip(subjects, lockstep.outcomes, rests, strict=True)
        ]
        return Swapped(
            texts=self._beside(clean, attacked),
            outcomes=tuple(lockstep.outcomes),
            queries=tuple(lockstep.queries),
            record=self._record(lockstep, sum(map(bool, rests)), batch_size),
        )

    def _subjects(self, clean: np.ndarray, labels: np.ndarray) -> tuple[list[Subject], list[str]]:
        column = 0 if self.swap_in == "first" else 1
        subjects, rests = [], []
        for row, label in zip(clean.tolist(), labels.tolist(), strict=True):
            passage, rest = Passage.split(row if clean.ndim == 1 else row[column], self.max_words)
            other = None if clean.ndim == 1 else row[1 - column]
            subjects.append(Subject(passage, label, other, first=column == 0))
            rests.append(rest)
        return subjects, rests

    def _beside(self, clean: np.ndarray, attacked: list[str]) -> np.ndarray:
        texts = np.array(attacked, dtype=np.str_)
        if clean.ndim == 1:
            return texts
        return np.stack([texts, clean[:, 1]] if self.swap_in == "first" else [clean[:, 0], texts], axis=1)

    def _rules(self, subjects: Sequence[Subject]) -> Rules:
        stop_words = frozenset(map(plain, self.stop_words))
        source, tagger = self.synonyms, self.tagger
        if source is None or isinstance(tagger, str):
            raise RemosError("The attack has no source of synonyms or no tagger yet: call resolved() first.")
        words = dict.fromkeys(plain(word) for subject in subjects for word in subject.passage.words)
        source.prefetch([word for word in words if word not in stop_words])
        return Rules(
            source=source,
            stop_words=stop_words,
            candidates=self.candidates,
            min_similarity=self.min_similarity,
            max_share=self.max_share,
            max_places=self.max_places,
            goal_probability=self.goal_probability,
            tagger=tagger,
            checks=tuple(self.checks),
        )

    def _record(self, lockstep: Lockstep, cut: int, batch_size: int) -> dict[str, Any]:
        statuses = [outcome.status for outcome in lockstep.outcomes]
        counts = {status: statuses.count(status) for status in ("success", "failed", "skipped")}
        queries = np.array(lockstep.queries)
        calls = {kind: scorer.calls for kind, scorer in lockstep.scorers.items()}
        return {
            "outcomes": counts,
            "success_rate": counts["success"] / max(counts["success"] + counts["failed"], 1),
            "queries": int(queries.sum()),
            "queries_per_sample": {"mean": float(queries.mean()), "max": int(queries.max())},
            "model_calls": calls.pop(CLASSES),
            "check_calls": calls,
            "batch_size": batch_size,
            "texts_cut_at_max_words": cut,
        }


def _apply(passage: Passage, outcome: Outcome) -> Passage:
    for index, word in outcome.swaps:
        passage = passage.swap(index, word)
    return passage
