"""`json_schema`: what commands print for machines, for programs that check it; made of the types of reports."""

from __future__ import annotations

import types
from typing import Annotated, Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints, is_typeddict

from keras_remos.report.shapes import COMMANDS, SCHEMA, SCHEMA_VERSION, SHAPES, Inputs

_PLAIN = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    None: {"type": "null"},
    types.NoneType: {"type": "null"},
    Any: {},
}


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of every result.

    Returns:
        The envelope, which is the same for all commands, and by the command what `result` holds. Commands of which no
        report is made have an object there. More keys than are named may be anywhere.
    """
    by_command = [
        {
            "if": {"properties": {"command": {"const": command}}},
            "then": {"properties": {"result": {"$ref": f"#/$defs/{kind}"}}},
        }
        for command, kind in COMMANDS.items()
    ]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What the commands of keras-remos print for machines",
        "type": "object",
        "required": ["schema", "command", "command_line", "versions", "seed", "seconds", "inputs", "outputs", "result"],
        "properties": {
            "schema": {"const": f"{SCHEMA}{SCHEMA_VERSION}"},
            "command": {"type": "string"},
            "command_line": {"type": ["string", "null"]},
            "versions": {"type": "object", "additionalProperties": {"type": "string"}},
            "seed": {"type": ["integer", "null"]},
            "seconds": {"type": ["number", "null"]},
            "inputs": as_schema(Inputs),
            "outputs": {"type": "object", "additionalProperties": {"type": "string"}},
            "result": {"type": "object"},
        },
        "allOf": by_command,
        "$defs": {kind: as_schema(shape) for kind, shape in SHAPES.items()},
    }


def as_schema(hint: Any) -> dict[str, Any]:
    """A type hint of those that `untrusted.check` knows, as JSON Schema."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is NotRequired:
        return as_schema(inner[0])
    if is_typeddict(hint):
        named = {key: as_schema(each) for key, each in get_type_hints(hint, include_extras=True).items()}
        return {"type": "object", "properties": named, "required": sorted(hint.__required_keys__)}
    if origin is Annotated:
        return {**as_schema(inner[0]), **_limits(as_schema(inner[0]), inner[1])}
    if origin in (Union, types.UnionType):
        return {"anyOf": [as_schema(each) for each in inner]}
    if origin is Literal:
        return {"enum": list(inner)}
    if origin is dict:
        return {"type": "object", "additionalProperties": as_schema(inner[1])}
    if origin is list:
        return {"type": "array", "items": as_schema(inner[0])}
    if origin is tuple:
        return {"type": "array", "prefixItems": [as_schema(each) for each in inner], "minItems": len(inner)}
    return dict(_PLAIN[hint])


def _limits(schema: dict[str, Any], between: Any) -> dict[str, Any]:
    names = ("minItems", "maxItems") if schema.get("type") == "array" else ("minimum", "maximum")
    ends = zip(names, (between.least, between.most), strict=True)
    return {name: end for name, end in ends if abs(end) != float("inf")}
