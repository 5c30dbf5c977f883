"""What a provider sent, recorded from the simulator and served again without it."""

import asyncio
import random
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest

import treadle
from treadle.domain.items import FunctionCall, FunctionCallOutput, Item, Reasoning
from treadle.errors import (
    BadRequest,
    ConnectionFailed,
    ModelTimeout,
    NetworkForbidden,
    RateLimited,
    RecordingInvalid,
    StreamIncomplete,
    TestingError,
    TreadleError,
    UnconsumedSteps,
    UnexpectedRequest,
)
from treadle.models.anthropic import AnthropicMessages
from treadle.models.bedrock import Bedrock
from treadle.models.gemini import Gemini
from treadle.models.http import HttpModel, Timeouts
from treadle.models.openai import OpenAIChat, OpenAIResponses
from treadle.models.session import NetworkTransport, transport_for
from treadle.models.transport import HttpRequest, HttpResponse
from treadle.testing import Call, ProviderSimulator, Replay, Text, Turn, record, replay
from treadle.testing.recording.file import decode_recording

pytestmark = pytest.mark.anyio

KEY = "sk-secret-key-0123456789"
NOWHERE = "http://127.0.0.1:9/v1"
Kind = Callable[..., HttpModel]


@pytest.fixture(params=[OpenAIResponses, OpenAIChat, AnthropicMessages, Gemini, Bedrock])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
async def simulator() -> AsyncIterator[ProviderSimulator]:
    async with ProviderSimulator() as simulator:
        yield simulator


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "recorded.jsonl"


@treadle.tool
async def look(at: str) -> str:
    """Looks."""
    return f"nothing at {at}"


def agent_of(kind: Kind, url: str, name: str, **options: object) -> treadle.Agent:
    model = kind(name, api_key=KEY, base_url=url, **options)
    return treadle.Agent(model, tools=[look])


def said(items: list[Item]) -> list[object]:
    """The conversation without the ids, which treadle makes for some items."""
    kept: list[object] = []
    for item in items:
        match item:
            case FunctionCall():
                kept.append((item.name, item.arguments))
            case FunctionCallOutput() | Reasoning() | treadle.Message():
                kept.append((type(item), item.text))
            case _:
                kept.append(item)
    return kept


async def test_a_run_is_the_same_in_a_replay(
    simulator: ProviderSimulator, kind: Kind, file: Path
) -> None:
    name = "sim:calls=2,rounds=2,reasoning=2,deltas=10"
    with record(file):
        recorded = await agent_of(kind, simulator.base_url, name).run("Hi!")
    asked = simulator.statistics().requests
    for chunk in (None, 1, 7, random.Random(5), lambda body: [body]):
        with replay(file, chunk=chunk) as served:
            # Neither the host nor the key matter; no server listens there.
            model = kind(name, api_key="another-key-987654321", base_url=NOWHERE)
            replayed = await treadle.Agent(model, tools=[look]).run("Hi!")
            assert served.remaining == 0
        assert said(list(replayed.history)) == said(list(recorded.history))
        assert replayed.usage == recorded.usage
    assert simulator.statistics().requests == asked == 3


async def test_a_cut_changes_nothing(kind: Kind, file: Path) -> None:
    turn = Turn((Text("Grüße ☕"), Call("look", '{"at": "\\u00fc"}')))
    async with ProviderSimulator([turn, Turn((Text("Ende 👋"),))], seed="s") as simulator:
        with record(file):
            recorded = await agent_of(kind, simulator.base_url, "any").run("Hi!")
    exchanges = decode_recording(file.read_bytes(), file.name)
    longest = max(len(b"".join(exchange.chunks)) for exchange in exchanges)
    model = kind("any", api_key="", base_url=NOWHERE)
    agent = treadle.Agent(model, tools=[look])
    for offset in range(1, longest, 7):  # the tests of the decoders cut at every byte
        with replay(file, chunk=lambda body, at=offset: (body[:at], body[at:])):
            replayed = await agent.run("Hi!")
        assert said(list(replayed.history)) == said(list(recorded.history))


