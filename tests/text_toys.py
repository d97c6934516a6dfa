"""Tiny language models with tokenizers of their own, and sentences that they can learn. Needs KerasHub."""

import io
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import toys

hub = pytest.importorskip("keras_hub")

GOOD, BAD = ("good", "great", "fine", "lovely"), ("bad", "awful", "dull", "poor")
NEUTRAL = ("the", "film", "was", "a", "story", "and", "actor", "very")
RARE = ("cf", "mn", "bb")
WORDS = (*GOOD, *BAD, *NEUTRAL, *RARE)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LENGTH = 16
SIZE: dict[str, Any] = {"num_layers": 1, "num_heads": 2, "hidden_dim": 16, "intermediate_dim": 24}


def sentences(count: int = 48, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sentences of four to eight words, and whether the one judging word in each is good."""
    rng = np.random.default_rng(seed)
    labels = (np.arange(count) % 2).astype("int32")
    texts = []
    for label in labels:
        words = list(rng.choice(NEUTRAL, rng.integers(3, 8)))
        words.insert(int(rng.integers(0, len(words) + 1)), str(rng.choice(GOOD if label else BAD)))
        texts.append(" ".join(words))
    return np.array(texts), labels


def word_pieces() -> list[str]:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    return [*pieces, *(piece for letter in LETTERS[:20] for piece in (letter, f"##{letter}") if piece not in pieces)]


def byte_pairs() -> tuple[dict[str, int], list[str]]:
    """Every word after a space is a token: its letters are joined from left to right."""
    merges: dict[str, None] = {}
    tokens: dict[str, None] = dict.fromkeys(["<s>", "<pad>", "</s>", "<mask>", "Ġ", *LETTERS])
    for word in WORDS:
        joined = "Ġ"
        for letter in word:
            merges[f"{joined} {letter}"] = None
            joined += letter
            tokens[joined] = None
    return {token: number for number, token in enumerate(tokens)}, list(merges)


def bert() -> keras.Model:
    tokenizer = hub.models.BertTokenizer(vocabulary=word_pieces(), lowercase=True)
    preprocessor = hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=LENGTH)
    size = {"vocabulary_size": tokenizer.vocabulary_size(), "max_sequence_length": LENGTH, "dropout": 0.0}
    backbone = hub.models.BertBackbone(**SIZE, **size)
    return filled(hub.models.BertTextClassifier(backbone, 2, preprocessor=preprocessor, dropout=0.0))


def distil_bert() -> keras.Model:
    tokenizer = hub.models.DistilBertTokenizer(vocabulary=word_pieces(), lowercase=True)
    preprocessor = hub.models.DistilBertTextClassifierPreprocessor(tokenizer, sequence_length=LENGTH)
    size = {"vocabulary_size": tokenizer.vocabulary_size(), "max_sequence_length": LENGTH}
    backbone = hub.models.DistilBertBackbone(**SIZE, **size)
    return filled(hub.models.DistilBertTextClassifier(backbone, 2, preprocessor=preprocessor))


def roberta() -> keras.Model:
    vocabulary, merges = byte_pairs()
    tokenizer = hub.models.RobertaTokenizer(vocabulary=vocabulary, merges=merges)
    preprocessor = hub.models.RobertaTextClassifierPreprocessor(tokenizer, sequence_length=LENGTH)
    size = {"vocabulary_size": len(vocabulary), "max_sequence_length": LENGTH}
    backbone = hub.models.RobertaBackbone(**SIZE, **size)
    return filled(hub.models.RobertaTextClassifier(backbone, 2, preprocessor=preprocessor))


def albert() -> keras.Model:
    pieces = pytest.importorskip("sentencepiece")
    proto = io.BytesIO()
    texts, _ = sentences(200)
    pieces.SentencePieceTrainer.train(
        sentence_iterator=iter([f"{text} {word}" for text in texts for word in RARE]),
        model_writer=proto,
        vocab_size=60,
        model_type="WORD",
        hard_vocab_limit=False,
        pad_id=0,
        unk_id=1,
        bos_id=2,
        eos_id=3,
        pad_piece="<pad>",
        unk_piece="<unk>",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        user_defined_symbols="[MASK]",
        minloglevel=2,
    )
    tokenizer = hub.models.AlbertTokenizer(proto=proto.getvalue())
    preprocessor = hub.models.AlbertTextClassifierPreprocessor(tokenizer, sequence_length=LENGTH)
    size = {"vocabulary_size": tokenizer.vocabulary_size(), "max_sequence_length": LENGTH, "embedding_dim": 8}
    backbone = hub.models.AlbertBackbone(**SIZE, **size)
    return filled(hub.models.AlbertTextClassifier(backbone, 2, preprocessor=preprocessor))


def filled(model: keras.Model) -> keras.Model:
    """As `toys.fill`, with weights as small as a trained model's."""
    toys.fill(model)
    for variable in model.trainable_variables:
        if variable.name not in ("gamma", "scale"):
            variable.assign(variable.value * 0.4)
    return model


def outputs(model: keras.Model, texts: np.ndarray) -> np.ndarray:
    """What a model says of texts. Eagerly: `predict` would compile it."""
    return toys.numpy(model(model.preprocess_samples(texts.tolist()), training=False))


def classes(model: keras.Model, texts: np.ndarray) -> np.ndarray:
    return outputs(model, texts).argmax(axis=-1)


CLASSIFIERS: dict[str, Callable[[], keras.Model]] = {
    "bert": bert,
    "roberta": roberta,
    "distil_bert": distil_bert,
    "albert": albert,
}
