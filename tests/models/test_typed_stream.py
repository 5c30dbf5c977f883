"""Typed streams of the provider's own synchronous clients, and of chunks of every kind."""

import asyncio
import itertools
import json
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.domain.events import FieldDelta, ReasoningDelta, TextDelta, ToUserDelta
from treadle.domain.items import FunctionCall
from treadle.domain.usage import Usage
from treadle.errors import ConfigurationError, ServerFailed, StreamIncomplete, StreamInvalid
from treadle.models.typed_stream import StreamFormat, typed_stream
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent
from treadle.streaming.sse import SseParser
from treadle.testing import Call, ProviderSimulator, Reasoning, Text, Turn
from treadle.testing.simulator.envelope import Envelope
from treadle.testing.simulator.frames import Frame
from treadle.testing.simulator.wire.chat_wire import stream_chat
from treadle.testing.simulator.wire.gemini_wire import stream_gemini
from treadle.testing.simulator.wire.messages_wire import stream_messages
from treadle.testing.simulator.wire.responses_wire import stream_responses

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

FORMATS: list[StreamFormat] = ["responses", "chat", "messages", "gemini"]
SAID = "Let me look that up… 😀"
TURN = Turn(
    (
        Reasoning("Hm, the weather."),
        Text("Well, well."),
        Call("look", json.dumps({"to_user": SAID, "city": "Paris"}), "c1"),
        Call("write", json.dumps({"title": "A\nB", "to_user": None}), "c2"),
    )
)
ENCODERS = {
    "responses": stream_responses,
    "chat": stream_chat,
    "messages": stream_messages,
    "gemini": stream_gemini,
}
PATIENCE = 10.0


@pytest.fixture
def anyio_backend() -> str:
    """Threads and sockets live in real time."""
    return "asyncio"


@pytest.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator(lambda _: TURN) as simulator:
        yield simulator


def body(form: str, turn: Turn = TURN) -> bytes:
    envelope = Envelope("r1", "m", 1_700_000_000, Usage(requests=1))
    pieces = ENCODERS[form](turn, envelope)
    return b"".join(piece.data for piece in pieces if isinstance(piece, Frame))


def texts(events: list[StreamEvent]) -> dict[str, Any]:
    found: dict[str, Any] = defaultdict(str)
    for event in events:
        if isinstance(event, TextDelta | ReasoningDelta | ToUserDelta):
            found[type(event).__name__] += event.delta
        elif isinstance(event, FieldDelta):
            found[f"{event.call_id}.{event.field}"] += event.delta
        elif isinstance(event, ItemFinished) and isinstance(event.item, FunctionCall):
            found[event.item.call_id] = json.loads(event.item.arguments)
    return found


EXPECTED = {
    "ReasoningDelta": "Hm, the weather.",
    "TextDelta": "Well, well.",
    "ToUserDelta": SAID,
    "c2.title": "A\nB",
    "c1": {"to_user": SAID, "city": "Paris"},
    "c2": {"title": "A\nB", "to_user": None},
}


def require_all(events: list[StreamEvent]) -> None:
    assert texts(events) == EXPECTED
    assert isinstance(events[-1], ResponseFinished)
    assert events[-1].finish_reason == "stop"


USER = {"role": "user", "content": "hi"}


@pytest.fixture
def clients(simulator: ProviderSimulator) -> Iterator[dict[str, Callable[[], object]]]:
    """A streaming request through each provider's synchronous client."""
    import anthropic
    import openai

    url = simulator.base_url
    with (
        openai.OpenAI(base_url=url, api_key="k", max_retries=0) as sdk,
        anthropic.Anthropic(base_url=url.removesuffix("/v1"), api_key="k", max_retries=0) as claude,
    ):
        request = {"model": "m", "messages": [USER]}
        yield {
            "responses": lambda: sdk.responses.create(model="m", input="hi", stream=True),
            "chat": lambda: sdk.chat.completions.create(**request, stream=True),
            "messages": lambda: claude.messages.create(**request, max_tokens=9, stream=True),
            "helper": lambda: claude.messages.stream(**request, max_tokens=9).__enter__(),
        }


@pytest.mark.parametrize("form", ["responses", "chat", "messages", "helper"])
async def test_the_sync_client_of_the_provider(
    form: StreamFormat, clients: dict[str, Callable[[], object]]
) -> None:
    chunks = await asyncio.to_thread(clients[form])
    of = "messages" if form == "helper" else form
    typed = typed_stream(chunks, of, to_user=True, fields=["title"])  # type: ignore[arg-type]
    require_all([event async for event in typed])


