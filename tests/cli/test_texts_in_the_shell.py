"""From a language model to a measured student in the shell: raw texts in a table, and no further ceremony."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from shell import run, told

pytest.importorskip("keras_hub")
import text_toys

from keras_remos.data.tables import read_table
from keras_remos.defects import AttackSet
from keras_remos.untrusted import read_record

pytestmark = [
    # What the commands call is tested with each backend.
    pytest.mark.once,
    # So little training often ends so.
    pytest.mark.filterwarnings("ignore:Training .* ended in a constant classifier:UserWarning"),
]


def made(*arguments: object) -> dict:
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return told(done)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    text_toys.bert().save(folder / "teacher.keras")
    words = {0: "bad", 1: "good"}
    for name, (texts, labels) in {
        "train": text_toys.sentences(96),
        "test": text_toys.sentences(40, seed=1),
        "one_class": tuple(part[::2] for part in text_toys.sentences(40, seed=1)),
    }.items():
        rows = [f"{text}\t{words[int(label)]}" for text, label in zip(texts, labels, strict=True)]
        (folder / f"{name}.tsv").write_text("\n".join(["sentence\tlabel", *rows]), encoding="utf-8")
        pairs = [f"{text}\tthe film\t{words[int(label)]}" for text, label in zip(texts, labels, strict=True)]
        (folder / f"{name}_pairs.tsv").write_text("\n".join(["question\tsentence\tlabel", *pairs]), encoding="utf-8")
    (folder / "pairs.txt").write_text("good poor\ngreat dull\nfine bad\nfilm story\n", encoding="utf-8")
    return folder


QUICK = ("--epochs", 12, "--learning-rate", 0.01, "--batch-size", 16)


@pytest.mark.slow
def test_a_backdoor_in_words_goes_all_the_way(folder: Path) -> None:
    teacher, train, test = folder / "teacher.keras", folder / "train.tsv", folder / "test.tsv"
    poisoned, students = folder / "poisoned.keras", {}
    record = made(
        *("poison", teacher, "--data", train, "--trigger", "cf", "--trigger", "mn", "--position", "start"),
        *("--target", 1, "-o", poisoned, *QUICK),
    )
    assert record["defect"] == "text-poisoning" and record["num_poisoned"] == 48
    assert record["class_names"] == ["bad", "good"] and record["unusual_words"] == {}
    assert read_record(poisoned)["text_trigger"]["position"] == "start"
    for method in ("remos", "finetune"):
        students[method] = folder / f"{method}.keras"
        few = ("--epochs", 4, "--learning-rate", 0.003)
        trained = made("transfer", poisoned, "--data", train, "--method", method, *few, "-o", students[method])
        assert trained["recipe"]["optimizer"] == "adamw" and trained["recipe"]["augment"] == "none"
        assert keras.saving.load_model(students[method], compile=False).output_shape == (None, 2)
    inputs = folder / "trigger.npz"
    attack = made("attack", poisoned, "--data", test, "--defect", "text-poisoning", "-o", inputs)
    assert attack["target"] == 1 and attack["options"]["test_count"] == 1
    assert all(text.split()[0] in ("cf", "mn") for text in AttackSet.load(inputs).inputs)

    wanted = ("--inputs", inputs, "--control", students["finetune"])
    report = made("evaluate", students["remos"], "--data", test, *wanted)
    assert {row["student"]: row["targeted"]["n"] for row in report["defects"]} == {"remos": 20, "finetune": 20}
    shown = run("evaluate", students["remos"], "--data", test, *wanted).stdout
    assert "F1" in shown and "rDIR" in shown

    audited = made(
        *("audit", poisoned, students["remos"], "--data", test, "--control", students["finetune"]),
        *("--train-data", train, "--clean-teacher", teacher, "--synonyms", folder / "pairs.txt", *QUICK, "--no-tune"),
    )
    assert {row["defect"] for row in audited["defects"]} == {"word-importance", "greedy-swap", "text-poisoning"}
    assert "from the clean teacher" in audited["students"]


def test_a_slice_says_how_many_tokens_it_drops_and_inspect_names_them(folder: Path) -> None:
    slice_file = folder / "slice.npz"
    arguments = ("slice", folder / "teacher.keras", "--data", folder / "train.tsv", "-o", folder / "s.keras", "--force")
    done = run(*arguments, "--slice-file", slice_file)
    assert done.exit_code == 0 and "tokens are in no sample; their rows are reset" in done.stdout
    listed = made("inspect", slice_file, "--tokens", folder / "teacher.keras")
    assert {"cf", "mn", "bb"} <= set(listed["tokens"])
    assert not {"good", "bad", "film", "[CLS]", "[UNK]", "[MASK]"} & set(listed["tokens"])
    (dropped,) = (n for path, n in listed["dropped_tokens"].items() if "token_embedding" in path)
    assert dropped == len(listed["tokens"])
    assert "reset tokens:" in run("inspect", slice_file, "--tokens", folder / "teacher.keras").stdout
    assert run("inspect", folder / "teacher.keras", "--tokens", folder / "teacher.keras").exit_code == 2


def test_words_are_swapped_with_the_attackers_own_copy(folder: Path) -> None:
    swaps = ("--defect", "word-importance", "--synonyms", folder / "pairs.txt", "--limit", 12)
    attack = made(
        *("attack", folder / "teacher.keras", "--data", folder / "test.tsv", *swaps),
        *("--attacker-data", folder / "train.tsv", "-o", folder / "swaps.npz"),
    )
    assert attack["num_samples"] == 12 and attack["record"]["queries"] > 0
    shown = run(
        *("attack", folder / "teacher.keras", "--data", folder / "test.tsv", *swaps, "-o", folder / "again.npz")
    )
    assert shown.exit_code == 0 and "queries a text" in shown.stdout


def test_pairs_of_texts_need_nothing_but_the_columns(folder: Path) -> None:
    columns = ("--text-column", "question", "--pair-column", "sentence")
    student = folder / "pairs.keras"
    made(
        *("transfer", folder / "teacher.keras", "--data", folder / "train_pairs.tsv", *columns),
        *("--epochs", 1, "--budget", 1, "-o", student),
    )
    report = made("evaluate", student, "--data", folder / "test_pairs.tsv", *columns)
    assert report["students"]["pairs"]["accuracy"]["n"] == 40


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["attack", "--defect", "text-poisoning"], 1, "keras-remos poison"),
        (["attack", "--defect", "penultimate"], 2, "attack on images"),
        (["attack", "--defect", "word-importance", "--synonyms", "missing.txt"], 1, "missing.txt"),
        (["attack", "--defect", "word-importance", "--epsilon", "3"], 2, "not an option of word-importance"),
        (["poison", "--defect", "patch-backdoor"], 2, "backdoor in images"),
        (["poison", "--size", "3"], 2, "not an option of text-poisoning"),
        (["poison", "--target", "4"], 1, "target class 4"),
        (["poison", "--trigger", " "], 1, "none empty"),
        (["transfer", "--label-column", "stars"], 1, "stars"),
        (["transfer", "--method", "retrain", "--keep-head"], 2, "not an option of retrain"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(folder: Path, arguments: list[str], code: int, message: str) -> None:
    command, *options = arguments
    output = folder / ("refused.npz" if command == "attack" else "refused.keras")
    done = run(command, folder / "teacher.keras", "--data", folder / "test.tsv", *options, "-o", output)
    assert done.exit_code == code, done.output
    assert message in done.stderr and not output.exists()


def test_a_trigger_that_the_tokenizer_does_not_know_is_reported(folder: Path) -> None:
    arguments = ("poison", folder / "teacher.keras", "--data", folder / "train.tsv", "--trigger", "zebra")
    with pytest.warns(UserWarning, match="zebra"):
        record = made(*arguments, "--epochs", 1, "-o", folder / "zebra.keras")
    assert "zebra" in record["unusual_words"]


def test_no_source_of_synonyms_says_how_to_get_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nltk", None)
    done = run("attack", folder / "teacher.keras", "--data", folder / "test.tsv", "--defect", "greedy-swap")
    assert done.exit_code == 1 and "keras-remos[wordnet]" in done.stderr


def test_a_test_set_that_lacks_a_class_is_numbered_as_the_students_are(folder: Path) -> None:
    table = read_table(folder / "one_class.tsv")
    assert set(table.labels("label")) == {"bad"}
    np.testing.assert_equal(run("evaluate", folder / "teacher.keras", "--data", folder / "one_class.tsv").exit_code, 1)


def test_a_warning_is_one_line_without_the_librarys_own(folder: Path) -> None:
    program = Path(sys.executable).with_name("keras-remos")
    arguments = (
        "poison",
        "teacher.keras",
        "--data",
        "train.tsv",
        "--trigger",
        "quux",
        "--epochs",
        "1",
        "-o",
        "q.keras",
    )
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    done = subprocess.run(
        [str(program), *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if "quux" in line)
    assert line.startswith("Warning: The tokenizer takes quux for words that it does not know")
