"""How fast is scoring, and in how much memory: `python tests/benchmarks/bench_scoring.py [--json] [--repeats N]`.

Each row runs in a process of its own, so that its peak resident memory is its own. Times are the best of several runs,
each next to an np.sort of the same weights in the same run, so that the ratio says something on a busy machine too. The
last rows time what a user calls, `RelevantSlicer.slice` and `sweep`, of a whole model and a profile of 1,000 samples; a
row whose libraries are not there is left out.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

# name: model, scope, positions per layer, targets (seconds of score + select, times np.sort, bytes a weight, seconds of
# one more select). Of the public calls the last one is times np.sort.
ROWS = {
    "resnet50 layer": ("resnet50", "layer", "same", (1.0, 10, None, 0.2)),
    "resnet50 model": ("resnet50", "model", "same", (1.0, 10, None, 0.2)),
    "one 25M kernel layer": ("one", "layer", "same", (1.0, 10, None, 0.2)),
    "one 25M kernel model": ("one", "model", "same", (1.0, 10, None, 0.2)),
    "bert layer": ("bert", "layer", "same", (5.0, None, 16, None)),
    "bert model": ("bert", "model", "same", (5.0, None, 16, None)),
    "resnet50 model, wide": ("resnet50", "model", "wide", (None, None, None, None)),
    "slice ResNet50": ("resnet50", None, "public", (None, 5.5, None, 0.5)),
    "slice BERT-base": ("bert", None, "public", (None, 4, None, 0.5)),
}


def resnet50_shapes():
    shapes, channels = [(7, 7, 3, 64)], 64
    for width, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(blocks):
            shapes += [(1, 1, channels, width), (3, 3, width, width), (1, 1, width, 4 * width)]
            shapes += [(1, 1, channels, 4 * width)] if block == 0 else []
            channels = 4 * width
    return shapes


SHAPES = {
    "resnet50": resnet50_shapes(),
    "one": [(5000, 5000)],
    "bert": [(768, 768)] * 48 + [(768, 3072)] * 12 + [(3072, 768)] * 12,
}


def make_kernels(model, positions):
    import numpy as np

    from keras_remos.slicing.ranking import CoveredKernel

    rng = np.random.default_rng(0)

    def counts(neurons, highest):
        return np.where(rng.random(neurons) < 0.5, 0, rng.integers(0, highest + 1, neurons))

    kernels = {}
    for n, shape in enumerate(SHAPES[model]):
        highest = 1000 if positions == "same" else 5344 * (7 * 2 ** (4 - n * 5 // len(SHAPES[model]))) ** 2
        axes = len(shape)
        weights = rng.standard_normal(shape, np.float32) * np.float32(0.05)
        sides = counts(shape[-2], highest), counts(shape[-1], highest)
        kernels[f"layer{n}"] = CoveredKernel(weights, shape, (axes - 2,), (axes - 1,), *sides, highest, highest)
    return kernels


def peak_bytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def whole_model(name):
    """A teacher with the profile that 1,000 samples would give: of one batch, and then made up around it."""
    from dataclasses import replace

    import keras
    import numpy as np

    from keras_remos import RelevantSlicer
    from keras_remos.coverage.profile import KernelCoverage

    rng = np.random.default_rng(0)
    if name == "resnet50":
        teacher = keras.applications.ResNet50(weights=None, classifier_activation=None)
        x = rng.normal(size=(2, 224, 224, 3)).astype("float32")
    else:
        from keras_hub.models import BertBackbone

        sizes = {"num_layers": 12, "num_heads": 12, "hidden_dim": 768, "intermediate_dim": 3072}
        teacher = BertBackbone(vocabulary_size=30522, max_sequence_length=128, **sizes)
        tokens = rng.integers(1, 30522, size=(2, 128)).astype("int32")
        x = {"token_ids": tokens, "segment_ids": np.zeros_like(tokens), "padding_mask": np.ones_like(tokens)}
    slicer = RelevantSlicer(teacher)
    found = slicer.profile(x, verbose=False)

    def of_many(counts, positions):
        share = np.clip(counts / max(positions, 1) + rng.normal(0, 0.1, counts.shape), 0, 1)
        return rng.binomial(500 * positions, share)

    layers = {
        path: KernelCoverage(
            of_many(seen.inputs, seen.input_positions),
            of_many(seen.outputs, seen.output_positions),
            500 * seen.input_positions,
            500 * seen.output_positions,
        )
        for path, seen in found.layers.items()
    }
    return slicer, replace(found, layers=layers, num_samples=1000)


def run_public(name, repeats):
    import keras
    import numpy as np

    from keras_remos.models.sliceable import kernels_by_path

    slicer, profile = whole_model(name)
    kernels = kernels_by_path(slicer.model)
    flat = np.concatenate(
        [keras.ops.convert_to_numpy(kernels[path][1].variable.value).ravel() for path in profile.layers]
    )
    before = peak_bytes()
    one, four, sort = [], [], []
    for repeat in range(repeats):
        start = time.perf_counter()
        slicer.slice(profile)
        one.append(time.perf_counter() - start)
        if repeat == 0:
            extra = (peak_bytes() - before) / flat.size
        start = time.perf_counter()
        slicer.sweep(profile, keep_ratios=[0.5, 0.6, 0.7, 0.8])
        four.append(time.perf_counter() - start)
        start = time.perf_counter()
        np.sort(flat)
        sort.append(time.perf_counter() - start)
    again = (min(four) - min(one)) / 3 / min(sort)
    return {"weights": flat.size, "seconds": min(one), "np_sort": min(sort), "bytes": extra, "again": again}


def run_row(model, scope, positions, repeats):
    if positions == "public":
        return run_public(model, repeats)
    import numpy as np

    from keras_remos.slicing.scores import score

    kernels = make_kernels(model, positions)
    weights = sum(kernel.weights.size for kernel in kernels.values())
    before = peak_bytes()
    scored, again, sort = [], [], []
    # As preset recommended; inside each layer there is nothing to limit.
    limit = 2.0 if scope == "model" else None
    for repeat in range(repeats):
        start = time.perf_counter()
        scores = score(kernels, scope=scope)
        scores.select(0.9, layer_limit=limit)
        scored.append(time.perf_counter() - start)
        start = time.perf_counter()
        scores.select(0.8, layer_limit=limit)
        again.append(time.perf_counter() - start)
        if repeat == 0:
            extra = (peak_bytes() - before) / weights
            flat = np.concatenate([kernel.weights.ravel() for kernel in kernels.values()])
        del scores
        start = time.perf_counter()
        np.sort(flat)
        sort.append(time.perf_counter() - start)
    return {"weights": weights, "seconds": min(scored), "np_sort": min(sort), "bytes": extra, "again": min(again)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--row", choices=ROWS, help="run one row in this process")
    options = parser.parse_args()
    if options.row:
        model, scope, positions, _ = ROWS[options.row]
        print(json.dumps(run_row(model, scope, positions, options.repeats)))
        return
    results = {}
    for name, (*_, targets) in ROWS.items():
        command = [sys.executable, __file__, "--row", name, "--repeats", str(options.repeats)]
        done = subprocess.run(command, capture_output=True, text=True)
        if "ModuleNotFoundError" in done.stderr:
            print(f"{name}: {done.stderr.splitlines()[-1]}", file=sys.stderr)
            continue
        done.check_returncode()
        row = json.loads(done.stdout.splitlines()[-1])
        found = (row["seconds"], row["seconds"] / row["np_sort"], row["bytes"], row["again"])
        met = all(target is None or value <= target for value, target in zip(found, targets, strict=True))
        results[name] = {**row, "ratio": found[1], "targets": targets, "met": met}
        if not options.json:
            cells = [
                f"{value:8.2f} (<= {target})" if target else f"{value:8.2f}"
                for value, target in zip(found, targets, strict=True)
            ]
            if name == next(iter(ROWS)):
                print(
                    f"{'':24}" + "".join(f"{h:>20}" for h in ("seconds", "x np.sort", "bytes/weight", "select again"))
                )
            print(
                f"{name:24}" + "".join(f"{cell:>20}" for cell in cells) + ("   met" if met else "   MISSED"), flush=True
            )
    if options.json:
        print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
