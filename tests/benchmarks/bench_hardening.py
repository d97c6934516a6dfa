"""What a hardened training step costs beside a plain one, and what making twins costs beside plain epochs.

    KERAS_BACKEND=jax python tests/benchmarks/bench_hardening.py [--teacher teacher.keras]

Plain and hardened students train through Keras' own `fit` in turns in one process, on the same batches; medians of the
rounds are compared. To be reached: a hardened step 0.95 to 1.05 times a plain one, twins in at most 3 plain epochs.
Run it on an idle machine; where there is none, --clock cpu counts what this process alone used.
"""

from statistics import median

import keras
import numpy as np
from training_steps import clock_of, options, teacher_of

from keras_remos import Hardening, PixelSpace
from keras_remos.training.recipe import Recipe
from keras_remos.training.task import Task
from keras_remos.training.trainer import Trainer, Training

SPACE = PixelSpace("-1-1")


def main() -> None:
    parser = options(__doc__, steps="an epoch")
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    clock, teacher = clock_of(given), teacher_of(given)
    rng = np.random.default_rng(0)
    samples = given.batch_size * given.steps
    data = SPACE.scale(rng.integers(0, 256, (samples, *teacher.input_shape[1:]))), rng.integers(0, 10, samples)
    recipe = Recipe(epochs=1, batch_size=given.batch_size, schedule="constant", warmup=0.0)

    def made(hardening: Hardening | None) -> tuple[Task, float]:
        task = Task(teacher, data, num_classes=10, recipe=recipe)
        start = clock()
        if hardening is not None:
            hardening.apply(task, SPACE, verbose=False)
        return task, clock() - start

    # The first ones are compiled, which is as long for any number of images.
    by_teacher = Hardening(of_control=())  # what a copy's training takes is no secret
    hardened, first = made(by_teacher)
    twins = [made(by_teacher)[1] for _ in range(3)]
    trained = {}
    for name, task in (("plain", made(None)[0]), ("hardened", hardened)):
        training = Training(task.copy())
        Trainer(task, "benchmark", verbose=False).compile(training, recipe, epochs=1)
        training.fit(task.data, epochs=1, shuffle=False, verbose=0)
        trained[name] = training, task.data
    times: dict[str, list[float]] = {name: [] for name in trained}
    for _ in range(given.rounds):
        for name, (training, batches) in trained.items():
            start = clock()
            training.fit(batches, epochs=1, shuffle=False, verbose=0)
            times[name].append(clock() - start)
    plain, ours = median(times["plain"]), median(times["hardened"])
    print(f"{keras.backend.backend()}, batch {given.batch_size}: medians of {given.rounds} rounds, {given.clock} time")
    print(f"plain      {plain / given.steps * 1e3:9.1f} ms a step")
    print(f"hardened   {ours / given.steps * 1e3:9.1f} ms a step, {ours / plain:.3f} of a plain one")
    print(f"twins      {median(twins) / plain:9.2f} plain epochs, the first {first / plain:.2f}; {samples} images")


if __name__ == "__main__":
    main()
