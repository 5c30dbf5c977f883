"""What all decoders of frames have in common, for each API."""

import itertools
import json
import re
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.domain.items import ProviderItem
from treadle.domain.usage import Usage
from treadle.errors import ModelError, StreamIncomplete, StreamInvalid
from treadle.models.wire.anthropic import AnthropicDecoder
from treadle.models.wire.chat_decoder import ChatDecoder
from treadle.models.wire.converse_decoder import ConverseDecoder
from treadle.models.wire.frame_decoder import FrameDecoder
from treadle.models.wire.gemini_decoder import GeminiDecoder
from treadle.models.wire.responses import ResponsesDecoder
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent
from treadle.streaming.event_stream import with_checksums
from treadle.testing import Call, Reasoning, Text, Turn
from treadle.testing.simulator.envelope import Envelope
from treadle.testing.simulator.frames import Frame
from treadle.testing.simulator.wire.chat_wire import stream_chat
from treadle.testing.simulator.wire.converse_frames import ODD, message
from treadle.testing.simulator.wire.converse_wire import stream_converse
from treadle.testing.simulator.wire.gemini_wire import stream_gemini
from treadle.testing.simulator.wire.messages_wire import stream_messages
from treadle.testing.simulator.wire.responses_wire import stream_responses

DECODERS: dict[str, Callable[[], FrameDecoder]] = {
    "responses": lambda: ResponsesDecoder("p"),
    "chat": lambda: ChatDecoder("p"),
    "messages": lambda: AnthropicDecoder("p"),
    "gemini": lambda: GeminiDecoder("p"),
    "converse": lambda: ConverseDecoder("p"),
}
SSE = ("responses", "chat", "messages")
ENCODERS = {
    "responses": stream_responses,
    "chat": stream_chat,
    "messages": stream_messages,
    "gemini": stream_gemini,
    "converse": stream_converse,
}
TURN = Turn(
    (
        Reasoning("Hm, the weather.", 3),
        Text("Grüße 😀 an alle", 4),
        Call("look", '{"city": "Zürich"}', "c1", 3),
        Call("now", "{}", "c2"),
    )
)
APIS = st.sampled_from(sorted(DECODERS))


def frames_of(api: str) -> list[bytes]:
    envelope = Envelope("r1", "m", 1_700_000_000, Usage(3, 2, requests=1))
    pieces = ENCODERS[api](TURN, envelope)
    return [piece.data for piece in pieces if isinstance(piece, Frame)]


FRAMES = {api: frames_of(api) for api in DECODERS}
DEEP = b"[" * 9000 + b"]" * 9000
BAD_FRAMES = [
    b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"m"}}\n\n',
    b'data: {"type":"error","error":{"type":"overloaded_error","message":"m"}}\n\n',
    b"data: {nope\n\n",
    b"data: \xff\n\n",
    b'error: {"message": "busy", "code": 503}\n\n',
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":"0" x}\n\n',
    b'event: response.output_text.delta\ndata: {"type":"x","output_index":"0" x}\n\n',
    b'event: response.completed\ndata: {"type":"response.completed","zzz":' + DEEP + b"}\n\n",
    b'event: message_start\ndata: {"type":"message_start","zzz":' + DEEP + b"}\n\n",
]
BAD_MESSAGES = [
    message("internalServerException", b'{"message":"m"}', "exception"),
    message("contentBlockDelta", b"{nope"),
    message("metadata", b'{"zzz":' + DEEP + b"}"),
    ODD.damaged,
    b"\0\0\0" + ODD.damaged,
    b"data: {}\n\n",
]
BAD = {api: BAD_MESSAGES if api == "converse" else BAD_FRAMES for api in DECODERS}
NOISE = [b": ping\n\n", b"\n", b": \n\n", b"id: 7\n\n", b"retry: 5\n\n"]
EMPTY = [b"data:\n\n", b"data: \n\n", b"data: null\n\n"]


def shape(events: Iterable[StreamEvent]) -> list[str]:
    """Events with made-up ids replaced by their order of appearance."""
    names: dict[str, int] = {}
    pattern = re.compile(r"(msg|rs|fc|call)_[0-9a-z]{26}")

    def name(found: re.Match[str]) -> str:
        return f"{found[1]}#{names.setdefault(found[0], len(names))}"

    def shown(event: StreamEvent) -> str:
        item = event.item if isinstance(event, ItemFinished) else None
        raw = bytes(item.raw) if isinstance(item, ProviderItem) else b""
        return re.sub("Raw object at 0x[0-9a-f]+", repr(raw).replace("\\", "/"), repr(event))

    return [pattern.sub(name, shown(event)) for event in events]


def outcome(api: str, *chunks: bytes) -> tuple[list[str], str]:
    """The events, and the error that came after them."""
    decoder = DECODERS[api]()
    events: list[StreamEvent] = []
    try:
        for piece in chunks:
            events += decoder.feed(piece)
            if decoder.finished:
                return shape(events), ""
        events += decoder.end()
    except ModelError as error:
        return shape(events), f"{error.code}: {error.message}"
    return shape(events), ""


def cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(at % (len(stream) + 1) for at in cuts), len(stream)]
    return [stream[a:b] for a, b in itertools.pairwise(edges)]


@pytest.mark.parametrize("api", DECODERS)
def test_an_error_frame_in_any_place_hides_nothing(api: str) -> None:
    frames = FRAMES[api]
    bad = BAD[api][0]
    for place in range(len(frames)):
        before = b"".join(frames[:place])
        stream = before + bad + b"".join(frames[place:])
        events, error = outcome(api, stream)
        assert events == shape(DECODERS[api]().feed(before))
        assert error == "server_failed: m"
        assert outcome(api, *frames[:place], bad) == (events, error)


@given(APIS, st.integers(0, 99), st.integers(0, 99), st.lists(st.integers(0), max_size=6))
def test_the_cut_of_the_network_changes_nothing(
    api: str, place: int, kind: int, cuts: list[int]
) -> None:
    frames, bad = FRAMES[api], BAD[api][kind % len(BAD[api])]
    place %= len(frames) + 1
    stream = b"".join([*frames[:place], bad, *frames[place:]])
    whole = outcome(api, stream)
    assert outcome(api, *cut(stream, cuts)) == whole
    if len(stream) < 9000:
        assert outcome(api, *(stream[at : at + 1] for at in range(len(stream)))) == whole


@given(APIS, st.lists(st.tuples(st.integers(0, 99), st.sampled_from(NOISE)), max_size=6))
def test_signs_of_life_change_nothing(api: str, noise: list[tuple[int, bytes]]) -> None:
    frames = list(FRAMES[api])
    for place, ping in noise:
        if api == "converse":
            ping = ODD.unknown
        frames.insert(place % (len(frames) + 1), ping)
    assert outcome(api, *frames) == outcome(api, *FRAMES[api])
    assert outcome(api, b"".join(frames))[1] == ""


@pytest.mark.parametrize("empty", EMPTY)
def test_empty_data_in_any_place_of_chat_changes_nothing(empty: bytes) -> None:
    frames = FRAMES["chat"]
    for place in range(len(frames)):
        noisy = [*frames[:place], empty, *frames[place:]]
        assert outcome("chat", *noisy) == outcome("chat", *frames)


@given(
    APIS,
    st.integers(0, 10_000),
    st.integers(0, 40),
    st.binary(max_size=20)
    | st.sampled_from([b'"', b"{", b"[", b"\\ud83d", b"null", b"1e999", b"\n"]),
    st.lists(st.integers(0), max_size=6),
    st.booleans(),
)
def test_damaged_bytes_end_in_one_way_however_they_are_cut(
    api: str, at: int, removed: int, added: bytes, cuts: list[int], fits: bool
) -> None:
    stream = b"".join(FRAMES[api])
    at %= len(stream)
    stream = stream[:at] + added + stream[at + removed :]
    if api == "converse" and fits:  # else nothing behind the checksums is read
        stream = with_checksums(stream)
    whole = outcome(api, stream)  # raises no error outside the tree
    assert outcome(api, *cut(stream, cuts)) == whole


@pytest.mark.parametrize("api", [*SSE, "converse"])  # Gemini ends with the body
def test_what_follows_the_end_is_not_read(api: str) -> None:
    for bad in (BAD[api][0], BAD[api][-1], b"\xff" * 30, b"x" * 17_000_000):
        events, error = outcome(api, b"".join(FRAMES[api]) + bad)
        assert (events, error) == outcome(api, *FRAMES[api])
        assert not error


@pytest.mark.parametrize("api", DECODERS)
def test_a_document_of_an_error_or_of_something_else(api: str) -> None:
    decoder = DECODERS[api]()
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "too busy"}}
    assert not list(decoder.feed(json.dumps(error).encode()))
    with pytest.raises(ModelError, match="too busy") as caught:
        decoder.end()
    assert caught.value.code == "server_failed"
    decoder = DECODERS[api]()
    decoder.feed(b'{"hello": "world"}')
    with pytest.raises(StreamInvalid, match=r"neither a response nor an error: .*world"):
        decoder.end()


@pytest.mark.parametrize("api", [*SSE, "gemini"])
def test_progress_without_events(api: str) -> None:
    decoder = DECODERS[api]()
    for ping in (b": ping\n\n", b'event: ping\ndata: {"type":"ping"}\n\n', b"\n", b""):
        assert not list(decoder.feed(ping))
        assert not decoder.progressed
    if api != "chat":
        tool = b'{"type":"response.web_search_call.searching"}\n\n'
        for frame in (b"data: " + tool, b"event: response.queued\ndata: " + tool):
            assert not list(decoder.feed(frame))
            assert decoder.progressed


@pytest.mark.parametrize("api", DECODERS)
def test_what_the_last_line_without_its_end_contains_is_read(api: str) -> None:
    stream = b"".join(FRAMES[api])
    for end in (b"\n", b"\n\n"):
        events, error = outcome(api, stream.removesuffix(end))
        assert (error, "ResponseFinished" in events[-1]) == ("", True)
    assert ResponseFinished.__name__ in outcome(api, stream)[0][-1]
    with pytest.raises(StreamIncomplete):
        list(DECODERS[api]().end())