async def test_a_stream_shows_the_same_events(
    simulator: ProviderSimulator, kind: Kind, file: Path
) -> None:
    async def text(agent: treadle.Agent) -> list[str]:
        async with agent.stream("Hi!") as run:
            return [event.delta async for event in run if isinstance(event, treadle.TextDelta)]

    with record(file):
        recorded = await text(agent_of(kind, simulator.base_url, "sim:deltas=9,every=3"))
    with replay(file):
        replayed = await text(agent_of(kind, NOWHERE, "sim:deltas=9,every=3"))
    assert "".join(replayed) == "".join(recorded)
    assert len(replayed) == 9


async def test_a_rate_limit_and_then_an_answer(
    simulator: ProviderSimulator, kind: Kind, file: Path
) -> None:
    name = "sim:fault=429-after=7,times=1"
    with record(file):
        await agent_of(kind, simulator.base_url, name).run("Hi!")
    with replay(file, chunk=3):
        async with agent_of(kind, NOWHERE, name).stream("Hi!") as run:
            events = [event async for event in run]
    (limited,) = [event for event in events if isinstance(event, treadle.RateLimitHit)]
    assert limited.delay >= 7
    assert isinstance(events[-1], treadle.RunCompleted)


FAILURES = ["400", "401", "quota", "error-mid", "cut@400", "end@400", "garbage@3", "500"]


@pytest.mark.parametrize("fault", FAILURES)
@pytest.mark.parametrize("chunk", [None, 1])
async def test_failures_happen_again(
    simulator: ProviderSimulator, kind: Kind, file: Path, fault: str, chunk: int | None
) -> None:
    async def failure(url: str) -> TreadleError:
        agent = treadle.Agent(
            kind(f"sim:deltas=20,fault={fault}", api_key=KEY, base_url=url),
            retry=treadle.RetryPolicy(max_retries=0),
        )
        with pytest.raises(TreadleError) as caught:
            await agent.run("Hi!")
        return caught.value

    with record(file):
        recorded = await failure(simulator.base_url)
    with replay(file, chunk=chunk):
        replayed = await failure(NOWHERE)
    assert type(replayed) is type(recorded)
    assert replayed.message == recorded.message


async def test_silence_is_not_waited_for(
    simulator: ProviderSimulator, kind: Kind, file: Path
) -> None:
    timeouts = Timeouts(first_byte=30, between_chunks=30)

    async def failure(url: str, name: str) -> str:
        model = kind(name, api_key=KEY, base_url=url, timeouts=timeouts)
        with pytest.raises(ModelTimeout) as caught:
            await treadle.Agent(model, retry=treadle.RetryPolicy(max_retries=0)).run("Hi!")
        return caught.value.message

    loop = asyncio.get_running_loop()
    for name in ("sim:deltas=20,fault=stall@500", "sim:first=60000"):
        with record(file):
            recorded = await failure(simulator.base_url, name)
        began = loop.time()
        with replay(file):
            assert await failure(NOWHERE, name) == recorded
        assert loop.time() == began


async def test_an_unreachable_server(kind: Kind, file: Path) -> None:
    agent = treadle.Agent(
        kind("m", api_key=KEY, base_url=NOWHERE), retry=treadle.RetryPolicy(max_retries=0)
    )
    messages: list[str] = []
    for switch in (record, replay):
        with switch(file), pytest.raises(ConnectionFailed) as caught:
            await agent.run("Hi!")
        messages.append(caught.value.message)
    assert messages[0] == messages[1]


async def test_parallel_conversations(simulator: ProviderSimulator, kind: Kind, file: Path) -> None:
    name = "sim:calls=1,rounds=2,every=2"

    async def all_of(url: str, order: list[int]) -> dict[int, list[object]]:
        async def one(n: int) -> list[object]:
            return said(list((await agent_of(kind, url, name).run(f"Number {n}")).history))

        return dict(zip(order, await asyncio.gather(*map(one, order)), strict=True))

    with record(file):
        recorded = await all_of(simulator.base_url, [1, 2, 3, 4])
    with replay(file, chunk=random.Random(1)):
        assert await all_of(NOWHERE, [3, 1, 4, 2]) == recorded


