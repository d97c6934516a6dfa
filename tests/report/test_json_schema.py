"""What `--json` prints is as documented: `shell.told` holds every result of the tests of commands against it, too."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import jsonschema
import made_up
import pytest

from keras_remos.report import envelope
from keras_remos.report.json_schema import as_schema, json_schema
from keras_remos.untrusted import Between, check

pytestmark = pytest.mark.once
WRITTEN = Path(__file__).parents[2] / "docs" / "assets" / "result.schema.json"


class _Shape(TypedDict):
    name: str | None
    few: Annotated[list[int], Between(1, 2)]
    share: Annotated[float, Between(0, 1)]
    kind: Literal["a", "b"]
    by_name: dict[str, bool]
    pair: tuple[int, str]


GOOD = {"name": None, "few": [1], "share": 0.5, "kind": "a", "by_name": {"x": True}, "pair": [1, "x"]}


def test_the_documented_schema_is_that_of_the_code() -> None:
    """Where it is not, write it anew: `json.dumps(json_schema(), indent=1)`, and an end of line."""
    assert json.loads(WRITTEN.read_text(encoding="utf-8")) == json_schema()
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"more": 1},
        {"name": 3},
        {"few": []},
        {"few": [1, 2, 3]},
        {"few": ["x"]},
        {"share": 1.5},
        {"kind": "c"},
        {"by_name": {"x": 1}},
        {"pair": [1]},
        {"pair": ["x", 1]},
    ],
)
def test_it_takes_what_reports_take_and_refuses_the_rest(change: dict[str, Any]) -> None:
    value = {**GOOD, **change}
    try:
        check(value, _Shape, "value")
        fits = True
    except ValueError:
        fits = False
    assert fits is (not change or "more" in change)
    assert jsonschema.Draft202012Validator(as_schema(_Shape)).is_valid(value) is fits


def test_results_are_told_apart_by_their_command() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.validate(envelope("tradeoff", made_up.tradeoff()))
    assert not validator.is_valid(envelope("audit", made_up.tradeoff()))
    assert not validator.is_valid(made_up.tradeoff())
    validator.validate(envelope("attack", {"anything": 1}))
