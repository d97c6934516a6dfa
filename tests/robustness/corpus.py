"""One file of every kind that keras-remos reads, and what it is read by."""

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import keras
import made_up
import numpy as np
import toys

import keras_remos as kr
from keras_remos.defects import open_synonyms
from keras_remos.defects.resuming import Partial
from keras_remos.evaluation import InheritanceReport, Rate, unlike
from keras_remos.evaluation.audit_folder import open_folder
from keras_remos.evaluation.tradeoff import Point, _Results
from keras_remos.report import envelope, markdown, open_results, page
from keras_remos.training.checkpoints import Checkpoint, Progress
from keras_remos.untrusted import read_record

SPACE = kr.PixelSpace("none", 0.0, 1.0)
SHAPE = (6, 8, 8, 3)


@dataclass(frozen=True)
class Kind:
    """A file, and all that is done with one of its kind."""

    name: str
    content: bytes
    read: Callable[[Path], Any]
    is_slow: bool = False


def teacher() -> keras.Model:
    x = keras.Input((8, 8, 3))
    h = keras.layers.ReLU(name="relu")(keras.layers.Conv2D(4, 3, name="conv")(x))
    h = keras.layers.GlobalAveragePooling2D(name="pool")(h)
    return toys.fill(keras.Model(x, keras.layers.Dense(3, activation="softmax", name="head")(h), name="small"))


def make(folder: Path) -> dict[str, Kind]:
    """The corpus, by kind. Small, so that thousands can be read in minutes."""
    model = teacher()
    pixels = np.random.default_rng(0).uniform(size=SHAPE).astype(np.float32)
    labels = np.array([0, 1, 2, 0, 1, 2], np.int32)
    slicer = kr.RelevantSlicer(model, keep_ratio=0.5)
    profile = slicer.profile(pixels, verbose=False)
    kept = slicer.slice(profile)
    attack = kr.PenultimateAttack(steps=1)
    made = attack.inputs(attack.prepare(model, space=SPACE), pixels, labels, class_names=("a", "b", "c"), verbose=False)
    trigger = kr.Trigger.checkerboard(size=2, low=0.0, high=1.0)
    record = {
        "defect": "patch-backdoor",
        "options": {},
        "seed": 0,
        "source": made.teacher,
        "target": 1,
        "class_names": ["a", "b", "c"],
    }
    kr.Prepared(model, SPACE, trigger, dict(record)).save(folder / "poisoned.keras")
    kr.Prepared(model, SPACE, kr.TextTrigger(("cf",)), dict(record)).save(folder / "worded.keras")
    kr.save_student(model, folder / "student.keras", class_names=("a", "b", "c"), space=SPACE, teacher=model)
    model.save(folder / "teacher.keras")
    profile.save(folder / "profile.npz")
    kept.save(folder / "slice.npz")
    made.save(folder / "attack.npz")
    partial = Partial(folder / "partial.npz", {"defect": "x"}, SHAPE, np.float32)
    partial.add(pixels[:2])
    checkpoint = Checkpoint(folder, "checkpoint", {"seed": 0}, {})
    checkpoint.save(Progress(1, False, {"loss": [1.0]}), model.weights)

    def checked_slice(path: Path) -> None:
        found = kr.RelevantSlice.load(path)
        found.describe(), found.summary(), repr(found), found.dropped_tokens(), found.apply(model)

    def checked_profile(path: Path) -> None:
        found = kr.CoverageProfile.load(path)
        found.describe(), found.summary(), repr(found), slicer.slice(found), found + profile

    def checked_attack(path: Path) -> None:
        # Small ones are read whole, large ones where they lie.
        for in_memory in (2**24, 0):
            with mock.patch("keras_remos.untrusted.rows.IN_MEMORY", in_memory):
                found = kr.AttackSet.load(path)
                found.describe(), repr(found), found.numbered(("c", "b", "a")), found.check_teacher(model)

    def checked_checkpoint(path: Path) -> None:
        found = Checkpoint(path.parent, path.stem, {"seed": 0}, {}).load()
        assert found is None or found.history is not None

    def checked_poisoned(path: Path) -> None:
        found = kr.Prepared.load(path)
        found.describe(), repr(found), found.source
        planted = kr.PatchBackdoor() if isinstance(found.trigger, kr.Trigger) else None
        if planted is not None:
            planted.inputs(found, pixels, labels, class_names=("a", "b", "c"), verbose=False)

    def checked_student(path: Path) -> None:
        from keras_remos_cli.inputs import classes_of
        from keras_remos_cli.origins import Origins, check_control

        found = read_record(path)
        classes_of({path: found, path.parent: {"class_names": ["a", "b", "c"]}})
        origins = Origins((path, made.teacher))
        origins.poisoned(found)
        origins.student(path, found)
        check_control(path, found)
        report = InheritanceReport({}, {}, (), "b")
        unlike({"a": found, "b": {"recipe": {"epochs": 1}}}, report)
        unlike({"a": {"recipe": {"epochs": 1}}, "b": found}, report)

    def checked_teacher(path: Path) -> None:
        kr.describe_model(kr.load_teacher(path)).summary()

    def checked_result(path: Path) -> None:
        page(open_results([path]))
        markdown(open_results([path]))

    of_shares = {"inputs": {"pen": "x"}, "seed": 0}

    def checked_shares(path: Path) -> None:
        found = _Results(path, of_shares)
        if found.points:
            assert found.recipe is not None
            made = kr.Tradeoff(tuple(found.points.values()), found.recipe, False)
            made.describe(), made.summary(), made._repr_html_()
        checked_result(path)

    def checked_mark(path: Path) -> None:
        open_folder(path.parent, {"teacher": made.teacher, "test set": "x", "seed": 0})

    def inspected(path: Path) -> None:
        found = kr.inspect_file(path)
        found.describe(), found.summary(), repr(found)

    def checked_data(path: Path, **how: Any) -> None:
        found = kr.open_dataset(path, **how)
        repr(found), found._repr_html_(), next(iter(found))

    def checked_image(path: Path) -> None:
        kr.Trigger.from_file(path, size=2)
        checked_data(path.parent, image_size=(4, 4))

    result = envelope("audit", made_up.audit(2))
    texts = "text\tlabel\nA fine film.\tgood\nA dull one.\tbad\nFine, fine.\tgood\n"
    rows = [{"text": "a fine film", "label": 1}, {"text": "a dull one", "label": 0}]
    vectors = "\n".join(f"{word} {i} 1 0.5" for i, word in enumerate(("good", "fine", "dull", "poor")))
    files: dict[str, tuple[str, bytes, Callable[[Path], Any]]] = {
        "slice": ("a.npz", (folder / "slice.npz").read_bytes(), checked_slice),
        "profile": ("a.npz", (folder / "profile.npz").read_bytes(), checked_profile),
        "attack": ("a.npz", (folder / "attack.npz").read_bytes(), checked_attack),
        "partial attack": (
            "a.npz",
            (folder / "partial.npz").read_bytes(),
            lambda path: Partial(path, {"defect": "x"}, SHAPE, np.float32),
        ),
        "checkpoint": ("a.npz", (folder / "checkpoint.npz").read_bytes(), checked_checkpoint),
        "poisoned": ("a.keras", (folder / "poisoned.keras").read_bytes(), checked_poisoned),
        "worded": ("a.keras", (folder / "worded.keras").read_bytes(), checked_poisoned),
        "student": ("a.keras", (folder / "student.keras").read_bytes(), checked_student),
        "teacher": ("a.keras", (folder / "teacher.keras").read_bytes(), checked_teacher),
        "npz data": ("a.npz", _npz(x=pixels, y=labels, class_names=np.array(["a", "b", "c"])), checked_data),
        "npz texts": ("a.npz", _npz(x=np.array(["a b", "c"]), y=np.array(["u", "v"])), checked_data),
        "csv": ("a.csv", texts.replace("\t", ",").encode(), checked_data),
        "tsv": ("a.tsv", texts.encode(), checked_data),
        "jsonl": ("a.jsonl", "\n".join(map(json.dumps, rows)).encode(), checked_data),
        "synonyms": ("a.txt", b"film movie\ngood fine\n", lambda path: open_synonyms(path).synonyms("film")),
        "vectors": ("a.txt", vectors.encode(), lambda path: open_synonyms(path).synonyms("good")),
    }
    files |= {
        "result": ("a.json", json.dumps(result).encode(), checked_result),
        "audit's mark": ("x/audit.json", json.dumps({"kind": "audit", "seed": 0}).encode(), checked_mark),
    }
    files |= {
        f"inspected {name}": (kind[0], kind[1], inspected)
        for name, kind in files.items()
        if name
        in ("slice", "profile", "attack", "partial attack", "checkpoint", "poisoned", "student", "result", "csv")
    }
    files |= {f"image {suffix}": (f"x/a.{suffix}", raw, checked_image) for suffix, raw in _images().items()}
    shares = _Results(folder / "shares.jsonl", of_shares)
    for ratio in (1.0, 0.5):
        shares.add(Point(ratio, Rate(5, 6), {"pen": Rate(1, 6)}), kr.Recipe(epochs=1))
    files["trade-off"] = ("a.jsonl", (folder / "shares.jsonl").read_bytes(), checked_shares)
    return {name: Kind(*made) for name, made in files.items()}


