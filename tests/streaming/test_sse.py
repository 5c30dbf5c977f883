import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.errors import StreamInvalid
from treadle.streaming.sse import Frame, SseParser

Outcome = tuple[list[tuple[bytes, bytes]], bytes, int | None]


def parse(*chunks: bytes) -> list[Frame]:
    parser = SseParser()
    return [frame for chunk in chunks for frame in parser.feed(chunk)]


def outcome(*chunks: bytes) -> Outcome:
    """The frames, the last event id and the retry time."""
    parser = SseParser()
    frames: list[tuple[bytes, bytes]] = [f for chunk in chunks for f in parser.feed(chunk)]
    return frames, parser.last_event_id, parser.retry


def reference(stream: bytes) -> Outcome:
    """The specification, on the whole text at once."""
    frames, last_id, retry = [], b"", None
    lines = re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))
    block: list[tuple[bytes, bytes]] = []
    for line in lines[:-1]:
        if line:
            field = re.fullmatch(rb"([^:]*)(?:: ?(.*))?", line, re.DOTALL)
            assert field is not None
            block.append((field[1], field[2] or b""))
            continue
        data = [value for name, value in block if name == b"data"]
        events = [value for name, value in block if name == b"event"]
        ids = [value for name, value in block if name == b"id" and b"\0" not in value]
        retries = [v for n, v in block if n == b"retry" and re.fullmatch(rb"[0-9]{1,15}", v)]
        if data:
            frames.append(((events or [b""])[-1] or b"message", b"\n".join(data)))
        last_id = [last_id, *ids][-1]
        retry = [retry, *map(int, retries)][-1]
        block = []
    return frames, last_id, retry


