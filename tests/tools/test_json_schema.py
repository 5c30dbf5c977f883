"""Validation by a JSON Schema, compared with the reference implementation."""

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.errors import InvalidInput
from treadle.tools.json_schema import find_problem, require_schema

NAMES = st.sampled_from(["a", "b", "c"])
SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, "", "ab"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3)
)
TYPES = st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"])
SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.booleans() | st.fixed_dictionaries({"type": TYPES}),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, min_size=1, max_size=2, unique=True),
            "enum": st.lists(SCALARS, max_size=3),
            "const": SCALARS,
            "properties": st.dictionaries(NAMES, inner, max_size=3),
            "required": st.lists(NAMES, max_size=2, unique=True),
            "additionalProperties": inner,
            "items": inner,
            "prefixItems": st.lists(inner, min_size=1, max_size=2),
            "minItems": st.integers(0, 3),
            "maxItems": st.integers(0, 3),
            "minLength": st.integers(0, 3),
            "maxLength": st.integers(0, 3),
            "minimum": st.integers(-2, 2),
            "maximum": st.integers(-2, 2),
            "exclusiveMinimum": st.integers(-2, 2),
            "exclusiveMaximum": st.integers(-2, 2),
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "oneOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "title": st.just("x"),
        },
    ),
    max_leaves=6,
)


@given(VALUES, SCHEMAS)
def test_it_agrees_with_the_reference(value: object, schema: Any) -> None:
    require_schema("output", schema)
    valid = jsonschema.Draft202012Validator(schema).is_valid(value)  # type: ignore[no-untyped-call]
    assert (find_problem(value, schema) == "") == valid


@given(VALUES, VALUES)
def test_any_json_is_a_schema_or_refused(schema: object, value: object) -> None:
    try:
        require_schema("output", schema)
    except InvalidInput:
        return
    find_problem(value, schema)


def test_a_reference_is_followed() -> None:
    schema = {
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
        "$ref": "#/$defs/node",
    }
    assert find_problem({"next": {"next": {}}}, schema) == ""
    assert find_problem({"next": {"next": 1}}, schema) == (
        "next.next must be of the type object, not 1"
    )


def test_a_reference_to_itself_ends() -> None:
    assert find_problem(1, {"$ref": "#"}) == "the value is nested too deeply"
    doubled = {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}
    assert find_problem(1, doubled) == "the value is nested too deeply"


@pytest.mark.parametrize("union", ["anyOf", "oneOf"])
def test_a_union_of_references_to_itself_ends_soon(union: str) -> None:
    schema = {union: [{"$ref": "#"}, {"$ref": "#"}]}
    assert find_problem(1, schema).startswith("the value fits")


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "text"},
        {"type": 1},
        {"properties": []},
        {"properties": {"a": 1}},
        {"properties": {1: {}}},
        {"anyOf": {}},
        {"anyOf": [1]},
        {"items": 1},
        {"required": "a"},
        {"minimum": "1"},
        {"maxLength": True},
        {"$ref": "https://example.com/schema"},
        {1: 2},
        [],
        "object",
    ],
)
def test_what_is_not_a_schema_is_refused(schema: Any) -> None:
    with pytest.raises(InvalidInput, match="output"):
        require_schema("output", schema)


def test_a_deep_schema_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(3000):
        schema = {"items": schema}
    with pytest.raises(InvalidInput, match="deeper than 100"):
        require_schema("output", schema)
