"""What the benchmarks of training steps ask for, and the teacher that they train."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import keras

from keras_remos import load_teacher

SHARED = Path(__file__).parents[3] / "shared" / "data" / "teachers" / "cifar10_resnet20.keras"


def options(description: str, *, steps: str) -> argparse.ArgumentParser:
    """What all of them can be asked; `steps` says what so many of them are."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, default=SHARED)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=4, help=steps)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    return parser


def clock_of(given: argparse.Namespace) -> Callable[[], float]:
    """What tells the time, in seconds."""
    return time.perf_counter if given.clock == "wall" else time.process_time


def teacher_of(given: argparse.Namespace) -> keras.Model:
    """The teacher that was asked for; where it is not there, one of random weights."""
    if given.teacher.exists():
        return load_teacher(given.teacher)
    return keras.applications.MobileNetV2((32, 32, 3), weights=None, classes=10)
