"""Models over real sockets, against the provider simulator and its faults."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec
import pytest

from treadle import Agent, RetryPolicy, tool
from treadle.domain.events import Retrying, TextDelta
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    Item,
    Message,
    Reasoning,
    user_message,
)
from treadle.domain.schema import ToolSchema
from treadle.domain.settings import ModelSettings
from treadle.errors import (
    AccessDenied,
    BadRequest,
    ConfigurationError,
    ConnectionFailed,
    ContextOverflow,
    MissingKey,
    ModelError,
    ModelTimeout,
    NetworkForbidden,
    QuotaExceeded,
    RateLimited,
    ServerFailed,
    StreamIncomplete,
    StreamInvalid,
    TreadleError,
)
from treadle.models import network
from treadle.models.anthropic import AnthropicMessages
from treadle.models.base import ModelRequest
from treadle.models.bedrock import Bedrock
from treadle.models.gemini import Gemini
from treadle.models.http import HttpModel, Timeouts
from treadle.models.openai import OpenAIChat, OpenAIResponses
from treadle.models.resolve import resolve_model
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent
from treadle.testing import Call, ProviderSimulator, Text, Turn

pytestmark = pytest.mark.anyio

KEY = "sk-secret-key-0123456789"
LOOK = ToolSchema(
    "look",
    "Looks.",
    {
        "type": "object",
        "properties": {"at": {"type": "string"}},
        "required": ["at"],
        "additionalProperties": False,
    },
    strict=True,
)


@tool
async def look(at: str) -> str:
    """Looks."""
    return at


@pytest.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator() as simulator:
        yield simulator


KINDS = [OpenAIResponses, OpenAIChat, AnthropicMessages, Gemini, Bedrock]
Kind = (
    type[OpenAIResponses]
    | type[OpenAIChat]
    | type[AnthropicMessages]
    | type[Gemini]
    | type[Bedrock]
)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


async def collect(
    model: HttpModel, *items: Item, tools: tuple[ToolSchema, ...] = ()
) -> list[StreamEvent]:
    request = ModelRequest(items=items or [user_message("hi")], tools=tools)
    return [event async for event in model.stream(request)]


def text_of(events: list[StreamEvent]) -> str:
    return "".join(event.delta for event in events if isinstance(event, TextDelta))


async def test_a_response_over_http(simulator: ProviderSimulator, kind: Kind) -> None:
    model = kind("sim:deltas=50,reasoning=3", api_key=KEY, base_url=simulator.base_url)
    events = await collect(model)
    items = [event.item for event in events if isinstance(event, ItemFinished)]
    assert [type(item) for item in items] == [Reasoning, Message]
    assert isinstance(items[1], Message)
    assert text_of(events) == items[1].text
    end = events[-1]
    assert isinstance(end, ResponseFinished)
    assert end.usage.requests == 1
    assert end.usage.output_tokens > 0
    assert len([e for e in events if isinstance(e, TextDelta)]) == 50
    assert KEY not in repr(model)


async def test_calls_and_their_outputs_go_round(simulator: ProviderSimulator, kind: Kind) -> None:
    model = kind("sim:calls=3,rounds=1", api_key=KEY, base_url=simulator.base_url)
    first = await collect(model, tools=(LOOK,))
    calls = [e.item for e in first if isinstance(e, ItemFinished)]
    assert [type(call) for call in calls] == [FunctionCall] * 3
    outputs = [FunctionCallOutput(c.call_id, "ok") for c in calls if isinstance(c, FunctionCall)]
    second = await collect(model, user_message("hi"), *calls, *outputs, tools=(LOOK,))
    assert text_of(second)


async def test_a_request_beyond_the_window(simulator: ProviderSimulator, kind: Kind) -> None:
    model = kind("sim:deltas=1,window=300", api_key=KEY, base_url=simulator.base_url)
    assert await collect(model, user_message("short"))
    with pytest.raises(ContextOverflow) as caught:
        await collect(model, user_message("long " * 400))
    assert (caught.value.status, caught.value.retryable) == (400, False)


@pytest.mark.parametrize("fault", ["failed", "error-mid"])
async def test_a_window_that_ends_in_the_stream(simulator: ProviderSimulator, fault: str) -> None:
    scenario = f"sim:deltas=1,fault={fault}@0=context_length_exceeded"
    model = OpenAIResponses(scenario, api_key=KEY, base_url=simulator.base_url)
    with pytest.raises(ContextOverflow):
        await collect(model)


async def test_connections_are_used_again() -> None:
    body = b'data: {"type":"response.completed","response":{"id":"r"}}\n\n'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
    chunks = b"%x\r\n%s\r\n" % (len(body), body)
    connections: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(writer)
        while head_of_request := await reader.readuntil(b"\r\n\r\n"):
            size = int(head_of_request.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(size)
            writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
            await asyncio.sleep(0.001)  # the end of the body comes a little later than the event
            writer.write(b"0\r\n\r\n")

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    model = OpenAIResponses("m", api_key="", base_url=f"http://127.0.0.1:{port}/v1")
    for _ in range(5):
        await collect(model)
    assert len(connections) == 1
    server.close()
    connections[0].close()


# What other providers call the errors that OpenAI gives these codes.
ANTHROPIC_CODES = {
    "rate_limit_exceeded": "rate_limit_error",
    "insufficient_quota": "billing_error",
    "invalid_api_key": "authentication_error",
    "model_not_found": "not_found_error",
    "server_error": "api_error",
}
GOOGLE_CODES = {
    "rate_limit_exceeded": "RESOURCE_EXHAUSTED",
    "insufficient_quota": "RESOURCE_EXHAUSTED",
    "invalid_api_key": "UNAUTHENTICATED",
    "model_not_found": "NOT_FOUND",
    "server_error": "INTERNAL",
}
AWS_CODES = {
    "rate_limit_exceeded": "ThrottlingException",
    "insufficient_quota": "ServiceQuotaExceededException",
    "invalid_api_key": "AccessDeniedException",
    "model_not_found": "ResourceNotFoundException",
    "server_error": "modelStreamErrorException",
}
CODES: dict[Kind, dict[str, str]] = {
    AnthropicMessages: ANTHROPIC_CODES,
    Gemini: GOOGLE_CODES,
    Bedrock: AWS_CODES,
}


@pytest.mark.parametrize(
    ("fault", "error", "code"),
    [
        ("429", RateLimited, "rate_limit_exceeded"),
        ("429-after=7", RateLimited, "rate_limit_exceeded"),
        ("quota", QuotaExceeded, "insufficient_quota"),
        ("400", BadRequest, None),
        ("401", AccessDenied, "invalid_api_key"),
        ("403", AccessDenied, None),
        ("404", BadRequest, "model_not_found"),
        ("500", ServerFailed, None),
        ("503", ServerFailed, None),
        ("529", ServerFailed, None),
        ("413", ContextOverflow, None),
        ("error-mid", ServerFailed, "server_error"),
        ("cut@400", StreamIncomplete, None),
        ("end@400", StreamIncomplete, None),
        ("no-terminal", StreamIncomplete, None),
        ("garbage@3", StreamInvalid, None),
    ],
)
async def test_faults(
    simulator: ProviderSimulator, kind: Kind, fault: str, error: type[ModelError], code: str | None
) -> None:
    model = kind(f"sim:deltas=20,fault={fault}", api_key=KEY, base_url=simulator.base_url)
    with pytest.raises(error) as caught:
        await collect(model)
    if code is not None:
        assert caught.value.provider_code == CODES.get(kind, {}).get(code, code)
    if fault == "429-after=7":
        assert caught.value.retry_after == 7
    assert KEY not in caught.value.message


@pytest.mark.parametrize("fault", ["split-utf8", "one-byte", "crlf", "whole-args", "dup-ids"])
async def test_oddities_that_change_nothing(
    simulator: ProviderSimulator, kind: Kind, fault: str
) -> None:
    model = kind(
        f"sim:deltas=20,calls=2,reasoning=2,fault={fault}", api_key=KEY, base_url=simulator.base_url
    )
    events = await collect(model, tools=(LOOK,))
    calls = [
        event.item
        for event in events
        if isinstance(event, ItemFinished) and isinstance(event.item, FunctionCall)
    ]
    assert len({call.call_id for call in calls}) == 2
    assert all(call.arguments.startswith("{") for call in calls)


@pytest.mark.parametrize("fault", ["no-ids", "merged-calls", "no-finish"])
async def test_oddities_of_chat(simulator: ProviderSimulator, fault: str) -> None:
    model = OpenAIChat(f"sim:calls=2,fault={fault}", api_key="", base_url=simulator.base_url)
    events = await collect(model, tools=(LOOK,))
    calls = [event.item for event in events if isinstance(event, ItemFinished)]
    assert len({call.call_id for call in calls if isinstance(call, FunctionCall)}) == 2


async def test_silence_in_the_middle(simulator: ProviderSimulator, kind: Kind) -> None:
    timeouts = Timeouts(first_byte=5, between_chunks=30)
    model = kind(
        "sim:deltas=20,fault=stall@500", api_key="", base_url=simulator.base_url, timeouts=timeouts
    )
    loop = asyncio.get_running_loop()
    begin = loop.time()
    with pytest.raises(ModelTimeout, match=r"Timeouts\.between_chunks"):
        await collect(model)
    assert 29 <= loop.time() - begin <= 31


async def test_silence_at_the_start(simulator: ProviderSimulator, kind: Kind) -> None:
    timeouts = Timeouts(first_byte=5, between_chunks=30)
    model = kind(
        "sim:deltas=2,first=60000", api_key="", base_url=simulator.base_url, timeouts=timeouts
    )
    with pytest.raises(ModelTimeout, match=r"Timeouts\.first_byte"):
        await collect(model)


async def test_a_slow_consumer_is_no_silent_provider(
    simulator: ProviderSimulator, kind: Kind
) -> None:
    timeouts = Timeouts(first_byte=5, between_chunks=5)
    model = kind(
        "sim:deltas=5,every=1000", api_key="", base_url=simulator.base_url, timeouts=timeouts
    )
    request = ModelRequest(items=[user_message("hi")])
    deltas = 0
    async for event in model.stream(request):
        await asyncio.sleep(60)
        deltas += isinstance(event, TextDelta)
    assert deltas == 5


async def live(
    model: type[HttpModel], timeouts: Timeouts, *pieces: bytes | float, repeat: bytes = b""
) -> tuple[list[StreamEvent], float]:
    """What a model makes of pieces of a body and pauses, and how long it takes.

    `repeat` is sent each second afterwards, until the client leaves.
    """
    serving: list[asyncio.Task[object]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.append(task)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        with suppress(asyncio.CancelledError):
            for piece in pieces:
                if isinstance(piece, float):
                    await asyncio.sleep(piece)
                else:
                    writer.write(piece)
            while repeat and not writer.is_closing():
                writer.write(repeat)
                await asyncio.sleep(1)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    loop = asyncio.get_running_loop()
    begin = loop.time()
    try:
        events = await collect(model("m", api_key="", base_url=url, timeouts=timeouts))
        return events, loop.time() - begin
    finally:
        times.append(loop.time() - begin)
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)


times: list[float] = []
EMPTY = b'data: {"choices":[{"delta":{"content":""}}]}\n\n'
HELLO = b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
STOP = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\n'
PINGS = [
    (OpenAIChat, b": keep-alive\n\n"),
    (OpenAIChat, b"\n"),
    (OpenAIChat, EMPTY),
    (OpenAIResponses, b'event: keepalive\ndata: {"type":"keepalive"}\n\n'),
    (AnthropicMessages, b'event: ping\ndata: {"type": "ping"}\n\n'),
    (AnthropicMessages, b'data: {"type": "ping"}\n\n'),
]


@pytest.mark.parametrize(("model", "ping"), PINGS)
async def test_signs_of_life_are_no_content(model: type[HttpModel], ping: bytes) -> None:
    for timeouts, limit in ((Timeouts(content=30), 30), (Timeouts(), 600)):
        says = rf"no content for {limit} s.*Timeouts\.content"
        with pytest.raises(ModelTimeout, match=says) as caught:
            await live(model, timeouts, repeat=ping)
        assert limit - 1 <= times[-1] <= limit + 2
        assert (caught.value.retryable, caught.value.retry_once) == (True, True)


async def test_content_and_progress_end_the_wait_for_content() -> None:
    timeouts = Timeouts(content=30)
    waits = [b": ping\n\n", 20.0, b": ping\n\n", 9.0]
    events, took = await live(OpenAIChat, timeouts, *waits, HELLO, *waits, HELLO, STOP)
    assert (text_of(events), 57 < took < 60) == ("hihi", True)
    tool = b'event: response.web_search_call.searching\ndata: {"type":"x"}\n\n'
    done = b'data: {"type":"response.completed","response":{"id":"r"}}\n\n'
    events, took = await live(OpenAIResponses, timeouts, tool, 20.0, tool, 20.0, tool, 20.0, done)
    assert 60 <= took < 61


async def test_each_wait_has_its_own_limit() -> None:
    timeouts = Timeouts(first_byte=100, between_chunks=10)
    with pytest.raises(ModelTimeout, match=r"nothing for 10 s.*Timeouts\.between_chunks"):
        await live(OpenAIChat, timeouts, 50.0, HELLO, 90.0)
    assert 59 <= times[-1] <= 61


async def test_a_slow_consumer_does_not_use_up_the_wait_for_content() -> None:
    async with ProviderSimulator() as simulator:
        timeouts = Timeouts(content=5)
        name = "sim:deltas=3,every=1000,fault=comments"
        model = OpenAIChat(name, api_key="", base_url=simulator.base_url, timeouts=timeouts)
        deltas = 0
        async for event in model.stream(ModelRequest(items=[user_message("hi")])):
            await asyncio.sleep(60)
            deltas += isinstance(event, TextDelta)
    assert deltas == 3


async def test_bytes_without_content_are_bounded_after_decompression() -> None:
    body = gzip.compress(b": padding\n\n" * 50_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n\r\n"
    timeouts = Timeouts(max_idle_bytes=200_000)
    assert len(body) < 10_000
    with pytest.raises(StreamInvalid, match=r"bytes without content.*Timeouts\.max_idle_bytes"):
        await answer(head + body, OpenAIChat, timeouts=timeouts)


@pytest.mark.parametrize("ping", [b"", b": ping\n\n", EMPTY])
@pytest.mark.parametrize("silence", [[], [100.0]])
async def test_a_response_is_complete_without_its_last_frame(
    ping: bytes, silence: list[float]
) -> None:
    events, took = await live(OpenAIChat, Timeouts(), HELLO, STOP, *silence, repeat=ping)
    assert text_of(events) == "hi"
    assert isinstance(events[-1], ResponseFinished)
    assert took < 7


async def test_an_answer_that_goes_on_after_its_end_is_not_cut_off() -> None:
    each = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
    events, took = await live(OpenAIChat, Timeouts(), *[each, 4.0] * 5, b"data: [DONE]\n\n")
    assert (text_of(events), took >= 20) == ("aaaaa", True)


async def test_a_connection_that_was_closed_in_the_pool_is_replaced_at_once(kind: Kind) -> None:
    async with ProviderSimulator() as simulator:
        name = "sim:deltas=3,calls=1,fault=close"
        agent = Agent(
            kind(name, api_key="", base_url=simulator.base_url),
            tools=[look],
            retry=RetryPolicy(max_retries=0),
        )
        for _ in range(10):
            async with agent.stream("hi") as run:
                events = [event async for event in run]
            assert not [event for event in events if isinstance(event, Retrying)]
        assert simulator.statistics().requests == 20


async def test_a_new_connection_that_breaks_is_not_replaced() -> None:
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(b"\r\n\r\n")
        requests += 1
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1 broke: Server disconnected"):
        await collect(OpenAIChat("m", api_key="", base_url=f"http://127.0.0.1:{port}"))
    assert requests == 1
    server.close()


async def test_an_answer_that_cannot_be_read_is_requested_once_more() -> None:
    async with ProviderSimulator() as simulator:
        name = "sim:deltas=9,fault=garbage@0"
        agent = Agent(OpenAIChat(name, api_key="", base_url=simulator.base_url))
        with pytest.raises(StreamInvalid):
            await agent.run("hi")
        assert simulator.statistics().requests == 2


async def test_invalid_http_says_so() -> None:
    with pytest.raises(
        ConnectionFailed, match=r"answered with invalid HTTP: .* base URL"
    ) as caught:
        await answer(b"SSH-2.0-OpenSSH\r\n" + b"x" * 20_000)
    assert len(caught.value.message) < 500


async def test_an_unreachable_proxy_is_named() -> None:
    model = OpenAIChat(
        "m", api_key=KEY, base_url="http://127.0.0.1:8/v1", proxy="http://me:pass@127.0.0.1:9"
    )
    with pytest.raises(ConnectionFailed, match="No connection to the proxy") as caught:
        await collect(model)
    assert "pass" not in caught.value.message


async def test_an_unreachable_host() -> None:
    model = OpenAIResponses("m", api_key=KEY, base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1"):
        await collect(model)


async def test_what_is_no_event_stream(simulator: ProviderSimulator) -> None:
    other = simulator.base_url.removesuffix("/v1")
    with pytest.raises(BadRequest):
        await collect(OpenAIResponses("m", api_key="", base_url=f"{other}/nowhere"))


async def test_options_of_compatible_servers(kind: Kind) -> None:
    async with ProviderSimulator([Turn((Text("ok"),))]) as simulator:
        model = kind("any", api_key=KEY, base_url=simulator.base_url)
        settings = ModelSettings(extra_body={"seed": 5}, extra_headers={"X-Team": "blue"})
        request = ModelRequest(items=[user_message("hi")], settings=settings)
        async for _ in model.stream(request):
            pass
        (received,) = simulator.requests
        assert received.body["seed"] == 5
        assert received.headers["x-team"] == "blue"


async def test_how_anthropic_is_addressed() -> None:
    async with ProviderSimulator([Turn((Text("ok"),))] * 2) as simulator:
        for url in (simulator.base_url, simulator.base_url.removesuffix("/v1") + "/"):
            await collect(AnthropicMessages("any", api_key=KEY, base_url=url))
        first, second = simulator.requests
    assert first.path == second.path == "/v1/messages"
    assert first.headers["x-api-key"] == "***"
    assert first.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in first.headers


async def test_how_gemini_is_addressed() -> None:
    async with ProviderSimulator([Turn((Text("ok"),))] * 3) as simulator:
        root = simulator.base_url.removesuffix("/v1")
        for url in (simulator.base_url, f"{root}/", f"{root}?x=1"):
            await collect(Gemini("a b", api_key=KEY, base_url=url))
        paths = [request.path for request in simulator.requests]
        headers = simulator.requests[0].headers
    assert paths == [f"/{v}/models/a b:streamGenerateContent" for v in ("v1", "v1beta", "v1beta")]
    assert headers["x-goog-api-key"] == "***"
    assert "authorization" not in headers


async def test_signatures_go_back_as_they_came() -> None:
    # The simulator refuses a signature that it did not write.
    async with ProviderSimulator() as simulator:
        model = Gemini("sim:calls=2,rounds=2", api_key=KEY, base_url=simulator.base_url)
        history: list[Item] = [user_message("hi")]
        for _ in range(3):
            events = await collect(model, *history, tools=(LOOK,))
            items = [event.item for event in events if isinstance(event, ItemFinished)]
            calls = [item for item in items if isinstance(item, FunctionCall)]
            history += [*items, *(FunctionCallOutput(call.call_id, "ok") for call in calls)]
        sent = msgspec.json.encode(simulator.requests[-1].body["contents"])
    assert text_of(events)
    assert sent.count(b"thoughtSignature") == 2
    assert b"skip_thought" not in sent


async def test_thinking_goes_back_as_it_came() -> None:
    # The simulator refuses a signature that it did not write.
    async with ProviderSimulator() as simulator:
        model = AnthropicMessages(
            "sim:calls=2,reasoning=3", api_key=KEY, base_url=simulator.base_url
        )
        first = await collect(model, tools=(LOOK,))
        items = [event.item for event in first if isinstance(event, ItemFinished)]
        calls = [item for item in items if isinstance(item, FunctionCall)]
        outputs = [FunctionCallOutput(call.call_id, "ok", is_error=True) for call in calls]
        second = await collect(model, user_message("hi"), *items, *outputs, tools=(LOOK,))
        sent = simulator.requests[1].body["messages"]
    assert text_of(second)
    assert isinstance(sent, list)
    assert [block["type"] for block in sent[1]["content"]] == ["thinking", "tool_use", "tool_use"]


async def test_a_conversation_goes_on_with_another_provider() -> None:
    kinds = (AnthropicMessages, OpenAIResponses, OpenAIChat, Gemini, AnthropicMessages, Gemini)
    history: list[Item] = []
    async with ProviderSimulator() as simulator:
        for kind in kinds:
            model = kind("sim:calls=2,reasoning=2", api_key=KEY, base_url=simulator.base_url)
            history.append(user_message("hi"))
            events = await collect(model, *history, tools=(LOOK,))
            items = [event.item for event in events if isinstance(event, ItemFinished)]
            calls = [item for item in items if isinstance(item, FunctionCall)]
            history += [*items, *(FunctionCallOutput(call.call_id, "ok") for call in calls)]
        assert simulator.statistics().rejected == 0
        _, responses, chat, gemini, messages, again = [r.body for r in simulator.requests]
    foreign = [responses["input"], chat["messages"], gemini["contents"]]
    assert b"thinking" not in msgspec.json.encode(foreign)
    assert msgspec.json.encode(messages["messages"]).count(b'"type":"thinking"') == 1
    assert msgspec.json.encode(again["contents"]).count(b"skip_thought_signature_validator") == 4
    assert len(history) == 6 * 6


async def test_invalid_calls_arrive_as_they_were_written(kind: Kind) -> None:
    async with ProviderSimulator([Turn((Call("look", '{"at": nowhere}'),))]) as simulator:
        model = kind("any", api_key="", base_url=simulator.base_url)
        if kind is Gemini:  # it sends objects, and reports what it cannot parse
            with pytest.raises(ServerFailed, match="MALFORMED_FUNCTION_CALL"):
                await collect(model, tools=(LOOK,))
            return
        events = await collect(model, tools=(LOOK,))
    (call,) = [event.item for event in events if isinstance(event, ItemFinished)]
    assert isinstance(call, FunctionCall)
    assert call.arguments == '{"at": nowhere}'


async def test_the_network_is_forbidden_in_tests() -> None:
    for url in ("https://api.openai.com/v1", "http://10.0.0.1/v1"):
        with pytest.raises(NetworkForbidden):
            await collect(OpenAIResponses("gpt-5", api_key=KEY, base_url=url))


@pytest.mark.parametrize("url", ["", "localhost", "ftp://x/y", "http:///v1"])
def test_a_base_url_must_be_one(url: str) -> None:
    with pytest.raises(ConfigurationError, match="base URL"):
        OpenAIResponses("m", api_key="", base_url=url)


@pytest.mark.parametrize("key", ["a\nb", "schlüssel"])
def test_a_key_must_be_printable(key: str) -> None:
    with pytest.raises(MissingKey) as caught:
        OpenAIResponses("m", api_key=key)
    assert key not in str(caught.value)


def test_errors_are_of_one_tree() -> None:
    assert issubclass(ModelError, TreadleError)


async def answer(
    raw: bytes, model: type[HttpModel] = OpenAIResponses, timeouts: Timeouts | None = None
) -> list[StreamEvent]:
    """What a model makes of the raw bytes of an HTTP response."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        url = f"http://127.0.0.1:{port}/v1"
        return await collect(model("m", api_key=KEY, base_url=url, timeouts=timeouts))
    finally:
        server.close()


