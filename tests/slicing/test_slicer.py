"""Slices: the oracle's masks under every preset, their laws, and files that hold them."""

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import oracle_scoring
import pytest
import toys

from keras_remos import (
    PRESETS,
    CoverageProfile,
    FileError,
    MismatchError,
    RelevantSlice,
    RelevantSlicer,
    RemosError,
    profile,
)
from keras_remos.models.sliceable import find_sliceable
from keras_remos.saving import write_archive
from keras_remos.slicing.ranking import CoveredKernel
from keras_remos.untrusted import archives, read_archive


def covered(model: keras.Model, found: CoverageProfile) -> dict[str, CoveredKernel]:
    """What the oracle ranks: kernels in the order in which they run, without embeddings."""
    kernels = {f"{s.path}/{k.name}": k for s in find_sliceable(model)[0] for k in s.kernels}
    return {
        path: CoveredKernel(
            toys.numpy(kernels[path].variable.value),
            kernels[path].view,
            kernels[path].input_axes,
            kernels[path].output_axes,
            seen.inputs,
            seen.outputs,
            seen.input_positions,
            seen.output_positions,
        )
        for path, seen in found.layers.items()
        if path in kernels
    }


@pytest.fixture(scope="module")
def cnn() -> tuple[keras.Model, np.ndarray]:
    model, x, _ = toys.make("cnn")
    return model, x


@pytest.mark.once
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("name", ["mlp", "cnn", "mobile", "multi_head", "shared", "text"])
def test_masks_equal_the_oracle_under_every_preset(name: str, preset: str) -> None:
    model, x, _ = toys.make(name)
    slicer = RelevantSlicer(model, preset=preset, keep_ratio=0.8)
    found = slicer.profile(x)
    made = slicer.slice(found)
    counted = covered(model, found)
    if slicer.settings.layer_limit is None:
        settings = slicer.settings
        expected = oracle_scoring.select(counted, 0.8, settings.ties, settings.scope)
    else:
        expected = oracle_scoring.select_within(counted, 0.8, "model", 2)
    assert set(made.masks) - set(expected) <= {"table/embeddings"}
    for path, mask in expected.items():
        np.testing.assert_array_equal(made.masks[path], mask, err_msg=path)
        assert made.masks[path].dtype == bool


def test_presets_are_what_the_paper_the_code_and_the_measurements_say() -> None:
    assert PRESETS["paper"].criterion.get_config() == {
        "name": "nc",
        "threshold": 0.0,
        "scale": "none",
        "positions": "share",
    }
    artifact = PRESETS["artifact"]
    assert (artifact.on, artifact.count_padding, artifact.scope, artifact.ties) == ("output", True, "model", "order")
    assert artifact.criterion.get_config() == {
        "name": "nc",
        "threshold": 0.5,
        "scale": "minmax",
        "positions": "mean",
    }
    recommended = PRESETS["recommended"]
    assert recommended.criterion == PRESETS["paper"].criterion
    assert (recommended.on, recommended.scope, recommended.ties) == ("activation", "model", "average")
    assert [PRESETS[name].layer_limit for name in ("recommended", "paper", "artifact")] == [2, None, None]
    assert [PRESETS[name].keep_ratio for name in ("recommended", "paper", "artifact")] == [0.9, 0.9, 0.9]


def test_models_of_tokens_have_a_criterion_of_their_own() -> None:
    x = keras.Input((4,), dtype="int32")
    reader = keras.Model(x, keras.layers.Dense(2)(keras.layers.Embedding(5, 3)(x)))
    of_tokens, of_images = RelevantSlicer(reader).settings, PRESETS["recommended"]
    assert of_tokens.criterion.get_config() == {
        "name": "nc",
        "threshold": 1.0,
        "scale": "absmean",
        "positions": "share",
    }
    assert (of_tokens.scope, of_tokens.layer_limit) == ("layer", None)
    assert of_tokens.keep_ratio == 0.95
    same = {"criterion": of_images.criterion, "scope": "model", "layer_limit": 2, "keep_ratio": 0.9}
    assert replace(of_tokens, **same) == of_images
    assert RelevantSlicer(reader, scope="model", layer_limit=3).settings.layer_limit == 3
    assert RelevantSlicer(reader, layer_limit=float("inf")).settings.layer_limit is None
    assert RelevantSlicer(reader, preset="paper").settings == PRESETS["paper"]


