"""Structured output that still grows: what is shown of it, and what that costs."""

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Annotated, Any, Literal, NamedTuple, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, RootModel, model_validator
from typing_extensions import TypedDict

from treadle.tools.output_type import OutputType
from treadle.tools.partial_output import Growing, growing_json


class Colour(enum.Enum):
    RED = "red"
    REDDISH = "reddish"


@dataclass(frozen=True, slots=True)
class Place:
    city: str
    since: date
    tags: tuple[str, ...] = ()
    extra: list[int] = field(default_factory=lambda: [7])

    def __post_init__(self) -> None:
        assert self.city.upper()


class Point(NamedTuple):
    x: int
    y: int = 2


class Cat(BaseModel):
    kind: Literal["cat"]
    name: str


class Dog(BaseModel):
    kind: Literal["dog"]
    name: str


class Bits(TypedDict, total=False):
    a: str
    b: list[int]


class Numbers(RootModel[list[int]]):
    pass


class Person(BaseModel):
    name: Annotated[str, Field(min_length=3)] = Field(alias="fullName")
    age: int = 0
    colour: Colour | None = None
    home: Place | None = None
    pets: list[Cat | Dog] = []
    bits: Bits | None = None
    scores: Mapping[str, float] = {}
    point: Point | None = None
    numbers: Numbers | None = None
    anything: Any = None
    friends: "list[Person]" = []

    @model_validator(mode="after")
    def check(self) -> "Person":
        assert len(self.name) > 2
        return self


def shown(output: OutputType[Any], text: str) -> Any:
    is_wrapped = output is PERSON  # because the model refers to itself
    return output.partial()(f'{{"value": {text}' if is_wrapped and "{" in text else text)


PERSON = OutputType(Person)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"fullName": "Ad', {"name": "Ad"}),
        ('{"fullName": "Ada", "age": 3', {"name": "Ada", "age": 0}),
        ('{"fullName": "Ada", "age": 36, "colour": "', {"name": "Ada", "age": 36}),
        ('{"fullName": "Ada", "colour": "red', {"colour": None}),
        ('{"fullName": "Ada", "colour": "red", "x": 1', {"colour": Colour.RED}),
        ('{"fullName": "Ad", "age": 3, "pets": [', {"name": None, "age": 3, "pets": []}),
        ('{"pets": [{"kind": "cat", "name": "T', {"pets": [Cat(kind="cat", name="T")]}),
        ('{"pets": [{"kind": "ca', {"pets": []}),
        ('{"bits": {"a": "x", "b": [1, 2', {"bits": {"a": "x", "b": [1]}}),
        ('{"scores": {"a": 1, "b": 2', {"scores": {"a": 1.0}}),
        ('{"point": {"x": 1, "y": 3', {"point": None}),
        ('{"numbers": [1, 2', {"numbers": None}),
        ('{"numbers": [1, 2], "age": 3', {"numbers": Numbers([1, 2])}),
        ('{"anything": {"deep": ["x', {"anything": {"deep": ["x"]}}),
        ('{"friends": [{"fullName": "Bo', {"friends": ["Bo"]}),
        ('{"unknown": [1', {"name": None}),
    ],
)
def test_what_is_shown_of_a_model(text: str, expected: dict[str, object]) -> None:
    found = shown(PERSON, text)
    assert isinstance(found, Person)
    for name, value in expected.items():
        given = getattr(found, name)
        assert (([one.name for one in given]) if name == "friends" else given) == value, name


def test_fields_that_have_not_arrived_have_their_default() -> None:
    output = OutputType(Place)
    place = shown(output, '{"city": "Ly')
    assert (place.city, place.since, place.tags, place.extra) == ("Ly", None, (), [7])
    place = shown(output, '{"city": "Lyon", "since": "2020-01-02", "tags": ["a", "b')
    assert (place.since, place.tags) == (date(2020, 1, 2), ("a", "b"))
    points = shown(OutputType(list[Point]), '{"value": [[1, 3], [4')
    assert points == [Point(1, 3)]


@pytest.mark.parametrize(
    "text",
    ["", "no JSON", '{"fullName', '{"a": 1} {"b": 2}', "<think>{", "{" * 1_000, "}", '{"a": tru]'],
)
def test_too_little_is_shown_as_nothing_or_as_an_empty_object(text: str) -> None:
    try:
        found = shown(PERSON, text)
    except ValueError:
        return
    assert found == Person.model_construct(name=None)


def test_the_parts_around_the_object_are_left_out() -> None:
    text = '<think>maybe {"a"}</think>\nHere:\n```json\n{"fullName": "Ada'
    assert growing_json(text) == {"fullName": "Ada"}
    assert growing_json("<think>maybe {") is None


@pytest.mark.parametrize(
    "type_", [Cat | Dog, int, list[int], Bits, Colour, set[str], Sequence[Cat]]
)
def test_any_type_can_be_asked(type_: Any) -> None:
    output = OutputType(type_)
    text = '{"value": {"kind": "cat", "name": "x'
    for end in range(len(text) + 1):
        try:
            shown(output, text[:end])
        except ValueError:
            continue


@dataclass
class Made:
    title: str
    parts: list[str]
    places: list[Place]
    count: int = 0


places = st.builds(
    Place, st.text(min_size=1), st.dates(), st.lists(st.text()).map(tuple), st.just([7])
)
made = st.builds(
    Made, st.text(), st.lists(st.text(max_size=5), max_size=4), st.lists(places, max_size=3)
)


@given(value=made, data=st.data())
def test_what_is_shown_grows_to_the_value(value: Made, data: st.DataObject) -> None:
    output = OutputType(Made)
    text = output.encode(value)
    assert output.parse(text) == value
    make, last = output.partial(), Made("", [], [])
    for end in sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=12))):
        try:
            found = make(text[:end])
        except ValueError:
            continue
        assert value.title.startswith(found.title or "")
        assert len(found.parts or ()) >= len(last.parts or ())
        assert (found.places or [])[:-1] == value.places[: max(len(found.places or []) - 1, 0)]
        last = found


def test_the_whole_cost_is_linear() -> None:
    read = 0
    growing = Growing()
    for _ in range(100_000):
        text = growing.grow("12345")
        read += 0 if text is None else len(text)
    assert read < 10 * 500_000


def test_an_output_is_encoded_as_it_is_parsed() -> None:
    for type_, value in (
        (int, 3),
        (list[Place], [Place("Lyon", date(2020, 1, 2))]),
        (Person, Person(fullName="Ada")),
        (str | int, "x"),
    ):
        output: OutputType[Any] = OutputType(type_)  # type: ignore[arg-type]
        assert output.parse(output.encode(value)) == value
        assert json.loads(output.encode(value))
    with pytest.raises(ValueError, match="int"):
        OutputType(int).encode(cast("int", "x"))
