"""What slicing costs in `fit`: the step time of a student beside that of a plain copy of its teacher.

    KERAS_BACKEND=jax python tests/benchmarks/bench_fit.py [--steps 30]

Both train in turns in one process on the same batches; medians are compared. Run it on an idle machine.
"""

import argparse
import time
from statistics import median

import keras
import numpy as np

from keras_remos import RelevantSlicer
from keras_remos.slicing import student


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    steps = parser.parse_args().steps
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32, 32, 32, 3)).astype("float32"), rng.integers(0, 10, 32)
    teacher = keras.applications.MobileNetV2((32, 32, 3), weights=None, classes=10)
    slicer = RelevantSlicer(teacher)
    chosen = slicer.slice(slicer.profile(x, verbose=False))
    students = {
        "plain copy": student.build(teacher, {}),
        "ReMoS": chosen.apply(teacher),
        "ReMoS, freeze=True": chosen.apply(teacher, freeze=True),
    }
    for model in students.values():
        model.compile(keras.optimizers.SGD(0.01, momentum=0.9), "sparse_categorical_crossentropy")
        model.train_on_batch(x, y)
    times: dict[str, list[float]] = {name: [] for name in students}
    for _ in range(steps):
        for name, model in students.items():
            start = time.perf_counter()
            model.train_on_batch(x, y)
            times[name].append(time.perf_counter() - start)
    plain = median(times["plain copy"])
    for name, seconds in times.items():
        ratio = median(seconds) / plain
        print(f"{keras.backend.backend():<10} {name:<20} {median(seconds) * 1e3:8.1f} ms a step, ratio {ratio:.3f}")


if __name__ == "__main__":
    main()