def test_options_override_the_preset(cnn: tuple[keras.Model, np.ndarray]) -> None:
    model, x = cnn
    slicer = RelevantSlicer(
        model, preset="artifact", keep_ratio=0.7, criterion={"name": "tknc", "k": 2}, on="activation", scope="layer",
        ties="average", embeddings=True,
    )  # fmt: skip
    found = slicer.profile(x)
    assert found.options == {"criterion": {"name": "tknc", "k": 2}, "on": "activation", "count_padding": True}
    made = slicer.slice(found)
    assert made.options["keep_ratio"] == 0.7
    expected = oracle_scoring.select(covered(model, found), 0.7, "average", "layer")
    for path, mask in expected.items():
        np.testing.assert_array_equal(made.masks[path], mask)


@pytest.mark.parametrize("ties", ["average", "order"])
@pytest.mark.parametrize("scope", ["layer", "model"])
def test_larger_ratios_hold_smaller_ones(cnn: tuple[keras.Model, np.ndarray], scope: Any, ties: Any) -> None:
    model, x = cnn
    slicer = RelevantSlicer(model, scope=scope, ties=ties)
    found = slicer.profile(x)
    ratios = [0.05, 0.3, 0.5, 0.77, 0.9, 0.99, 1.0]
    slices = slicer.sweep(found, keep_ratios=reversed(ratios))
    for small, large in itertools.pairwise(ratios):
        assert slices[small].kept <= slices[large].kept
        for path, mask in slices[small].masks.items():
            assert not (mask & ~slices[large].masks[path]).any()
    alone = RelevantSlicer(model, scope=scope, ties=ties, keep_ratio=0.5).slice(found)
    for path, mask in alone.masks.items():
        np.testing.assert_array_equal(slices[0.5].masks[path], mask)
        assert slices[0.5].options["keep_ratio"] == 0.5


def test_the_share_is_exact(cnn: tuple[keras.Model, np.ndarray]) -> None:
    model, x = cnn
    for keep_ratio in (0.9, 0.95, 0.5):
        slicer = RelevantSlicer(model, preset="artifact", keep_ratio=keep_ratio)
        made = slicer.slice(slicer.profile(x))
        scores = oracle_scoring.score(covered(model, slicer.profile(x)), "order", "model")
        flat = np.sort(np.concatenate([s.ravel() for s in scores.values()]))
        # int(n r) + 1 go, and those that tie with the last of them.
        removed = int(np.count_nonzero(flat <= flat[int(len(flat) * round(1 - keep_ratio, 12))]))
        assert made.total == 3 * 3 * 3 * 4 + 3 * 3 * 4 * 4
        assert made.kept == made.total - removed
        assert sum(s.kept for s in made.summaries) == made.kept


def test_summaries_tell_what_is_kept(cnn: tuple[keras.Model, np.ndarray]) -> None:
    model, x = cnn
    slicer = RelevantSlicer(model, keep_ratio=0.8)
    made = slicer.slice(slicer.profile(x))
    for summary in made.summaries:
        mask = made.masks[summary.path]
        weights = np.abs(toys.numpy(model.get_layer(summary.path.split("/")[0]).kernel.value)).astype(np.float64)
        assert (summary.kept, summary.total) == (mask.sum(), mask.size)
        assert summary.mean_kept == pytest.approx(weights[mask].mean())
        assert summary.mean_excluded == pytest.approx(weights[~mask].mean())
    text = made.summary()
    for word in ("conv1/kernel", "conv2/kernel", f"{made.kept:,}", "bn1, bn2: normalization", "head: head"):
        assert word in text
    json.dumps(made.describe()["options"])


def test_embedding_rows_without_tokens_are_reset() -> None:
    model, _, _ = toys.make("text")
    x = np.array([[3, 4, 4, 9, 0, 0, 0], [9, 1, 3, 3, 3, 0, 0]], "int32")
    slicer = RelevantSlicer(model)
    table = slicer.slice(slicer.profile(x)).masks["table/embeddings"]
    # The padding row is no token's, but every text reads it.
    np.testing.assert_array_equal(table, np.repeat(np.isin(np.arange(13), [0, 1, 3, 4, 9])[:, None], 4, axis=1))
    without = RelevantSlicer(model, embeddings=False)
    made = without.slice(without.profile(x))
    assert "table/embeddings" not in made.masks
    assert ("table", "embeddings are off") in made.skipped


