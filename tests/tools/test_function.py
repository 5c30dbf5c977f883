import functools
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from treadle import RunContext, Tool, tool
from treadle.errors import DuplicateTool, InvalidTool
from treadle.tools.nulls import without_nulls
from treadle.tools.strict import strict_schema
from treadle.tools.toolset import Toolset


class Unit(Enum):
    C = "celsius"
    F = "fahrenheit"


class Place(BaseModel):
    city: str
    country: str = "France"


@tool
async def weather(city: str, unit: Unit = Unit.C, days: int = 1) -> str:
    """Tells the weather.

    Looks into a table.

    Args:
        city: Name of the city.
        days: How many days.
    """
    return f"{city} {unit.value} {days}"


def test_schema_of_signature_and_docstring() -> None:
    assert weather.name == "weather"
    assert weather.schema.description == "Tells the weather.\n\nLooks into a table."
    assert weather.schema.strict
    assert weather.schema.parameters == {
        "$defs": {"Unit": {"enum": ["celsius", "fahrenheit"], "type": "string"}},
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "Name of the city."},
            "unit": {"anyOf": [{"$ref": "#/$defs/Unit"}, {"type": "null"}]},
            "days": {
                "anyOf": [{"type": "integer"}, {"type": "null"}],
                "description": "How many days.",
            },
        },
        "required": ["city", "unit", "days"],
        "additionalProperties": False,
    }


async def _call(**arguments: Any) -> str:
    found: Any = weather.validate(arguments)
    return await weather(**found)


@pytest.mark.anyio
async def test_null_stands_for_a_default_in_strict_mode() -> None:
    assert await _call(city="Rome", unit=None, days=None) == "Rome celsius 1"
    assert await _call(city="Rome", unit="fahrenheit", days=3) == "Rome fahrenheit 3"
    assert await weather("Rome") == "Rome celsius 1"


def test_null_stays_null_where_the_type_allows_it() -> None:
    @tool
    def pick(name: str | None, size: int | None = 3) -> str:
        """Picks."""
        return f"{name} {size}"

    assert pick.validate({"name": None, "size": None}) == {"name": None}
    assert pick.validate({"name": "a", "size": 4}) == {"name": "a", "size": 4}
    loose = tool(strict=False)(pick.function)
    assert loose.validate({"name": None, "size": None}) == {"name": None, "size": None}


@pytest.mark.parametrize("docstring", [
    "Adds.\n\nArgs:\n    a: One.\n    b: Two.",
    "Adds.\n\nParameters\n----------\na : int\n    One.\nb : int\n    Two.",
    "Adds.\n\n:param a: One.\n:param b: Two.",
])  # fmt: skip
def test_docstring_styles(docstring: str) -> None:
    def add(a: int, b: int) -> int:
        return a + b

    add.__doc__ = docstring
    made = tool(add)
    properties: Any = made.schema.parameters["properties"]
    assert made.schema.description == "Adds."
    assert [properties[name]["description"] for name in "ab"] == ["One.", "Two."]


def test_annotated_descriptions_and_limits_win_over_the_docstring() -> None:
    @tool
    def pick(size: Annotated[int, Field(description="How big.", ge=1, le=9)]) -> str:
        """Picks.

        Args:
            size: Something else.
        """
        return str(size)

    properties: Any = pick.schema.parameters["properties"]
    assert properties["size"] == {
        "type": "integer",
        "description": "How big.",
        "minimum": 1,
        "maximum": 9,
    }
    with pytest.raises(ValidationError):
        pick.validate({"size": 10})


def test_field_as_a_default() -> None:
    @tool
    def pick(size: int = Field(default=4, description="How big.")) -> str:
        """Picks."""
        return str(size)

    properties: Any = pick.schema.parameters["properties"]
    assert properties["size"]["description"] == "How big."
    assert pick.validate({}) == {"size": 4}
    found: Any = pick.validate({"size": None})
    assert pick(**found) == "4"


def test_parameters_named_like_methods_of_a_model() -> None:
    @tool
    def odd(json: str, model_dump: int, _x: int = 1, schema: str = "s") -> str:
        """Odd."""
        return json

    assert odd.validate({"json": "j", "model_dump": 2, "_x": 5}) == {
        "json": "j",
        "model_dump": 2,
        "_x": 5,
    }


def test_nested_types_are_validated_into_objects() -> None:
    @dataclass
    class Point:
        x: float
        y: float

    @tool
    def go(to: Place, via: list[Point], mode: Literal["car", "foot"] = "foot") -> str:
        """Goes."""
        return mode

    found = go.validate({"to": {"city": "Paris", "country": None}, "via": [{"x": 1, "y": 2}]})
    assert found["via"] == [Point(1, 2)]
    assert found["to"] == Place(city="Paris")


def test_free_form_objects_are_not_strict() -> None:
    @tool
    def note(data: dict[str, int]) -> str:
        """Notes."""
        return ""

    assert not note.schema.strict
    assert note.validate({"data": {"a": 1}}) == {"data": {"a": 1}}
    with pytest.raises(InvalidTool, match="cannot be strict"):
        tool(strict=True)(note.function)


def test_the_context_is_no_argument() -> None:
    @tool
    def one(context: RunContext[str], a: int) -> str:
        """One."""
        return ""

    @tool
    def two(a: int, ctx: RunContext) -> str:
        """Two."""
        return ""

    for made, name in ((one, "context"), (two, "ctx")):
        assert made.signature.context_parameter == name
        assert made.schema.parameters["required"] == ["a"]


def test_unknown_arguments_are_refused() -> None:
    with pytest.raises(ValidationError):
        weather.validate({"city": "Rome", "unit": None, "days": None, "wrong": 1})


