"""Image folders, `.npz` files and tables as data sets."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from keras_remos.data import batches
from keras_remos.data.from_disk import open_dataset
from keras_remos.errors import DataError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the team's data folder ../shared/data is not here")
IMAGE = {"image_size": (8, 6), "channels": 3}


def read(dataset):
    """All samples and labels, in the order of the samples."""
    found = list(batches(dataset))
    y = None if found[0][1] is None else np.concatenate([y for _, y, _ in found])
    x = [x for x, _, _ in found]
    return (
        np.concatenate(x) if isinstance(x[0], np.ndarray) else [np.concatenate(part) for part in zip(*x, strict=True)]
    ), y


@pytest.fixture
def image_module():
    return pytest.importorskip("PIL.Image")


@pytest.fixture
def folder(tmp_path, image_module):
    """Class `a`: images of colour (10 i, 0, 0); class `b`: (0, 10 i, 0); i from 0 to 4."""
    for place, name in enumerate(["b", "a"]):
        for number in range(5):
            colour = [0, 0, 0]
            colour[1 - place] = 10 * number
            file = tmp_path / "set" / name / ("deep" if number == 4 else ".") / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            image_module.new("RGB", (12, 16), tuple(colour)).save(file)
    (tmp_path / "set" / "a" / ".hidden.png").write_bytes(b"no image")
    (tmp_path / "set" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "set" / ".git").mkdir()
    return tmp_path / "set"


def test_image_folder(folder):
    dataset = open_dataset(folder, **IMAGE, batch_size=4)
    assert (dataset.kind, dataset.num_classes, dataset.class_names, dataset.num_samples) == ("image", 2, ["a", "b"], 10)
    assert len(dataset) == dataset.num_batches == 3
    x, y = read(dataset)
    assert x.shape == (10, 8, 6, 3) and x.dtype == np.float32 and y.dtype == np.int32
    for image, label in zip(x, y, strict=True):
        assert image[..., label].max() == image[..., label].min()
        assert not image[..., 1 - label].any() and not image[..., 2].any()
    assert sorted(x[y == 0][:, 0, 0, 0]) == [0, 10, 20, 30, 40]
    assert dataset.skipped == []


def test_samples_are_shuffled_once_and_the_same_way(folder):
    first, again = (read(open_dataset(folder, **IMAGE))[1] for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert len(set(first[:5])) == 2, "the first batch must not be one class only"
    np.testing.assert_array_equal(read(open_dataset(folder, **IMAGE, seed=None))[1], [0] * 5 + [1] * 5)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels(folder, channels):
    x, _ = read(open_dataset(folder, image_size=(4, 4), channels=channels))
    assert x.shape == (10, 4, 4, channels)


def test_exif_orientation_is_honoured(tmp_path, image_module):
    pixels = np.zeros((8, 8, 3), np.uint8)
    pixels[:4] = 255
    exif = image_module.Exif()
    exif[0x0112] = 3  # upside down
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        image_module.fromarray(pixels).save(tmp_path / name / "x.png", exif=exif)
    x, _ = read(open_dataset(tmp_path, image_size=(8, 8), channels=3))
    assert x[0, 0].max() == 0 and x[0, 7].min() == 255


def test_sixteen_bit_and_palette_images(tmp_path, image_module):
    for name, image in (
        ("a", image_module.fromarray(np.full((4, 4), 65535 // 2, np.uint16))),
        ("b", image_module.new("RGB", (4, 4), (128, 128, 128)).quantize(2)),
    ):
        (tmp_path / name).mkdir()
        image.save(tmp_path / name / "x.png")
    x, _ = read(open_dataset(tmp_path, image_size=(4, 4), channels=1))
    np.testing.assert_allclose(x, 127.5, atol=2)


def damage(file, how):
    file.write_bytes({"empty": b"", "text": b"no image", "cut": file.read_bytes()[:45]}[how])


@pytest.mark.parametrize("how", ["empty", "text", "cut"])
def test_damaged_images_are_named_and_left_out(folder, how):
    damage(folder / "a" / "2.png", how)
    dataset = open_dataset(folder, **IMAGE, batch_size=4)
    x, y = read(dataset)
    assert len(x) == 9 and sorted(x[y == 0][:, 0, 0, 0]) == [0, 10, 30, 40]
    [(path, reason)] = dataset.skipped
    assert path == str(folder / "a" / "2.png") and reason
    assert read(dataset)[0].shape == x.shape and len(dataset.skipped) == 1, "a second pass must not list it twice"
    with pytest.raises(DataError, match=r"1 of 10 damaged.*2\.png"):
        open_dataset(folder, **IMAGE, strict=True)


def test_a_batch_of_damaged_images_is_never_empty(folder):
    for number in range(4):
        damage(folder / "a" / f"{number}.png", "cut")
    dataset = open_dataset(folder, **IMAGE, batch_size=2, seed=None)
    assert [len(x) for x, _ in dataset] == [2, 2, 2]
    assert all(len(dataset[index][0]) for index in range(len(dataset))), "fit asks for every batch by number"
    assert len(read(dataset)[0]) == 6


def test_nothing_but_damaged_images(folder):
    for file in folder.rglob("*.png"):
        damage(file, "text")
    dataset = open_dataset(folder, **IMAGE)
    with pytest.raises(DataError, match="none of 10 can be read"):
        next(iter(batches(dataset)))
    with pytest.raises(DataError, match="none of 10 can be read"):
        dataset[0]


def test_empty_class_folders_and_loose_images_are_listed(folder):
    (folder / "c").mkdir()
    (folder / "loose.jpg").write_bytes(b"")
    dataset = open_dataset(folder, **IMAGE)
    assert dataset.class_names == ["a", "b"]
    assert [Path(path).name for path, _ in dataset.skipped] == ["c", "loose.jpg"]


def test_map_is_applied_to_inputs_only(folder):
    dataset = open_dataset(folder, **IMAGE)
    scaled = dataset.map(lambda x: x / 10).map(lambda x: x + 1)
    np.testing.assert_allclose(read(scaled)[0], read(dataset)[0] / 10 + 1)
    np.testing.assert_array_equal(read(scaled)[1], read(dataset)[1])


@pytest.mark.parametrize(
    ("build", "options", "message"),
    [
        (lambda root: None, {}, "nothing there"),
        (lambda root: root.write_text(""), {}, "sub-folder a class"),
        (lambda root: root.mkdir(), {}, "Received: none"),
        (lambda root: [(root / name).mkdir(parents=True) for name in "ab"], {}, "Received: none"),
        (lambda root: [root.mkdir(), (root / "x.png").write_bytes(b"")], {}, "1 images and none"),
        (lambda root: [(root / "a").mkdir(parents=True), (root / "a/x.png").write_bytes(b"")], {}, "only 'a'"),
        (
            lambda root: [
                ((root / n / "a").mkdir(parents=True), (root / n / "a/x.png").touch()) for n in ("train", "test")
            ],
            {},
            "parts of a data set",
        ),
    ],
)
def test_bad_folders(tmp_path, build, options, message):
    build(tmp_path / "data")
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path / "data", **IMAGE, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"channels": 5}, r"\.npz"), ({"image_size": None}, "image_size"), ({"batch_size": 0}, "batch_size")],
)
def test_bad_image_options(folder, options, message):
    with pytest.raises(DataError, match=message):
        open_dataset(folder, **{**IMAGE, **options})


def test_without_pillow_the_error_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(ImportError, match=r"keras-remos\[image\]"):
        open_dataset(folder, **IMAGE)


# --- .npz -------------------------------------------------------------------------------------------------------------

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 8, 6, 3)).astype(np.uint8)
IDS = np.array([0, 1, 2, 0, 1, 2])


def npz(tmp_path, **arrays):
    np.savez(tmp_path / "set.npz", **arrays)
    return tmp_path / "set.npz"


@pytest.mark.parametrize("keys", [("x", "y"), ("x_train", "y_train"), ("images", "labels")])
def test_npz(tmp_path, keys):
    dataset = open_dataset(
        npz(tmp_path, **dict(zip(keys, (PIXELS, IDS), strict=True))), **IMAGE, seed=None, batch_size=4
    )
    assert (dataset.kind, dataset.num_classes, dataset.num_samples) == ("image", 3, 6)
    assert f"{keys[0]} and {keys[1]}" in dataset.description
    x, y = read(dataset)
    assert x.dtype == np.float32 and y.dtype == np.int32
    np.testing.assert_array_equal(x, PIXELS)
    np.testing.assert_array_equal(y, IDS)


def test_npz_labels_stay_with_their_samples_when_shuffled(tmp_path):
    x, y = read(open_dataset(npz(tmp_path, x=np.arange(100), y=np.arange(100) % 7), batch_size=8))
    np.testing.assert_array_equal(x % 7, y)
    assert sorted(x) == list(range(100)) and list(x) != sorted(x)
    assert x.dtype == np.arange(1).dtype, "token ids stay whole numbers"


@pytest.mark.parametrize(
    ("y", "ids", "names"),
    [
        (IDS[:, np.newaxis], IDS, ["0", "1", "2"]),
        (np.eye(3)[IDS], IDS, ["0", "1", "2"]),
        (IDS.astype("float32"), IDS, ["0", "1", "2"]),
        (np.array([7, 3, 7, 3, 7, 7]), [1, 0, 1, 0, 1, 1], ["3", "7"]),
        (np.array(["cat", "ant", "cat", "dog", "ant", "cat"]), [1, 0, 1, 2, 0, 1], ["ant", "cat", "dog"]),
    ],
)
def test_label_forms(tmp_path, y, ids, names):
    dataset = open_dataset(npz(tmp_path, x=PIXELS, y=y), seed=None)
    np.testing.assert_array_equal(read(dataset)[1], ids)
    assert dataset.class_names == names


def test_class_names_of_the_file(tmp_path):
    dataset = open_dataset(npz(tmp_path, x=PIXELS, y=IDS, classes=np.array(["a", "b", "c", "d"])))
    assert dataset.class_names == ["a", "b", "c", "d"] and dataset.num_classes == 4


def test_a_data_set_that_lacks_a_class_is_numbered_as_the_model_numbers_them(tmp_path, folder):
    known = ["0", "3", "a", "b", "c"]
    numbers = open_dataset(npz(tmp_path, x=PIXELS, y=np.array([3, 0, 3, 0, 3, 3])), seed=None, class_names=known)
    np.testing.assert_array_equal(read(numbers)[1], [1, 0, 1, 0, 1, 1])
    images = open_dataset(folder, image_size=(8, 6), class_names=known)
    assert set(images.labels) == {2, 3} and images.num_classes == 5 and images.class_names == known
    table = tmp_path / "one.tsv"
    table.write_text("text\tlabel\nx\tb\ny\tb\n", encoding="utf-8")
    assert open_dataset(table, class_names=known).labels.tolist() == [3, 3]
    with pytest.raises(DataError, match="two or more classes"):
        open_dataset(table)
    with pytest.raises(DataError, match="Received also: b"):
        open_dataset(table, class_names=["a", "c"])


def test_npz_without_labels_and_grey(tmp_path):
    dataset = open_dataset(npz(tmp_path, x=PIXELS[..., 0]), image_size=(8, 6), channels=1)
    assert dataset.num_classes is None and dataset.class_names == []
    x, y = read(dataset)
    assert x.shape == (6, 8, 6, 1) and y is None


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": IDS, "b": IDS}, "Received: a, b"),
        ({}, "no array"),
        ({"x": PIXELS[:0], "y": IDS[:0]}, "samples"),
        ({"x": PIXELS, "y": IDS[:3]}, "6 samples, 3 labels"),
        ({"x": PIXELS[:, :4], "y": IDS}, r"\(8, 6, 3\).*\(4, 6, 3\)"),
        ({"x": PIXELS[..., :1], "y": IDS}, r"\(8, 6, 3\).*\(8, 6, 1\)"),
        ({"x": np.where(PIXELS[4, 0, 0, 0] == PIXELS, np.nan, PIXELS.astype(float)), "y": IDS}, "NaN"),
        ({"x": PIXELS.astype(float) - np.inf, "y": IDS}, "infinity"),
        ({"x": PIXELS, "y": IDS * 0}, "two or more classes"),
        ({"x": PIXELS, "y": IDS / 3}, "regression"),
        ({"x": PIXELS, "y": PIXELS}, "segmentation"),
        ({"x": PIXELS, "y": np.full((6, 2), np.nan)}, "class labels"),
        ({"x": np.array([{}] * 6), "y": IDS}, "plain arrays"),
        ({"x": PIXELS + 1j, "y": IDS}, "complex"),
    ],
)
def test_bad_npz(tmp_path, arrays, message):
    with pytest.raises(DataError, match=message):
        open_dataset(npz(tmp_path, **arrays), **IMAGE).required_labels()


@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-40], lambda raw: b"", lambda raw: b"no zip", lambda raw: raw[:200]]
)
def test_damaged_npz(tmp_path, damage):
    file = npz(tmp_path, x=PIXELS, y=IDS)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=r"set\.npz"):
        open_dataset(file)


def test_flipped_bytes_in_a_compressed_npz(tmp_path):
    np.savez_compressed(tmp_path / "set.npz", x=PIXELS, y=IDS)
    raw = bytearray((tmp_path / "set.npz").read_bytes())
    raw[200:220] = bytes(20)
    (tmp_path / "set.npz").write_bytes(bytes(raw))
    with pytest.raises(DataError, match="damaged"):
        open_dataset(tmp_path / "set.npz")


# --- tables -----------------------------------------------------------------------------------------------------------


def table(tmp_path, text, name="set.csv"):
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("set.csv", 'id,text,label\n1,"one, ""two""",1\n2,"three\nfour",0\n\n3,five,1\n'),
        ("set.csv", '\ufeffid,text,label\r\n1,"one, ""two""",1\r\n2,"three\nfour",0\r\n3,five,1'),
        (
            "set.jsonl",
            "".join(
                json.dumps({"label": label, "text": text}) + "\n\n"
                for text, label in (('one, "two"', 1), ("three\nfour", 0), ("five", 1))
            ),
        ),
    ],
)
def test_tables(tmp_path, name, text):
    dataset = open_dataset(table(tmp_path, text, name), seed=None, batch_size=2)
    assert (dataset.kind, dataset.num_classes, dataset.num_samples) == ("text", 2, 3)
    x, y = read(dataset)
    assert x.tolist() == ['one, "two"', "three\nfour", "five"] and y.tolist() == [1, 0, 1]


