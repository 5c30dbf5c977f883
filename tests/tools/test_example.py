"""Example arguments for a JSON Schema."""

from hypothesis import given
from hypothesis import strategies as st

from treadle.tools.example import fill


def test_arguments_fit_their_schema():
    schema = {
        "type": "object",
        "properties": {
            "text": {"type": "string", "minLength": 12},
            "short": {"type": "string", "maxLength": 2},
            "when": {"type": "string", "format": "date"},
            "whole": {"type": "integer", "minimum": 5, "maximum": 5},
            "real": {"type": "number", "exclusiveMinimum": 3},
            "below": {"type": "number", "exclusiveMaximum": 0},
            "flag": {"type": "boolean"},
            "kind": {"enum": ["a", "b"]},
            "fixed": {"const": 7},
            "preset": {"type": "string", "default": "d"},
            "maybe": {"anyOf": [{"type": "null"}, {"type": "integer"}]},
            "either": {"type": ["null", "string"]},
            "nothing": {"type": "null"},
            "list": {"type": "array", "items": {"type": "integer"}, "minItems": 2},
            "none": {"type": "array", "maxItems": 0},
            "point": {"$ref": "#/$defs/Point"},
            "optional": {"type": "string"},
        },
        "$defs": {
            "Point": {
                "type": "object",
                "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
                "required": ["x"],
            }
        },
    }
    schema["required"] = [name for name in schema["properties"] if name != "optional"]
    assert fill(schema) == fill(schema)
    assert fill(schema) == {
        "text": "text-1xxxxxx",
        "short": "sh",
        "when": "2026-01-01",
        "whole": 5,
        "real": 3.5,
        "below": -0.5,
        "flag": True,
        "kind": "a",
        "fixed": 7,
        "preset": "d",
        "maybe": 1,
        "either": "either-1",
        "nothing": None,
        "list": [1, 2],
        "none": [],
        "point": {"x": 1},
    }
    assert fill(schema, 1)["kind"] == "b"


def test_arguments_of_a_schema_that_contains_itself_end():
    node = {
        "type": "object",
        "properties": {"next": {"$ref": "#"}},
        "required": ["next"],
    }
    assert str(fill(node)).count("next") < 20
    loop = {"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}
    assert fill(loop) == {}


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda s: (
            st.lists(s)
            | st.dictionaries(
                st.sampled_from(["type", "properties", "required", "items", "enum", "anyOf", "a"]),
                s,
            )
        ),
    )
)
def test_no_schema_breaks_the_arguments(schema):
    assert isinstance(
        fill({"type": "object", "properties": {"a": schema}, "required": ["a"]}), dict
    )
    assert isinstance(fill(schema if isinstance(schema, dict) else {}), dict)