async def test_threads(simulator: ProviderSimulator, kind: Kind, file: Path) -> None:
    name = "sim:calls=1"

    async def talk(url: str, switch: Callable[[Path], object]) -> list[object]:
        agent = agent_of(kind, url, name)
        # The runtime is open already: its tasks see the switch all the same.
        async with treadle.open(agents=[agent]) as runtime:
            thread = await runtime.create_thread(agent)
            with switch(file):  # type: ignore[attr-defined]
                for text in ("One", "Two"):
                    result = await (await thread.send(text)).result()
        return said(list(result.history))

    assert await talk(simulator.base_url, record) == await talk(NOWHERE, replay)


def test_another_thread_of_the_process(file: Path) -> None:
    async def recorded() -> str:
        async with ProviderSimulator() as simulator:
            with record(file):
                agent = agent_of(OpenAIChat, simulator.base_url, "sim:deltas=3")
                return (await agent.run("Hi!")).text

    async def replayed() -> str:
        return (await agent_of(OpenAIChat, NOWHERE, "sim:deltas=3").run("Hi!")).text

    async def elsewhere() -> str:
        with replay(file):
            return await asyncio.to_thread(lambda: asyncio.run(replayed()))

    text = asyncio.run(recorded())
    assert asyncio.run(elsewhere()) == text


async def test_a_request_that_was_not_recorded(
    simulator: ProviderSimulator, kind: Kind, file: Path
) -> None:
    with record(file):
        await agent_of(kind, simulator.base_url, "sim:deltas=3").run("What is the weather?")
    agent = agent_of(kind, NOWHERE, "sim:deltas=3")
    with pytest.raises(UnexpectedRequest) as caught, replay(file):
        await agent.run("What is the weather like?")
    assert 'recorded "What is the weather?", asked "What is the weather like?"' in str(caught.value)
    with (
        pytest.raises(UnexpectedRequest, match='model: recorded "sim:deltas=3", asked "sim:"'),
        replay(file),
    ):
        await agent_of(kind, NOWHERE, "sim:").run("What is the weather?")
    with (
        pytest.raises(UnexpectedRequest, match="has 1 requests, and the model was asked once"),
        replay(file),
    ):
        for _ in range(2):
            await agent.run("What is the weather?")


async def test_recorded_requests_that_are_not_made(
    simulator: ProviderSimulator, kind: Kind, file: Path
) -> None:
    agent = agent_of(kind, simulator.base_url, "sim:deltas=3")
    with record(file):
        await agent.run("One")
        await agent.run("Two")
    with pytest.raises(UnconsumedSteps, match="1 of 2"), replay(file):
        await agent.run("Two")
    with replay(file, partial=True) as served:
        await agent.run("Two")
        assert served.remaining == 1


async def test_a_cancelled_run_is_kept_as_far_as_it_was_read(
    simulator: ProviderSimulator, kind: Kind, file: Path
) -> None:
    async def read(url: str, deltas: int) -> None:
        seen = 0
        async with agent_of(kind, url, "sim:deltas=50,every=5").stream("Hi!") as run:
            async for event in run:
                seen += isinstance(event, treadle.TextDelta)
                if seen == deltas:
                    await run.cancel()

    with record(file):
        await read(simulator.base_url, 5)
    with replay(file):
        await read(NOWHERE, 3)
    with pytest.raises(RecordingInvalid, match="record it again"), replay(file):
        await read(NOWHERE, 50)


async def test_what_the_file_never_holds(kind: Kind, file: Path) -> None:
    password = "pass-word-in-a-header"
    script = [
        Turn((Text(f"Your key is {KEY}, I say.", deltas=1),)),
        Turn((Text(f"And {password}.", deltas=1),)),
    ]
    async with ProviderSimulator(script) as simulator:
        model = kind("any", api_key=KEY, base_url=simulator.base_url)
        settings = treadle.ModelSettings(extra_headers={"X-Proxy-Token": f"Bearer {password}"})
        agent = treadle.Agent(model, settings=settings)
        with record(file):
            await agent.run("What is in my headers?")
            await agent.run("And what else?")
        sent = simulator.requests[0].headers
    data = file.read_bytes()
    exchanges = decode_recording(data, file.name)
    for secret in (KEY, password):
        assert secret.encode() not in data
        assert secret.encode() not in b"".join(exchanges[0].chunks + exchanges[1].chunks)
    keys = {"authorization", "x-api-key", "x-goog-api-key"}
    assert keys & sent.keys()
    for name in (*keys, "x-proxy-token", "127.0.0.1"):
        assert name.encode() not in data.lower()
    with replay(file, partial=True):
        result = await agent.run("What is in my headers?")
    assert result.text == f"Your key is {'*' * len(KEY)}, I say."


