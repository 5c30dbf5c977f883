import itertools
import json
from typing import Any

import jiter
import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.errors import StreamInvalid
from weft.streaming.jsonfields import JsonFieldScanner


def scan(*deltas: str, fields: tuple[str, ...] = ("f",)) -> tuple[dict[str, str], JsonFieldScanner]:
    """The growth of each field, joined; after `done` nothing may follow."""
    scanner = JsonFieldScanner(fields)
    texts: dict[str, str] = {}
    ended: set[str] = set()
    for delta in deltas:
        for field, growth, done in scanner.feed(delta):
            assert field not in ended
            texts[field] = texts.get(field, "") + growth
            if done:
                ended.add(field)
    if scanner.complete:
        assert ended == set(texts)
    return texts, scanner


TEXTS: list[tuple[str, dict[str, str]]] = [
    ('{"f":"plain"}', {"f": "plain"}),
    ('{"f":""}', {"f": ""}),
    (' \n{ "a" : 1 , "f" : "x" } \t', {"f": "x"}),
    ('{"a":{"f":"inner","b":["}",{"f":"x"}]},"f":"outer"}', {"f": "outer"}),
    ('{"a":"f","f":"\\"\\\\\\/\\b\\f\\n\\r\\t"}', {"f": '"\\/\b\f\n\r\t'}),
    ('{"\\u0066":"\\u00e9\\ud83d\\ude00!"}', {"f": "é😀!"}),
    ('{"f":"\\ud83d"}', {"f": "\ufffd"}),
    ('{"f":"\\ud83dx\\ude00"}', {"f": "\ufffdx\ufffd"}),
    ('{"f":"\\ud83d\\n\\ud83d\\ud83d\\ude00"}', {"f": "\ufffd\n\ufffd😀"}),
    ('{"f":null,"g":"y"}', {}),
    ('{"f":12.5e3,"g":true}', {}),
    ('{"f":["no"],"g":{"f":"no"}}', {}),
    ('{"f":"first","f":"second"}', {"f": "first"}),
    ('{"a":"esc\\\\\\"aped","f":"x"}', {"f": "x"}),
    ("{}", {}),
    ('{"a":1}', {}),
    ('{"a":[]\n,"b":{}}', {}),
]


@pytest.mark.parametrize(("text", "fields"), TEXTS)
def test_every_cut_gives_the_same(text: str, fields: dict[str, str]) -> None:
    for cut in range(len(text) + 1):
        texts, scanner = scan(text[:cut], text[cut:])
        assert texts == fields
        assert scanner.complete
        assert not scanner.invalid
        assert scanner.empty == (json.loads(text) == {})
    assert scan(*text)[0] == fields


@pytest.mark.parametrize(("text", "fields"), TEXTS)
def test_no_proper_prefix_is_complete(text: str, fields: dict[str, str]) -> None:
    for cut in range(len(text.rstrip())):
        assert not scan(text[:cut])[1].complete


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from(["f", "g", "a", "é\n"]), JSON, max_size=4)


@given(
    OBJECTS, st.booleans(), st.sampled_from([None, 1]), st.lists(st.integers(0, 200), max_size=12)
)
def test_like_json(value: dict[str, Any], ascii: bool, indent: int | None, cuts: list[int]) -> None:
    text = json.dumps(value, ensure_ascii=ascii, indent=indent)
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    deltas = [text[a:b] for a, b in itertools.pairwise(edges)]
    texts, scanner = scan(*deltas, fields=("f", "g"))
    assert texts == {k: v for k, v in value.items() if k in "fg" and isinstance(v, str)}
    assert scanner.complete
    assert not scanner.trailing
    assert scanner.empty == (value == {})


@given(st.text(max_size=12), st.booleans())
def test_growth_is_that_of_a_partial_parser(value: str, ascii: bool) -> None:
    text = json.dumps({"a": [1, {"f": "no"}], "f": value}, ensure_ascii=ascii)
    for cut in range(1, len(text) + 1):
        prefix = text[:cut]
        if ascii and "\\" in prefix[-12:]:
            continue  # the oracle drops a whole surrogate pair where we wait for its half
        oracle = jiter.from_json(prefix.encode(), partial_mode="trailing-strings")
        assert scan(prefix)[0].get("f", "") == oracle.get("f", "")


@pytest.mark.parametrize(
    "text",
    ["[1]", '"f"', "1", "x", "{f", '{"f" 1', '{"f":}', '{"f":1 2}', '{"f":"x" "g"', "{,",
     '{"a":1,}',
     '{"f":"\\x"}', '{"f":"\\u12G4"}', '{"a":[}', '{"a":{]', '{"f":,'],
)  # fmt: skip
def test_what_is_no_object_is_invalid(text: str) -> None:
    for cut in range(len(text) + 1):
        _, scanner = scan(text[:cut], text[cut:], "more")
        assert scanner.invalid
        assert not scanner.complete


@given(st.text(alphabet='{}[]":,\\u0dfa \n1', max_size=60), st.integers(0, 60))
def test_garbage_never_raises(text: str, cut: int) -> None:
    texts, scanner = scan(text[:cut], text[cut:])
    assert texts.keys() <= {"f"}
    try:
        valid = isinstance(json.loads(text), dict)
    except ValueError:
        valid = False
    if valid:
        assert scanner.complete
        assert not scanner.trailing


def test_what_follows_the_end_is_noticed() -> None:
    assert not scan('{"a":1} \n')[1].trailing
    assert scan('{"a":1}', " {")[1].trailing


def test_growth_comes_with_each_delta() -> None:
    scanner = JsonFieldScanner(["f"])
    assert scanner.feed('{"f":"a') == [("f", "a", False)]
    assert scanner.feed("b\\") == [("f", "b", False)]
    assert scanner.feed("nc\\ud83d") == [("f", "\nc", False)]
    assert scanner.feed("\\ude00") == [("f", "😀", False)]
    assert scanner.feed('"') == [("f", "", True)]
    assert scanner.feed("}") == []


def test_limits() -> None:
    with pytest.raises(StreamInvalid, match="exceeds 10"):
        JsonFieldScanner(max_chars=10).feed('{"a":"12345')
    deep = JsonFieldScanner(max_depth=5)
    deep.feed('{"a":[[[[1]]]]')
    with pytest.raises(StreamInvalid, match="deeper than 5"):
        deep.feed(',"b":[[[[[')


def test_a_delta_looks_at_its_own_characters_only() -> None:
    """Cost is flat: a delta never reaches back to what came before it."""
    seen: list[int] = []

    class Counted(str):
        __slots__ = ()

        def __len__(self) -> int:
            seen.append(super().__len__())
            return super().__len__()

    scanner = JsonFieldScanner(["f"])
    scanner.feed('{"a":"' + "x" * 100_000 + '","f":"')
    for _ in range(10):
        assert scanner.feed(Counted("word")) == [("f", "word", False)]
    assert set(seen) == {4}