@pytest.mark.once
def test_tsv_written_with_quotes_is_read_with_them(tmp_path):
    """As pandas and spreadsheets write it: what holds a tab, a line or a quote is wrapped."""
    rows = [["sentence", "label"], ["a\ttab", "0"], ['two\nlines, and "so"', "1"], ["plain", "0"]]
    for ending in ("\n", "\r\n"):
        for quoting in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
            with (tmp_path / "set.tsv").open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, "excel-tab", quoting=quoting, lineterminator=ending).writerows(rows)
            x, y = read(open_dataset(tmp_path / "set.tsv", seed=None))
            assert list(x) == [row[0] for row in rows[1:]]
            assert list(y) == [0, 1, 0]


@pytest.mark.once
@pytest.mark.parametrize(
    "sentences",
    [
        ['"open', "b"],
        ['"Yes" , he said', "b"],
        ['"whole"', 'a "bare" one'],
        # Quotes that would make one row of two, or of another length.
        ['"starts', 'ends"'],
        ['"', '"'],
    ],
)
def test_tsv_with_quotes_in_the_text_keeps_them(tmp_path, sentences):
    text = "label\tsentence\n" + "".join(f"{number}\t{sentence}\n" for number, sentence in enumerate(sentences))
    x, _ = read(open_dataset(table(tmp_path, text, "set.tsv"), seed=None))
    assert list(x) == sentences