def http(status: str, body: bytes, *, kind: str = "application/json", size: int = 0) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {size or len(body)}"
    return head.encode() + b"\r\n\r\n" + body


async def test_an_answer_that_is_no_stream() -> None:
    with pytest.raises(StreamInvalid, match="text/html instead of an event stream"):
        await answer(http("200 OK", b"<html>", kind="text/html"))
    with pytest.raises(StreamInvalid, match="neither a response nor an error"):
        await answer(http("200 OK", b"{}"))
    with pytest.raises(ServerFailed, match="busy"):
        await answer(http("200 OK", b'{"error": {"message": "busy", "code": 503}}'))


async def test_an_answer_that_is_one_document(simulator: ProviderSimulator) -> None:
    name = "sim:deltas=5,calls=1,fault=json"
    model = OpenAIChat(name, api_key="", base_url=simulator.base_url)
    events = await collect(model, tools=(LOOK,))
    (call,) = [event.item for event in events if isinstance(event, ItemFinished)]
    assert isinstance(call, FunctionCall)
    whole = OpenAIChat("sim:deltas=5,fault=json", api_key="", base_url=simulator.base_url)
    assert text_of(await collect(whole))


async def test_a_key_in_an_error_is_hidden() -> None:
    body = b'{"error": {"message": "Incorrect API key provided: %s."}}' % KEY.encode()
    with pytest.raises(BadRequest) as caught:
        await answer(http("401 Unauthorized", body))
    assert caught.value.message == "Incorrect API key provided: ***."
    assert KEY not in str(caught.value)


