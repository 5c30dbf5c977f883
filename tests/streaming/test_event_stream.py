"""The parser of AWS event streams: bytes cut anywhere, and bytes that are damaged."""

import json
import struct
from contextlib import suppress
from itertools import accumulate
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import StreamInvalid
from treadle.streaming.event_stream import EventStreamParser, with_checksums
from treadle.streaming.sse import Frame
from treadle.testing.simulator.wire.converse_frames import message


def framed(headers: bytes, payload: bytes, *, headers_size: int | None = None) -> bytes:
    """A message of raw headers, with right checksums."""
    size = len(headers) if headers_size is None else headers_size
    prelude = struct.pack(">II", len(headers) + len(payload) + 16, size)
    checked = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return checked + struct.pack(">I", crc32(checked))


def header(name: bytes, kind: int, value: bytes) -> bytes:
    size = struct.pack(">H", len(value)) if kind in {6, 7} else b""
    return bytes([len(name)]) + name + bytes([kind]) + size + value


MESSAGES = [
    message("messageStart", b'{"role":"assistant"}'),
    message("contentBlockDelta", '{"delta":{"text":"Grüße"}}'.encode()),
    message("contentBlockDelta", b""),
    message("throttlingException", b'{"message":"slow"}', "exception"),
]
STREAM = b"".join(MESSAGES)
STARTS = [0, *accumulate(len(one) for one in MESSAGES[:-1])]
FRAMES: list[Frame] = [
    (b"messageStart", b'{"role":"assistant"}'),
    (b"contentBlockDelta", '{"delta":{"text":"Grüße"}}'.encode()),
    (b"contentBlockDelta", b""),
    (b"throttlingException", b'{"message":"slow"}'),
]


def parsed(*chunks: bytes) -> list[Frame]:
    parser = EventStreamParser()
    frames = [frame for chunk in chunks for frame in parser.feed(chunk)]
    return [*frames, *parser.flush()]


def ended(*chunks: bytes | bytearray) -> tuple[list[Frame], str]:
    """The events, and the error that came after them."""
    parser = EventStreamParser(max_frame_bytes=100_000)
    frames: list[Frame] = []
    try:
        for chunk in chunks:
            frames += parser.feed(bytes(chunk))
        frames += parser.flush()
    except StreamInvalid as error:
        return frames, error.message
    return frames, ""


def test_the_result_does_not_depend_on_the_cut() -> None:
    for cut in range(len(STREAM) + 1):
        assert parsed(STREAM[:cut], STREAM[cut:]) == FRAMES
    assert parsed(*(STREAM[i : i + 1] for i in range(len(STREAM)))) == FRAMES
    assert parsed(b"", STREAM, b"") == FRAMES


def test_a_message_that_is_cut_off_is_dropped() -> None:
    assert parsed(STREAM[:-1]) == FRAMES[:-1]


def test_every_changed_byte_is_noticed_after_what_came_before() -> None:
    for place in range(len(STREAM)):
        damaged = STREAM[:place] + bytes([STREAM[place] ^ 0x10]) + STREAM[place + 1 :]
        parser = EventStreamParser()
        frames: list[Frame] = []
        try:
            frames += parser.feed(damaged)
            assert parser.failure is not None
        except StreamInvalid:
            assert not frames
        assert FRAMES[: len(frames)] == frames
        with pytest.raises(StreamInvalid):
            parser.feed(b"")
        with pytest.raises(StreamInvalid):
            parser.flush()


@settings(max_examples=50)
@given(st.data(), st.integers(0, len(STREAM)), st.integers(0, len(STREAM)))
def test_the_error_does_not_depend_on_the_cut(data: st.DataObject, one: int, other: int) -> None:
    damaged = bytearray(STREAM)
    for _ in range(data.draw(st.integers(1, 3))):
        # Mostly in preludes, whose fields decide what is read next.
        start = data.draw(st.sampled_from(STARTS))
        place = min(start + data.draw(st.integers(0, 30)), len(damaged) - 1)
        damaged[place] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):
            damaged[start + 8 : start + 12] = crc32(damaged[start : start + 8]).to_bytes(4)
    whole = ended(bytes(damaged))
    first, last = sorted((one, other))
    assert ended(damaged[:first], damaged[first:last], damaged[last:]) == whole
    assert ended(*(damaged[at : at + 1] for at in range(len(damaged)))) == whole


