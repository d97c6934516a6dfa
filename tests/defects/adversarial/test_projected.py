"""The engine behind every adversarial attack, by its properties, and the attack on the last features."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
import toys
from faults import disk_full_at
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers as kl
from toys import numpy

from keras_remos.data.pixels import PixelSpace
from keras_remos.defects import AttackSet, CoverageGuidedAttack, PenultimateAttack, TransferPGD, resuming
from keras_remos.defects.adversarial.projected import ProjectedAttack
from keras_remos.errors import DataError, FileError, MismatchError, RemosError, TeacherError
from keras_remos.models.fingerprint import fingerprint
from keras_remos.saving import write_archive

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (10, 8, 8, 3)).astype("uint8")
LABELS = RNG.integers(0, 3, 10)
SPACE = PixelSpace("imagenet")


def run(attack: ProjectedAttack, model: keras.Model, x: np.ndarray = IMAGES, **options: Any) -> np.ndarray:
    space = options.pop("space", SPACE)
    made = attack.inputs(
        attack.prepare(model, space=space), x, LABELS[: len(x)], **{"verbose": False, "bits": 32, **options}
    )
    return made.inputs[:]


def small() -> keras.Model:
    """Compiles fast."""
    layers = [keras.Input((8, 8, 3)), kl.Flatten(), kl.Dense(4, "tanh"), kl.Dense(3)]
    return toys.fill(keras.Sequential(layers, name="small"))


def loss(model: keras.Model, pixels: np.ndarray, m: float = 1000.0) -> np.ndarray:
    """The paper's, for each sample: far from (m, 0, 0, ...)."""
    pooled = keras.Model(model.input, model.get_layer("pool").output)
    features = numpy(pooled(SPACE.scale(pixels))).astype("float64")
    return (features[:, 0] - m) ** 2 + 0.1 * np.mean(features[:, 1:] ** 2, axis=1)


def test_the_penultimate_loss_falls_and_the_images_stay_close() -> None:
    model = toys.build_cnn()
    before = fingerprint(model)
    made = run(PenultimateAttack(steps=8), model)
    assert np.all(loss(model, made) < loss(model, IMAGES))
    assert np.abs(made.astype("float64") - IMAGES).max() <= 5.7
    assert made.min() >= 0 and made.max() <= 255
    assert fingerprint(model) == before


