import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from weft.errors import StreamInvalid
from weft.streaming.sse import Frame, SseParser


def parse(*chunks: bytes) -> list[Frame]:
    parser = SseParser()
    return [frame for chunk in chunks for frame in parser.feed(chunk)]


def reference(stream: bytes) -> list[tuple[bytes, bytes]]:
    """The specification, on the whole text at once."""
    stream = stream.removeprefix(b"\xef\xbb\xbf")
    frames, event, data = [], b"", []
    lines = re.split(rb"\r\n|\r|\n", stream)
    for line in lines[:-1]:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data:
                frames.append((event or b"message", b"\n".join(data)))
            event, data = b"", []
        elif name == b"data":
            data.append(value)
        elif name == b"event":
            event = value
    return frames


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
    assert parse(stream) == frames == reference(stream)
    for cut in range(len(stream) + 1):
        assert parse(stream[:cut], stream[cut:]) == frames
    assert parse(*(stream[i : i + 1] for i in range(len(stream)))) == frames


PIECES = st.sampled_from(
    [b"\n", b"\r", b"\r\n", b"data", b"data:", b"data: ", b"event: ", b":", b" ", b"x", b"id: 7",
     b"retry: 5", "é😀".encode(), b"\xef\xbb\xbf", b"\xff"]
)  # fmt: skip


@given(st.lists(PIECES, max_size=40), st.lists(st.integers(0, 100), max_size=10))
def test_like_the_reference_wherever_it_is_cut(pieces: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(pieces)
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    chunks = [stream[a:b] for a, b in itertools.pairwise(edges)]
    assert parse(*chunks) == reference(stream)


def test_id_and_retry_persist() -> None:
    parser = SseParser()
    parser.feed(b"id: 1\nretry: 250\ndata: x\n\n")
    assert (parser.last_event_id, parser.retry) == (b"1", 250)
    parser.feed(b"id: bad\0id\nretry: soon\ndata: y\n\n")
    assert (parser.last_event_id, parser.retry) == (b"1", 250)
    parser.feed(b"id\nretry: 99999999999999999999\n\n")
    assert (parser.last_event_id, parser.retry) == (b"", 250)


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


@pytest.mark.parametrize(
    "chunks",
    [
        [b"data: " + b"x" * 200 + b"\n"],
        [b"data: " + b"x" * 60, b"x" * 60],
        [b"data: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"] * 5,
        [b":" + b"x" * 200],
    ],
)
def test_a_frame_beyond_the_limit_is_refused(chunks: list[bytes]) -> None:
    parser = SseParser(max_frame_bytes=100)
    with pytest.raises(StreamInvalid, match="more than 100 bytes"):
        for chunk in chunks:
            parser.feed(chunk)


def test_many_small_frames_are_within_the_limit() -> None:
    parser = SseParser(max_frame_bytes=100)
    frames = [frame for _ in range(100) for frame in parser.feed(b"data: 12345\n\ndata: 1")]
    assert len(frames) == 100
    for _ in range(100):
        parser.feed(b": ping\n\n")


def test_a_long_line_in_single_bytes_is_joined_once() -> None:
    parser = SseParser()
    for _ in range(200_000):
        parser.feed(b"x")
    assert parser.feed(b"\ndata: 1\n\n") == [(b"message", b"1")]
