"""From a teacher to a student, and what the student inherited.

    python examples/quickstart_cv.py teacher.keras dogs/ student.keras

The folder holds train/ and test/, each with one sub-folder of images a class (or give an .npz with x_train, y_train,
x_test and y_test).
"""

import argparse

import keras_remos as kr
from keras_remos.methods import Recipe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("data")
    parser.add_argument("student")
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()

    teacher = kr.load_teacher(arguments.teacher)
    train = kr.open_for_model(teacher, arguments.data, split="train")
    test = kr.open_for_model(teacher, arguments.data, split="test", scaling=train.scaling)

    # The student starts from the relevant slice. Its learning rate, and how much is kept, are chosen on a part of the
    # data, and it trains on malicious twins of its images, too.
    recipe = Recipe(epochs=arguments.epochs, batch_size=50, learning_rate="auto")
    trained = kr.train("remos", teacher, train.dataset, recipe=recipe)
    kr.save_student(trained, arguments.student, data=train, teacher=teacher)
    print(trained.summary())

    # Every attack is made from the teacher alone. The control is a student that was tuned and fine-tuned alike.
    report = kr.audit(
        teacher,
        {"ReMoS": trained},
        test.pixels.read_all(),
        train=train.pixels,
        space=train.space,
        recipe=recipe,
    )
    print(report.summary())


if __name__ == "__main__":
    main()
