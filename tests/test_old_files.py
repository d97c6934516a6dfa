"""Files of format 1, as commit 249c1c3 wrote them before the folders were moved: read, and the same comes out.

`fixtures/format_1` holds profiles, slices, attack sets, prepared teachers and each backend's checkpoints of the toys.
"""

import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tiny
import toys
from packaging.version import Version

import keras_remos as kr

FILES = Path(__file__).parent / "fixtures" / "format_1"
TOYS = ("cnn", "text", "mobile", "multi_head", "shared")


@pytest.mark.parametrize("preset", ["recommended", "artifact"])
@pytest.mark.parametrize("toy", TOYS)
def test_the_same_masks_come_out(toy: str, preset: str) -> None:
    model, data, _ = toys.make(toy)
    then = kr.RelevantSlice.load(FILES / f"{toy}.{preset}.slice.npz")
    before = kr.CoverageProfile.load(FILES / f"{toy}.{preset}.profile.npz")
    slicer = kr.RelevantSlicer(model, preset=preset, keep_ratio=0.7)
    profile = slicer.profile(data, verbose=False)
    assert profile.describe()["layers"] == before.describe()["layers"]
    assert (profile.teacher, profile.data, profile.heads) == (before.teacher, before.data, before.heads)
    for chosen in (slicer.slice(before), slicer.slice(profile)):
        assert list(chosen.masks) == list(then.masks)
        for path, mask in chosen.masks.items():
            np.testing.assert_array_equal(mask, then.masks[path], err_msg=path)
        # What is counted since is not in these files.
        assert tuple(replace(each, excluded_by_magnitude=()) for each in chosen.summaries) == then.summaries
        assert {**chosen.options} == {**then.options}
    student = then.apply(model)
    assert len(student.get_weights()) == len(model.get_weights())


def test_attack_sets_are_read() -> None:
    model, _, _ = toys.make("cnn")
    images = kr.AttackSet.load(FILES / "cnn.penultimate.npz")
    images.check_teacher(model)
    assert (images.defect, len(images), images.class_names) == ("penultimate", 4, ("a", "b", "c"))
    again = kr.PenultimateAttack(**images.options)
    made = again.inputs(
        again.prepare(model, space=images.space),
        images.clean,
        images.labels,
        class_names=("a", "b", "c"),
        bits=32,
        verbose=False,
    )
    # Three signed steps: a pixel whose gradient is nearly 0 may go the other way on another backend.
    assert np.mean(made.inputs == images.inputs) > 0.9
    texts = kr.AttackSet.load(FILES / "texts.npz")
    assert texts.holds_text and texts.target == 1 and "cf" in texts.inputs[0].split()


def test_prepared_teachers_are_read_with_their_triggers() -> None:
    with zipfile.ZipFile(FILES / "patch.keras") as file:
        writer = json.loads(file.read("metadata.json"))["keras_version"]
    if Version(keras.__version__) < Version(writer):
        pytest.skip(f"Keras {writer} wrote the model, and Keras {keras.__version__} does not know what it says")
    patched = kr.Prepared.load(FILES / "patch.keras")
    assert isinstance(patched.trigger, kr.Trigger) and patched.trigger.place == "center"
    assert patched.record["target"] == 1 and patched.space == kr.PixelSpace("imagenet")
    worded = kr.Prepared.load(FILES / "words.keras")
    assert worded.trigger == kr.TextTrigger(("cf", "mn"), every=True, within=8)


@pytest.mark.once
@pytest.mark.parametrize("method", ["finetune", "renofeation", "remos"])
def test_a_finished_run_is_taken_up_from_its_checkpoint(method: str, tmp_path: Path) -> None:
    shutil.copytree(FILES / f"checkpoint-{keras.backend.backend()}" / method, tmp_path / "run")
    # Trained again it would stop at once: nothing is, and the weights are those of the file.
    trained = tiny.make(method, checkpoint=tmp_path / "run", callbacks=[tiny.Stop(0), tiny.Stop(1)])
    assert trained.epochs == 2
    # By the rule of its own format it is of these data; those that come later are checked by what they hold.
    with pytest.raises(kr.MismatchError, match='its data is "a5909920a16864dc"'):
        tiny.make(method, data=(tiny.X + 1, tiny.Y), checkpoint=tmp_path / "run")
    later = tiny.make(method, validation=(tiny.X, tiny.Y), checkpoint=tmp_path / "run", callbacks=[tiny.Stop(0)])
    assert tiny.same(later.student, trained.student) and len(later.history["val_loss"]) == 1
    with pytest.raises(kr.MismatchError, match='its data is "[0-9a-f]{16,64}"'):
        tiny.make(method, data=(tiny.X + 1, tiny.Y), checkpoint=tmp_path / "run")
    stage = "stage-2" if method == "renofeation" else "training"
    with np.load(tmp_path / "run" / f"{stage}.npz", allow_pickle=False) as file:
        kernel = np.frombuffer(file["value/0"].tobytes(), "float32")
    if method != "renofeation":  # which goes on to average its weights
        np.testing.assert_array_equal(trained.student.get_layer("conv1").get_weights()[0].ravel(), kernel)