def _npz(**arrays: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez(out, **arrays)
    return out.getvalue()


def _images() -> dict[str, bytes]:
    try:
        from PIL import Image
    except ImportError:
        return {}
    pixels = np.random.default_rng(1).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    found = {}
    for suffix, form in (("png", "PNG"), ("jpg", "JPEG"), ("gif", "GIF"), ("bmp", "BMP"), ("tif", "TIFF")):
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, form)
        found[suffix] = out.getvalue()
    return found


def of_folders(folder: Path) -> dict[str, Kind]:
    """Each file of a preset folder, and of a folder of Hugging Face, read with the others as they are.

    Needs KerasHub.
    """
    import text_toys

    from robustness import hugging_face

    text_toys.bert().save_to_preset(str(folder / "preset"))
    hugging_face.write(folder / "hugging face")
    return {**_of_folder(folder / "preset"), **_of_folder(folder / "hugging face")}


def _of_folder(source: Path) -> dict[str, Kind]:
    files = {str(path.relative_to(source)): path for path in sorted(source.rglob("*")) if path.is_file()}

    def kind(name: str) -> Kind:
        def read(path: Path) -> None:
            place = path.parents[name.count("/")]
            for other, whole in files.items():
                if other != name:
                    (place / other).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(whole, place / other)
            kr.describe_model(kr.load_teacher(place)).summary()

        return Kind(f"{source.name}/{name}", files[name].read_bytes(), read, is_slow=True)

    return {f"{source.name} {name}": kind(name) for name in files}


def rewritten(source: Path, target: Path, **members: Callable[[Any], Any] | bytes) -> Path:
    """A `.keras` file with other members: JSON changed by a function, or bytes. `__` in a name stands for a dot."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            change = members.pop(name.replace(".", "__"), None)
            content = old.read(name)
            if isinstance(change, bytes):
                content = change
            elif change is not None:
                content = json.dumps(change(json.loads(content))).encode()
            new.writestr(name, content)
        for name, change in members.items():
            assert isinstance(change, bytes)
            new.writestr(name.replace("__", "."), change)
    return target
