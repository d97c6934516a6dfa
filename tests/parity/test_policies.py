"""Heads and readings of real teachers are the same under every dtype policy and on every backend."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
BACKENDS = [name for name in ("torch", "jax", "tensorflow") if importlib.util.find_spec(name)]
# Teacher, policies.
TEACHERS = [
    ("cifar10_resnet20.keras", ("float32", "mixed_float16", "mixed_bfloat16")),
    ("minilm_l3", ("float32", "mixed_bfloat16")),
]
# A profile of other rounding covers other neurons at the threshold: so many masks may differ, and no more.
MOST_DIFFERENT = 0.05

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED.is_dir(), reason="the real teachers of ../shared are not there"),
]

PLANS = """
import json, sys
import keras, numpy as np
from keras_remos import RelevantSlicer, load_teacher
from keras_remos.models.layers import symbolic_batch, symbolic_inputs
from keras_remos.models.reading_plan import plan_readings

teacher, data, policies = sys.argv[1], sys.argv[2], sys.argv[3].split(",")
model = load_teacher(teacher)
config = json.dumps(keras.saving.serialize_keras_object(model))
found, masks = {}, {}
for policy in policies:
    again = json.loads(config.replace('"name": "float32"', f'"name": "{policy}"'))
    twin = keras.saving.deserialize_keras_object(again, safe_mode=False)
    twin.set_weights(model.get_weights())
    plan = plan_readings(twin, symbolic_batch(symbolic_inputs(twin)))
    found[policy] = [[vars(r) for r in plan.readings], plan.kernels, plan.heads, plan.skipped, plan.num_calls]
    if data:
        with np.load(data) as arrays:
            x = arrays["x_train"][:64].astype("float32") / 255
        slicer = RelevantSlicer(twin)
        kept = slicer.slice(slicer.profile(x, verbose=False)).masks
        masks[policy] = np.concatenate([mask.ravel() for mask in kept.values()])
differing = {policy: float((masks[policy] != masks["float32"]).mean()) for policy in masks}
print(json.dumps({"plans": found, "differing": differing}, default=list))
"""


def plans(backend: str, teacher: str, policies: tuple[str, ...], home: Path) -> dict:
    data = SHARED / "images" / "imagenette10_32.npz" if teacher.endswith(".keras") and backend == "torch" else ""
    environment = {**os.environ, "KERAS_BACKEND": backend, "KERAS_HOME": str(home), "TF_CPP_MIN_LOG_LEVEL": "3"}
    arguments = [str(SHARED / "teachers" / teacher), str(data), ",".join(policies)]
    done = subprocess.run(
        [sys.executable, "-c", PLANS, *arguments], env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(("teacher", "policies"), TEACHERS)
def test_a_real_teacher_is_read_alike(teacher: str, policies: tuple[str, ...], tmp_path: Path) -> None:
    if not teacher.endswith(".keras") and importlib.util.find_spec("keras_hub") is None:
        pytest.skip("needs KerasHub")
    made = {backend: plans(backend, teacher, policies, tmp_path) for backend in BACKENDS}
    found = {(backend, policy): plan for backend, each in made.items() for policy, plan in each["plans"].items()}
    first = found[BACKENDS[0], "float32"]
    assert len(first[1]) > 15 and first[2]
    assert [key for key, plan in found.items() if plan != first] == []
    for backend, each in made.items():
        for policy, share in each["differing"].items():
            print(f"{teacher}, {backend}, {policy}: {share:.4%} of the masks differ from float32's")
            assert share <= MOST_DIFFERENT
