"""How much memory do commands take for many images: `python tests/benchmarks/bench_memory.py [--images 2000 20000]`.

Made-up JPEG files of 224 px in a folder, and a tiny model. Each job runs in a process of its own, which says its peak
of resident memory beyond what is resident once the models are loaded, as Linux counts it. Prints a JSON object a job.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

LIMIT_MB = 1000
JOBS = ("attack", "attack float", "evaluate", "audit", "tradeoff")


def make(folder, images, side):
    """The images, a teacher, and a student of it."""
    import keras
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(images):
        place = folder / "data" / f"class{number % 4}"
        place.mkdir(parents=True, exist_ok=True)
        small = rng.integers(0, 160, (7, 7, 3), dtype=np.uint8)
        small[..., number % 3] += 90
        Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(place / f"{number}.jpg", quality=85)
    keras.utils.set_random_seed(0)
    layers = [keras.Input((side, side, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(8, 7, strides=8)]
    layers += [keras.layers.ReLU(), keras.layers.Conv2D(8, 3, strides=2), keras.layers.ReLU()]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(4, activation="softmax", name="head")]
    model = keras.Sequential(layers)
    model.save(folder / "teacher.keras")

    from keras_remos import save_student

    names = [f"class{number}" for number in range(4)]
    for name in ("student", "control"):
        save_student(model, folder / f"{name}.keras", class_names=names, teacher=model)


def resident(what):
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(what))


def run(folder, job):
    """Runs a job in this process; the memory that it took, in MB."""
    from keras_remos_cli import main
    from keras_remos_cli.inputs import Opening

    loaded = []
    opened = Opening.open

    def watched(self, path):
        model = opened(self, path)
        loaded.append(resident("VmRSS"))
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        return model

    Opening.open = watched
    data = ["--data", str(folder / "data"), "--preprocess", "none"]
    teacher, student, control = (str(folder / f"{name}.keras") for name in ("teacher", "student", "control"))
    made = str(folder / "attack.npz")
    arguments = {
        "attack": ["attack", teacher, *data, "--defect", "penultimate", "--steps", "2", "-o", made, "--force"],
        "attack float": [
            *("attack", teacher, *data, "--defect", "penultimate", "--steps", "2", "--bits", "32"),
            *("-o", str(folder / "float.npz"), "--force"),
        ],
        "evaluate": ["evaluate", student, *data, "--inputs", made, "--control", control, "--teacher", teacher],
        "audit": [
            *("audit", teacher, student, *data, "--control", control, "--defect", "fgsm"),
            *("--train-data", str(folder / "data"), "--epochs", "1", "-o", str(folder / "audit")),
        ],
        "tradeoff": [
            *("tradeoff", teacher, *data, "--inputs", made, "--keep-ratio", "0.5", "--keep-ratio", "1", "--harden"),
            *("--epochs", "1", "--learning-rate", "0.01"),
        ],
    }[job]
    began = time.monotonic()
    sys.argv = ["keras-remos", *arguments, "--quiet"]
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    return {
        "job": job,
        "exit": code,
        "mb": round(resident("VmHWM") - loaded[-1], 1),
        "seconds": round(time.monotonic() - began),
    }


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, nargs="+", default=[2000, 20000])
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS))
    parser.add_argument("--folder", type=Path, help="Where the images go. Default: a temporary folder.")
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    given = parse()
    if given.run:
        result = run(Path(given.run[0]), given.run[1])
        Path(given.run[0], "result.json").write_text(json.dumps(result))
        return 0
    worst = 0.0
    with tempfile.TemporaryDirectory(dir=given.folder) as place:
        for images in given.images:
            folder = Path(place, str(images))
            folder.mkdir()
            make(folder, images, given.side)
            for job in given.jobs:
                command = [sys.executable, __file__, "--run", str(folder), job]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ)
                result = {"images": images, "side": given.side, **json.loads((folder / "result.json").read_text())}
                print(json.dumps(result), flush=True)
                worst = max(worst, result["mb"] if result["exit"] == 0 else float("inf"))
    return int(worst > LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main())