FILTERS: dict[str, tuple[Any, set[str]]] = {
    "regex": ("conv1", {"conv1/kernel"}),
    "regexes": (["^conv2$", "v2"], {"conv2/kernel"}),
    "callable": (lambda path, layer: layer.use_bias, {"conv2/kernel"}),
    "all": ("", {"conv1/kernel", "conv2/kernel"}),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_choose_layers(name: str, cnn: tuple[keras.Model, np.ndarray]) -> None:
    model, x = cnn
    filters, expected = FILTERS[name]
    slicer = RelevantSlicer(model, filters=filters)
    made = slicer.slice(slicer.profile(x))
    assert set(made.masks) == expected
    assert {path for path, reason in made.skipped if reason == "filtered"} == {"conv1", "conv2"} - {
        path.removesuffix("/kernel") for path in expected
    }


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"preset": "best"}, "Unknown preset 'best'"),
    ({"keep_ratio": 0.0}, "keep_ratio"),
    ({"keep_ratio": 1.5}, "keep_ratio"),
    ({"keep_ratio": float("nan")}, "keep_ratio"),
    ({"on": "input"}, "`on` must be one of"),
    ({"scope": "global"}, "`scope` must be one of"),
    ({"ties": "max"}, "`ties` must be one of"),
    ({"criterion": "kmnc"}, "Unknown coverage criterion"),
    ({"filters": "("}, "filters"),
    ({"filters": 3}, "filters"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=[str(options) for options, _ in WRONG])
def test_a_wrong_option_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RemosError, match=message):
        RelevantSlicer(toys.build_mlp(), **options)


def slices_of(model: keras.Model, x: Any) -> tuple[RelevantSlice, RelevantSlice, RelevantSlice]:
    slicer = RelevantSlicer(model, keep_ratio=0.6)
    parts = np.split(x, 3)
    return tuple(slicer.slice(slicer.profile(part)) for part in parts)  # type: ignore[return-value]


def test_slices_combine_like_sets() -> None:
    model, x, _ = toys.make("mlp", samples=9)
    a, b, c = slices_of(model, x)

    def same(one: RelevantSlice, other: RelevantSlice) -> bool:
        return all(np.array_equal(mask, other.masks[path]) for path, mask in one.masks.items())

    assert same(a | b, b | a) and same(a & b, b & a)
    assert same((a | b) | c, a | (b | c)) and same((a & b) & c, a & (b & c))
    assert same(a | a, a) and same(a & a, a)
    assert same(a | (a & b), a) and same(a & (b | c), (a & b) | (a & c))
    assert (a | b).kept + (a & b).kept == a.kept + b.kept
    assert not same(a, b)
    assert a.diff(a) == dict.fromkeys(a.masks, (0, 0))
    for path, (only_a, only_b) in a.diff(b).items():
        assert only_a == np.count_nonzero(a.masks[path] & ~b.masks[path])
        assert only_b == np.count_nonzero(b.masks[path] & ~a.masks[path])
    assert (a | b).summaries[0].kept == int((a | b).masks["first/kernel"].sum())
    assert set((a | b).data) == {*a.data, *b.data}


def test_slices_of_two_teachers_do_not_combine() -> None:
    model, x, _ = toys.make("mlp")
    other = toys.fill(toys.build_mlp(), seed=5)
    one, two = (s.slice(s.profile(x)) for s in map(RelevantSlicer, (model, other)))
    filtered = RelevantSlicer(model, filters="first")
    for wrong in (two, filtered.slice(filtered.profile(x))):
        for combine in (one.diff, one.__or__, one.__and__):
            with pytest.raises(MismatchError):
                combine(wrong)


