import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from treadle import RunContext, tool
from treadle.errors import InvalidTool


class Exact(BaseModel):
    model_config = ConfigDict(strict=True)
    day: date
    pair: tuple[int, int]


def test_models_that_are_strict_about_python_types() -> None:
    @tool
    def book(when: Exact) -> str:
        """Books."""
        return ""

    found = book.validate({"when": {"day": "2026-01-31", "pair": [1, 2]}})
    assert found == {"when": Exact(day=date(2026, 1, 31), pair=(1, 2))}


def test_defaults_that_only_pydantic_knows_are_filled_in() -> None:
    @tool
    def pick(
        size: Annotated[int, Field(default=4)],
        tags: list[str] = Field(default_factory=list),  # noqa: B008
        color: str = "red",
    ) -> str:
        """Picks.

        Args:
            tags: What it is.
        """
        return f"{size} {tags} {color}"

    properties: Any = pick.schema.parameters["properties"]
    assert properties["tags"]["description"] == "What it is."
    found: Any = pick.validate({"size": None, "tags": None, "color": None})
    assert found == {"size": 4, "tags": []}
    assert pick(**found) == "4 [] red"


def search(query: str, key: str = "k", context: RunContext | None = None) -> str:
    """Searches."""
    return query + key


def test_what_a_partial_has_bound_is_no_parameter() -> None:
    made = tool(functools.partial(functools.partial(search, key="secret"), context=None))
    assert "secret" not in str(made.schema)
    assert made.schema.parameters["required"] == ["query"]
    found: Any = made.validate({"query": "a"})
    assert made.function(**found) == "asecret"


def test_a_default_that_json_cannot_say_is_no_matter() -> None:
    unset: Any = object()

    @tool(strict=False)
    def pick(size: int = unset) -> str:
        """Picks."""
        return ""

    assert pick.schema.parameters["properties"] == {"size": {"type": "integer"}}
    assert pick.validate({}) == {}


class Shop:
    def buy(self, what: str) -> str:
        return what


class Counter:
    def __call__(self) -> Iterator[int]:
        yield 1


def twice(one: RunContext, two: RunContext) -> str:
    return ""


def positional(context: RunContext, /, a: int) -> str:
    return ""


def number(x: 5) -> str:  # type: ignore[valid-type]
    return ""


def pattern(x: Annotated[str, Field(pattern="(")]) -> str:
    return ""


def pattern_in_field(x: str = Field(pattern="(")) -> str:
    return ""


def syntax(x: "int +") -> str:  # type: ignore # noqa: F722
    return ""


def attribute(x: "math.nothing") -> str:  # type: ignore[name-defined]
    return ""


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (Shop.buy, "'self' of the tool buy belongs to a method"),
        (Counter(), "Counter is a generator"),
        (functools.partial(Counter()), "Counter is a generator"),
        (twice, "'two' of the tool twice is a second RunContext"),
        (positional, "'context' of the tool positional is positional-only"),
        (number, "'x' of the tool number has 5 for a type"),
        (pattern, "'x' of the tool pattern has the type str with constraints"),
        (pattern_in_field, "'x' of the tool pattern_in_field has the type str"),
        (syntax, "tool syntax has an annotation that cannot be resolved"),
        (attribute, "tool attribute has an annotation that cannot be resolved"),
        (tool(name="s")(Shop().buy), "'s' is a tool already"),
    ],
)
def test_what_cannot_be_a_tool(function: Any, words: str) -> None:
    with pytest.raises(InvalidTool, match=words) as caught:
        tool(function)
    assert "\n" not in caught.value.message


def test_a_model_that_pydantic_cannot_finish() -> None:
    class Later(BaseModel):
        x: "Never"  # type: ignore[name-defined] # noqa: F821

    def wait(later: Later) -> str:
        return ""

    with pytest.raises(InvalidTool, match="'later' of the tool wait has the type Later"):
        tool(wait)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"timeout": math.nan}, "timeout"),
        ({"retries": -1}, "retries"),
        ({"max_output_chars": 0}, "max_output_chars"),
        ({"on_error": "ignore"}, "on_error='ignore'"),
    ],
)
def test_each_option_is_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidTool, match=words):
        tool(**options)(search)


@dataclass
class Point:
    x: int
    y: float = 0.5


@tool
def place(name: str, at: Point, tags: list[str], size: int | None = 7) -> str:
    """Places."""
    return ""


@given(
    name=st.text(),
    x=st.integers(),
    y=st.floats(allow_nan=False, allow_infinity=False) | st.none(),
    tags=st.lists(st.text()),
    size=st.integers() | st.none(),
)
def test_arguments_come_through(
    name: str, x: int, y: float | None, tags: list[str], size: int | None
) -> None:
    arguments = {"name": name, "at": {"x": x, "y": y}, "tags": tags, "size": size}
    expected: dict[str, object] = {
        "name": name,
        "at": Point(x, 0.5 if y is None else y),
        "tags": tags,
    }
    if size is not None:
        expected["size"] = size
    assert place.validate(arguments) == expected


def test_parameters_that_fail_only_together() -> None:
    problem = place.signature._untypable({"query": (str, Field())})
    assert problem.message == "The tool place has a parameter that cannot be represented as JSON."