@pytest.mark.once
def test_a_long_file_of_quotes_takes_no_longer(tmp_path):
    text = "sentence\tlabel\n" + '"""' * 100_000 + "x\t0\nb\t1\n"
    x, _ = read(open_dataset(table(tmp_path, text, "set.tsv"), seed=None))
    assert len(x[0]) == 300_001


def test_tsv_knows_no_quotes(tmp_path):
    dataset = open_dataset(table(tmp_path, 'sentence\tlabel\n"open\t0\nit\'s "so"\t1\n', "set.tsv"), seed=None)
    assert read(dataset)[0].tolist() == ['"open', 'it\'s "so"']


def test_pairs(tmp_path):
    text = "question\tsentence\tlabel\nq1\ts1\tno\nq2\ts2\tyes\n"
    pair = {"text_column": "question", "pair_column": "sentence", "seed": None}
    x, y = read(open_dataset(table(tmp_path, text, "set.tsv"), **pair))
    assert [part.tolist() for part in x] == [["q1", "q2"], ["s1", "s2"]] and y.tolist() == [0, 1]
    unlabelled = table(tmp_path, "question\tsentence\nq1\ts1\nq2\ts2\n", "other.tsv")
    x, y = read(open_dataset(unlabelled, **pair))
    assert [part.tolist() for part in x] == [["q1", "q2"], ["s1", "s2"]] and y is None


