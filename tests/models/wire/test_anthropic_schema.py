from enum import Enum
from typing import Annotated

import pytest
from pydantic import BaseModel, Field

from treadle.models.wire.anthropic_schema import supported_schema
from treadle.tools.output_type import OutputType


class Color(Enum):
    RED = "red"


class Leg(BaseModel):
    length: Annotated[float, Field(gt=0, le=9, description="In metres.")]
    color: Color | None = None


class Table(BaseModel):
    name: Annotated[str, Field(pattern="^[a-z]+$")]
    legs: Annotated[list[Leg], Field(min_length=1, max_length=4)]
    spare: list[Annotated[int, Field(multiple_of=2)]]


class Node(BaseModel):
    below: list["Node"]


def test_constraints_move_into_the_description() -> None:
    schema = OutputType(Table).schema.schema
    found = supported_schema(schema)
    assert found is not None
    assert found["properties"] == {
        "name": {"type": "string", "description": "(pattern: ^[a-z]+$)"},
        "legs": {
            "type": "array",
            "items": {"$ref": "#/$defs/Leg"},
            "minItems": 1,
            "description": "(maxItems: 4)",
        },
        "spare": {
            "type": "array",
            "items": {"type": "integer", "description": "(multipleOf: 2)"},
        },
    }
    leg = found["$defs"]["Leg"]  # type: ignore[index]
    assert leg["properties"]["length"] == {
        "type": "number",
        "description": "In metres. (maximum: 9, exclusiveMinimum: 0)",
    }
    assert leg["additionalProperties"] is False


@pytest.mark.parametrize(
    "field",
    [
        {"type": "string", "format": "uuid"},
        {"type": "array", "items": {"type": "null"}, "minItems": 0},
        {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/X"}]},
        {"const": {"minimum": 1}},
        {"enum": ["a", 1, None], "title": "T", "default": "a"},
        {"type": "object", "properties": {"minimum": {"type": "integer"}}},
    ],
)
def test_what_is_supported_stays(field: dict[str, object]) -> None:
    schema = {"type": "object", "properties": {"x": field}, "$defs": {"X": {"type": "integer"}}}
    assert supported_schema(schema) == schema


def test_a_format_nobody_knows_is_described() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string", "format": "duck"}}}
    found = supported_schema(schema)
    assert found is not None
    assert found["properties"] == {"x": {"type": "string", "description": "(format: duck)"}}


@pytest.mark.parametrize(
    "schema",
    [
        OutputType(Node).schema.schema,
        {"type": "object", "properties": {"x": {"$ref": "#"}}},
        {"type": "object", "properties": {"x": {"$ref": "https://x/y"}}},
        {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}},
    ],
)
def test_a_schema_that_leads_in_a_circle_or_outside_is_not(schema: dict[str, object]) -> None:
    assert supported_schema(schema) is None
