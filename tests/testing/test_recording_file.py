"""The file of a recording, its masks and its comparison, without any provider."""

from contextlib import suppress
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.domain.ids import new_id
from treadle.errors import RecordingInvalid
from treadle.testing.recording.cuts import pieces
from treadle.testing.recording.exchange import Exchange
from treadle.testing.recording.file import decode_recording, encode_recording
from treadle.testing.recording.masking import holds_secret, masked_chunks
from treadle.testing.recording.matching import canonical, differences

json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
exchanges = st.builds(
    Exchange,
    path=st.text(),
    model=st.text(),
    body=json,
    status=st.integers(100, 599),
    headers=st.dictionaries(st.text(), st.text(), max_size=2),
    chunks=st.lists(st.binary(min_size=1) | st.text(min_size=1).map(str.encode)).map(tuple),
    end=st.sampled_from(["complete", "left", "broken", "silent"]),
    reason=st.text(),
) | st.builds(
    Exchange,
    path=st.text(),
    model=st.text(),
    body=json,
    end=st.sampled_from(["unreachable", "connect_timeout", "silent"]),
    reason=st.text(),
)


@given(st.lists(exchanges, max_size=4))
def test_a_file_is_read_as_it_was_written(recorded: list[Exchange]) -> None:
    data = encode_recording(recorded)
    assert decode_recording(data, "f") == recorded
    assert decode_recording(data.replace(b"\n", b"\r\n"), "f") == recorded


@given(st.lists(exchanges, min_size=1, max_size=3), st.data())
def test_a_damaged_file_is_never_read_as_something_else(
    recorded: list[Exchange], data: st.DataObject
) -> None:
    lines = encode_recording(recorded).splitlines(keepends=True)
    cut = data.draw(st.integers(0, len(lines) - 1))
    with suppress(RecordingInvalid):
        read = decode_recording(b"".join(lines[:cut]), "f")
        assert read == recorded[: len(read)]  # whole exchanges were cut off


HEAD = b'{"type":"recording","version":1}\n'
REQUEST = b'{"type":"request","path":"/p","model":"m","body":{}}\n'
RESPONSE = b'{"type":"response","status":200,"headers":{}}\n'
END = b'{"type":"end","how":"complete"}\n'


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is not a recording"),
        (b"hello\n", "is not a recording"),
        (b"\xff\n", "is not a recording"),
        (REQUEST, "is not a recording"),
        (b'{"type":"recording","version":2}\n{"type":"new"}\n', "has version 2"),
        (HEAD + REQUEST + RESPONSE, "line 2: the exchange that begins here has no end"),
        (HEAD + RESPONSE + END, "line 2: a request is missing"),
        (HEAD + END, "line 2: a request is missing"),
        (HEAD + REQUEST + b'{"type":"text","text":"x"}\n' + END, "line 2: the response"),
        (HEAD + REQUEST + RESPONSE + RESPONSE + END, "not in order"),
        (HEAD + REQUEST + RESPONSE + b'{"type":"base64","base64":"?"}\n' + END, "not base64"),
        (HEAD + REQUEST + b'{"type":"resp\n' + END, "damaged at line 3"),
        (HEAD + REQUEST + b'{"type":"other"}\n' + END, "damaged at line 3"),
    ],
)
def test_damage_has_its_line(data: bytes, problem: str) -> None:
    with pytest.raises(RecordingInvalid, match=problem):
        decode_recording(data, "file.jsonl")


SECRET = "sk-proj/abc\"def'0123"


@given(st.binary(max_size=30), st.binary(max_size=30), st.lists(st.integers(0, 99), max_size=6))
def test_a_key_is_overwritten_across_pieces(
    before: bytes, after: bytes, offsets: list[int]
) -> None:
    spelled = msgspec.json.encode(SECRET)[1:-1].replace(b"/", b"\\/")
    body = before + spelled + after + SECRET.encode()
    cuts = sorted({0, len(body), *(offset % len(body) for offset in offsets)})
    chunks = [body[a:b] for a, b in pairwise(cuts)]
    masked = masked_chunks(chunks, [SECRET])
    assert [len(chunk) for chunk in masked] == [len(chunk) for chunk in chunks]
    assert spelled not in b"".join(masked)
    assert SECRET.encode() not in b"".join(masked)
    assert b"".join(masked).startswith(before)


def test_a_key_in_a_request() -> None:
    assert holds_secret(b'{"text": "say zyxwvuts98765!"}', ["zyxwvuts98765"])
    assert not holds_secret(b'{"text": "say"}', ["zyxwvuts98765"])


@given(st.binary(min_size=1), st.integers(1, 9))
def test_cutting_loses_nothing(body: bytes, size: int) -> None:
    assert b"".join(pieces((body,), size)) == body
    assert all(len(piece) == size for piece in list(pieces((body,), size))[:-1])
    assert list(pieces((body,), lambda body: (b"", body, b""))) == [body]


def test_ids_made_anew_do_not_differ() -> None:
    def body() -> object:
        first, second = new_id("call"), new_id("call")
        return {"input": [{"id": first, "text": f"see {second}"}, {"id": second}, 1, None]}

    assert canonical(body()) == canonical(body())
    crossed = {"input": [{"id": new_id("call"), "text": "see "}, {"id": new_id("call")}, 1, None]}
    assert canonical(body()) != canonical(crossed)


@given(json, json)
def test_what_differs_is_said(recorded: object, asked: object) -> None:
    found = differences(recorded, asked)
    assert bool(found) == (recorded != asked)
    assert len(found) <= 4


def test_how_differences_read() -> None:
    recorded = {"a": [1, {"b": "x" * 200 + "one"}], "gone": True}
    asked = {"a": [1, {"b": "x" * 200 + "two"}, 3]}
    assert differences(recorded, asked) == [
        f'a[1].b: recorded "…{"x" * 20}one", asked "…{"x" * 20}two"',
        "a[2]: recorded nothing, asked 3",
        "gone: recorded true, asked nothing",
    ]
    assert differences(1, [1]) == ["the body: recorded 1, asked [1]"]
