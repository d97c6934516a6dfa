"""What the library itself finds and saves is what a report can be made of."""

from pathlib import Path

import numpy as np
import pytest
import tiny

import keras_remos as kr
from keras_remos.report import markdown, open_results

pytestmark = [pytest.mark.once, pytest.mark.filterwarnings("ignore:Criterion:UserWarning")]


def test_slices_profiles_students_and_measures_report_themselves(tmp_path: Path) -> None:
    teacher = tiny.teacher()
    x, y = tiny.X, tiny.Y
    slicer = kr.RelevantSlicer(teacher, keep_ratio=0.5)
    profile = slicer.profile(x, verbose=False)
    cut = slicer.slice(profile)
    for made, name in ((profile, "p.npz"), (cut, "s.npz")):
        made.save(tmp_path / name)
        (read,) = open_results([tmp_path / name])
        assert read.body["layers"][0]["path"] == made.describe()["layers"][0]["path"]
        shared = {key: value for key, value in made.describe()["layers"][0].items() if value == value}
        assert {key: read.body["layers"][0][key] for key in shared} == shared
        # In a file, options stand in another order.
        assert sorted(markdown(read).splitlines()) == sorted(markdown(made).splitlines())
    trained = tiny.make("finetune", teacher)
    assert "finetune" in markdown(trained)
    pixels = np.clip(x * 255, 0, 255).astype(np.uint8)
    found = kr.measure({"mine": (trained.student, kr.PixelSpace("0-1"))}, pixels, y, {}, verbose=False)
    (path,) = kr.write_report(found, tmp_path / "r.md", format="md")
    assert f"| mine | {found.accuracies['mine'].value:.3f} (" in path.read_text("utf-8")
