"""Start a student from the relevant part of a teacher, fine-tune it, and save it.

    python examples/slice_and_fine_tune.py teacher.keras dogs/train dogs/test student.keras

The data folders hold one sub-folder of images a class.
"""

import argparse

import keras_remos as kr


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teacher")
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("student")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--learning-rate", type=float, default=0.005)
    arguments = parser.parse_args()

    import keras  # After keras_remos, which chooses among the installed backends.

    teacher = kr.load_teacher(arguments.teacher)
    train = kr.open_for_model(teacher, arguments.train)
    test = kr.open_for_model(teacher, arguments.test, scaling=train.scaling)
    print(f"Inputs are scaled as {train.scaling}. {train.reason}")

    slicer = kr.RelevantSlicer(teacher)
    chosen = slicer.slice(slicer.profile(train.dataset))
    print(chosen.summary())

    student = chosen.apply(teacher, num_classes=train.dataset.num_classes)
    optimizer = keras.optimizers.SGD(arguments.learning_rate, momentum=0.9)
    student.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    student.fit(train.dataset, validation_data=test.dataset, epochs=arguments.epochs)
    kr.save_student(student, arguments.student, data=train, teacher=teacher)


if __name__ == "__main__":
    main()