async def test_an_error_whose_body_breaks_off() -> None:
    with pytest.raises(ServerFailed, match="HTTP status 500"):
        await answer(http("500 Oops", b'{"err', size=500))


async def test_redirects_are_not_followed() -> None:
    with pytest.raises(BadRequest, match="307"):
        await answer(
            b"HTTP/1.1 307 Go\r\nLocation: http://127.0.0.1:9/\r\nContent-Length: 0\r\n\r\n"
        )


async def test_a_connection_that_breaks_after_the_end_has_lost_nothing() -> None:
    body = b'data: {"choices":[{"delta":{"content":"hi"},"finish_reason":"stop"}]}\n\n'
    events = await answer(http("200 OK", body, kind="text/event-stream", size=999), OpenAIChat)
    assert text_of(events) == "hi"
    assert isinstance(events[-1], ResponseFinished)


async def test_a_body_that_never_ends_after_its_terminal_event() -> None:
    body = b'data: {"type":"response.completed","response":{"id":"r"}}\n\n'
    events = await answer(http("200 OK", body, kind="text/event-stream", size=999))
    assert isinstance(events[-1], ResponseFinished)


async def test_a_server_that_hangs_up_at_once() -> None:
    with pytest.raises(ConnectionFailed):
        await answer(b"")


