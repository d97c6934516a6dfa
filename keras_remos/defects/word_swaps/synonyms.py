"""Where the words come from that an attacker puts in place of others: a file of pairs, word vectors, or WordNet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from keras_remos.defects.words import Passage
from keras_remos.errors import DataError, FileError, RemosError
from keras_remos.untrusted import PathLike, check_regular

HOW_TO_GET_SYNONYMS = (
    "Word swaps need a source of synonyms. One of: WordNet through NLTK (pip install "
    '"keras-remos[wordnet]", then python -m nltk.downloader wordnet); a file of pairs, one "word synonym" a line, such '
    "as PPDB's; a text file of word vectors, such as the counter-fitted ones of Mrksic et al. (github.com/nmrksic/"
    "counter-fitting) or GloVe, with a file of antonyms."
)
# So many words are looked up at once, in so many rows at a time: 32 MB of similarities.
QUERY_BLOCK = 128
ROW_BLOCK = 65_536


class SynonymSource(Protocol):
    """What knows words that may stand for others. A class of one's own inherits from this one."""

    def synonyms(self, word: str) -> list[tuple[str, float]]:
        """Words that may stand for a word.

        Args:
            word: In lower case.

        Returns:
            `(synonym, similarity)`, the most similar first; similarity up to 1, which sources that know no degrees
            give to all. Empty for unknown words.
        """
        ...

    def prefetch(self, words: Sequence[str]) -> None:
        """Says which words will be asked for, so that a source may look them up all at once."""
        return

    def describe(self) -> dict[str, Any]:
        """What it is, as plain values for JSON, and different for sources of different content."""
        return {"source": type(self).__name__}


class SynonymPairs(SynonymSource):
    """Pairs of words of which each may stand for the other.

    Args:
        pairs: The pairs. A word's synonyms are in the order in which they come.

    Raises:
        DataError: If there is none.

    Example:
    ```python
    source = SynonymPairs([("film", "movie"), ("film", "picture")])
    source.synonyms("film")         # [("movie", 1.0), ("picture", 1.0)]
    ```
    """

    def __init__(self, pairs: Iterable[tuple[str, str]]) -> None:
        self.file: str | None = None
        self._synonyms: dict[str, dict[str, None]] = {}
        for first, second in pairs:
            for word, synonym in ((first.lower(), second), (second.lower(), first)):
                if word != synonym.lower():
                    self._synonyms.setdefault(word, {})[synonym] = None
        if not self._synonyms:
            raise DataError(f"There is no pair of different words. {HOW_TO_GET_SYNONYMS}")

    @classmethod
    def from_file(cls, path: PathLike) -> SynonymPairs:
        """Reads a file of pairs, one `word synonym` a line, UTF-8. PPDB's prefix `en_` is dropped.

        Raises:
            DataError: If the file is missing, is not UTF-8, or a line holds not two words; says which.
        """
        source = cls(read_pairs(path))
        source.file = Path(path).name
        return source

    def synonyms(self, word: str) -> list[tuple[str, float]]:
        return [(synonym, 1.0) for synonym in self._synonyms.get(word, ())]

    def describe(self) -> dict[str, Any]:
        pairs = [(word, *synonyms) for word, synonyms in self._synonyms.items()]
        return {"source": "pairs", "file": self.file, "words": len(pairs), "digest": _digest(repr(pairs).encode())}


