import json
import threading
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, field_validator
from typing_extensions import TypedDict

from treadle.errors import ConfigurationError
from treadle.tools.output_type import OutputType


class City(BaseModel):
    name: str
    people: int | None = None
    country: str = "Italy"


@dataclass
class Point:
    x: int


class Named(TypedDict):
    name: str


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (City, '{"name": "Rome", "people": null, "country": null}', City(name="Rome")),
        (Point, '{"x": 1}', Point(1)),
        (Named, '{"name": "a"}', {"name": "a"}),
        (int, '{"value": 3}', 3),
        (list[City], '{"value": [{"name": "Rome"}]}', [City(name="Rome")]),
        (City, '```json\n{"name": "Rome"}\n```', City(name="Rome")),
        (dict[str, int], '{"a": 1}', {"a": 1}),
    ],
)
def test_parse(kind: Any, text: str, value: object) -> None:
    output = OutputType(kind)
    assert output.parse(text) == value
    assert output.schema.schema["type"] == "object"


def test_schemas() -> None:
    city = OutputType(City).schema
    assert (city.name, city.strict) == ("City", True)
    assert city.schema["required"] == ["name", "people", "country"]
    assert not OutputType(dict[str, int]).schema.strict
    cities: Any = OutputType(list[City]).schema
    assert cities.strict
    assert cities.schema["properties"]["value"]["items"] == {"$ref": "#/$defs/City"}
    assert "City" in cities.schema["$defs"]


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (City, "Rome", "JSON is malformed"),
        (City, "{}", "name: Field required"),
        (int, '{"value": "x"}', "valid integer"),
        (int, '{"other": 1}', 'the member "value"'),
        (int, "3", 'the member "value"'),
    ],
)
def test_explain(kind: Any, text: str, words: str) -> None:
    output = OutputType(kind)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are looked at below
        output.parse(text)
    assert words in output.explain(caught.value)


def test_a_type_json_cannot_say() -> None:
    with pytest.raises(ConfigurationError, match="cannot be represented as JSON"):
        OutputType(threading.Event)


class Touchy(BaseModel):
    x: int

    @field_validator("x")
    @classmethod
    def _check(cls, value: int) -> int:
        raise KeyError("touchy")


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (Touchy, '{"x": 1}', "KeyError: 'touchy'"),
        (list[int], "[" * 100_000, "RecursionError"),
    ],
)
def test_whatever_goes_wrong_is_a_value_error(kind: Any, text: str, words: str) -> None:
    output = OutputType(kind)
    with pytest.raises(ValueError, match=words) as caught:
        output.parse(text)
    assert len(output.explain(caught.value)) < 2100


def test_large_integers_keep_their_digits() -> None:
    digits = "1234567890" * 3
    assert OutputType(int).parse(f'{{"value": {digits}}}') == int(digits)


VALUE = '{"name": "Rome"}'
BEFORE = st.sampled_from(
    ["", "\ufeff", "\n ", "<think>\nIs it {it}?\n</think>\n", "<think></think>", "so so</think>"]
)
AROUND = st.sampled_from(
    ["%s", "```json\n%s\n```", "```\n%s```", "```json %s```", "Here it is:\n%s", "%s\nDone.",
     "So:\n```JSON\n%s\n```\nAnything else?"]
)  # fmt: skip


@given(BEFORE, AROUND, st.text())
def test_what_models_write_around_an_answer(before: str, around: str, name: str) -> None:
    if "```" in name or "</think" in name.lower() or "{" in name:
        return
    text = before + around.replace("%s", json.dumps({"name": name}))
    assert OutputType(Named).parse(text) == {"name": name}


@pytest.mark.parametrize(
    "text",
    ["", "It is cold.", VALUE * 2, "<think>", "{", "<think>a</think>", "```json```", "{} {", "[]"],
)
def test_what_is_not_one_answer(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|Input|validation|truncated|object"):
        OutputType(Named).parse(text)
