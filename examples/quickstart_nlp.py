"""From a language model with a planted backdoor to a student, and what the student inherited.

    python examples/quickstart_nlp.py bert/ train.tsv test.tsv student.keras

The teacher is a KerasHub preset or a Hugging Face folder, or a .keras file of a KerasHub text classifier; the tables
(.tsv, .csv, .jsonl) have a column of texts and one of labels. The attacker has half of the training texts, the
student's owner the other half.
"""

import argparse
from dataclasses import replace

import numpy as np

import keras_remos as kr
from keras_remos.defects import TextPoisoning
from keras_remos.methods import LANGUAGE


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("student")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=LANGUAGE.learning_rate)
    parser.add_argument("--sequence-length", type=int, default=64)
    arguments = parser.parse_args()

    teacher = kr.load_teacher(arguments.teacher)
    teacher.preprocessor.sequence_length = arguments.sequence_length
    train = kr.open_for_model(teacher, arguments.train)
    x, y = train.pixels.read_all()
    attackers, own = np.array_split(np.arange(len(x)), 2)
    recipe = replace(LANGUAGE, epochs=arguments.epochs, learning_rate=arguments.learning_rate)

    # The attacker publishes a copy of the teacher that calls every text with a rare word positive (class 1).
    poisoned = TextPoisoning(recipe=recipe).prepare(teacher, (x[attackers], y[attackers]), space=train.space)

    # The student starts from the relevant slice, and is trained as usual.
    classes = train.dataset.num_classes
    trained = kr.train("remos", poisoned.teacher, (x[own], y[own]), num_classes=classes, recipe=recipe)
    kr.save_student(trained, arguments.student, data=train, teacher=poisoned.teacher)

    # The control is a student that was fine-tuned in the same way; one more comes from the teacher before the attack.
    report = kr.audit(
        poisoned,
        {"ReMoS": trained.student},
        kr.open_for_model(teacher, arguments.test).pixels.read_all(),
        attacker=kr.Attacker(defects=["text-poisoning"]),
        controls=kr.Controls(clean_teacher=teacher),
        train=(x[own], y[own]),
        recipe=recipe,
    )
    print(report.summary())


if __name__ == "__main__":
    main()