def pieces(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize(
    ("stream", "frames"),
    [
        # the examples of the specification
        (b"data: YHOO\ndata: +2\ndata: 10\n\n", [(b"message", b"YHOO\n+2\n10")]),
        (
            (
                b": test stream\n\ndata: first event\nid: 1\n\n"
                b"data:second event\nid\n\ndata:  third\n\n"
            ),
            [(b"message", b"first event"), (b"message", b"second event"), (b"message", b" third")],
        ),
        (b"data\n\ndata\ndata\n\ndata:", [(b"message", b""), (b"message", b"\n")]),
        (b"data:test\n\ndata: test\n\n", [(b"message", b"test")] * 2),
        (
            (
                b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\n"
                b"event: add\ndata: 113411\n\n"
            ),
            [(b"add", b"73857293"), (b"remove", b"2153"), (b"add", b"113411")],
        ),
        # one optional space, empty names and values, the last name, names that only look known
        (b"data:  two\ndata:\ttab\n\n", [(b"message", b" two\n\ttab")]),
        (b"event: \ndata: \n\nevent:\ndata: 2\n\n", [(b"message", b""), (b"message", b"2")]),
        (b"event: a\nevent: b\ndata: 1\n\n", [(b"b", b"1")]),
        (b"data: 1\nevent: late\n\n", [(b"late", b"1")]),
        (b"Data: 1\ndatax: 1\n data: 1\neventdata: 1\n\n", []),
        (b"event: data: 1\n\nevent: a\nxdata: 1\n\nevent: a\n:c\ndata: 1\n\n", [(b"a", b"1")]),
        (b"data: a:b\ndata: data: c\n\n", [(b"message", b"a:b\ndata: c")]),
        (b":\n: ping\n\n\n\ndata: 1\n:\ndata: 2\n\n", [(b"message", b"1\n2")]),
        # names, and their reset by a frame without data
        (b"event: a\ndata: 1\n\ndata: 2\n\n", [(b"a", b"1"), (b"message", b"2")]),
        (b"event: a\n\ndata: 2\n\n", [(b"message", b"2")]),
        (b"event:a\ndata: 1\n\n", [(b"a", b"1")]),
        (b"unknown: x\nevent\ndata: 1\n\n", [(b"message", b"1")]),
        # line ends
        (b"data: 1\r\n\r\ndata: 2\r\rdata: 3\n\n", [(b"message", n) for n in (b"1", b"2", b"3")]),
        (b"\xef\xbb\xbfdata: 1\n\n", [(b"message", b"1")]),
        (b"\xef\xbb\xbf\xef\xbb\xbfdata: 1\n\n", []),
        (b"\xefdata: 1\n\n", []),
        (b"", []),
    ],
)
def test_the_quirks(stream: bytes, frames: list[tuple[bytes, bytes]]) -> None:
    expected = reference(stream)
    assert expected[0] == frames
    assert outcome(*(stream[i : i + 1] for i in range(len(stream)))) == expected
    for cut in range(len(stream) + 1):
        assert outcome(stream[:cut], stream[cut:]) == expected


PIECES = st.sampled_from(
    [b"\n", b"\n\n", b"\r", b"\r\n", b"data", b"data:", b"data: ", b"event: ", b"x", b":", b" ",
     b"event: e\ndata: {}", b"id: 7", b"id", b"\0", b"retry: 5", "é😀".encode(),
     b"\xef\xbb\xbf", b"\xff"]
)  # fmt: skip
CUTS = st.lists(st.integers(0, 100), max_size=10)


@given(st.lists(PIECES, max_size=40).map(b"".join), CUTS)
def test_like_the_reference_wherever_it_is_cut(stream: bytes, cuts: list[int]) -> None:
    expected = reference(stream)
    assert outcome(stream) == expected
    assert outcome(*pieces(stream, cuts)) == expected
    assert outcome(*(stream[i : i + 1] for i in range(len(stream)))) == expected


def test_two_cuts_anywhere() -> None:
    stream = b"\xef\xbb\xbfevent: a\r\ndata: 1\r\n\r\n: c\r\rid: 1\ndata: 2\n\n"
    for first, second in itertools.combinations(range(len(stream) + 1), 2):
        assert outcome(*pieces(stream, [first, second])) == reference(stream)


def test_frames_have_names() -> None:
    stream = b"event: a\ndata: 1\n\ndata: 2\n\nevent:b\ndata:3\n\n"
    frames = parse(stream)
    assert frames == reference(stream)[0]
    assert [name for name, _ in frames] == [b"a", b"message", b"b"]


def test_id_and_retry_persist() -> None:
    parser = SseParser()
    parser.feed(b"id: 1\nretry: 250\ndata: x\n\n")
    assert (parser.last_event_id, parser.retry) == (b"1", 250)
    parser.feed(b"id: bad\0id\nretry: soon\nretry: -1\nretry:\nretry: 1.5\ndata: y\n\n")
    assert (parser.last_event_id, parser.retry) == (b"1", 250)
    parser.feed(b"id\nretry: 99999999999999999999\n\n")
    assert (parser.last_event_id, parser.retry) == (b"", 250)


def test_an_id_counts_only_once_its_block_has_ended() -> None:
    parser = SseParser()
    parser.feed(b"id: 1\n\nid: 2\ndata: cut off")
    assert parser.last_event_id == b"1"
    parser.feed(b"\n\n")
    assert parser.last_event_id == b"2"


@pytest.mark.parametrize(
    "stream",
    [b"data: 1\n\ndata: [DONE]", b"data: 1\n\ndata: [DONE]\n", b"data: 1\n\ndata: [DONE]\r"],
)
def test_flush_gives_what_lacks_its_blank_line(stream: bytes) -> None:
    for cut in range(len(stream)):
        parser = SseParser()
        frames = [*parser.feed(stream[:cut]), *parser.feed(stream[cut:]), *parser.flush()]
        assert frames == [(b"message", b"1"), (b"message", b"[DONE]")]
        assert parser.flush() == []


def test_flush_of_nothing_and_of_half_a_bom() -> None:
    assert SseParser().flush() == []
    parser = SseParser()
    parser.feed(b"\xef\xbb")
    assert parser.flush() == []


def test_flush_takes_a_whole_block() -> None:
    parser = SseParser()
    assert parser.feed(b"event: e\nid: 3\nretry: 9\ndata: 1\ndata") == []
    assert parser.flush() == [(b"e", b"1\n")]
    assert (parser.last_event_id, parser.retry) == (b"3", 9)


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 95,
        b"data: " + b"x" * 95 + b"\n\n",
        b"data: 1\n\ndata: " + b"x" * 95 + b"\n\ndata: 2\n\n",
        b"data\n" * 21,
        b"event: " + b"x" * 47 + b"\ndata: " + b"x" * 40 + b"\n\n",
        b":" + b"x" * 100 + b"\n",
        b":1234\r\n" * 17,
    ],
)
def test_a_frame_beyond_the_limit_is_refused_wherever_it_is_cut(stream: bytes) -> None:
    for cut in range(len(stream)):
        parser = SseParser(max_frame_bytes=100)
        with pytest.raises(StreamInvalid, match=r"more than 100 bytes; check that the base URL"):
            parser.feed(stream[:cut])
            parser.feed(stream[cut:])
            parser.flush()


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 94,
        b"data: " + b"x" * 94 + b"\r\n",
        (b"data: " + b"x" * 94 + b"\n\n") * 2,
        b"data\n" * 20,
        b":1234\r\n" * 16,
        b"data: 1\n\n" * 50,
        b": ping\n\n" * 50,
    ],
)
def test_a_frame_within_the_limit_is_taken_wherever_it_is_cut(stream: bytes) -> None:
    for cut in range(len(stream)):
        parser = SseParser(max_frame_bytes=100)
        frames = [*parser.feed(stream[:cut]), *parser.feed(stream[cut:]), *parser.flush()]
        assert len(frames) == max(stream.count(b"data: "), b"data\n" in stream)