def test_one_step_is_the_sign_of_the_gradient() -> None:
    """Features that are linear in the pixels: their gradient is known."""
    x = keras.Input((3, 3, 1))
    model = keras.Model(x, kl.Dense(2, name="head")(kl.Dense(4, name="features")(kl.Flatten()(x))))
    toys.fill(model)
    weights, bias = model.get_layer("features").get_weights()
    images = RNG.integers(50, 200, (2, 3, 3, 1))
    attack = PenultimateAttack(steps=1, random_start=False, neuron=1, height=20.0)
    made = run(attack, model, images, space=PixelSpace("0-1"))
    features = (images / 255).reshape(2, 9) @ weights + bias
    pull = -0.1 / 3 * features
    pull[:, 1] = 20 - features[:, 1]
    expected = images + 0.57 * np.sign(pull @ weights.T).reshape(images.shape)
    np.testing.assert_allclose(made, expected, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(
    epsilon=st.floats(0.01, 255),
    limits=st.sampled_from([(0.0, 255.0), (0.0, 1.0), (-1.0, 1.0), (-0.1, 3.7)]),
    seed=st.integers(0, 100),
)
def test_bounds_are_exact(epsilon: float, limits: tuple[float, float], seed: int) -> None:
    space = PixelSpace("none", *limits)
    x = np.random.default_rng(seed).uniform(*limits, (50,)).astype("float32")
    x = np.clip(x, np.float32(limits[0]), np.float32(limits[1]))
    lower, upper = PenultimateAttack(epsilon=epsilon).bounds(x, space)
    assert lower.dtype == upper.dtype == np.float32
    for bound in (lower, upper):
        assert np.abs(bound.astype("float64") - x).max() <= space.epsilon(epsilon)
        assert bound.min() >= min(limits[0], x.min()) and bound.max() <= max(limits[1], x.max())
    assert np.all(lower <= x) and np.all(x <= upper)


def test_epsilon_means_the_same_in_any_range() -> None:
    model, attack = small(), TransferPGD(steps=3, random_start=False)
    made = attack.inputs(
        attack.prepare(model, space=PixelSpace("imagenet", -1.0, 1.0)),
        IMAGES / 127.5 - 1,
        LABELS,
        bits=32,
        verbose=False,
    )
    levels = (made.inputs[:] + 1) * 127.5
    assert np.abs(levels - IMAGES).max() <= 5.7001
    assert made.describe()["largest_change"] == pytest.approx(3 * 0.57, abs=1e-3)
    # Signs of gradients near zero may differ.
    assert np.mean(np.abs(levels - run(attack, model)) > 1e-3) < 0.05


@pytest.mark.parametrize("space", [SPACE, PixelSpace("imagenet", -1.0, 1.0), PixelSpace("0-1", high=1.0)], ids=str)
@pytest.mark.parametrize("epsilon", [1.0, 5.7, 8.0])
def test_images_of_8_bits_stay_in_the_ball_next_to_what_the_attack_made(space: PixelSpace, epsilon: float) -> None:
    model, x = small(), space.from_levels(IMAGES)
    attack = TransferPGD(epsilon=epsilon, steps=6, step_size=epsilon / 3)
    prepared = attack.prepare(model, space=space)
    rounded, floats = (attack.inputs(prepared, x, LABELS, bits=bits, verbose=False) for bits in (8, 32))
    assert (rounded.bits, floats.bits) == (8, 32)
    change = rounded.inputs.levels(slice(None)).astype(int) - IMAGES
    # Whole levels: exactly, not to within rounding.
    assert np.abs(change).max() <= epsilon and rounded.describe()["largest_change"] == np.abs(change).max()
    apart = np.abs(rounded.inputs[:] - floats.inputs[:]) / space.epsilon(1.0)
    assert apart.max() < 1 and np.all((apart <= 0.5 + 1e-3) | (np.abs(change) == int(epsilon)))
    assert np.array_equal(rounded.clean.levels(slice(None)), IMAGES)


def test_images_that_are_no_levels_are_left_as_they_are() -> None:
    attack, model = TransferPGD(steps=2), small()
    made = attack.inputs(attack.prepare(model, space=SPACE), IMAGES / 2 + 0.25, LABELS, verbose=False)
    assert made.bits == 32 and made.describe()["bits"] == 32
    with pytest.raises(RemosError, match="up to 0.4 levels, .*`bits=32`"):
        run(TransferPGD(steps=1, step_size=0.4, random_start=False), model, bits=8)
    with pytest.raises(RemosError, match="`bits` must be 8 or 32, received 16"):
        run(attack, model, bits=16)


def test_the_released_codes_clip_cuts_bright_pixels() -> None:
    images = np.full_like(IMAGES, 255)
    made = run(PenultimateAttack(steps=3, clip=2.2), small(), images)
    scaled = SPACE.scale(made)
    assert scaled.max() <= 2.2 + 1e-5
    assert 255 - made[..., 2].max() > 5.7  # blue ends at 229.8 there
    assert made.min() >= 0


@pytest.mark.parametrize(
    "attack",
    [PenultimateAttack(steps=3), TransferPGD(steps=3), CoverageGuidedAttack(steps=3, strategy="dlfuzzrr")],
    ids=lambda attack: attack.name,
)
def test_the_batch_size_changes_nothing(attack: ProjectedAttack) -> None:
    model = small()
    whole = run(attack, model, batch_size=10)
    np.testing.assert_array_equal(run(attack, model, batch_size=4), whole)  # the last batch holds two samples
    np.testing.assert_array_equal(run(attack, model, IMAGES[:3], batch_size=64), whole[:3])


def test_the_seed_decides_where_it_starts() -> None:
    model, attack = small(), PenultimateAttack(steps=1)
    assert np.any(run(attack, model, seed=0) != run(attack, model, seed=1))
    without = PenultimateAttack(steps=1, random_start=False)
    np.testing.assert_array_equal(run(without, model, seed=0), run(without, model, seed=1))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "attack",
    [
        PenultimateAttack(steps=1, random_start=False),
        CoverageGuidedAttack(steps=1, strategy="dlfuzz", num_neurons=4),
    ],
    ids=lambda attack: attack.name,
)
def test_half_precision_attacks_as_float32_does(attack: ProjectedAttack, policy: str) -> None:
    """Features that answer to pixels so little that their gradients are next to nothing in float16."""

    def build(policy: str) -> keras.Model:
        keras.config.set_dtype_policy(policy)
        try:
            faint = [kl.Dense(6), kl.Dense(5)]
            model = toys.fill(
                keras.Sequential([keras.Input((8, 8, 3)), kl.Flatten(), *faint, kl.Dense(4), kl.Dense(3)])
            )
        finally:
            keras.config.set_dtype_policy("float32")
        for layer in faint:
            kernel, bias = layer.get_weights()
            layer.set_weights([kernel * 1e-4, bias])
        return model

    half, single = (run(attack, build(name)) for name in (policy, "float32"))
    assert np.mean(half != IMAGES) > 0.95
    assert np.mean(np.abs(half - single) < 1e-3) > 0.95


