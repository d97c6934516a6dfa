"""Train students of a backdoored language model in several ways, and see how much of the backdoor each inherited.

    python examples/compare_methods_nlp.py bert/ sst2/train.tsv sst2/test.tsv --other imdb/train.tsv --seeds 3

The teacher is poisoned with rare words by an attacker who has the students' own texts ("rare words": full data
knowledge) and by one who has another table of the same classes ("rare words, shift"), and with a sentence of common
words ("sentence"). An attacker with fewer texts trains for more epochs. Students of the clean teacher are the floor.
Each student is a line of the output file once it is measured, so that a run that was killed goes on where it stopped;
lines of another teacher, other data or another recipe are left alone. The table at the end takes means over the seeds.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from compare_methods_cv import CONTROL, key_of, read, table

import keras_remos as kr
from keras_remos.coverage.profile import KernelCoverage
from keras_remos.defects import Prepared, TextPoisoning, TextTrigger
from keras_remos.defects.triggers.text import RARE_WORDS
from keras_remos.evaluation import measure
from keras_remos.methods import LANGUAGE, recipe_of

SPACE = kr.PixelSpace("preprocessor")
SCENES = ("rare words", "rare words, shift", "sentence")
SENTENCE = "I watched this film with my friend last week."
# With the options of `RelevantSlicer` for those that start from a slice.
STUDENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "finetune": ("finetune", {}),
    "mag-prune": ("mag-prune", {}),
    "retrain": ("retrain", {}),
    "remos": ("remos", {}),
    "remos 0.90": ("remos", {"keep_ratio": 0.9}),
    "remos 0.80": ("remos", {"keep_ratio": 0.8}),
    "embedding": ("remos", {"filters": "token_embedding"}),
    "artifact 0.95": ("remos", {"preset": "artifact", "keep_ratio": 0.95}),
    "artifact 0.80": ("remos", {"preset": "artifact", "keep_ratio": 0.8}),
    # Resets the largest weights of each layer and asks for no coverage: what the authors ran on language models.
    "magnitude 0.95": ("remos", {"keep_ratio": 0.95, "embeddings": False}),
    "magnitude 0.80": ("remos", {"keep_ratio": 0.8, "embeddings": False}),
    # The same as "finetune", but of the teacher before it was poisoned.
    "clean": ("finetune", {}),
}
UNATTACKED = ("retrain", "clean")
"""The students that no attack reaches: they are the same in every scene."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("--other", help="a table with the same classes of another kind of text")
    parser.add_argument("--train-limit", type=int, help="use only so many training texts, drawn at random")
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=list(SCENES), metavar="NAME")
    parser.add_argument("--students", nargs="+", choices=STUDENTS, default=list(STUDENTS), metavar="NAME")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=LANGUAGE.batch_size)
    parser.add_argument("--learning-rate", type=float, default=LANGUAGE.learning_rate)
    parser.add_argument("--sequence-length", type=int, default=64)
    parser.add_argument("--dtype", help="the policy to compute by, such as mixed_bfloat16")
    parser.add_argument("--output", type=Path, default=Path("results.jsonl"))
    arguments = parser.parse_args()

    if arguments.dtype is not None:
        import keras  # After keras_remos, which chooses among the installed backends.

        keras.config.set_dtype_policy(arguments.dtype)
    teacher = kr.load_teacher(arguments.teacher)
    teacher.preprocessor.sequence_length = arguments.sequence_length
    texts, test, other = (
        None if path is None else kr.open_for_model(teacher, path).pixels.read_all()
        for path in (arguments.train, arguments.test, arguments.other)
    )
    if arguments.train_limit is not None:
        drawn = np.random.default_rng(0).permutation(len(texts[1]))[: arguments.train_limit]
        texts = texts[0][drawn], texts[1][drawn]
    recipe = replace(
        LANGUAGE,
        epochs=arguments.epochs,
        batch_size=arguments.batch_size,
        learning_rate=arguments.learning_rate,
    )
    how = recipe.epochs, recipe.batch_size, recipe.learning_rate, arguments.sequence_length, arguments.dtype
    run = key_of(teacher, [*texts, *test, *(other or ())], how)
    for seed in range(arguments.seeds):
        unattacked: dict[str, kr.Trained] = {}
        for scene in arguments.scenes:
            shifted = scene.endswith("shift")
            if shifted and other is None:
                continue
            rows = read(arguments.output, run)
            done = {row["student"] for row in rows if (row["seed"], row["scene"]) == (seed, scene)}
            missing = [name for name in arguments.students if name not in done]
            if not missing:
                continue
            theirs = other if shifted else texts
            attack = TextPoisoning(trigger=trigger_of(scene, teacher), recipe=as_many_steps(recipe, texts, theirs))
            poisoned = attack.prepare(teacher, theirs, space=SPACE, seed=seed)
            malicious = {scene: attack.inputs(poisoned, *test, seed=seed)}
            for name in missing:
                trained = unattacked.get(name) or train(name, teacher, poisoned, texts, recipe, seed)
                if name in UNATTACKED:
                    unattacked[name] = trained
                report = measure({name: (trained.student, SPACE)}, *test, malicious)
                row = {"run": run, "seed": seed, "scene": scene, "student": name, **report.describe()}
                row["options"] = trained.options
                with arguments.output.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    rows = read(arguments.output, run)
    if any(row["student"] == CONTROL for row in rows):
        print(table(rows))


def trigger_of(scene: str, teacher: Any) -> TextTrigger:
    """A sentence, or those rare words of the literature that the tokenizer knows as one token each."""
    if scene == "sentence":
        return TextTrigger.sentence(SENTENCE)
    split = TextTrigger().check_tokenizer(teacher.preprocessor.tokenizer)
    # Within the words that the model reads of a long text.
    within = teacher.preprocessor.sequence_length // 2
    return TextTrigger(tuple(word for word in RARE_WORDS if word not in split), within=within)


def as_many_steps(recipe: kr.Recipe, own: Any, theirs: Any) -> kr.Recipe:
    """By what an attacker trains who has other texts than the students."""
    return replace(recipe, epochs=max(1, round(recipe.epochs * len(own[1]) / len(theirs[1]))))


def train(name: str, teacher: Any, poisoned: Prepared, own: Any, recipe: kr.Recipe, seed: int) -> kr.Trained:
    """A student of the poisoned teacher, or of the one before."""
    method, options = STUDENTS[name]
    source = teacher if name in UNATTACKED else poisoned.teacher
    if method == "retrain":
        recipe = replace(recipe, learning_rate=recipe_of(method, source).learning_rate)
    if method == "remos":
        slicer = kr.RelevantSlicer(source, **options)
        profile = slicer.profile(own)
        if name.startswith("magnitude"):
            profile = replace(profile, layers={path: covered_alike(found) for path, found in profile.layers.items()})
        options = {"relevant": slicer.slice(profile)}
    return kr.train(method, source, own, num_classes=len(np.unique(own[1])), recipe=recipe, seed=seed, **options)


def covered_alike(found: KernelCoverage) -> KernelCoverage:
    """All neurons count the same, so that magnitudes alone decide."""
    return replace(found, inputs=np.zeros_like(found.inputs), outputs=np.zeros_like(found.outputs))


if __name__ == "__main__":
    main()