class WordVectors(SynonymSource):
    """Words whose vectors point in almost the same direction.

    Args:
        words: The vocabulary.
        vectors: One row each, shape `(words, dimensions)`, of any length. May be memory-mapped: it is read a block of
            rows at a time.
        neighbors: How many synonyms a word has: no attack gets more.

    Raises:
        DataError: If the two do not fit each other.

    Reference:
        N. Mrksic et al., Counter-fitting Word Vectors to Linguistic Constraints, NAACL 2016: the vectors that
        TextFooler uses. Plain GloVe vectors put opposites side by side: block them with `WithoutOpposites`.
    """

    def __init__(self, words: Sequence[str], vectors: np.ndarray, *, neighbors: int = 50) -> None:
        if vectors.ndim != 2 or len(words) != len(vectors) or not vectors.size:
            raise DataError(
                f"Expected one vector for each word, received {len(words)} words and an array of shape {vectors.shape}."
            )
        if neighbors < 1:
            raise RemosError(f"`neighbors` must be at least 1, received {neighbors}.")
        self.words = list(words)
        self.vectors = vectors
        self.neighbors = neighbors
        self.file: str | None = None
        # The first of two rows of one word counts: files are sorted by frequency.
        self._rows = {word: row for row, word in reversed(list(enumerate(self.words)))}
        lengths = np.concatenate([np.linalg.norm(block, axis=1) for _, block in self._blocks()])
        if not np.isfinite(lengths).all():
            bad = self.words[int(np.argmin(np.isfinite(lengths)))]
            raise DataError(f"The vector of {bad!r} holds NaN or infinity. Remove it from the file.")
        self._scale = (1 / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
        self._found: dict[str, list[tuple[str, float]]] = {}

    @classmethod
    def from_file(cls, path: PathLike, *, limit: int | None = 100_000, neighbors: int = 50) -> WordVectors:
        """Reads a text file of vectors (GloVe, counter-fitted, word2vec's text format), UTF-8.

        Args:
            path: One line for each word: the word, then its numbers. A first line that holds two counts is passed over.
            limit: How many words to read: such files start with the frequent ones. 100,000 vectors of 300 dimensions
                take 120 MB.
            neighbors: See the class.

        Raises:
            DataError: If the file is missing, is not UTF-8, or a line holds something else; says which.
        """
        words: list[str] = []
        rows: list[np.ndarray] = []
        dimensions = 0
        for number, line in enumerate(_lines(path), 1):
            fields = line.rstrip().split(" ")
            if number == 1 and len(fields) == 2 and all(field.isdigit() for field in fields):
                continue
            if len(words) == limit:
                break
            dimensions = dimensions or len(fields) - 1
            try:
                row = np.array(fields[-dimensions:], np.float32)
            except ValueError:
                row = np.empty(0, np.float32)
            if len(row) != dimensions or len(fields) <= dimensions or not dimensions:
                raise DataError(
                    f"{path}, line {number}: expected a word and {dimensions or 'its'} numbers, received "
                    f"{line[:60].rstrip()!r}."
                )
            words.append(" ".join(fields[:-dimensions]))
            rows.append(row)
        if not words:
            raise DataError(f"{path} holds no word vectors. {HOW_TO_GET_SYNONYMS}")
        source = cls(words, np.stack(rows), neighbors=neighbors)
        source.file = Path(path).name
        return source

    def synonyms(self, word: str) -> list[tuple[str, float]]:
        self.prefetch([word])
        return self._found.get(word, [])

    def prefetch(self, words: Sequence[str]) -> None:
        wanted = [word for word in dict.fromkeys(words) if word in self._rows and word not in self._found]
        for start in range(0, len(wanted), QUERY_BLOCK):
            self._look_up(wanted[start : start + QUERY_BLOCK])

    def _look_up(self, words: list[str]) -> None:
        """Finds the neighbours of words of the vocabulary, block by block."""
        own = np.array([self._rows[word] for word in words])
        queries = self.vectors[own].astype(np.float32) * self._scale[own, None]
        count = self.neighbors
        near, rows = [], []
        for start, block in self._blocks():
            similarity = queries @ block.T * self._scale[start : start + len(block)]
            inside = (own >= start) & (own < start + len(block))
            similarity[inside, own[inside] - start] = -np.inf
            most = min(count, len(block))
            best = np.argpartition(similarity, -most, axis=1)[:, -most:]
            near.append(np.take_along_axis(similarity, best, axis=1))
            rows.append(best + start)
        # Rounded, so that the last bits, which depend on what was asked for together, do not order the neighbours.
        similarities = np.round(np.concatenate(near, axis=1).astype(np.float64), 5)
        for word, places, values in zip(words, np.concatenate(rows, axis=1), similarities, strict=True):
            order = np.lexsort((places, -values))[:count]
            self._found[word] = [(self.words[places[i]], float(values[i])) for i in order if np.isfinite(values[i])]

    def _blocks(self) -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, len(self.words), ROW_BLOCK):
            yield start, np.asarray(self.vectors[start : start + ROW_BLOCK], np.float32)

    def mean_vectors(self, texts: Sequence[str]) -> np.ndarray:
        """The mean of the vectors of each text's words: the "thought vectors" of Kuleshov et al., section 3.1.

        Args:
            texts: Texts, of which unknown words are passed over.

        Returns:
            Unit vectors are averaged: float32 of shape `(texts, dimensions)`, zeros where no word is known.
        """
        means = np.zeros((len(texts), self.vectors.shape[1]), np.float32)
        for text, mean in zip(texts, means, strict=True):
            words = [word.lower() for word in Passage.split(text)[0].words]
            rows = [self._rows[word] for word in words if word in self._rows]
            if rows:
                mean[:] = (self.vectors[rows] * self._scale[rows, None]).mean(axis=0)
        return means

    def describe(self) -> dict[str, Any]:
        some = np.ascontiguousarray(self.vectors[:: max(len(self.words) // 256, 1)], np.float32)
        digest = _digest("\n".join(self.words).encode("utf-8", "surrogatepass") + some.tobytes())
        config = {"words": len(self.words), "dimensions": self.vectors.shape[1], "neighbors": self.neighbors}
        return {"source": "vectors", "file": self.file, **config, "digest": digest}


class WordNet(SynonymSource):
    """Words that share a sense with a word in WordNet, the frequent senses first, through NLTK.

    Raises:
        ImportError: If NLTK is not installed.
        DataError: If it is, and WordNet's files are not.

    Note:
        WordNet knows base forms: an inflected word gets the synonyms of its base form, uninflected. It has no degrees
        of similarity, and no part of either paper; a part-of-speech check keeps the worst away.
    """

    def __init__(self) -> None:
        try:
            from nltk.corpus import wordnet
        except ImportError as error:
            raise ImportError(f"NLTK is not installed. {HOW_TO_GET_SYNONYMS}") from error
        try:
            wordnet.ensure_loaded()
            self.version = str(wordnet.get_version())
        except (LookupError, OSError) as error:
            raise DataError(
                f"NLTK is installed, WordNet's files are not: python -m nltk.downloader wordnet. {HOW_TO_GET_SYNONYMS}"
            ) from error
        self._wordnet: Any = wordnet

    def synonyms(self, word: str) -> list[tuple[str, float]]:
        names = (name for sense in self._wordnet.synsets(word) for name in sense.lemma_names())
        return [(name, 1.0) for name in dict.fromkeys(name.replace("_", " ") for name in names) if name != word]

    def describe(self) -> dict[str, Any]:
        return {"source": "wordnet", "version": self.version}


class WithoutOpposites(SynonymSource):
    """Another source, less the words that mean the opposite.

    Args:
        source: The source.
        opposites: Pairs of words that may never stand for each other.
    """

    def __init__(self, source: SynonymSource, opposites: Iterable[tuple[str, str]]) -> None:
        self.source = source
        pairs = [(first.lower(), second.lower()) for first, second in opposites]
        self.opposites = frozenset(pairs) | {(second, first) for first, second in pairs}

    def synonyms(self, word: str) -> list[tuple[str, float]]:
        return [pair for pair in self.source.synonyms(word) if (word, pair[0].lower()) not in self.opposites]

    def prefetch(self, words: Sequence[str]) -> None:
        self.source.prefetch(words)

    def describe(self) -> dict[str, Any]:
        digest = _digest(repr(sorted(self.opposites)).encode())
        return {**self.source.describe(), "opposites": len(self.opposites) // 2, "opposites_digest": digest}


def open_synonyms(
    source: PathLike | None = None, *, antonyms: Sequence[PathLike] = (), limit: int | None = 100_000
) -> SynonymSource:
    """Opens a source of synonyms by its name.

    Args:
        source: A file of pairs or of word vectors, told apart by their first line; `"wordnet"` or `None` for WordNet.
        antonyms: Files of pairs that may never stand for each other.
        limit: How many word vectors to read.

    Raises:
        DataError: If a file is missing or damaged; says how to get one.
        ImportError: If it is WordNet and NLTK is not installed.

    Example:
    ```python
    source = open_synonyms("ppdb_synonyms.txt", antonyms=["ppdb_antonyms.txt"])
    ```
    """
    opened: SynonymSource
    if source is None or (str(source) == "wordnet" and not Path(source).exists()):
        opened = WordNet()
    elif _holds_pairs(source):
        opened = SynonymPairs.from_file(source)
    else:
        opened = WordVectors.from_file(source, limit=limit)
    opposites = [pair for path in antonyms for pair in read_pairs(path)]
    return WithoutOpposites(opened, opposites) if opposites else opened


def read_pairs(path: PathLike) -> list[tuple[str, str]]:
    """Reads a file of pairs of words, one pair a line. See `SynonymPairs.from_file`."""
    pairs = []
    for number, line in enumerate(_lines(path), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 2:
            raise DataError(f"{path}, line {number}: expected two words, received {line[:60].rstrip()!r}.")
        prefixed = all(word.startswith("en_") for word in words)
        first, second = (word.removeprefix("en_") if prefixed else word for word in words)
        pairs.append((first, second))
    if not pairs:
        raise DataError(f"{path} holds no pair of words. {HOW_TO_GET_SYNONYMS}")
    return pairs


def _holds_pairs(path: PathLike) -> bool:
    fields = next((line.split() for line in _lines(path) if line.strip()), [])
    return len(fields) <= 2 and not all(field.isdigit() for field in fields)


def _lines(path: PathLike) -> Iterator[str]:
    try:
        with check_regular(path).open(encoding="utf-8") as file:
            yield from file
    except FileError as error:
        raise DataError(f"{error} {HOW_TO_GET_SYNONYMS}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}). Convert it.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}). {HOW_TO_GET_SYNONYMS}") from error


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