def test_text_is_wanted_where_a_table_has_both(tmp_path):
    file = table(tmp_path, "text,file,label\na,x.png,0\nb,y.png,1\n")
    assert open_dataset(file).kind == "text"


def test_image_table(folder):
    rows = "".join(f"{name}/{number}.png,{name}\n" for name in "ab" for number in range(4))
    (folder / "set.csv").write_text("file,label\n" + rows + "gone.png,a\n")
    dataset = open_dataset(folder / "set.csv", **IMAGE, seed=None)
    assert (dataset.kind, dataset.class_names) == ("image", ["a", "b"])
    x, y = read(dataset)
    assert sorted(x[y == 1][:, 0, 0, 1]) == [0, 10, 20, 30] and len(x) == 8
    assert [Path(path).name for path, _ in dataset.skipped] == ["gone.png"]


@pytest.mark.parametrize(
    ("name", "text", "options", "message"),
    [
        ("a.csv", "question,sentence1,label\na,b,0\nc,d,1\n", {}, "question, sentence1, label"),
        ("a.csv", "text,label\na,0\nb,1\n", {"text_column": "body"}, "'body'.*text, label"),
        ("a.csv", "text,label\na,0\nb,1\n", {"label_column": "mark"}, "'mark'.*text, label"),
        ("a.csv", "text,label\na,0\nb,1\n", {"pair_column": "other"}, "'other'"),
        ("a.csv", "text,label\na,0\nb,1\n", {"path_column": "file"}, "'file'"),
        ("a.csv", "text,label\na,0\n ,1\n", {}, "'text', line 3"),
        ("a.csv", "text,label\na,0\nb,\n", {}, "'label', line 3"),
        ("a.csv", "text,label\na,0\nb,1,2\n", {}, "line 3.*Received: 3"),
        ("a.csv", 'text,label\n"a\nb",0\nc\n', {}, "line 4.*Received: 1"),
        ("a.csv", 'text,label\n"a,0\nb,1\n', {}, "line 2"),
        ("a.csv", "text,text\na,0\nb,1\n", {}, "once"),
        ("a.csv", "text,label\na,0\nb,0\n", {}, "two or more classes"),
        ("a.csv", "", {}, "0 lines"),
        ("a.tsv", "text\tlabel\n", {}, "1 lines"),
        ("a.tsv", "text\tlabel\na\t0\nb\n", {}, "line 3"),
        ("a.tsv", b"text\tlabel\na\t0\n\xe9\t1\n", {}, "UTF-8.*line 3"),
        ("a.jsonl", '{"text": "a", "label": 0}\n{"text": \n', {}, "line 2"),
        ("a.jsonl", '{"text": "a", "label": 0}\n[1]\n', {}, "line 2.*list"),
        ("a.jsonl", '{"text": "a", "label": 0}\n{"text": "b"}\n', {}, "line 2.*Received: text"),
        ("a.jsonl", '{"text": "a", "label": 0}\n{"text": null, "label": 1}\n', {}, "'text', line 2"),
        ("a.jsonl", '{"text": "a", "label": 0}\n{"text": 5, "label": 1}\n', {}, "text in column 'text', line 2"),
        ("a.jsonl", '{"text": "a", "label": 0}\n{"text": "b", "label": [1]}\n', {}, "'label', line 2"),
        ("a.txt", "a", {}, r"\.jsonl"),
    ],
)
def test_bad_tables(tmp_path, name, text, options, message):
    with pytest.raises(DataError, match=message):
        open_dataset(table(tmp_path, text, name), **options).required_labels()


