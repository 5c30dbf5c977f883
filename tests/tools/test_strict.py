from typing import Any

import pytest
from pydantic import BaseModel, Field

from treadle import tool
from treadle.tools.strict import strict_schema


class Place(BaseModel):
    city: str
    country: str = "France"


class Chain(BaseModel):
    next: "Chain" = Field(default=None, description="The next.")  # type: ignore[assignment]
    link: "Link" = Field(description="The link.")


class Link(BaseModel):
    chains: list[Chain]


def test_a_described_reference_is_inlined() -> None:
    """OpenAI: "$ref cannot have keywords {'description'}"."""

    @tool
    def go(to: Place, via: Place, back: Place | None = None) -> str:
        """Goes.

        Args:
            to: Where to.
            back: Where back.
        """
        return ""

    properties: Any = go.schema.parameters["properties"]
    assert go.schema.strict
    assert properties["to"]["description"] == "Where to."
    assert properties["to"]["required"] == ["city", "country"]
    assert properties["via"] == {"$ref": "#/$defs/Place"}
    assert properties["back"] == {
        "anyOf": [{"$ref": "#/$defs/Place"}, {"type": "null"}],
        "description": "Where back.",
    }


def test_described_references_that_go_round_come_to_an_end() -> None:
    @tool
    def follow(chain: Chain) -> str:
        """Follows.

        Args:
            chain: The chain.
        """
        return ""

    assert follow.schema.strict
    _require_bare_references(follow.schema.parameters)


def test_a_reference_inside_its_own_definition_loses_its_description() -> None:
    node = {
        "type": "object",
        "properties": {"next": {"$ref": "#/$defs/Node", "description": "d"}},
        "required": ["next"],
    }
    found = strict_schema({**node, "$defs": {"Node": node}})
    assert found is not None
    properties: Any = found["properties"]
    assert properties["next"]["properties"]["next"] == {"$ref": "#/$defs/Node"}


def _require_bare_references(schema: Any) -> None:
    if isinstance(schema, dict):
        assert "$ref" not in schema or len(schema) == 1
        for value in schema.values():
            _require_bare_references(value)
    elif isinstance(schema, list):
        for value in schema:
            _require_bare_references(value)


@pytest.mark.parametrize("pattern", ["^(?!x)a$", "^(?=x)", "(?<!a)b", "(?<=a)b"])
def test_patterns_that_look_around_go(pattern: str) -> None:
    found = strict_schema(_one({"type": "string", "pattern": pattern}))
    assert found == {**_one({"type": "string"}), "additionalProperties": False}
    kept = {"type": "string", "pattern": "^(?:a|b)$"}
    assert strict_schema(_one(kept)) == {**_one(kept), "additionalProperties": False}


@pytest.mark.parametrize(
    "field",
    [
        {"type": ["object", "null"], "properties": {}},
        {"type": "array", "items": True},
        True,
        {"$ref": "#/$defs/A", "minimum": 1},
        {"$ref": "#/$defs/Missing", "description": "d"},
    ],
)
def test_what_cannot_be_said(field: object) -> None:
    assert strict_schema(_one(field)) is None


def _one(field: object) -> dict[str, object]:
    return {"type": "object", "properties": {"a": field}, "required": ["a"]}