def test_channels_first() -> None:
    """The same network on the same images, laid out in another way, is attacked in the same way."""
    layers = [kl.Flatten(), kl.Dense(4, "tanh"), kl.Dense(3)]
    first = toys.fill(keras.Sequential([keras.Input((3, 8, 8)), *layers]))
    last = keras.Sequential([keras.Input((8, 8, 3)), kl.Permute((3, 1, 2)), *layers])
    attack = PenultimateAttack(steps=2, random_start=False)
    space = PixelSpace("imagenet", data_format="channels_first")
    made = run(attack, first, np.moveaxis(IMAGES, -1, 1), space=space)
    assert np.mean(made != np.moveaxis(IMAGES, -1, 1)) > 0.8
    # A gradient that is next to nothing may have another sign.
    assert np.mean(np.abs(np.moveaxis(made, 1, -1) - run(attack, last)) > 1e-3) < 0.01


# Interrupted ----------------------------------------------------------------------------------------------------------


class Fails:
    """Wraps an attack's objective so that the third batch fails."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.batches = 0

    def __call__(self, objective: Any) -> Any:
        begin = objective.begin

        def failing(*args: Any) -> Any:
            self.batches += 1
            if self.batches == 3:
                raise self.error
            return begin(*args)

        objective.begin = failing
        return objective


@dataclass(frozen=True, kw_only=True)
class Interrupted(CoverageGuidedAttack):
    """The coverage-guided attack, with whatever is put around its objective."""

    around: ClassVar[Callable[[Any], Any]] = lambda objective: objective

    def objective(self, model: keras.Model, example: np.ndarray) -> Any:
        return type(self).around(super().objective(model, example))


@pytest.mark.parametrize("bits", [8, 32])
def test_an_interrupted_attack_goes_on_with_the_identical_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    model, file = small(), tmp_path / "part.npz"
    attack = Interrupted(steps=2, random_start=True, strategy="dlfuzz")
    whole = run(attack, model, batch_size=2, bits=bits)
    monkeypatch.setattr(Interrupted, "around", Fails(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        run(attack, model, batch_size=2, resume=file, bits=bits)
    assert resuming.describe_partial(file)["finished"] == 4
    counting = Fails(KeyboardInterrupt())
    counting.batches = 10
    monkeypatch.setattr(Interrupted, "around", counting)
    prepared = attack.prepare(model, space=SPACE)
    made = attack.inputs(prepared, IMAGES, LABELS, batch_size=2, resume=file, bits=bits, verbose=False)
    np.testing.assert_array_equal(made.inputs[:], whole)
    assert counting.batches == 10 + 3  # of five batches, two were finished


def test_nothing_is_left_of_an_attack_that_finished_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failing = Fails(KeyboardInterrupt())
    failing.batches = 2
    monkeypatch.setattr(Interrupted, "around", failing)
    with pytest.raises(KeyboardInterrupt):
        run(Interrupted(steps=2), small(), batch_size=2, resume=tmp_path / "part.npz")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_fills_keeps_what_is_finished(tmp_path: Path) -> None:
    attack, model, file = TransferPGD(steps=2), small(), tmp_path / "part.npz"
    whole = run(attack, model, batch_size=2)
    # All ten images take 7,720 bytes behind the header.
    with disk_full_at(5000), pytest.raises(FileError, match="part.npz cannot be written .* the next run goes on"):
        run(attack, model, batch_size=2, resume=file)
    assert 0 < resuming.describe_partial(file)["finished"] < 10
    np.testing.assert_array_equal(run(attack, model, batch_size=2, resume=file), whole)


def test_a_partial_result_goes_once_the_whole_is_saved(tmp_path: Path) -> None:
    attack, model, file = PenultimateAttack(steps=1), small(), tmp_path / "part.npz"
    prepared = attack.prepare(model, space=SPACE)
    made = attack.inputs(prepared, IMAGES, LABELS[: len(IMAGES)], resume=file, verbose=False)
    assert file.exists()
    with pytest.raises(FileError, match="does not exist"):
        made.save(tmp_path / "none" / "attack.npz")
    assert file.exists()
    made.save(tmp_path / "attack.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["attack.npz"]
    # Over the partial result itself.
    again = attack.inputs(prepared, IMAGES, LABELS[: len(IMAGES)], resume=file, verbose=False)
    again.save(file)
    np.testing.assert_array_equal(AttackSet.load(file).inputs, made.inputs[:])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_each_finished_batch_is_on_the_disk(tmp_path: Path, dtype: str) -> None:
    file = tmp_path / "part.npz"
    part = resuming.Partial(file, {"seed": 1}, (5, 2), dtype)
    for number in (1, 2):
        part.add(np.full((2, 2), number))
        again = resuming.Partial(file, {"seed": 1}, (5, 2), dtype)
        assert (
            again.done == 2 * number
            and again.rows[: again.done].tolist() == [[1, 1], [1, 1], [2, 2], [2, 2]][: again.done]
        )
    with pytest.raises(MismatchError, match="seed differ"):
        resuming.Partial(file, {"seed": 2}, (5, 2), dtype)
    for shape, other in (((3, 2), dtype), ((5, 3), dtype), ((5, 2), "uint8" if dtype == "float32" else "float32")):
        with pytest.raises(MismatchError, match="shape differ"):
            resuming.Partial(file, {"seed": 1}, shape, other)
    file.write_bytes(b"no archive")
    with pytest.raises(FileError, match="damaged"):
        resuming.Partial(file, {"seed": 1}, (5, 2), dtype)


def test_whatever_a_kill_leaves_is_whole_up_to_the_last_finished_row(tmp_path: Path) -> None:
    file = tmp_path / "part.npz"
    part = resuming.Partial(file, {"seed": 1}, (4, 3), "uint8")
    start = file.stat().st_size
    part.add(np.arange(12).reshape(4, 3))
    whole = file.read_bytes()
    for length in range(start, len(whole)):
        file.write_bytes(whole[:length])
        found = resuming.Partial(file, {"seed": 1}, (4, 3), "uint8")
        assert found.done == (length - start) // 7
        # Of a disk that lost power: what was not written is there, and is zeros.
        file.write_bytes(whole[:length] + bytes(len(whole) - length))
        found = resuming.Partial(file, {"seed": 1}, (4, 3), "uint8")
        assert found.done == (length - start) // 7
    found.add(np.arange(12).reshape(4, 3)[found.done :])
    assert file.read_bytes() == whole


def test_an_unfinished_attack_of_an_earlier_version_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "part.npz"
    write_archive(file, "partial attack", {"whole": {"seed": 1}}, {"rows": np.zeros((2, 2), "float32")})
    with pytest.raises(MismatchError, match="part.npz is the unfinished part of another attack .bits differ"):
        resuming.Partial(file, {"seed": 1, "bits": 8}, (5, 2), "uint8")
    assert resuming.describe_partial(file)["finished"] == 2


@pytest.mark.parametrize("batch_size", [1, 4])
def test_too_little_memory_says_what_to_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int) -> None:
    monkeypatch.setattr(Interrupted, "around", Fails(RuntimeError("RESOURCE_EXHAUSTED: Out of memory")))
    hint = "try `batch_size=2`" if batch_size == 4 else "smaller images"
    with pytest.raises(RemosError, match=f"{hint}.*part.npz"):
        run(Interrupted(steps=1), small(), batch_size=batch_size, resume=tmp_path / "part.npz")


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilon": 0}, "epsilon"),
        ({"epsilon": 256}, "received 256.*8/255"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"step_size": 0.0}, "step_size"),
        ({"steps": 0}, "steps"),
        ({"neuron": -1}, "neuron"),
        ({"height": 0}, "height"),
        ({"others_weight": -1}, "others_weight"),
        ({"clip": 0}, "clip"),
    ],
)
def test_options_out_of_range(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RemosError, match=message):
        PenultimateAttack(**options)


def test_a_neuron_that_the_teacher_lacks() -> None:
    with pytest.raises(RemosError, match="4 neurons, received `neuron=4`: expected 0 to 3"):
        run(PenultimateAttack(neuron=4), small())


@pytest.mark.parametrize(
    ("x", "y", "names", "message"),
    [
        (IMAGES[:, :4], LABELS, (), r"takes batches of shape \(None, 8, 8, 3\)"),
        (IMAGES.astype("float32") + 1, LABELS, (), "0 to 255"),
        (IMAGES, LABELS[:3], (), "class of each of 10 samples"),
        (IMAGES, np.eye(3)[LABELS], (), "whole number"),
        (IMAGES, LABELS, ("a", "b"), "2 classes are named"),
        (IMAGES[:0], LABELS[:0], (), "at least one image"),
    ],
)
def test_data_that_do_not_fit(x: np.ndarray, y: np.ndarray, names: tuple[str, ...], message: str) -> None:
    attack, model = PenultimateAttack(steps=1), small()
    with pytest.raises(DataError, match=message):
        attack.inputs(attack.prepare(model, space=SPACE), x, y, class_names=names)


def test_teachers_that_no_gradient_reaches() -> None:
    attack = PenultimateAttack()
    with pytest.raises(RemosError, match="preprocessor"):
        attack.prepare(small(), space=PixelSpace("preprocessor"))
    with pytest.raises(TeacherError, match="int32"):
        attack.prepare(keras.Sequential([keras.Input((4,), dtype="int32"), kl.Embedding(5, 2)]), space=SPACE)
    with pytest.raises(TeacherError, match="one float input"):
        attack.prepare(toys.make("shared")[0], space=SPACE)
    with pytest.raises(TeacherError, match="not been built"):
        attack.prepare(keras.Sequential([kl.Dense(2)]), space=SPACE)
    with pytest.raises(RemosError, match="batch_size"):
        run(attack, small(), batch_size=0)
