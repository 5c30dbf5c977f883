import json
import math
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import BaseModel, model_serializer

from treadle import File, Image, InputAudio, InputFile
from treadle.domain.items import InputImage, InputText
from treadle.errors import InvalidInput
from treadle.tools.failure import explain_failure
from treadle.tools.output import _beginning_of_json, encode_output, is_small, to_output

LARGE = 1_000_000


class City(BaseModel):
    name: str


class Broken(BaseModel):
    @model_serializer
    def _fail(self) -> str:
        raise KeyError("boom")


class Record(msgspec.Struct):
    cities: list[City]


@dataclass
class Point:
    x: int


class Vague:
    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2**70, str(2**70)),
        (math.nan, "null"),
        (Record([City(name="Rome")]), '{"cities":[{"name":"Rome"}]}'),
        ({"p": Point(1)}, '{"p":{"x":1}}'),
        ([Decimal("1.50"), UUID(int=1)], '["1.50","00000000-0000-0000-0000-000000000001"]'),
        (datetime(2026, 1, 2, tzinfo=UTC), '"2026-01-02T00:00:00Z"'),
        ({"file\udcff": ["a\udcff", Point(2)]}, '{"file?":["a?",{"x":2}]}'),
    ],
)
def test_values(value: object, text: str) -> None:
    assert to_output(value, LARGE) == text


@pytest.mark.parametrize("value", [Broken(), object(), Vague(), {(1, 2): 3}, {"a\udcff": math.inf}])
def test_what_json_cannot_say_names_its_type(value: object) -> None:
    with pytest.raises(
        TypeError, match=f"type {type(value).__name__}, which cannot be represented"
    ):
        to_output(value, LARGE)


def test_values_that_contain_themselves() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(TypeError, match="type list"):
        to_output(endless, LARGE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"data": b"", "media_type": "text/plain"}, "not a media type of an image"),
        ({"url": "file:///etc/passwd"}, "starts with https"),
        ({"data": b"", "url": "https://x"}, "either"),
    ],
)
def test_images_that_no_provider_takes(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Image(**arguments)


def test_text_beside_images_shares_one_bound() -> None:
    image = Image(url="https://x/\udcff")
    found = to_output(["abc", "", image, "def", *["ghi"] * 1000], 5)
    assert found == (
        InputText("abc"),
        InputImage("https://x/?"),
        InputText("de"),
        InputText("… [3001 more characters were cut]"),
    )


TEXT = st.text(st.characters(codec=None, exclude_categories=()))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=10,
)
PARTS = st.lists(TEXT | st.builds(Image, st.binary(max_size=8)), max_size=8)


@given(JSON | PARTS, st.integers(1, 40))
def test_outputs_are_bounded_and_encodable(value: object, max_chars: int) -> None:
    try:
        found = to_output(value, max_chars)
    except TypeError:
        return
    parts = (InputText(found),) if isinstance(found, str) else found
    texts = [part.text for part in parts if isinstance(part, InputText)]
    assert sum(map(len, texts)) < max_chars + 60
    msgspec.json.encode(found)


class Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no"), "ValueError: no"),
        (ValueError(), "ValueError"),
        (ValueError("\ud800"), "ValueError: ?"),
        (Mute(), "Mute: (its message cannot be shown)"),
    ],
)
def test_failures_are_explained(error: Exception, text: str) -> None:
    assert explain_failure(error) == text
    assert len(explain_failure(ValueError("x" * LARGE))) < 2100


class Lasting:
    """Iterates without an end, and counts what was read."""

    def __init__(self, entry: object) -> None:
        self.entry, self.read = entry, 0

    def __iter__(self) -> "Lasting":
        return self

    def __next__(self) -> object:
        self.read += 1
        return self.entry


@pytest.mark.parametrize("entry", [1, "x" * 100_000, {"a": [1, 2]}, City(name="Rome")])
def test_an_output_without_an_end_is_read_up_to_its_bound(entry: object) -> None:
    endless = Lasting(entry)
    for value in (endless, [endless], {"a": {"b": endless}}):
        text = to_output(value, 1000)
        assert isinstance(text, str)
        assert text.endswith("\n… [the rest was cut]")
        assert len(text) < 1030
    assert endless.read < 3000


def test_of_a_large_structure_only_the_beginning_is_written() -> None:
    large = [{"text": "x" * 1000, "n": n} for n in range(100_000)]
    text = to_output(large, 100)
    assert text == '[{"text":"' + "x" * 90 + "\n… [the rest was cut]"
    assert not is_small(large)
    parts = to_output([Image(b"a"), Lasting(1)], 5)
    assert isinstance(parts, tuple)
    assert parts[1:] == (InputText("[1,1,"), InputText("… [the rest was cut]"))


def test_an_iterator_that_ends_is_a_list() -> None:
    assert to_output(iter([1, "a", None]), 100) == '[1,"a",null]'
    assert to_output({"a": (n for n in range(3))}, 100) == '{"a":[0,1,2]}'


@dataclass
class Holder:
    values: Any


def test_an_iterator_within_a_dataclass_is_bounded_too() -> None:
    text = to_output(Holder(Lasting(1)), 100)
    assert isinstance(text, str)
    assert text.startswith('{"values":[1,1,')


@given(JSON, st.booleans())
@example([1e16, "\ud800"], False)
@example({"\udfff": [1e16]}, False)
def test_values_read_piece_by_piece_are_the_same(value: object, wrapped: bool) -> None:
    given_value = Record([City(name="x")]) if wrapped else value
    try:
        expected = to_output(given_value, LARGE)
    except TypeError:
        return
    if isinstance(given_value, str):
        return
    text, is_whole = _beginning_of_json(given_value, LARGE)
    assert is_whole
    # Of a value with a lone surrogate, large floats are written in another way.
    same = json.loads(text.encode("utf-8", "replace"), object_pairs_hook=list)
    assert same == json.loads(str(expected), object_pairs_hook=list)


@pytest.mark.anyio
async def test_large_values_are_encoded_in_a_thread() -> None:
    threads = list[str]()

    class Told(BaseModel):
        @model_serializer
        def _tell(self) -> str:
            threads.append(threading.current_thread().name)
            return "told"

    assert await encode_output([Told()], 100) == '["told"]'
    text = await encode_output([Told(), *range(2000)], 20)
    assert text == '["told",0,1,2,3,4,5,\n… [the rest was cut]'
    main = threading.current_thread().name
    assert threads == [main, "treadle executor"]
    with pytest.raises(TypeError, match="type object"):
        await encode_output(object(), 100)


def test_files_and_parts_of_messages_are_outputs() -> None:
    pdf = b"%PDF-1.7\n"
    part = InputFile.from_bytes(pdf, "r.pdf")
    assert to_output(File(pdf, "../r.pdf"), 100) == (part,)
    audio = InputAudio.from_bytes(b"ID3" + bytes(8))
    shown = to_output(["Here:", part, audio, {"pages": 1}], 100)
    assert shown == (InputText("Here:"), part, audio, InputText('{"pages":1}'))
    assert is_small(File(pdf))
    assert not is_small(File(bytes(200_000)))
    with pytest.raises(InvalidInput, match="empty"):
        File(b"")