# --- the team's data --------------------------------------------------------------------------------------------------


@needs_shared
@pytest.mark.parametrize(("name", "classes"), [("flowers102_20c", 20), ("caltech101_20c", 20)])
def test_shared_image_folders(name, classes):
    pytest.importorskip("PIL")
    dataset = open_dataset(SHARED / "images" / name / "train", image_size=(32, 32), channels=3)
    x, y, _ = next(iter(batches(dataset)))
    assert x.shape == (32, 32, 32, 3) and x.max() > 150 and dataset.num_classes == classes and len(set(y)) > 5
    with pytest.raises(DataError, match="parts of a data set"):
        open_dataset(SHARED / "images" / name, image_size=(32, 32), channels=3)


@needs_shared
@pytest.mark.parametrize("name", ["cifar10_test1000", "imagenette10_32", "flowers102_20c_32", "caltech101_20c_32"])
def test_shared_arrays(name):
    dataset = open_dataset(SHARED / "images" / f"{name}.npz", image_size=(32, 32), channels=3)
    x, y = read(dataset)
    assert len(x) == dataset.num_samples and set(y) == set(range(dataset.num_classes))


@needs_shared
@pytest.mark.once
@pytest.mark.parametrize(
    ("name", "count", "options"),
    [
        ("sst2/train", 6920, {}),
        ("sst2/phrases_train", 60614, {}),
        ("imdb/train_2000", 2000, {}),
        ("imdb/test_2000", 2000, {}),
        ("qnli/dev", 5463, {"text_column": "question", "pair_column": "sentence"}),
        ("rte/rte_train", 2490, {"text_column": "sentence1", "pair_column": "sentence2"}),
    ],
)
def test_shared_tables(name, count, options):
    dataset = open_dataset(SHARED / "text" / f"{name}.tsv", **options)
    assert (dataset.num_samples, dataset.num_classes) == (count, 2)
    assert len(read(dataset)[1]) == count


def test_a_split_is_a_part_of_the_npz_or_a_sub_folder(tmp_path: Path) -> None:
    x = np.zeros((4, 2, 2, 3), np.uint8)
    np.savez(tmp_path / "both.npz", x_train=x, y_train=[0, 1, 0, 1], x_test=x[:2] + 9, y_test=[0, 1])
    whole = open_dataset(tmp_path / "both.npz", image_size=(2, 2))
    assert whole.num_samples == 4
    images, labels = open_dataset(tmp_path / "both.npz", split="test", image_size=(2, 2)).read_all()
    assert images.shape == (2, 2, 2, 3) and (images == 9).all() and sorted(labels) == [0, 1]
    with pytest.raises(DataError, match="nothing there"):
        open_dataset(tmp_path, split="test", image_size=(2, 2))
    (tmp_path / "table.csv").write_text("text,label\nx,1\n")
    with pytest.raises(DataError, match="no parts"):
        open_dataset(tmp_path / "table.csv", split="train")
