"""Kills commands at random moments, starts them again, and compares with what unbroken ones make.

    python tests/robustness/kill_run.py FOLDER --kills 60 --seed 0

Prints a line for each job and, at the end, what was wrong; exit code 1 if anything was.
"""

import argparse
import hashlib
import json
import os
import signal
import sys
import time
import traceback
import zipfile
from collections.abc import Callable
from pathlib import Path
from shutil import copytree
from typing import Any

import h5py
import keras
import numpy as np
from keras_remos_cli import main as program

import keras_remos as kr
from keras_remos import demo
from keras_remos.defects import resuming
from keras_remos.students.exporting import formats_here

RECIPE = ["--epochs", "4", "--batch-size", "8", "--preprocess", "0-1"]
TEACHER = ["teacher.keras", "--data", "data.npz"]
KEPT = ["--learning-rate", "0.02", "--keep-ratio", "1", "--keep-ratio", "0.7"]
# How often what was killed is killed once more while it goes on.
AGAIN = 1 / 3


def shell(*arguments: str) -> Callable[[], None]:
    def job() -> None:
        # Commands write what was typed into their files.
        sys.argv = ["keras-remos", *arguments]
        program()

    return job


def train() -> None:
    with np.load("data.npz") as file:
        x, y = file["x"] / np.float32(255), file["y"]
    recipe = kr.Recipe(epochs=4, batch_size=8, learning_rate=0.02)
    teacher = kr.load_teacher("teacher.keras")
    trained = kr.train("remos", teacher, (x, y), (x[:9], y[:9]), recipe=recipe, checkpoint="run", verbose=False)
    kr.save_student(trained, "student.keras", teacher=teacher)


def show() -> None:
    for name in ("TEACHER_EPOCHS", "STUDENT_EPOCHS"):
        setattr(demo, name, 1)
    shell("demo", "-o", "demo.html")()


JOBS: dict[str, Callable[[], None]] = {
    "profile": shell("profile", *TEACHER, "-o", "profile.npz", "--batch-size", "4"),
    "merge": shell("profile", "merge", "before.npz", "before.npz", "-o", "profile.npz"),
    "slice": shell("slice", *TEACHER, "-o", "student.keras", "--slice-file", "slice.npz", "--batch-size", "4"),
    "attack": shell(
        *("attack", *TEACHER, "--defect", "penultimate", "--steps", "5"),
        *("--batch-size", "2", "--preprocess", "0-1", "-o", "attack.npz"),
    ),
    "poison": shell("poison", *TEACHER, *RECIPE, "-o", "poisoned.keras"),
    "transfer": shell("transfer", *TEACHER, *RECIPE, "--checkpoint", "run", "-o", "student.keras"),
    "renofeation": shell(
        *("transfer", *TEACHER, *RECIPE, "--checkpoint", "run", "-o", "student.keras", "--method", "renofeation")
    ),
    "train": train,
    "predict": shell("predict", "given.keras", "data.npz", "--csv", "classes.csv"),
    "report": shell("report", "before.npz", "-o", "page.html"),
    "figures": shell("report", "before.npz", "--format", "svg", "-o", "figures", "--force"),
    "tradeoff": shell("tradeoff", *TEACHER, *RECIPE, *KEPT, "-o", "shares.jsonl"),
    "audit": shell(
        *("audit", "teacher.keras", "given.keras", "--data", "data.npz", "--preprocess", "0-1", "--no-control"),
        *("--defect", "displacement", "--limit", "6", "-o", "audit"),
    ),
    "demo": show,
}
# A SavedModel is never the same bytes twice.
if "torch" in formats_here():
    JOBS["export"] = shell("export", "given.keras", "--format", "torch", "-o", "exported", "--force")


def prepare(folder: Path) -> None:
    """A teacher, a student, data, a profile to be merged, and an export to be replaced."""
    rng = np.random.default_rng(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, name="conv1"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(),
            layers.Conv2D(8, 3, name="conv2"),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Dense(5, name="logits"),
        ],
        name="teacher",
    )
    model.set_weights([np.abs(rng.normal(size=w.shape)) * 0.3 + 0.1 for w in model.get_weights()])
    model.save(folder / "teacher.keras")
    kr.save_student(model, folder / "given.keras", teacher=model, space=kr.PixelSpace("0-1"))
    (folder / "exported").mkdir()
    (folder / "exported" / "student.json").write_text('{"kind": "exported student"}')
    np.savez(folder / "data.npz", x=rng.integers(0, 256, (48, 8, 8, 3), dtype=np.uint8), y=np.arange(48) % 3)
    with np.load(folder / "data.npz") as file:
        kr.RelevantSlicer(model).profile(file["x"] / np.float32(255), verbose=False).save(folder / "before.npz")


