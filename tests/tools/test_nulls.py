from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from treadle import tool
from treadle.tools.nulls import without_nulls
from treadle.tools.output_type import OutputType


class Circle(BaseModel):
    kind: Literal["circle"] = "circle"
    color: str = "red"


class Square(BaseModel):
    kind: Literal["square"] = "square"
    color: Literal["blue", "green"] = "blue"
    note: str | None


class Group(BaseModel):
    shapes: "list[Shape]" = []
    name: str = "group"


Shape = Annotated[Circle | Square, Field(discriminator="kind")]
Group.model_rebuild()


@tool
async def draw(
    shape: Circle | Square, others: list[Group] | list[int], more: list[Shape] | None = None
) -> str:
    """Draws."""
    return ""


def test_nulls_in_unions_stand_for_defaults() -> None:
    found = draw.validate(
        {
            "shape": {"kind": "circle", "color": None},
            "others": [{"shapes": [{"kind": "square", "color": None, "note": None}], "name": None}],
            "more": [{"kind": "circle", "color": None}],
        }
    )
    assert draw.schema.strict
    assert found["shape"] == Circle()
    assert found["others"] == [Group(shapes=[Square(note=None)])]
    assert found["more"] == [Circle()]


def test_a_null_that_the_type_requires_stays() -> None:
    found = draw.validate(
        {"shape": {"kind": "square", "color": "green", "note": None}, "others": [], "more": None}
    )
    assert found == {"shape": Square(color="green", note=None), "others": []}


def test_unions_in_outputs() -> None:
    output: OutputType[Any] = OutputType(Circle | Square)  # type: ignore[arg-type]
    assert output.parse('{"value": {"kind": "circle", "color": null}}') == Circle()


OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}}}
UNION = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}


@pytest.mark.parametrize(
    ("value", "schema", "expected"),
    [
        ({"a": None}, OBJECT, {}),
        ({"a": None}, {**OBJECT, "required": ["a"]}, {"a": None}),
        ({"z": None}, OBJECT, {"z": None}),
        (None, OBJECT, None),
        ([None], {"type": "array", "items": OBJECT}, [None]),
        ([{"a": None}], OBJECT, [{"a": None}]),
        ([{"a": None}], {"anyOf": [{"items": {"type": "integer"}}, {"items": OBJECT}]}, [{}]),
        ([[{"a": None}]], {"items": {"anyOf": [{"items": OBJECT}, {"items": {}}]}}, [[{}]]),
        ([1, None], {"anyOf": [{"items": OBJECT}, {"items": {"type": "integer"}}]}, [1, None]),
        ([[]], {"items": {"anyOf": [{"items": OBJECT}, {"items": {}}]}}, [[]]),
        ({"a": None, "b": None}, {"anyOf": [OBJECT, UNION]}, {}),
        ({"q": None, "a": None}, {"anyOf": [OBJECT, UNION]}, {"q": None}),
        ({"a": None}, {"anyOf": [{"type": "null"}, {"type": "string"}]}, {"a": None}),
    ],
)
def test_without_nulls(value: object, schema: dict[str, Any], expected: object) -> None:
    assert without_nulls(value, schema) == expected


class Nested(BaseModel):
    count: int = 3
    label: str | None = "x"
    inner: "Nested | None" = None


NESTED: st.SearchStrategy[Nested] = st.recursive(
    st.builds(Nested, count=st.integers(), label=st.none() | st.text(), inner=st.none()),
    lambda inner: st.builds(Nested, count=st.integers(), label=st.just("x"), inner=inner),
    max_leaves=4,
)


@given(NESTED)
def test_what_is_written_in_full_comes_back(value: Nested) -> None:
    @tool
    async def take(value: Nested) -> str:
        """Takes."""
        return ""

    assert take.validate({"value": value.model_dump()})["value"] == _with_labels(value)


def _with_labels(value: Nested) -> Nested:
    inner = None if value.inner is None else _with_labels(value.inner)
    return Nested(count=value.count, label="x" if value.label is None else value.label, inner=inner)
