"""What a training step of each method costs beside fine-tuning: with feature distillation, one teacher forward more.

    KERAS_BACKEND=jax python tests/benchmarks/bench_methods.py [--teacher teacher.keras]

All train through Keras' own `fit` in turns in one process, on the same batches; medians of the rounds are compared.
To be reached: DELTA and Renofeation at most 1.10 times (a fine-tuning step + a teacher forward), ReMoS as fine-tuning.
Run it on an idle machine; where there is none, --clock cpu counts what this process alone used.
"""

from statistics import median

import keras
import numpy as np
from training_steps import clock_of, options, teacher_of

from keras_remos import RelevantSlicer
from keras_remos.methods.distillation import Distillation
from keras_remos.training.recipe import Recipe
from keras_remos.training.task import Task
from keras_remos.training.trainer import Trainer, Training


def main() -> None:
    parser = options(__doc__, steps="a round")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    clock, teacher = clock_of(given), teacher_of(given)
    rng = np.random.default_rng(0)
    samples = given.batch_size * given.steps
    x = rng.normal(size=(samples, *teacher.input_shape[1:])).astype("float32")
    recipe = Recipe(epochs=1, batch_size=given.batch_size, augment="none", schedule="constant", warmup=0.0)
    task = Task(teacher, (x, rng.integers(0, 10, samples)), num_classes=10, recipe=recipe)
    trainer = Trainer(task, "benchmark", verbose=False)
    slicer = RelevantSlicer(teacher)
    masks = slicer.slice(slicer.profile(x, verbose=False)).masks
    frozen, paths = task.frozen_teacher(), task.feature_paths(None)
    trained = {
        "finetune": Training(task.copy()),
        "remos": Training(task.masked(masks)),
        "mag-prune": Training(task.masked(masks, freeze=True)),
        "delta": Distillation(task.copy(), frozen, paths=paths, weight=0.5),
        "renofeation": Distillation(task.fresh(), frozen, paths=paths, weight=5.0, dropout=0.1),
    }

    def fit(training: Training) -> None:
        training.fit(task.data, epochs=1, shuffle=False, verbose=0)

    def forward() -> None:
        frozen.predict(x, batch_size=given.batch_size, verbose=0)

    for training in trained.values():
        trainer.compile(training, recipe, epochs=1)
        fit(training)
    forward()
    times: dict[str, list[float]] = {name: [] for name in [*trained, "teacher forward"]}
    for _ in range(given.rounds):
        for name, seconds in times.items():
            start = clock()
            if name in trained:
                fit(trained[name])
            else:
                forward()
            seconds.append((clock() - start) / given.steps)
    step, one_forward = median(times["finetune"]), median(times["teacher forward"])
    print(f"{keras.backend.backend()}, batch {given.batch_size}: medians of {given.rounds} rounds, {given.clock} time")
    for name, seconds in times.items():
        allowed = step + one_forward if name in ("delta", "renofeation") else step
        ratio = "" if name == "teacher forward" else f", {median(seconds) / allowed:.3f} of what is allowed"
        print(f"{name:<16} {median(seconds) * 1e3:9.1f} ms a step{ratio}")


if __name__ == "__main__":
    main()
