import gc
import itertools
import json
import pickle
import re
import sys
from typing import Any

import jiter
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.errors import StreamInvalid
from treadle.streaming.jsonfields import FieldGrowth, JsonFieldScanner, field_text, is_begun_object


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
    ('{"f":"\\udE00\\uD83D\\u0041\\uDBFF\\uDFFF"}', {"f": "\ufffd\ufffdA\U0010ffff"}),
    ('{"f":"\\\\ud83d\\\\"}', {"f": "\\ud83d\\"}),
    ('{"f":"\\ud83d\\\\ude00\\ud83d\\""}', {"f": '\ufffd\\ude00\ufffd"'}),
    ('{"f":"a\\u0000\\u001f\\u2028z é😀"}', {"f": "a\0\x1f\u2028z é😀"}),
    ('{"\\ud83d\\ude00\\n":"no","\\\\u0066":"no","f":"yes"}', {"f": "yes"}),
    ('{"a":["\\ud83d","\\"]}",{"f":"\\\\"}],"f":"x"}', {"f": "x"}),
    ('{"f":{"f":"inner"},"f":"second"}', {}),
    ('{"f":-1.5E+3,"f":"second"}', {}),
    ('{"":{"":""}, "f" : "x" ,"f ":"no"}', {"f": "x"}),
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


@pytest.mark.parametrize("text", [text for text, _ in TEXTS])
def test_it_is_complete_at_its_last_brace_and_not_before(text: str) -> None:
    end = text.rindex("}")
    scanner = JsonFieldScanner()
    for at, character in enumerate(text):
        scanner.feed(character)
        assert scanner.started == ("{" in text[: at + 1])
        assert scanner.complete == (at >= end)
        assert scanner.empty == (at >= end and json.loads(text) == {})
        assert not scanner.trailing


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
    assert texts == {k: v for k, v in value.items() if k in ("f", "g") and isinstance(v, str)}
    assert scanner.complete
    assert not scan(text[:-1], fields=())[1].complete
    assert not scanner.trailing
    assert scanner.empty == (value == {})


@given(OBJECTS, st.booleans())
def test_growth_is_that_of_a_partial_parser(value: dict[str, Any], ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii)
    scanner = JsonFieldScanner(["f"])
    grown = ""
    for cut in range(1, len(text) + 1):
        grown += "".join(delta.delta for delta in scanner.feed(text[cut - 1]))
        if re.search(r"\\[^\\]{0,5}$", text[:cut]):
            continue  # the oracle drops a whole surrogate pair where we wait for its half
        oracle = jiter.from_json(text[:cut].encode(), partial_mode="trailing-strings").get("f")
        assert grown == (oracle if isinstance(oracle, str) else "")


@pytest.mark.parametrize(
    "text",
    ["[1]", '"f"', "1", "x", "{f", '{"f" 1', '{"f":}', '{"f":1 2}', '{"f":"x" "g"', "{,",
     '{"a":1,}',
     '{"f":"\\x"}', '{"f":"\\u12G4"}', '{"a":[}', '{"a":{]', '{"f":,', '{"a":"\\x"}',
     '{"a":["\\x"]}', '{"\\x":1}', '{"f":"\\ud83d\\x"}', '{"f":1"g":2}', '{"f":1]', '{"f":@}',
     '\ufeff{}', '\xa0{}', '{"f":"x",,', '{"f"}', '{"f":"x"]', '{]'],
)  # fmt: skip
def test_what_is_no_object_is_invalid(text: str) -> None:
    for cut in range(len(text) + 1):
        _, scanner = scan(text[:cut], text[cut:], "more")
        assert scanner.invalid
        assert not scanner.complete


GARBAGE = st.lists(
    st.sampled_from([*'{}[]",:\\ \n1x', '"f"', '{"f":"', "\\n", "\\ud83d", "\\ude00", "\\u00"])
).map("".join)


@given(GARBAGE, st.lists(st.integers(0, 60), max_size=6))
def test_garbage_gives_the_same_wherever_it_is_cut(text: str, cuts: list[int]) -> None:
    edges = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    whole, at_once = scan(text)
    cut, in_pieces = scan(*(text[a:b] for a, b in itertools.pairwise(edges)))
    assert cut == whole
    assert verdict(in_pieces) == verdict(at_once)


def verdict(scanner: JsonFieldScanner) -> tuple[bool, ...]:
    return (
        scanner.started, scanner.complete, scanner.empty, scanner.trailing, scanner.invalid
    )  # fmt: skip


@given(GARBAGE)
def test_what_a_parser_takes_is_complete_and_no_prefix_of_it_is(text: str) -> None:
    _, scanner = scan(text)
    try:
        valid = isinstance(json.loads(text), dict)
    except ValueError:
        valid = False
    if valid:
        assert verdict(scanner)[:2] == (True, True)
        assert verdict(scanner)[3:] == (False, False)
        assert not scan(text.rstrip()[:-1])[1].complete


def test_nothing_is_yielded_after_a_defect() -> None:
    scanner = JsonFieldScanner(["f", "g"])
    assert scanner.feed('{"f":"good\\x bad"') == [FieldGrowth("f", "good", False)]
    assert scanner.invalid
    assert scanner.feed('"g":"x"}') == []
    assert not scanner.complete