def test_a_prelude_is_checked_in_front_of_a_whole_message_too() -> None:
    checked = struct.pack(">III", 18, 0, 7) + b"{}"  # only the checksum of the prelude is wrong
    whole = checked + struct.pack(">I", crc32(checked))
    for chunks in ([whole], [whole[:13], whole[13:]]):
        assert ended(*chunks) == ([], ended(whole[:12])[1])
    assert "checksum of a prelude" in ended(whole)[1]


@settings(max_examples=50)
@given(st.lists(st.binary(max_size=200), max_size=4))
def test_any_bytes_are_read_or_refused(chunks: list[bytes]) -> None:
    parser = EventStreamParser()
    with suppress(StreamInvalid):
        for chunk in chunks:
            parser.feed(chunk)


def test_a_message_that_is_too_large_is_refused_before_it_comes() -> None:
    parser = EventStreamParser(max_frame_bytes=200)
    assert len(parser.feed(message("a", b"x" * 100))) == 1
    with pytest.raises(StreamInvalid, match="more than 200 bytes"):
        parser.feed(message("a", b"x" * 200)[:12])


def test_text_is_not_an_event_stream() -> None:
    with pytest.raises(StreamInvalid, match="checksum"):
        parsed(b"data: {}\n\n" * 2)


@pytest.mark.parametrize("size", [200_000, 1 << 31])
def test_sizes_that_do_not_fit_are_refused(size: int) -> None:
    with pytest.raises(StreamInvalid, match="do not fit together"):
        parsed(framed(b"", b"{}", headers_size=size))


def test_headers_of_all_types() -> None:
    values = [(0, b""), (1, b""), (2, b"1"), (3, b"12"), (4, b"1234"), (5, b"12345678")]
    values += [(6, b"bytes"), (8, b"12345678"), (9, b"1234567890123456")]
    headers = b"".join(header(b"h%d" % kind, kind, value) for kind, value in values)
    headers += header(b":event-type", 7, b"metadata")
    assert parsed(framed(headers, b"{}")) == [(b"metadata", b"{}")]
    assert parsed(framed(b"", b"{}")) == [(b"", b"{}")]


@pytest.mark.parametrize(
    "headers",
    [
        b"\x05ab",
        header(b"a", 10, b"x"),
        header(b"a", 5, b"1234"),
        header(b"a", 7, b"text")[:-1],
        b"\x01a\x07\x00",
        b"\x01",
    ],
)
def test_headers_that_cannot_be_read_are_refused(headers: bytes) -> None:
    with pytest.raises(StreamInvalid, match="headers"):
        parsed(framed(headers, b"{}"))


def test_an_error_without_a_type() -> None:
    headers = header(b":message-type", 7, b"error") + header(b":error-code", 7, b"InternalError")
    headers += header(b":error-message", 7, b"It broke.")
    ((name, data),) = parsed(framed(headers, b""))
    assert name == b"error"
    assert json.loads(data) == {"code": "InternalError", "message": "It broke."}


def test_checksums_of_changed_messages() -> None:
    assert with_checksums(STREAM) == STREAM
    changed = with_checksums(STREAM.replace(b"slow", b"****"))
    assert parsed(changed)[-1] == (b"throttlingException", b'{"message":"****"}')
    empty = struct.pack(">II", 0, 0)
    nothing = empty + struct.pack(">I", crc32(empty)) + b"rest"
    for other in (b"", b"data: {}\n\n" * 9, STREAM[:-5], nothing):
        assert with_checksums(other) == other


def test_many_kinds_of_headers_are_not_kept() -> None:
    kinds = [f"kind{number}" for number in range(100)]
    parser = EventStreamParser()
    frames = parser.feed(b"".join(message(kind, b"") for kind in [*kinds, *kinds]))
    assert [name.decode() for name, _ in frames] == [*kinds, *kinds]
    assert len(parser._known) == 64