@pytest.mark.parametrize("host", ["localhost", "::1", "127.0.0.9"])
def test_this_machine_is_allowed(host: str) -> None:
    network.require_allowed(host)
    with pytest.raises(NetworkForbidden):
        network.require_allowed("example.org")


async def test_an_error_in_pieces_is_read_whole() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for piece in (http("400 No", b'{"error": "read ', size=26), b"me whole", b'"}'):
            await asyncio.sleep(0.01)
            writer.write(piece)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with pytest.raises(BadRequest, match=r"^read me whole$"):
        await collect(OpenAIResponses("m", api_key=KEY, base_url=f"http://127.0.0.1:{port}"))
    server.close()


def test_a_password_in_a_url_is_not_shown() -> None:
    model = OpenAIResponses("m", api_key="", base_url="https://me:pass@host/v1?key=abc")
    assert "url='https://***@host/v1/responses'" in repr(model)
    for url, key in (
        ("ftp://me:pass@host", ""),
        ("me:pass@host/v1", ""),
        ("http://me:pass@host", KEY),
    ):
        with pytest.raises(ConfigurationError) as caught:
            OpenAIResponses("m", api_key=key, base_url=url)
        assert "pass" not in caught.value.message
    with pytest.raises(TreadleError) as caught:
        resolve_model("other:m@https://me:pass@host/v1")
    assert caught.value.message.startswith("'other:m@https://***@host/v1' is not a model name")