def test_what_follows_the_end_is_noticed() -> None:
    assert not scan('{"a":1} \n')[1].trailing
    assert scan('{"a":1}', " {")[1].trailing
    texts, scanner = scan('{"a":1}{"f":"x"}', '"f":"x"', " ")
    assert (texts, scanner.trailing, scanner.complete, scanner.invalid) == ({}, True, True, False)


def test_growth_comes_with_each_delta() -> None:
    scanner = JsonFieldScanner(["f"])
    assert scanner.feed('{"f":"a') == [("f", "a", False)]
    assert scanner.feed("b\\") == [("f", "b", False)]
    assert scanner.feed("nc\\ud83d") == [("f", "\nc", False)]
    assert scanner.feed("\\ude00") == [("f", "😀", False)]
    assert scanner.feed('"') == [("f", "", True)]
    assert scanner.feed("}") == []


def test_a_high_surrogate_waits_until_no_low_one_can_follow() -> None:
    scanner = JsonFieldScanner(["f"])
    assert scanner.feed('{"f":"\\ud83d') == []
    assert scanner.feed("") == []
    assert scanner.feed("\\") == []
    assert scanner.feed("u") == []
    assert scanner.feed("de0") == []
    assert scanner.feed("0") == [("f", "😀", False)]
    assert scanner.feed("\\ud83d\\") == []
    assert scanner.feed("n") == [("f", "\ufffd\n", False)]
    assert scanner.feed("\\ud83d") == []
    assert scanner.feed('"') == [("f", "\ufffd", True)]


def test_an_empty_delta_is_no_growth() -> None:
    scanner = JsonFieldScanner(["f"])
    assert scanner.feed("") == []
    assert scanner.feed('{"f":"') == []
    assert scanner.feed("") == []
    assert scanner.feed('"') == [FieldGrowth("f", "", True)]


def test_the_limit_of_characters() -> None:
    scanner = JsonFieldScanner(max_chars=10)
    scanner.feed('{"a":')
    scanner.feed('"1234')
    with pytest.raises(StreamInvalid, match="exceeds 10 characters; ask the model for less"):
        scanner.feed("5")


@pytest.mark.parametrize("level", ["[", '{"b":'])
def test_the_limit_of_depth(level: str) -> None:
    text = '{"a":' + level * 4
    JsonFieldScanner(max_depth=5).feed(text)
    for cut in range(len(text)):
        scanner = JsonFieldScanner(max_depth=4)
        with pytest.raises(StreamInvalid, match="deeper than 4; ask the model for a flatter"):
            for delta in (text[:cut], text[cut:]):
                scanner.feed(delta)


def test_breadth_is_no_depth() -> None:
    assert scan('{"a":[' + "[[]]," * 500 + '{}],"f":"x"}')[0] == {"f": "x"}


def kept(scanner: JsonFieldScanner) -> int:
    """The size of all that a scanner remembers, counters apart."""
    return len(pickle.dumps([value for value in vars(scanner).values() if type(value) is not int]))


def calls(scanner: JsonFieldScanner, delta: str) -> int:
    """How many functions, of Python or C, one delta calls."""
    count = 0

    def on_event(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    gc.disable()  # a collection calls functions of its own
    sys.setprofile(on_event)
    try:
        scanner.feed(delta)
    finally:
        sys.setprofile(None)
        gc.enable()
    return count


@pytest.mark.parametrize("opening", ['{"f":"', '{"a":"', '{"a":[["', '{"a":[', '{"a":1'])
@pytest.mark.parametrize("growth", ["word", "1", "\\n\\u00e9"])
def test_a_delta_costs_the_same_however_much_came_before(opening: str, growth: str) -> None:
    """Nothing is kept of what came before, and so no delta can look at it again."""
    short, long = JsonFieldScanner(["f"]), JsonFieldScanner(["f"])
    short.feed(opening + "1" * 100)
    long.feed(opening + "1" * 100)
    for _ in range(2_000):
        long.feed(growth)
    short.feed(growth)
    assert kept(short) == kept(long)
    assert calls(short, growth) == calls(long, growth)


@pytest.mark.parametrize(
    ("text", "begun"),
    [
        ('{"a": 1}', False),
        ("{}", False),
        ("", False),
        ("[1", False),
        ("null", False),
        ('{"a": 1} more', False),
        ("{'a': 1}", False),
        ("{" + '"a": {' * 200, False),
        ("{", True),
        ('{"a": "\\u00', True),
        ('{"a": 1', True),
        (' {"a": [1]', True),
    ],
)
def test_an_object_that_breaks_off(text: str, begun: bool) -> None:
    assert is_begun_object(text) is begun


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=10)), st.data())
def test_every_beginning_of_an_object_breaks_off(
    value: dict[str, str], data: st.DataObject
) -> None:
    text = json.dumps(value)
    cut = data.draw(st.integers(1, len(text)))
    assert is_begun_object(text[:cut]) is (cut < len(text))


@given(st.text(), st.text(), st.text(max_size=3))
def test_the_text_of_a_field_is_its_first(first: str, other: str, key: str) -> None:
    text = f'{{"n": 1, {json.dumps("to_user")}: {json.dumps(first)}, "to_user": {json.dumps(other)}'
    growths = JsonFieldScanner(["to_user"]).feed(text)
    assert field_text(text, "to_user") == "".join(one.delta for one in growths)
    assert field_text(text, "to_user") == first
    assert not field_text(text, f"{key}?")
    assert not field_text("[" * 200, "to_user")
    assert not field_text('{"a": ' + "[" * 200, "to_user")
