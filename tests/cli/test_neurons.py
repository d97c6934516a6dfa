"""`keras-remos attack --neuron`, given several times: a file for each neuron, and a row for each in the report."""

from pathlib import Path

import keras
import numpy as np
import toys
from shell import run, told

from keras_remos.defects import AttackSet


def test_each_neuron_makes_a_file_of_its_own(tmp_path: Path) -> None:
    layers = keras.layers
    model = toys.fill(
        keras.Sequential([keras.Input((6, 6, 3)), layers.Conv2D(4, 3), layers.Flatten(), layers.Dense(2, name="head")])
    )
    model.save(tmp_path / "teacher.keras")
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.integers(0, 256, (6, 6, 6, 3)).astype("uint8"), y=np.arange(6) % 2)
    data = ("--data", tmp_path / "data.npz", "--preprocess", "0-1")
    attack = ("attack", tmp_path / "teacher.keras", *data, "--defect", "penultimate", "--steps", 2)
    done = run(*attack, "--neuron", 5, "--neuron", 0, "-o", tmp_path / "pen.npz", "--json")
    assert done.exit_code == 0, done.output
    made = told(done)["attacks"]
    assert [(Path(each["attack"]).name, each["options"]["neuron"]) for each in made] == [
        ("pen.5.npz", 5),
        ("pen.0.npz", 0),
    ]
    sets = [AttackSet.load(each["attack"]) for each in made]
    assert not np.array_equal(sets[0].inputs, sets[1].inputs)
    inputs = [part for each in made for part in ("--inputs", each["attack"])]
    done = run("evaluate", tmp_path / "teacher.keras", *data, *inputs, "--json")
    assert done.exit_code == 0, done.output
    assert len(told(done)["defects"]) == 2
    one = told(run(*attack, "--neuron", 5, "-o", tmp_path / "one.npz", "--json"))
    assert one["options"]["neuron"] == 5
    np.testing.assert_array_equal(AttackSet.load(one["attack"]).inputs, sets[0].inputs)
    assert run(*attack, "--neuron", 5, "--neuron", 0, "-o", tmp_path / "pen.npz").exit_code == 1  # not over files