@given(st.lists(PIECES, max_size=30).map(b"".join), CUTS, st.integers(0, 30))
def test_the_limit_does_not_depend_on_the_cuts(stream: bytes, cuts: list[int], limit: int) -> None:
    def fits(chunks: list[bytes]) -> bool:
        parser = SseParser(max_frame_bytes=limit)
        try:
            for chunk in chunks:
                parser.feed(chunk)
            parser.flush()
        except StreamInvalid:
            return False
        return True

    lines = re.sub(rb"\r\n|\r", b"\n", stream.removeprefix(b"\xef\xbb\xbf"))
    *blocks, rest = lines.split(b"\n\n")
    expected = max(map(len, [*blocks, rest.removesuffix(b"\n")])) <= limit
    assert fits([stream]) == fits(pieces(stream, cuts)) == expected


def test_a_long_line_in_single_bytes_is_joined_once() -> None:
    parser = SseParser()
    for _ in range(200_000):
        parser.feed(b"x")
    assert parser.feed(b"\ndata: 1\n\n") == [(b"message", b"1")]


@pytest.mark.parametrize(
    ("stream", "frames"),
    [
        (b'error: {"a": 1}\n\n', [(b"error", b'{"a": 1}')]),
        (b"error: a\nerror: b\n\ndata: 1\n\n", [(b"error", b"a\nb"), (b"message", b"1")]),
        (b"data: 1\nerror: a\n\n", [(b"message", b"1"), (b"error", b"a")]),
        (b'{"a": 1}\n\n', [(b"message", b'{"a": 1}')]),
        (b'event: e\n{\n "data": 1\n}\n\n', [(b"e", b'{\n "data": 1\n}')]),
        (b"errors: a\n\nerr\n\n [1]\n\n", []),
    ],
)  # fmt: skip
def test_errors_outside_of_data(stream: bytes, frames: list[Frame]) -> None:
    for cut in range(len(stream) + 1):
        assert parse(stream[:cut], stream[cut:]) == frames
    parser = SseParser()
    assert [*parser.feed(stream.removesuffix(b"\n\n")), *parser.flush()] == frames


def test_events_before_one_beyond_the_limit_are_returned() -> None:
    stream = b"data: 1\n\ndata: 2\n\ndata: " + b"x" * 100 + b"\n\ndata: 3\n\n"
    for cut in range(len(stream)):
        parser, frames = SseParser(max_frame_bytes=50), list[Frame]()
        with pytest.raises(StreamInvalid, match="more than 50 bytes"):
            frames += parser.feed(stream[:cut])
            frames += parser.feed(stream[cut:])
            frames += parser.flush()
        assert frames == [(b"message", b"1"), (b"message", b"2")]
        assert parser.failure is not None