async def test_a_conversation_that_holds_the_key(
    simulator: ProviderSimulator, kind: Kind, file: Path
) -> None:
    # The model may repeat it letter by letter, so it could not be found in the file.
    agent = agent_of(kind, simulator.base_url, "sim:deltas=3")
    with pytest.raises(RecordingInvalid, match="holds the API key"), record(file):
        await agent.run(f"My key is {KEY}.")
    assert not file.exists()


async def test_a_file_to_read(simulator: ProviderSimulator, file: Path) -> None:
    with record(file):
        await agent_of(OpenAIChat, simulator.base_url, "sim:deltas=2").run("Hi!")
    lines = [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]
    assert lines[0] == {"type": "recording", "version": 1}
    assert lines[1]["type"] == "request"
    assert lines[1]["path"] == "/chat/completions"
    assert lines[1]["model"] == lines[1]["body"]["model"] == "sim:deltas=2"
    assert lines[2]["status"] == 200
    assert lines[2]["headers"]["content-type"].startswith("text/event-stream")
    assert lines[3]["text"].startswith("data: ")
    assert lines[-1] == {"type": "end", "how": "complete"}


async def test_nothing_to_record(file: Path) -> None:
    with pytest.raises(RecordingInvalid, match="was not written"), record(file):
        pass
    assert not file.exists()


async def test_what_was_recorded_before_an_error_is_kept(
    simulator: ProviderSimulator, kind: Kind, file: Path
) -> None:
    with pytest.raises(BadRequest), record(file):
        await agent_of(kind, simulator.base_url, "sim:fault=400").run("Hi!")
    with pytest.raises(BadRequest), replay(file):
        await agent_of(kind, NOWHERE, "sim:fault=400").run("Hi!")