@pytest.mark.parametrize("name", ["cnn", "text", "multi_head"])
def test_a_slice_survives_its_file(name: str, tmp_path: Path) -> None:
    model, x, _ = toys.make(name)
    slicer = RelevantSlicer(model, keep_ratio=0.7)
    made = slicer.slice(slicer.profile(x))
    for saved in (made, made | made):
        path = tmp_path / f"{len(saved.options)}.npz"
        saved.save(path)
        read = RelevantSlice.load(path)
        assert list(read.masks) == list(saved.masks)
        for kernel, mask in saved.masks.items():
            np.testing.assert_array_equal(read.masks[kernel], mask)
            assert read.masks[kernel].dtype == bool
        for field in ("skipped", "options", "heads", "teacher", "data", "versions"):
            assert getattr(read, field) == getattr(saved, field), field
        assert str(read.summaries) == str(saved.summaries)  # NaN is not equal to itself
        read.apply(model)
    assert path.stat().st_size < made.total / 8 + 20_000


def test_profile_and_slice_belong_to_one_model(cnn: tuple[keras.Model, np.ndarray]) -> None:
    model, x = cnn
    other = toys.build_cnn()
    other.get_layer("conv2").kernel.assign(other.get_layer("conv2").kernel * 1.001)
    other.get_layer("bn2").gamma.assign(other.get_layer("bn2").gamma * 1.001)
    slicer = RelevantSlicer(model)
    found = slicer.profile(x)
    with pytest.raises(MismatchError, match="profile .*'conv2' differ"):
        RelevantSlicer(other).slice(found)
    with pytest.raises(MismatchError, match="slice .*'conv2' differ"):
        slicer.slice(found).apply(other)
    with pytest.raises(MismatchError, match="expected layer 'conv1', found 'first'|layer 'conv1' is missing"):
        slicer.slice(found).apply(toys.build_mlp())
    with pytest.raises(MismatchError, match="other options"):
        RelevantSlicer(model, preset="artifact").slice(found)


def test_a_file_that_names_a_layer_twice_is_of_no_model(cnn: tuple[keras.Model, np.ndarray]) -> None:
    model, x = cnn
    slicer = RelevantSlicer(model)
    found = slicer.profile(x)
    with pytest.raises(MismatchError, match="names a layer twice"):
        slicer.slice(replace(found, teacher=(*found.teacher, found.teacher[-1])))


def test_another_head_is_the_same_teacher(cnn: tuple[keras.Model, np.ndarray]) -> None:
    model, x = cnn
    slicer = RelevantSlicer(model)
    made = slicer.slice(slicer.profile(x))
    other = toys.build_cnn()
    other.get_layer("head").kernel.assign(other.get_layer("head").kernel * 2)
    student, expected = made.apply(other), made.apply(model)
    np.testing.assert_array_equal(
        toys.numpy(student.get_layer("conv2").kernel), toys.numpy(expected.get_layer("conv2").kernel)
    )
    np.testing.assert_array_equal(
        toys.numpy(student.get_layer("head").kernel), 2 * toys.numpy(expected.get_layer("head").kernel)
    )


