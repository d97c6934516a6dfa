"""What a header may hold, by types."""

from typing import Annotated, Any, Literal, TypedDict

import pytest

from keras_remos.untrusted import Between, Count, Figure, Marks, check

pytestmark = pytest.mark.once


class Inner(TypedDict):
    name: str


class Outer(TypedDict, total=False):
    inner: Inner
    counts: list[Count]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x", str),
        (1, int),
        (1, float),
        (1.5, float),
        (float("nan"), float),
        (True, bool),
        (None, None),
        (None, int | None),
        (5, Count),
        ([], list[str]),
        (["a", 1], tuple[str, int]),
        ({"a": [1]}, dict[str, list[int]]),
        ({}, Outer),
        ({"inner": {"name": "x", "more": 5}, "other": 1}, Outer),
        ("a", Literal["a", "b"]),
        ([["conv", "12"]], Marks),
        (object(), Any),
    ],
)
def test_what_fits(value: Any, expected: Any) -> None:
    check(value, expected, "it")


@pytest.mark.parametrize(
    ("value", "expected", "message"),
    [
        (1, str, "it: expected text, received 1"),
        (True, int, "a whole number"),
        (True, float, "a number"),
        (1.0, int, "a whole number"),
        (-1, Count, "a whole number from 0"),
        (2**70, Count, "from 0"),
        (float("nan"), Figure, "a number from"),
        ("x", list[str], "a list"),
        (["a"], tuple[str, int], "a list of 2"),
        (["a", "b"], tuple[str, int], r"it\[1\]: expected a whole number"),
        ({"a": [1, "x"]}, dict[str, list[int]], r"it\.a\[1\]: expected a whole number, received 'x'"),
        ({"inner": {}}, Outer, "it.inner: name missing"),
        ({"inner": None}, Outer, "it.inner: expected an object, received None"),
        ({"counts": [0, -1]}, Outer, r"it\.counts\[1\]"),
        (5, str | None, "text or null"),
        ("c", Literal["a", "b"], "'a' or 'b'"),
        ([], Marks, "a list from 1"),
        ([["conv"]], Marks, r"it\[0\]: expected a list of 2"),
        ([1, 2, 3], Annotated[list[int], Between(0, 2)], "a list from 0 to 2"),
        ("x" * 1000, int, r"'x{59}\.\.\."),
        ([], dict[str, Any], "an object"),
    ],
)
def test_what_does_not(value: Any, expected: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(value, expected, "it")