async def test_a_file_that_cannot_be_written(simulator: ProviderSimulator, tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("in the way")
    with (
        pytest.raises(RecordingInvalid, match="cannot be written"),
        record(tmp_path / "folder" / "file"),
    ):
        await agent_of(OpenAIChat, simulator.base_url, "sim:").run("Hi!")
    with (
        pytest.raises(RecordingInvalid, match=r"cannot be read.*treadle\.testing\.record"),
        replay(tmp_path / "nowhere"),
    ):
        pass


async def test_only_one_at_a_time(simulator: ProviderSimulator, file: Path) -> None:
    with record(file):
        with pytest.raises(TestingError, match="open already"), record(file):
            pass
        await agent_of(OpenAIChat, simulator.base_url, "sim:").run("Hi!")
    with (
        replay(file, partial=True),
        pytest.raises(TestingError, match="open already"),
        replay(file),
    ):
        pass
    assert isinstance(transport_for(None), NetworkTransport)


async def test_a_chunk_has_a_byte(file: Path) -> None:
    with pytest.raises(TestingError, match="at least 1 byte"), replay(file, chunk=0):
        pass


async def test_a_limit_that_stays(simulator: ProviderSimulator, kind: Kind, file: Path) -> None:
    name, retry = "sim:fault=429", treadle.RetryPolicy(max_retries=2)
    for switch, url in ((record, simulator.base_url), (replay, NOWHERE)):
        model = kind(name, api_key=KEY, base_url=url)
        with pytest.raises(RateLimited) as caught, switch(file):
            await treadle.Agent(model, retry=retry).run("Hi!")
        assert caught.value.attempts == 3


async def test_a_cut_in_the_middle_of_seen_text(
    simulator: ProviderSimulator, kind: Kind, file: Path
) -> None:
    for switch, url in ((record, simulator.base_url), (replay, NOWHERE)):
        with switch(file):
            agent = agent_of(kind, url, "sim:deltas=50,every=2,fault=cut@2500")
            async with agent.stream("Hi!") as run:
                with pytest.raises(StreamIncomplete):
                    async for _ in run:
                        pass
    assert decode_recording(file.read_bytes(), "f")[0].end == "broken"


async def test_an_error_before_any_request(file: Path) -> None:
    with pytest.raises(ZeroDivisionError), record(file):
        _ = 1 / 0
    assert not file.exists()


async def test_a_run_that_was_cancelled_before_the_response(
    simulator: ProviderSimulator, kind: Kind, file: Path
) -> None:
    async def ask(url: str) -> None:
        async with asyncio.timeout(5):
            await agent_of(kind, url, "sim:first=60000").run("Hi!")

    with pytest.raises(TimeoutError), record(file):
        await ask(simulator.base_url)
    (exchange,) = decode_recording(file.read_bytes(), "f")
    assert (exchange.status, exchange.end) == (None, "silent")


async def test_a_connection_that_takes_too_long(kind: Kind, file: Path) -> None:
    class Slow:
        async def send(self, request: HttpRequest) -> HttpResponse:
            raise aiohttp.ConnectionTimeoutError

    agent = treadle.Agent(
        kind("m", api_key=KEY, base_url=NOWHERE, transport=Slow()),
        retry=treadle.RetryPolicy(max_retries=0),
    )
    for switch in (record, replay):
        with pytest.raises(ModelTimeout, match=r"Timeouts\.connect"), switch(file):
            await agent.run("Hi!")


async def test_a_server_that_hangs_up(kind: Kind, file: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    agent = treadle.Agent(
        kind("m", api_key="", base_url=url), retry=treadle.RetryPolicy(max_retries=0)
    )
    messages: list[str] = []
    for switch in (record, replay):
        with pytest.raises(ConnectionFailed) as caught, switch(file):
            await agent.run("Hi!")
        messages.append(caught.value.message)
    server.close()
    assert messages[0] == messages[1]


async def test_the_error_of_a_provider_that_falls_silent(kind: Kind, file: Path) -> None:
    async def stall(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 400 No\r\nContent-Length: 99\r\n\r\n{")
        await reader.read()
        writer.close()

    server = await asyncio.start_server(stall, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for switch in (record, replay):
        with pytest.raises(BadRequest, match="HTTP status 400"), switch(file):
            await agent_of(kind, url, "m").run("Hi!")
    server.close()
    assert decode_recording(file.read_bytes(), "f")[0].end == "silent"


def test_a_request_shows_no_headers() -> None:
    request = HttpRequest(
        model="m", path="/p", url="http://h/p", headers={"Authorization": KEY}, body=b"{}"
    )
    assert repr(request) == "HttpRequest(model='m', path='/p')"


async def test_a_request_that_tests_forbid(kind: Kind, file: Path) -> None:
    with pytest.raises(NetworkForbidden), record(file):
        await agent_of(kind, "https://example.org/v1", "m").run("Hi!")
    assert not file.exists()


def test_a_program_that_records_nothing_imports_no_http_client() -> None:
    program = """
import sys, treadle.testing
assert "aiohttp" not in sys.modules
from treadle.testing import Replay, record, replay
assert "aiohttp" in sys.modules
assert not hasattr(treadle.testing, "nothing")
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)


async def test_two_blocks_on_one_thread(
    simulator: ProviderSimulator, kind: Kind, file: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.jsonl"
    agent = agent_of(kind, simulator.base_url, "sim:deltas=3")
    for switch in (record, replay):
        async with treadle.open(agents=[agent]) as runtime:
            thread = await runtime.create_thread(agent)
            with switch(file):
                await (await thread.send("One")).result()
            with switch(other):
                await (await thread.send("Two")).result()
    assert b"Two" not in file.read_bytes()
    assert b"Two" in other.read_bytes()


async def test_a_run_under_way_is_not_replayed(
    simulator: ProviderSimulator, kind: Kind, file: Path
) -> None:
    agent = agent_of(kind, simulator.base_url, "sim:calls=1")
    with record(file):
        await agent.run("Hi!")
    async with agent.stream("Hi!") as run:
        await asyncio.sleep(0)
        with replay(file, partial=True) as served:
            await run.result()
        assert served.remaining == 2


async def test_two_tasks_replay_different_recordings(
    simulator: ProviderSimulator, kind: Kind, tmp_path: Path
) -> None:
    async def ask(number: int, switch: Callable[[Path], object], url: str) -> str:
        with switch(tmp_path / f"{number}.jsonl"):  # type: ignore[attr-defined]
            await asyncio.sleep(0.1)
            agent = agent_of(kind, url, f"sim:deltas={number}")
            return (await agent.run(f"Number {number}")).text

    async def both(switch: Callable[[Path], object], url: str) -> list[str]:
        return await asyncio.gather(*(ask(number, switch, url) for number in (3, 5)))

    assert await both(record, simulator.base_url) == await both(replay, NOWHERE)


async def test_a_replay_is_the_transport_of_a_model(
    simulator: ProviderSimulator, kind: Kind, file: Path
) -> None:
    with record(file):
        recorded = await agent_of(kind, simulator.base_url, "sim:deltas=3").run("Hi!")
    served = Replay(file, chunk=1)
    agent = agent_of(kind, NOWHERE, "sim:deltas=3", transport=served)
    assert (await agent.run("Hi!")).text == recorded.text
    served.require_consumed()


@pytest.fixture
def opened_by_a_fixture(tmp_path: Path) -> Iterator[None]:
    """A recording that exists before the test, replayed during the whole test."""
    file = tmp_path / "before.jsonl"

    async def recorded() -> None:
        async with ProviderSimulator() as simulator:
            with record(file):
                await agent_of(OpenAIChat, simulator.base_url, "sim:deltas=3").run("Hi!")

    asyncio.run(recorded())
    with replay(file):
        yield


async def test_a_replay_opened_by_a_fixture(opened_by_a_fixture: None) -> None:
    await agent_of(OpenAIChat, NOWHERE, "sim:deltas=3").run("Hi!")


@pytest.fixture
async def opened_by_an_async_fixture(
    simulator: ProviderSimulator, tmp_path: Path
) -> AsyncIterator[None]:
    file = tmp_path / "before.jsonl"
    with record(file):
        await agent_of(OpenAIChat, simulator.base_url, "sim:deltas=3").run("Hi!")
    with replay(file):
        yield


async def test_a_replay_opened_by_an_async_fixture(opened_by_an_async_fixture: None) -> None:
    await agent_of(OpenAIChat, NOWHERE, "sim:deltas=3").run("Hi!")


async def test_two_runtimes_with_transports_of_their_own(
    simulator: ProviderSimulator, kind: Kind, file: Path
) -> None:
    class Counting:
        def __init__(self) -> None:
            self.requests: list[HttpRequest] = []

        async def send(self, request: HttpRequest) -> HttpResponse:
            self.requests.append(request)
            return await NetworkTransport().send(request)

    @treadle.tool
    async def look(at: str) -> str:
        """Looks, with the help of a runtime that has no transport."""
        async with treadle.open(agents=[helper]) as inside:
            return await ask(inside, helper)

    async def ask(runtime: treadle.Runtime, agent: treadle.Agent) -> str:
        thread = await runtime.create_thread(agent)
        return (await (await thread.send("Hi!")).result()).text

    counting, own, base = Counting(), Counting(), simulator.base_url
    helper = agent_of(kind, base, "sim:deltas=2")
    agent = treadle.Agent(kind("sim:calls=1", api_key="", base_url=base), tools=[look])
    special = agent_of(kind, base, "sim:deltas=4", transport=own)
    with record(file):
        async with treadle.open(agents=[agent], transport=counting) as runtime:
            await ask(runtime, agent)
            await ask(runtime, special)
        await agent_of(kind, base, "sim:deltas=3").run("Hi!")
    assert [request.model for request in counting.requests] == ["sim:calls=1"] * 2
    assert [request.model for request in own.requests] == ["sim:deltas=4"]
    assert len(decode_recording(file.read_bytes(), file.name)) == 5
    served = Replay(file)
    async with treadle.open(agents=[special], transport=served) as runtime:
        await ask(runtime, helper)
        await ask(runtime, special)
    assert served.remaining == 4
