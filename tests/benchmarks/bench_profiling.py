"""What profiling costs over a plain forward pass, and whether its memory grows with the data set.

    KERAS_BACKEND=jax python tests/benchmarks/bench_profiling.py [--batches 6] [--json]

Each row times the same batches through `teacher.predict_on_batch` and through profiling, in turns, in one process, and
compares the medians. Compilation and planning come before and are reported on their own. What a second `profile` of the
same slicer costs besides its batch and the teacher's fingerprint comes last. Run it on an idle machine. On
a virtual one, where a fresh page of memory is dear and falls on whoever asks first, let glibc keep what it has:

    GLIBC_TUNABLES=glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=17179869184 python ...
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import keras
import numpy as np

from keras_remos import RelevantSlicer
from keras_remos.coverage.counting import CoverageModel
from keras_remos.models.fingerprint import fingerprint
from keras_remos.models.reading_plan import plan_readings
from keras_remos.slicing.presets import find_preset

TARGET, FIXED_TARGET = 1.15, 0.1


def resnet50(rng: np.random.Generator) -> tuple[keras.Model, Any]:
    model = keras.applications.ResNet50(weights=None, classifier_activation=None)
    return model, rng.normal(size=(16, 224, 224, 3)).astype("float32")


def bert(rng: np.random.Generator) -> tuple[keras.Model, Any]:
    from keras_hub.models import BertBackbone

    model = BertBackbone(
        vocabulary_size=30522,
        num_layers=6,
        num_heads=12,
        hidden_dim=384,
        intermediate_dim=1536,
        max_sequence_length=128,
    )
    tokens = rng.integers(1, 30522, size=(16, 128)).astype("int32")
    lengths = rng.integers(16, 129, size=(16, 1))
    padding = (np.arange(128) < lengths).astype("int32")
    return model, {"token_ids": tokens * padding, "segment_ids": np.zeros_like(tokens), "padding_mask": padding}


def resident_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(function: Callable[[], Any]) -> float:
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def measure(name: str, preset: str, model: keras.Model, x: Any, batches: int) -> dict[str, Any]:
    settings = find_preset(preset, language=name == "bert")
    start = time.perf_counter()
    plan = plan_readings(model, x, on=settings.on)
    watched = CoverageModel(model, plan, settings.criterion, settings.count_padding)
    planning = time.perf_counter() - start
    inputs = {"x": x, "valid": np.ones(16, np.int32)}
    first = timed(lambda: model.predict_on_batch(x)), timed(lambda: watched.predict_on_batch(inputs))
    plain, profiled = [], []
    memory: list[float] = []
    for _ in range(batches):
        plain.append(timed(lambda: model.predict_on_batch(x)))
        profiled.append(timed(lambda: watched.predict_on_batch(inputs)))
        memory.append(resident_memory())
    return {
        "model": name,
        "preset": preset,
        "backend": keras.backend.backend(),
        "ratio": median(profiled) / median(plain),
        "target": TARGET,
        "forward_s": median(plain),
        "profiled_s": median(profiled),
        "planning_s": planning,
        "first_call_s": {"forward": first[0], "profiled": first[1]},
        "memory_growth_mb": memory[-1] - memory[len(memory) // 2],
        "fixed_s": fixed_cost(model, preset, x, lambda: watched.predict_on_batch(inputs), batches),
        "fixed_target_s": FIXED_TARGET,
    }


def fixed_cost(model: keras.Model, preset: str, x: Any, batch: Callable[[], Any], rounds: int) -> float:
    """Seconds of a second `profile` of one slicer besides its batch and the fingerprint of the teacher."""
    slicer = RelevantSlicer(model, preset=preset)
    slicer.profile(x, batch_size=16, verbose=False)
    rest = []
    for _ in range(rounds):
        beside = timed(batch) + timed(lambda: fingerprint(model))
        rest.append(timed(lambda: slicer.profile(x, batch_size=16, verbose=False)) - beside)
    return median(rest)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=6)
    parser.add_argument("--models", nargs="*", default=["resnet50", "bert"])
    parser.add_argument("--presets", nargs="*", default=["recommended", "artifact", "paper"])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    makers = {"resnet50": resnet50, "bert": bert}
    rows = []
    for name in arguments.models:
        model, x = makers[name](np.random.default_rng(0))
        for preset in arguments.presets:
            row = measure(name, preset, model, x, arguments.batches)
            rows.append(row)
            if not arguments.json:
                print(
                    f"{row['backend']:<10} {name:<9} {preset:<12} ratio {row['ratio']:.3f} (target {row['target']:.2f})"
                    f"  forward {row['forward_s']:.3f} s, profiled {row['profiled_s']:.3f} s,"
                    f" planning {row['planning_s']:.1f} s, memory +{row['memory_growth_mb']:.0f} MB,"
                    f" second profile {row['fixed_s']:.3f} s (target {FIXED_TARGET})",
                    flush=True,
                )
    if arguments.json:
        print(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