def start(job: Callable[[], None], folder: Path) -> int:
    """Runs a job in a process of its own, which has all that it imports already."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.chdir(folder)
        with open("log", "ab", 0) as log:  # noqa: PTH123 (where the child is)
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        # Every finished batch goes to the disk at once.
        resuming.INTERVAL = 0.0
        # What took how long is written down.
        time.perf_counter = lambda: 0.0
        try:
            job()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        except Exception:
            traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def finish(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def content(folder: Path) -> dict[str, str]:
    """A digest of each file's content, without the time at which Keras wrote it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "log":
            digest = hashlib.sha256()
            for part in parts(path):
                digest.update(part)
            found[str(path.relative_to(folder))] = digest.hexdigest()
    return found


def parts(path: Path) -> list[bytes]:
    if not zipfile.is_zipfile(path):
        return [path.read_bytes()]
    with zipfile.ZipFile(path) as archive:
        read: list[bytes] = []
        for name in sorted(set(archive.namelist()) - {"metadata.json"}):
            read.append(name.encode())
            if name.endswith(".h5"):
                with archive.open(name) as member, h5py.File(member, "r") as weights:
                    weights.visititems(lambda key, item: read.extend(values(key, item)))
            else:
                read.append(archive.read(name))
    return read


def values(key: str, item: Any) -> list[bytes]:
    return [key.encode(), item[()].tobytes()] if isinstance(item, h5py.Dataset) else [key.encode()]


def kill_run(folder: Path, jobs: list[str], kills: int, seed: int) -> list[str]:
    """Kills so many times in all, job after job; what was wrong."""
    rng = np.random.default_rng(seed)
    seconds, whole, wrong = {}, {}, []
    given = folder / "given"
    given.mkdir(parents=True)
    finish(start(lambda: prepare(given), given))
    for name in jobs:
        place = copytree(given, folder / name)
        begun = time.monotonic()
        if finish(start(JOBS[name], place)):
            raise SystemExit(f"{name} fails unbroken: {(place / 'log').read_text()}")
        seconds[name], whole[name] = time.monotonic() - begun, content(place)
    done = dict.fromkeys(jobs, 0)
    in_time = dict.fromkeys(jobs, 0)
    number = 0
    while sum(in_time.values()) < kills and number < 5 * kills:
        name = jobs[number % len(jobs)]
        place = copytree(given, folder / f"{number}-{name}")
        number += 1
        killed, more = 0, True
        while more:
            child = start(JOBS[name], place)
            time.sleep(rng.uniform(0, seconds[name]))
            os.kill(child, signal.SIGKILL)
            killed += finish(child) == -signal.SIGKILL
            more = killed == 1 and rng.random() < AGAIN
        in_time[name] += killed
        done[name] += 1
        code = finish(start(JOBS[name], place))
        log = (place / "log").read_text()
        # Killed when all was done: then it is, and the next run does not write over it.
        if code and "exists already" not in log.splitlines()[-1]:
            wrong.append(f"{place.name}: exit code {code}: {log[-500:]}")
        found = content(place)
        if found != whole[name]:
            unlike = sorted(path for path in {**found, **whole[name]} if found.get(path) != whole[name].get(path))
            wrong.append(f"{place.name}: {unlike} differ from the unbroken run's")
        if hidden := [path.name for path in place.rglob(".*")]:
            wrong.append(f"{place.name}: {hidden} are left over")
    for name in jobs:
        print(f"{name}: {done[name]} runs, {in_time[name]} kills, unbroken {seconds[name]:.2f} s")
    print(json.dumps({"kills": sum(in_time.values()), "runs": number, "wrong": wrong}, indent=1))
    return wrong


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", nargs="*", choices=list(JOBS), default=list(JOBS))
    given = parser.parse_args()
    sys.exit(bool(kill_run(given.folder, given.jobs, given.kills, given.seed)))
