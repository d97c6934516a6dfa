"""Files as people have them: other endings, links, accents, damaged tags; tables of spreadsheets."""

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from keras_remos import DataError, Trigger, open_dataset
from keras_remos.data.tables import read_table

Image = pytest.importorskip("PIL.Image", reason="needs Pillow")

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        PICTURE.save(tmp_path / name / "1.png")
    return tmp_path


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".JPEG", ".tga", ".pbm", ".jp2", ""])
def test_images_of_every_ending_are_read(ending: str, folder: Path) -> None:
    kind = {".tga": "TGA", ".pbm": "PPM", ".jp2": "JPEG2000"}.get(ending, "JPEG")
    picture = PICTURE.convert("1") if ending == ".pbm" else PICTURE
    picture.save(folder / "cat" / f"2{ending}", kind)
    data = open_dataset(folder, image_size=(6, 6))
    assert data.num_samples == 3 and len(data.read_all()[0]) == 3
    assert data.skipped == []


@pytest.mark.skipif(os.name == "nt", reason="programs are found in another way")
def test_no_program_is_started_for_an_image(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow starts Ghostscript for PostScript, whatever the name of the file says."""
    program = folder.parent / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho $@ >> {program}.called\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None, raising=False)
    written = "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 6\n%%EndComments\nshowpage\n%%EOF\n"
    for name in ("2.png", "3"):
        (folder / "cat" / name).write_text(written)
    found = open_dataset(folder, image_size=(6, 6))
    assert len(found.read_all()[0]) == 2
    with pytest.raises(DataError, match="no image"):
        Trigger.from_file(folder / "cat" / "2.png", size=2)
    assert not Path(f"{program}.called").exists()


def test_images_that_are_not_read_are_listed(folder: Path) -> None:
    (folder / "cat" / "notes.txt").write_text("a cat")
    (folder / "cat" / "README").write_text("a cat, again")
    (folder / "cat" / "drawn.svg").write_text("<svg/>")
    (folder / "cat" / ".hidden").write_text("")
    (folder / "elsewhere").mkdir()
    (folder / "dog" / "more").symlink_to(folder / "cat", target_is_directory=True)
    assert open_dataset(folder, image_size=(6, 6)).skipped == [
        (str(folder / "cat" / "drawn.svg"), "images of .svg are not read"),
        (str(folder / "dog" / "more"), "a link to a folder, which is not followed"),
        (str(folder / "elsewhere"), "no image in this folder"),
    ]


def test_a_class_that_cannot_be_read_is_an_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: object) -> object:
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    listed = os.scandir
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(DataError, match=r"folder that can be read at .*dog.*Permission denied"):
        open_dataset(folder, image_size=(6, 6))


def test_a_name_is_one_however_it_is_written(folder: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    (folder / apart).mkdir()
    PICTURE.save(folder / apart / "1.png")
    data = open_dataset(folder, image_size=(6, 6))
    assert data.class_names == ["café", "cat", "dog"] and data.class_names[0] == composed
    (folder / composed).mkdir(exist_ok=True)
    PICTURE.save(folder / composed / "2.png")
    again = open_dataset(folder, image_size=(6, 6))
    assert len(again.class_names) == 3 and again.num_samples == 4


def test_an_image_with_damaged_tags_is_read_as_it_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import ImageOps

    def damaged(image: object) -> object:
        raise ValueError("bad EXIF")

    expected = open_dataset(folder, image_size=(6, 6)).read_all()[0]
    monkeypatch.setattr(ImageOps, "exif_transpose", damaged)
    data = open_dataset(folder, image_size=(6, 6))
    np.testing.assert_array_equal(data.read_all()[0], expected)
    assert data.skipped == []


def table(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("semicolons.csv", 'text;label\n"one; two";1\nthree, four;0\n'),
        ("trailing.csv", 'text,label,\n"one; two",1,\n"three, four",0,\n'),
        ("short.csv", 'text,label,,\n"one; two",1\n"three, four",0,,\n'),
        ("trailing.tsv", "text\tlabel\t\none; two\t1\t\nthree, four\t0\t\n"),
    ],
)
def test_tables_of_spreadsheets_are_read(name: str, text: str, tmp_path: Path) -> None:
    read = read_table(table(tmp_path / name, text))
    assert read.columns == ["text", "label"]
    assert read.texts("text") == ["one; two", "three, four"] and list(read.labels("label")) == [1, 0]


def test_a_column_with_something_in_it_needs_a_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Expected 2 cells"):
        read_table(table(tmp_path / "t.csv", "text,label\none,1,x\n"))


def test_a_long_text_is_a_text(tmp_path: Path) -> None:
    long = "word " * 40_000
    read = read_table(table(tmp_path / "t.csv", f'text,label\n"{long}",1\nshort,0\n'))
    assert read.texts("text") == [long, "short"]


def test_half_a_character_is_named_with_its_line(tmp_path: Path) -> None:
    rows = '{"text": "fine", "label": 0}\n{"text": "half \\ud83d", "label": 1}\n'
    with pytest.raises(DataError, match=r"column 'text', line 2 of .*half of a character"):
        open_dataset(table(tmp_path / "t.jsonl", rows))