def chunk_kinds(form: str, cuts: list[int]) -> Iterator[list[object]]:
    raw = body(form)
    edges = [0, *sorted(min(cut, len(raw)) for cut in cuts), len(raw)]
    data = [data for _, data in SseParser().feed(raw) if data != b"[DONE]"]
    yield [raw[a:b] for a, b in itertools.pairwise(edges)]
    yield list(data)
    yield [chunk.decode() for chunk in data]
    yield [json.loads(chunk) for chunk in data]


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=15)
@given(st.lists(st.integers(0, 9000), max_size=30), st.integers(1, 5))
def test_chunks_of_every_kind_cut_anywhere(form: StreamFormat, cuts: list[int], limit: int) -> None:
    async def read(chunks: list[object]) -> list[StreamEvent]:
        stream = typed_stream(
            iter(chunks),  # type: ignore[arg-type]
            form,
            to_user="to_user",
            fields=["title"],
            limit=limit,
        )
        return [event async for event in stream]

    for chunks in chunk_kinds(form, cuts):
        require_all(asyncio.run(read(chunks)))


@pytest.mark.parametrize("form", FORMATS)
async def test_without_fields_nothing_is_added(form: StreamFormat) -> None:
    events = [event async for event in typed_stream([body(form)], form)]
    assert texts(events).keys() == {"ReasoningDelta", "TextDelta", "c1", "c2"}


async def test_fields_of_a_text_that_is_an_object() -> None:
    turn = Turn((Text('{"title": "A"}', 3),))
    stream = typed_stream([body("chat", turn)], "chat", fields=["title"])
    assert texts([event async for event in stream])[".title"] == "A"


@pytest.mark.parametrize("form", FORMATS)
async def test_a_stream_that_ends_early_is_incomplete(form: StreamFormat) -> None:
    data = body(form)
    ends: list[BaseException | None] = []
    with pytest.raises(StreamIncomplete):
        async for _ in typed_stream([data[: len(data) // 2]], form, on_end=ends.append):
            pass
    assert isinstance(ends[0], StreamIncomplete)
    with pytest.raises(StreamIncomplete):
        await anext(typed_stream([], form))


async def test_callbacks_at_start_and_end() -> None:
    noted: list[object] = []

    async def start() -> None:
        await asyncio.sleep(0)
        noted.append("start")

    async def end(error: BaseException | None) -> None:
        await asyncio.sleep(0)
        noted.append(error)

    stream = typed_stream([body("chat")], "chat", on_start=start, on_end=end)
    noted += [type(event) async for event in stream]
    assert noted[0] == "start"
    assert noted.count(None) == 1
    assert noted.count("start") == 1
    plain: list[str] = []
    async for _ in typed_stream([body("chat")], "chat", on_start=lambda: plain.append("start")):
        pass
    assert plain == ["start"]


async def test_the_iterators_error_is_raised_at_the_reader() -> None:
    def chunks() -> Iterator[bytes]:
        yield body("chat")[:200]
        raise ConnectionResetError("gone")

    ends: list[BaseException | None] = []
    with pytest.raises(ConnectionResetError, match="gone"):
        async for _ in typed_stream(chunks(), "chat", on_end=ends.append):
            pass
    assert isinstance(ends[0], ConnectionResetError)


async def test_an_error_of_the_provider_in_the_stream() -> None:
    chunk = {"error": {"message": "overloaded", "type": "server_error"}}
    with pytest.raises(ServerFailed, match="overloaded"):
        await anext(typed_stream([chunk], "chat"))


async def test_what_is_no_chunk_and_no_format() -> None:
    with pytest.raises(StreamInvalid, match="A chunk is a int"):
        await anext(typed_stream([1], "chat"))  # type: ignore[list-item]
    with pytest.raises(ConfigurationError, match=r"'x' is not a stream format; use one of 'resp"):
        await anext(typed_stream([], "x"))  # type: ignore[arg-type]


async def test_options_that_cannot_work() -> None:
    with pytest.raises(ConfigurationError, match="at least 1 chunk"):
        await anext(typed_stream([], "chat", limit=0))
    with pytest.raises(ConfigurationError, match=r"list of names: fields=\['title'\]"):
        await anext(typed_stream([], "chat", fields="title"))


@pytest.mark.parametrize("leave", ["close", "cancel"])
async def test_the_iterator_is_closed_when_the_reader_leaves(leave: str) -> None:
    closed = threading.Event()
    frames = [data + b"\n\n" for data in body("chat").split(b"\n\n")]

    def chunks() -> Iterator[bytes]:
        try:
            while True:
                yield frames[0]
                yield frames[1]
        finally:
            closed.set()

    ends: list[BaseException | None] = []
    begun = asyncio.Event()

    async def read() -> None:
        async with aclosing(typed_stream(chunks(), "chat", on_end=ends.append, limit=4)) as stream:
            async for _ in stream:
                begun.set()
                if leave == "close":
                    return
                await asyncio.Event().wait()

    task = asyncio.ensure_future(read())
    await begun.wait()
    if leave == "cancel":
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        await task
    assert await asyncio.to_thread(closed.wait, PATIENCE)
    assert isinstance(ends[0], GeneratorExit | asyncio.CancelledError)
