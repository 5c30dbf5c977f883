"""Frames of server-sent events: the same wherever the bytes are cut."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.client import frames
from treadle.client.frames import Frame, FrameParser
from treadle.errors import RequestFailed

STREAM = (
    b"retry: 1000\nid: 0\n\n: keep-alive\r\n\r\nid: 3.1\revent: text.delta\rdata: "
    + '{"delta":"grün 🌱"}'.encode()
    + b"\r\rid: 4\r\nevent: x\r\ndata: a\r\ndata:b\r\nunknown: 1\r\n\r\n"
    b"id: 5\nevent: y\ndata: {}\n\nid: a\0b\n\ndata\n\ndata: lost"
)
FRAMES = [
    Frame("0", "message", b""),
    Frame("3.1", "text.delta", '{"delta":"grün 🌱"}'.encode()),
    Frame("4", "x", b"a\nb"),
    Frame("5", "y", b"{}"),
    Frame("", "message", b""),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_frames_are_the_same_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    parser = FrameParser()
    found: list[Frame] = []
    places = [0, *sorted(cuts), len(STREAM)]
    for start, end in pairwise(places):
        found += parser.feed(STREAM[start:end])
    assert found == FRAMES


def test_an_event_that_does_not_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "MAX_FRAME_BYTES", 100)
    parser = FrameParser()
    parser.feed(b"data: " + b"x" * 90)
    with pytest.raises(RequestFailed):
        parser.feed(b"x" * 90)
