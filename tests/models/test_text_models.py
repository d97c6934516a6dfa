"""KerasHub classifiers as functions of texts, word swaps on them, and the wrapper for TextAttack."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import text_toys
import toys
from slow_swaps import Attacker, kuleshov, textfooler

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects import AttackSet, GreedySwap, Prepared, WordImportance
from keras_remos.defects.word_swaps import lockstep
from keras_remos.defects.word_swaps.checks import SentenceSimilarity
from keras_remos.defects.word_swaps.synonyms import SynonymPairs
from keras_remos.errors import DataError, MismatchError, TeacherError
from keras_remos.models import text_models
from keras_remos.models.description import describe_model
from keras_remos.models.fingerprint import fingerprint
from keras_remos.models.text_models import TextClassifier, TextEncoder

TEXT = PixelSpace("preprocessor")
PAIRS = [(text_toys.GOOD[i], text_toys.BAD[i]) for i in range(4)]
PAIRS += [("film", "story"), ("was", "very"), ("good", "great"), ("the", "a"), ("actor", "film")]
TABLE: dict[str, list[tuple[str, float]]] = {}
for one, two in PAIRS:
    TABLE.setdefault(one, []).append((two, 1.0))
    TABLE.setdefault(two, []).append((one, 1.0))
FREE: dict[str, Any] = {"synonyms": SynonymPairs(PAIRS), "stop_words": (), "tagger": None}


@pytest.fixture(scope="module")
def classifiers() -> dict[str, keras.Model]:
    return {name: text_toys.CLASSIFIERS[name]() for name in ("bert", "roberta")}


@pytest.fixture(scope="module")
def classify(classifiers: dict[str, keras.Model]) -> dict[str, TextClassifier]:
    """Compiled once for all tests."""
    return {name: TextClassifier(model, 16) for name, model in classifiers.items()}


def softmax(model: keras.Model, x: Any) -> np.ndarray:
    """What the model itself says, through its own preprocessor and at full length."""
    return toys.softmax(np.asarray(model.predict(x, verbose=0), np.float32))


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_probabilities_are_the_models_own(
    name: str, classifiers: dict[str, keras.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_models, "SHORTEST", 4)
    model = classifiers[name]
    texts = ["good", "", "the film was very very good and the actor was bad", *text_toys.sentences(6)[0].tolist()]
    marks = fingerprint(model)
    classify = TextClassifier(model, 4)
    np.testing.assert_allclose(classify(texts), softmax(model, texts), atol=1e-5)
    pairs = [(text, "a dull story") for text in texts]
    expected = softmax(model, tuple(map(list, zip(*pairs, strict=True))))
    np.testing.assert_allclose(classify(pairs), expected, atol=1e-5)
    assert fingerprint(model) == marks


def test_padding_is_cut_and_batches_have_two_sizes(
    classifiers: dict[str, keras.Model], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_models, "SHORTEST", 4)
    classify = TextClassifier(classifiers["bert"], 16)
    shapes = []
    run = classify._run
    monkeypatch.setattr(classify, "_run", lambda tokens: [shapes.append(tokens["token_ids"].shape), run(tokens)][1])
    for count, length in ((1, 1), (2, 5), (3, 40)):
        classify(["film " * length] * count)
    assert shapes == [(2, 4), (2, 8), (16, 16)]


def test_a_softmax_at_the_end_is_not_taken_again() -> None:
    plain = text_toys.bert()
    soft = text_toys.hub.models.BertTextClassifier(
        plain.backbone, 2, preprocessor=plain.preprocessor, activation="softmax"
    )
    probabilities = TextClassifier(soft)(["good film"])
    np.testing.assert_allclose(probabilities, soft.predict(["good film"], verbose=0), atol=1e-6)
    sigmoid = text_toys.hub.models.BertTextClassifier(
        plain.backbone, 2, preprocessor=plain.preprocessor, activation="sigmoid"
    )
    with pytest.raises(TeacherError, match="sigmoid"):
        TextClassifier(sigmoid)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_an_encoder_is_the_mean_over_tokens(name: str, classifiers: dict[str, keras.Model]) -> None:
    model = classifiers[name]
    texts = ["good", "the film was very good"]
    tokens = {key: np.asarray(keras.ops.convert_to_numpy(v)) for key, v in model.preprocess_samples(texts).items()}
    states = model.backbone.predict(tokens, verbose=0)
    states = toys.numpy(states["sequence_output"] if isinstance(states, dict) else states)
    expected = [row[mask.astype(bool)].mean(axis=0) for row, mask in zip(states, tokens["padding_mask"], strict=True)]
    encoder = TextEncoder(model)
    np.testing.assert_allclose(encoder(texts), expected, atol=1e-5)
    assert SentenceSimilarity(encoder).get_config()["encode"].startswith("TextEncoder(")


@pytest.mark.once
@pytest.mark.slow
@pytest.mark.parametrize("kind", [WordImportance, GreedySwap])
@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_the_attack_is_the_slow_one(name: str, kind: Any, classifiers: dict[str, keras.Model]) -> None:
    model = classifiers[name]
    x, _ = text_toys.sentences(8)
    y = softmax(model, x.tolist()).argmax(axis=1)
    attack = kind(**FREE)
    made = attack.inputs(attack.prepare(model, space=TEXT), x, y, class_names=("bad", "good"))
    classify = TextClassifier(model)
    for text, label, found in zip(x.tolist(), y, made.inputs.tolist(), strict=True):
        slow = Attacker(lambda one: classify([one])[0], TABLE, max_share=attack.max_share, goal=attack.goal_probability)
        assert found == (textfooler if kind is WordImportance else kuleshov)(slow, text, int(label))[1]
    assert (made.inputs != made.clean).any()
    made.check_teacher(classifiers[name])


def test_an_attack_set_says_what_it_took_and_survives_files(
    classifiers: dict[str, keras.Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lockstep, "GROUP_TEXTS", 4)
    attack = WordImportance(**FREE)
    attack.prepare(classifiers["bert"], space=TEXT, seed=3).save(tmp_path / "teacher.keras")
    prepared = Prepared.load(tmp_path / "teacher.keras")
    assert prepared.space == TEXT
    x, y = text_toys.sentences(10)
    x = np.stack([x, x[::-1]], axis=1)
    expected = attack.inputs(prepared, x, y, batch_size=8)
    described = expected.describe()
    assert described["options"]["synonyms"]["source"] == "pairs"
    assert described["record"]["model_calls"] < described["record"]["queries"]
    assert 0 < described["mean_changed_words"] < 1
    expected.save(tmp_path / "attack.npz")
    read = AttackSet.load(tmp_path / "attack.npz")
    assert (read.inputs == expected.inputs).all() and read.describe() == described

    tokenize, calls = text_models.tokenize, 0

    def breaks(model: keras.Model, texts: np.ndarray) -> dict[str, np.ndarray]:
        nonlocal calls
        calls += 1
        if calls == 7:
            raise KeyboardInterrupt
        return tokenize(model, texts)

    monkeypatch.setattr(text_models, "tokenize", breaks)
    with pytest.raises(KeyboardInterrupt):
        attack.inputs(prepared, x, y, batch_size=8, resume=tmp_path / "partial.npz")
    again = attack.inputs(prepared, x, y, batch_size=8, resume=tmp_path / "partial.npz")
    assert (again.inputs == expected.inputs).all()
    assert again.describe() == described
    with pytest.raises(MismatchError, match="another"):
        again.check_teacher(classifiers["roberta"])


def test_what_the_model_cannot_read_is_left_alone(
    classifiers: dict[str, keras.Model], classify: dict[str, TextClassifier], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "the film was good " * 2500
    label = classify["bert"]([long]).argmax(axis=1)
    asked: list[str] = []
    tokenize = text_models.tokenize

    def watched(model: keras.Model, texts: np.ndarray) -> dict[str, np.ndarray]:
        asked.extend(texts.tolist())
        return tokenize(model, texts)

    monkeypatch.setattr(text_models, "tokenize", watched)
    attack = WordImportance(**FREE)
    made = attack.inputs(attack.prepare(classifiers["bert"], space=TEXT), np.array([long]), label)
    assert made.options["max_words"] == max(len(text.split()) for text in asked) == text_toys.LENGTH
    assert made.inputs[0].split()[text_toys.LENGTH :] == long.split()[text_toys.LENGTH :]
    assert made.record["texts_cut_at_max_words"] == 1


def test_what_is_no_text_classifier_is_refused(classifiers: dict[str, keras.Model]) -> None:
    attack = WordImportance(**FREE)
    model = classifiers["bert"]
    with pytest.raises(TeacherError, match="no tokenizer"):
        attack.prepare(toys.build_mlp(), space=TEXT)
    with pytest.raises(TeacherError, match="no tokenizer"):
        attack.prepare(text_toys.hub.models.BertTextClassifier(model.backbone, 2), space=TEXT)
    with pytest.raises(DataError, match="preprocessor"):
        attack.prepare(model, space=PixelSpace("imagenet"))
    with pytest.raises(DataError, match="2 classes apart, the data have 5"):
        attack.prepare(model, space=TEXT, num_classes=5)
    with pytest.raises(TeacherError, match="no classifier"):
        attack.prepare(
            text_toys.hub.models.BertTextClassifier(model.backbone, 1, preprocessor=model.preprocessor), space=TEXT
        )
    small = text_toys.hub.models.BertBackbone(vocabulary_size=20, max_sequence_length=16, **text_toys.SIZE)
    with pytest.raises(MismatchError, match="tokenizer"):
        attack.prepare(text_toys.hub.models.BertTextClassifier(small, 2, preprocessor=model.preprocessor), space=TEXT)
    for names in ((), ("bad", "good")):
        with pytest.raises(DataError, match="labels up to 4"):
            attack.inputs(attack.prepare(model, space=TEXT), np.array(["good film"]), np.array([4]), class_names=names)


# TextAttack -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [8, 100])
def test_language_models_are_described_whatever_the_length_of_their_texts(length: int) -> None:
    tokens = text_toys.hub.models.BertTokenizer(vocabulary=text_toys.word_pieces(), lowercase=True)
    size = {"vocabulary_size": tokens.vocabulary_size(), "max_sequence_length": length}
    for model in (
        text_toys.hub.models.BertBackbone(**text_toys.SIZE, **size),
        text_toys.hub.models.BertTextClassifier(text_toys.hub.models.BertBackbone(**text_toys.SIZE, **size), 2),
    ):
        assert "token_embedding/embeddings" in describe_model(model).summary()
