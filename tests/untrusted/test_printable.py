"""Names that would move the cursor, hide, or pass for a line of ours."""

import pytest

from keras_remos.untrusted import encodable, in_lines, printable

pytestmark = pytest.mark.once


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("conv", "conv"),
        ("größe ÄÖ 名前 😀", "größe ÄÖ 名前 😀"),
        ("نمی‌دانم", "نمی‌دانم"),  # a letter that does not join is no trick
        ("\x1b[2J", "\\x1b[2J"),
        ("\x1b]52;c;aGk=\x07", "\\x1b]52;c;aGk=\\x07"),
        ("a\rb\nc\td\x7f\x9b", "a\\x0db\\x0ac\\x09d\\x7f\\x9b"),
        ("evil\u202egpj.exe", "evil\\u202egpj.exe"),
        ("\ud800", "\\ud800"),
        ("a\u2028b\ufeff\U000e0041", "a\\u2028b\\ufeff\\U000e0041"),
        (5, "5"),
    ],
)
def test_what_is_no_character_is_escaped(name: object, shown: str) -> None:
    assert printable(name) == shown


def test_lines_stay_lines() -> None:
    assert printable("a\nb\x1b", lines=True) == "a\nb\\x1b"
    assert in_lines(["a\nverified clean", "b"]) == "a\\x0averified clean\nb"


@pytest.mark.parametrize("encoding", ["cp1252", "latin-1", "ascii", "utf-8"])
def test_what_an_encoding_lacks_is_escaped(encoding: str) -> None:
    text = "größe 名 \ud800"
    encodable(text, encoding).encode(encoding)
    assert encodable("größe", "latin-1") == "größe"
    assert encodable("名", "cp1252") == "\\u540d"
    assert encodable(text, None) == text