def damaged(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes(255 - b for b in data[middle : middle + 20]) + data[middle + 20 :]


BAD_FILES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "truncated": lambda data: data[: len(data) // 2],
    "cut at its end": lambda data: data[:-7],
    "damaged": damaged,
    "no archive": lambda data: b"hello " * 100,
}


@pytest.mark.once
@pytest.mark.parametrize("kind", BAD_FILES)
@pytest.mark.parametrize("what", [CoverageProfile, RelevantSlice])
def test_a_damaged_file_is_refused(kind: str, what: Any, tmp_path: Path, cnn: tuple[keras.Model, np.ndarray]) -> None:
    slicer = RelevantSlicer(cnn[0])
    made = slicer.profile(cnn[1])
    path = tmp_path / "file.npz"
    (made if what is CoverageProfile else slicer.slice(made)).save(path)
    path.write_bytes(BAD_FILES[kind](path.read_bytes()))
    with pytest.raises(FileError, match="file.npz"):
        what.load(path)


def test_a_foreign_file_is_refused(tmp_path: Path, cnn: tuple[keras.Model, np.ndarray]) -> None:
    slicer = RelevantSlicer(cnn[0])
    found = slicer.profile(cnn[1])
    found.save(tmp_path / "profile.npz")
    slicer.slice(found).save(tmp_path / "slice.npz")
    np.savez(tmp_path / "foreign.npz", x=np.ones(3))
    np.save(tmp_path / "array.npy", np.ones(3))
    np.savez(tmp_path / "pickle.npz", header=np.array([{"kind": "slice"}], dtype=object))
    for wrong in ("profile", "foreign", "pickle", "absent"):
        with pytest.raises(FileError):
            RelevantSlice.load(tmp_path / f"{wrong}.npz")
    for wrong in ("slice.npz", "foreign.npz", "array.npy", "absent.npz"):
        with pytest.raises(FileError):
            CoverageProfile.load(tmp_path / wrong)
    with pytest.raises(FileError, match="holds a slice, expected a profile"):
        CoverageProfile.load(tmp_path / "slice.npz")


def test_what_a_file_lacks_is_found_when_it_is_read(tmp_path: Path, cnn: tuple[keras.Model, np.ndarray]) -> None:
    slicer = RelevantSlicer(cnn[0])
    found = slicer.profile(cnn[1])
    found.save(tmp_path / "profile.npz")
    slicer.slice(found).save(tmp_path / "slice.npz")
    for name, kind in (("profile", CoverageProfile), ("slice", RelevantSlice)):
        header, arrays = read_archive(tmp_path / f"{name}.npz")
        for key in [key for key in header if key not in ("kind", "format")]:
            less = {k: v for k, v in header.items() if k not in (key, "kind", "format")}
            write_archive(tmp_path / "less.npz", name, less, arrays, overwrite=True)
            with pytest.raises(FileError):
                kind.load(tmp_path / "less.npz")
        rest = {k: v for k, v in header.items() if k not in ("kind", "format")}
        for key in arrays:
            write_archive(
                tmp_path / "less.npz", name, rest, {k: v for k, v in arrays.items() if k != key}, overwrite=True
            )
            with pytest.raises(FileError):
                kind.load(tmp_path / "less.npz")
            write_archive(tmp_path / "short.npz", name, rest, {**arrays, key: arrays[key][:-1]}, overwrite=True)
            with pytest.raises(RemosError):
                read = kind.load(tmp_path / "short.npz")
                read.apply(cnn[0]) if kind is RelevantSlice else slicer.slice(read)


def test_a_newer_format_is_refused(
    tmp_path: Path, cnn: tuple[keras.Model, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = profile(*cnn)
    monkeypatch.setattr(archives, "FORMAT_VERSION", archives.FORMAT_VERSION + 1)
    found.save(tmp_path / "new.npz")
    monkeypatch.undo()
    with pytest.raises(FileError, match="update keras-remos"):
        CoverageProfile.load(tmp_path / "new.npz")


def test_an_existing_file_is_left_alone(tmp_path: Path, cnn: tuple[keras.Model, np.ndarray]) -> None:
    slicer = RelevantSlicer(cnn[0])
    found = slicer.profile(cnn[1])
    for made in (found, slicer.slice(found)):
        path = tmp_path / "precious.npz"
        path.write_text("precious")
        with pytest.raises(FileError, match="exists already"):
            made.save(path)
        assert path.read_text() == "precious"
        made.save(path, overwrite=True)
        type(made).load(path)
    with pytest.raises(FileError, match="does not exist"):
        found.save(tmp_path / "no" / "such.npz")
    with pytest.raises(FileError, match="folder"):
        found.save(tmp_path, overwrite=True)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_nothing(
    error: BaseException, tmp_path: Path, cnn: tuple[keras.Model, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = profile(*cnn)
    found.save(tmp_path / "old.npz")
    before = (tmp_path / "old.npz").read_bytes()

    def fail(file: Any, array: np.ndarray, **options: Any) -> None:
        file.write(b"half")
        raise error

    monkeypatch.setattr(np.lib.format, "write_array", fail)
    for name in ("new.npz", "old.npz"):
        with pytest.raises((FileError, OSError, KeyboardInterrupt)):
            found.save(tmp_path / name, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["old.npz"]
    assert (tmp_path / "old.npz").read_bytes() == before


def test_one_profile_makes_one_file(tmp_path: Path, cnn: tuple[keras.Model, np.ndarray]) -> None:
    slicer = RelevantSlicer(cnn[0], keep_ratio=0.7)
    found = slicer.profile(cnn[1])
    for name in ("a", "b"):
        slicer.slice(found).save(tmp_path / f"{name}.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    moved = replace(found, num_samples=found.num_samples + 1)
    moved.save(tmp_path / "c.npz")
    assert CoverageProfile.load(tmp_path / "c.npz").num_samples == found.num_samples + 1
