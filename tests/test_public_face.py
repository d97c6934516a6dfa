"""What a user meets first: defaults that agree, one-line reprs, classes counted from the data."""

from typing import Any

import keras
import numpy as np
import pytest
import tiny
import toys
from planted import SPACE, images, teacher

import keras_remos as kr
from keras_remos.methods import Recipe

# So few neurons are often all covered, or none.
pytestmark = pytest.mark.filterwarnings("ignore:Criterion:UserWarning")

SHORT = Recipe(epochs=1, batch_size=8, learning_rate=0.01)


@pytest.mark.parametrize("toy", ["cnn", "text"])
def test_profile_and_slicer_agree_by_default(toy: str) -> None:
    model, data, _ = toys.make(toy)
    profile = kr.profile(model, data, verbose=False)
    slicer = kr.RelevantSlicer(model)
    assert slicer.profile(data, verbose=False).options == profile.options
    slicer.slice(profile)


def test_profile_takes_the_filters_of_the_slicer() -> None:
    model, data, _ = toys.make("cnn")
    for filters in ("conv1", ["conv1$"], lambda path, layer: path == "conv1"):
        assert list(kr.profile(model, data, filters=filters, verbose=False).layers) == ["conv1/kernel"]
    for filters in ("(", "x{99999999999}", "(" * 10_000 + ")" * 10_000):
        with pytest.raises(kr.RemosError, match="`filters` must be a regular expression"):
            kr.profile(model, data, filters=filters, verbose=False)


def test_the_slicer_takes_padding_and_no_limit() -> None:
    model, _, _ = toys.make("text")
    assert kr.RelevantSlicer(model).settings.count_padding is False
    assert kr.RelevantSlicer(model, count_padding=True).settings.count_padding is True
    cnn, _, _ = toys.make("cnn")
    assert kr.RelevantSlicer(cnn).settings.layer_limit == kr.PRESETS["recommended"].layer_limit == 2
    for unlimited in (None, float("inf")):
        assert kr.RelevantSlicer(cnn, layer_limit=unlimited).settings.layer_limit is None
    assert kr.RelevantSlicer(cnn, layer_limit=3).settings.layer_limit == 3


def shown() -> dict[str, Any]:
    model, data, _ = toys.make("cnn")
    slicer = kr.RelevantSlicer(model)
    profile = slicer.profile(data, verbose=False)
    x, y = images(12, seed=1)
    prepared = kr.PenultimateAttack(steps=1).prepare(teacher(), space=SPACE)
    attack = kr.PenultimateAttack(steps=1).inputs(prepared, x, y, verbose=False)
    report = kr.audit(
        teacher(),
        {"same": teacher()},
        (x, y),
        attacker=kr.Attacker(defects=[attack]),
        controls=kr.Controls(control="same"),
        space=SPACE,
        verbose=False,
    )
    return {
        "slicer": slicer,
        "profile": profile,
        "slice": slicer.slice(profile),
        "trained": tiny.make("finetune", recipe=SHORT),
        "prepared": prepared,
        "attack": attack,
        "audit": report,
        "inheritance": report.inheritance,
        "description": kr.describe_model(model),
    }


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    return shown()


@pytest.mark.once
def test_everything_shows_itself_in_one_line(results: dict[str, Any]) -> None:
    for name, result in results.items():
        assert "\n" not in repr(result) and len(repr(result)) < 120, name
    assert repr(results["slice"]) == "<RelevantSlice of 2 kernels: 227 of 252 weights kept>"
    assert "accuracy=" in repr(results["trained"])


@pytest.mark.once
def test_notebooks_get_a_small_table(results: dict[str, Any]) -> None:
    for name in ("profile", "slice", "trained", "audit", "inheritance"):
        html = results[name]._repr_html_()
        assert html.startswith("<table>") and html.count("<tr>") > 1, name
    assert "conv1/kernel" in results["slice"]._repr_html_()


def test_a_layers_name_is_text_in_a_notebook_not_markup() -> None:
    layers = [keras.Input((4,)), keras.layers.Dense(3, name="x>y"), keras.layers.Dense(2)]
    profile = kr.profile(toys.fill(keras.Sequential(layers)), np.ones((2, 4), "float32"), verbose=False)
    assert "x>y" not in profile._repr_html_() and "x&gt;y" in profile._repr_html_()