class Shop:
    def buy(self, what: str) -> str:
        """Buys."""
        return what

    def __call__(self, what: str) -> str:
        """Sells."""
        return what


def test_methods_partials_and_callable_objects() -> None:
    assert tool(Shop().buy).validate({"what": "x"}) == {"what": "x"}
    assert tool(name="sell")(Shop()).schema.description == "Sells."
    assert tool(Shop()).name == "Shop"
    bound = functools.partial(weather.function, days=2)
    made = tool(bound)
    assert (made.name, made.is_async) == ("weather", True)


def test_a_function_without_parameters() -> None:
    @tool
    def now() -> str:
        """Now."""
        return ""

    assert now.schema.parameters == {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }
    assert now.schema.strict
    assert now.signature.takes_nothing


def variadic(*cities: str) -> str:
    return ""


def keywords(**cities: str) -> str:
    return ""


def positional(city: str, /) -> str:
    return city


def untyped(city) -> str:
    return city


def untypable(where: threading.Lock) -> str:
    return ""


def callback(then: Callable[[int], int]) -> str:
    return ""


def unresolved(city: "Nowhere") -> str:  # type: ignore[name-defined]  # noqa: F821
    return ""


def generator() -> Iterator[str]:
    yield ""


async def async_generator() -> AsyncIterator[str]:
    yield ""


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (variadic, "'cities' of the tool variadic takes any number"),
        (keywords, "takes any number"),
        (positional, "positional-only"),
        (untyped, "'city' of the tool untyped has no type"),
        (untypable, "'where' of the tool untypable has the type"),
        (callback, "'then' of the tool callback has the type"),
        (unresolved, "cannot be resolved"),
        (generator, "is a generator"),
        (async_generator, "is a generator"),
        (lambda: "", "not a valid tool name"),
    ],
)
def test_what_cannot_be_a_tool(function: Callable[..., object], words: str) -> None:
    with pytest.raises(InvalidTool, match=words) as caught:
        tool(function)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": -1.0},
        {"retries": -1},
        {"max_output_chars": 0},
        {"name": "two words"},
        {"name": "x" * 65},
    ],
)
def test_options_that_cannot_work(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidTool):
        tool(**options)(weather.function)


def test_what_is_no_function() -> None:
    with pytest.raises(InvalidTool, match="is not a function"):
        tool(name="x")("weather")  # type: ignore[arg-type]


def test_two_tools_of_one_name() -> None:
    with pytest.raises(DuplicateTool, match="'weather'"):
        Toolset([weather, weather.function])


def test_a_toolset_keeps_the_order() -> None:
    def alpha(a: int) -> int:
        return a

    tools = Toolset([weather, alpha])
    assert tools.names == ("weather", "alpha")
    assert [schema.name for schema in tools.schemas] == ["weather", "alpha"]
    assert tools.get("weather") is weather
    assert isinstance(tools.get("alpha"), Tool)
    assert tools.get("beta") is None


SCHEMAS = st.recursive(
    st.sampled_from(
        [{"type": "string"}, {"type": "integer", "minimum": 1}, {"enum": ["a"]}, {"const": 1}]
    ),
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items}, inner),
        st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(
            lambda properties, required: {
                "type": "object",
                "properties": properties,
                "required": [name for name in properties if name in required],
                "description": "d",
            },
            st.dictionaries(st.sampled_from("abc"), inner, min_size=1),
            st.sets(st.sampled_from("abc")),
        ),
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from("xyz"), SCHEMAS))
def test_a_strict_schema_closes_every_object(properties: dict[str, Any]) -> None:
    found = strict_schema({"type": "object", "properties": properties})
    assert found is not None
    _require_closed(found)


def _require_closed(schema: Any) -> None:
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            assert schema["additionalProperties"] is False
            assert schema["required"] == list(schema["properties"])
        for value in schema.values():
            _require_closed(value)
    elif isinstance(schema, list):
        for value in schema:
            _require_closed(value)


@pytest.mark.parametrize(
    "field",
    [
        {},
        True,
        {"description": "anything"},
        {"type": "object"},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "object", "properties": {}, "additionalProperties": True},
        {"type": "string", "format": "binary"},
        {"type": "array", "prefixItems": []},
        {"not": {"type": "string"}},
    ],
)
def test_what_the_strict_subset_cannot_say(field: Any) -> None:
    assert strict_schema({"type": "object", "properties": {"a": field}}) is None


def test_only_objects_are_strict_and_one_of_becomes_any_of() -> None:
    assert strict_schema({"type": "string"}) is None
    found = strict_schema(
        {
            "type": "object",
            "properties": {
                "a": {"oneOf": [{"type": "string"}, {"type": "null"}], "default": None},
                "b": {"type": "string", "format": "date", "minLength": 3},
            },
            "required": ["b"],
        }
    )
    assert found is not None
    assert found["properties"] == {
        "a": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "b": {"type": "string", "format": "date"},
    }


def test_schemas_that_refer_to_themselves() -> None:
    class Tree(BaseModel):
        name: str
        children: list["Tree"] = []
        parent: "Tree | None" = None

    @tool
    def plant(tree: Tree, tags: list[str] = Field(default_factory=list)) -> str:  # noqa: B008
        """Plants."""
        return tree.name

    assert plant.schema.strict
    given = {"tree": {"name": "a", "children": [{"name": "b", "children": None, "parent": None}]}}
    found: Any = plant.validate({**given, "tags": None})
    assert found["tree"].children[0].name == "b"
    assert found["tags"] == []


def test_a_reference_that_leads_nowhere() -> None:
    schema = {"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}}
    assert without_nulls({"a": None}, schema) == {"a": None}