def test_results_describe_themselves(results: dict[str, Any]) -> None:
    for name in ("profile", "slice", "trained", "prepared", "attack", "audit", "inheritance", "description"):
        assert isinstance(results[name].describe(), dict), name
    assert results["trained"].summary().splitlines()[0] == "finetune, 1 epochs, learning rate 0.01, 3 classes, seed 5"


@pytest.mark.once
def test_classes_are_counted_where_the_data_know_them() -> None:
    x, y = images(24, seed=0)
    for labels in (y, np.eye(3)[y], y[:, None]):
        trained = kr.train("finetune", teacher(), (SPACE.scale(x), labels), recipe=SHORT, verbose=False)
        assert trained.options["num_classes"] == 3 and trained.student.output_shape == (None, 3)
    with pytest.raises(kr.DataError, match="generator does not tell how many classes"):
        kr.train("finetune", teacher(), ((x, y) for _ in range(1)), recipe=SHORT)
    with pytest.raises(kr.DataError, match="as a tuple"):
        kr.train("finetune", teacher(), x, recipe=SHORT)


def test_a_head_multiplier_is_deprecated_and_still_read() -> None:
    with pytest.warns(DeprecationWarning, match="head_multiplier"):
        recipe = Recipe(head_multiplier=2.0)
    assert Recipe(**Recipe().get_config()) == Recipe() and recipe.head_multiplier == 2


def test_a_kept_head_says_how_many_classes_there_are() -> None:
    x, y = images(24, seed=0)
    two = y < 2
    trained = kr.train(
        "finetune", teacher(), (SPACE.scale(x[two]), y[two]), keep_head=True, recipe=SHORT, verbose=False
    )
    assert trained.options["num_classes"] == 3


@pytest.mark.parametrize("labels", [np.array(["a", "b"] * 12), np.array([0.0, np.nan] * 12)])
def test_labels_that_cannot_be_counted_are_named(labels: np.ndarray) -> None:
    with pytest.raises(kr.DataError, match="class ids"):
        kr.train("finetune", teacher(), (np.ones((24, 8, 8, 3), "float32"), labels), recipe=SHORT)


def test_a_wrong_filter_is_refused_before_a_generator_is_read() -> None:
    model, data, _ = toys.make("cnn")
    batches = iter([data])
    with pytest.raises(kr.RemosError, match="`filters` must be"):
        kr.profile(model, batches, filters="(", verbose=False)
    assert next(batches) is data


def test_an_attacker_can_attack_twice() -> None:
    attacker = kr.Attacker(defects=(name for name in ["penultimate"]))
    assert attacker.defects == ("penultimate",)


@pytest.mark.parametrize(
    "use",
    [
        kr.RelevantSlicer,
        kr.describe_model,
        lambda model: kr.profile(model, np.ones((2, 3))),
        lambda model: kr.train("finetune", model, (np.ones((4, 3)), np.array([0, 1, 0, 1]))),
        lambda model: kr.PenultimateAttack().prepare(model, space=kr.PixelSpace("0-1")),
        lambda model: kr.audit(model, {}, (np.ones((2, 3)), [0, 1]), space=kr.PixelSpace("0-1")),
    ],
)
def test_a_path_is_no_model(use: Any) -> None:
    with pytest.raises(kr.TeacherError, match="'x.keras': open it with keras_remos.load_teacher"):
        use("x.keras")
    with pytest.raises(kr.TeacherError, match="Received: a dict"):
        use({})


def test_a_filter_that_matches_nothing_is_said() -> None:
    model, data, _ = toys.make("cnn")
    for use in (
        lambda: kr.RelevantSlicer(model, filters=["conv1", "conv9"]),
        lambda: kr.profile(model, data, filters="conv9"),
    ):
        with pytest.raises(kr.RemosError, match=r"'conv9' matches no layer with weights .*conv1"):
            use()


def test_images_of_any_size_are_described() -> None:
    x = keras.Input((None, None, 3))
    h = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, activation="relu", name="conv")(x))
    assert [path for path, *_ in kr.describe_model(keras.Model(x, keras.layers.Dense(2)(h))).kernels] == ["conv/kernel"]
