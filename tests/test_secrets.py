"""No key, password or token is ever shown: looked for wherever something is shown or kept."""

import asyncio
import base64
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

import treadle
from treadle.client import Client
from treadle.errors import ConfigurationError, TreadleError
from treadle.loop.definition import hash_of
from treadle.models.anthropic import AnthropicMessages
from treadle.models.bedrock import Bedrock
from treadle.models.gemini import Gemini
from treadle.models.http import HttpModel, Timeouts
from treadle.models.openai import OpenAIChat, OpenAIResponses
from treadle.testing import Call, ProviderSimulator, Text, Turn, record

pytestmark = pytest.mark.anyio

KEY = "sk-key-0123456789abcdef"
TOKEN = "token-in-a-header-98765"
PASSWORD = "pass-of-the-proxy-4711"
SECRETS = (KEY, TOKEN, PASSWORD)
Kind = Callable[..., HttpModel]
KINDS = [OpenAIResponses, OpenAIChat, AnthropicMessages, Gemini, Bedrock]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """All that is logged, by anybody, at any level, as text and as it came."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record) + repr(vars(record)))

    root, handler = logging.getLogger(), Keep()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield lines
    root.removeHandler(handler)
    root.setLevel(before)


def require_clean(*shown: object) -> None:
    spelled = [
        *SECRETS,
        base64.b64encode(f"me:{PASSWORD}".encode()).decode(),
        KEY[: len(KEY) // 2],
    ]
    for thing in shown:
        text = thing.decode("latin-1") if isinstance(thing, bytes) else str(thing) + repr(thing)
        for secret in spelled:
            assert secret not in text


def shown_of(error: BaseException | None) -> Iterator[object]:
    """The error and all that hangs on to it."""
    if error is None:
        return
    yield error
    yield error.args
    yield vars(error)
    yield "".join(traceback.format_exception(error))
    for other in (error.__cause__, error.__context__):
        if other is not error:
            yield from shown_of(other)


async def failing(model: HttpModel, path: Path) -> None:
    """Lets a run with `model` fail in the foreground and on a thread, and looks everywhere."""
    settings = treadle.ModelSettings(extra_headers={"X-Api-Token": f"Bearer {TOKEN}"})
    agent = treadle.Agent(model, settings=settings, retry=treadle.RetryPolicy(max_retries=1))
    require_clean(model, agent, settings, hash_of(agent))
    events: list[treadle.Event] = []
    with pytest.raises(TreadleError) as caught:
        async with agent.stream("Hi!") as run:
            async for event in run:
                events.append(event)
    require_clean(run, *events, *shown_of(caught.value))
    async with treadle.open(f"sqlite:///{path}/treadle.db", agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        with pytest.raises(TreadleError) as caught:
            await (await thread.send("Hi!")).result()
        require_clean(runtime, thread, await thread.state(), *shown_of(caught.value))
    for file in path.iterdir():
        if file.is_file():
            require_clean(file.read_bytes())


@asynccontextmanager
async def answering(raw: bytes) -> AsyncIterator[str]:
    """A server that answers everything with `raw`, and the address it is at."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def http(status: str, body: bytes, kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


ECHO = msgspec.json.encode(
    {"error": {"message": f"Bad key {KEY}, token {TOKEN}", "code": f"no_{TOKEN}", "type": "x"}}
)


@pytest.mark.parametrize("status", ["401 Unauthorized", "429 Slow down", "500 Oops"])
async def test_a_provider_that_repeats_the_key(
    kind: Kind, tmp_path: Path, logged: list[str], status: str
) -> None:
    async with answering(http(status, ECHO)) as host:
        await failing(kind("m", api_key=KEY, base_url=f"http://{host}/v1"), tmp_path)
    require_clean(*logged)


async def test_a_key_that_the_length_limit_would_cut(
    kind: Kind, tmp_path: Path, logged: list[str]
) -> None:
    body = msgspec.json.encode({"error": {"message": "x" * 985 + KEY}})
    frame = b"event: error\ndata: " + body.replace(b"{", b'{"type":"error",', 1) + b"\n\n"
    for raw in (http("400 No", body), http("200 OK", frame, "text/event-stream")):
        async with answering(raw) as host:
            await failing(kind("m", api_key=KEY, base_url=f"http://{host}/v1"), tmp_path)
    require_clean(*logged)


async def test_a_stream_that_repeats_the_key(kind: Kind, tmp_path: Path, logged: list[str]) -> None:
    body = (
        b"event: error\ndata: "
        + msgspec.json.encode({"type": "error", "message": KEY, **msgspec.json.decode(ECHO)})
        + b"\n\n"
    )
    async with answering(http("200 OK", body, "text/event-stream")) as host:
        await failing(kind("m", api_key=KEY, base_url=f"http://{host}/v1"), tmp_path)
    require_clean(*logged)


@pytest.mark.parametrize("garbage", [b"\x00\xff", b"HTTP/1.1 200", http("200 OK", b"{}")])
async def test_a_server_that_makes_no_sense(
    kind: Kind, tmp_path: Path, logged: list[str], garbage: bytes
) -> None:
    async with answering(garbage) as host:
        model = kind(
            "m", api_key=KEY, base_url=f"http://{host}/v1", timeouts=Timeouts(first_byte=5)
        )
        await failing(model, tmp_path)
    require_clean(*logged)


@pytest.mark.parametrize("answer", [b"", http("407 Who?", b"no"), http("502 Bad", b"no")])
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_proxy_with_a_password(
    kind: Kind, tmp_path: Path, logged: list[str], scheme: str, answer: bytes
) -> None:
    async with answering(answer) as host:
        model = kind(
            "m",
            api_key=KEY,
            base_url=f"{scheme}://127.0.0.1:9/v1",
            proxy=f"http://me:{PASSWORD}@{host}",
        )
        await failing(model, tmp_path)
    require_clean(*logged)


async def test_nobody_there(kind: Kind, tmp_path: Path, logged: list[str]) -> None:
    url = "http://127.0.0.1:9/v1"
    await failing(kind("m", api_key=KEY, base_url=url), tmp_path)
    proxy = f"http://me:{PASSWORD}@127.0.0.1:9"
    await failing(kind("m", api_key=KEY, base_url=url, proxy=proxy), tmp_path)
    require_clean(*logged)


async def test_a_password_in_the_base_url(kind: Kind, tmp_path: Path, logged: list[str]) -> None:
    async with answering(http("401 No", b"{}")) as host:
        url = f"http://me:{PASSWORD}@{host}/v1"
        await failing(kind("m", api_key="", base_url=url), tmp_path)
    require_clean(*logged)


def test_what_is_refused_at_once(kind: Kind) -> None:
    for arguments in (
        {"base_url": f"me:{PASSWORD}@host/v1"},
        {"base_url": f"ftp://me:{PASSWORD}@host/v1"},
        {"base_url": f"http://me:{PASSWORD}@ho\u2100st/v1"},
        {"base_url": f"http://me:{PASSWORD}@[host/v1"},
        {"proxy": f"me:{PASSWORD}@host:1"},
        {"proxy": f"socks5://me:{PASSWORD}@host:1"},
        {"api_key": f"{KEY}\n{KEY}"},
    ):
        with pytest.raises(ConfigurationError) as caught:
            kind("m", **{"api_key": KEY, **arguments})
        require_clean(*shown_of(caught.value))
    for string in (f"chat:m@ftp://me:{PASSWORD}@host", f"nope:m@http://me:{PASSWORD}@host"):
        with pytest.raises(ConfigurationError) as caught:
            treadle.Agent(string)
        require_clean(*shown_of(caught.value))


def test_urls_that_are_refused() -> None:
    url = f"ftp://me:{PASSWORD}@host/v1?key={KEY}"
    for refused in (
        lambda: treadle.open(url),
        lambda: treadle.open(f"postgresql://me:{PASSWORD}/{KEY}@host/x"),
        lambda: treadle.Restate(url),
        lambda: treadle.RemoteMCP(url=url, name="docs"),
        lambda: Client(url),
        lambda: Client(f"me:{PASSWORD}@host"),
        lambda: Client(f"http://me:{PASSWORD}@ho\u2100st/v1"),
    ):
        with pytest.raises(TreadleError) as caught:
            refused()
        require_clean(*shown_of(caught.value))


async def test_the_url_of_a_remote_mcp_server(tmp_path: Path, logged: list[str]) -> None:
    """Its keys are masked where the provider repeats them: in errors, items and progress."""
    url = f"https://mcp.example.com/s/{TOKEN}/mcp?api_key={KEY}"
    remote = treadle.RemoteMCP(url=url, name="docs", needs_approval=False)
    require_clean(remote, hash_of(treadle.Agent("demo", name="a")))
    failed = f"{url} cannot be reached"
    call = {"id": "mcp_1", "type": "mcp_call", "server_label": "docs", "name": "read"}
    call |= {"arguments": "{}", "error": failed, "output": failed}
    listed = {"id": "l", "type": "mcp_list_tools", "server_label": "docs", "error": failed}
    content = [{"type": "output_text", "text": "No.", "annotations": []}]
    said = {"id": "m", "type": "message", "role": "assistant", "content": content}
    output = [listed, call, said]
    events = [
        {"type": "response.output_item.added", "output_index": 1, "item": call},
        *(
            {"type": "response.output_item.done", "output_index": number, "item": item}
            for number, item in enumerate(output)
        ),
        {"type": "response.completed", "response": {"id": "r", "output": output}},
    ]
    body = b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events)
    refused = msgspec.json.encode({"error": {"message": failed}})
    for raw in (http("200 OK", body, "text/event-stream"), http("400 No", refused)):
        async with answering(raw) as host:
            model = OpenAIResponses("m", api_key="k", base_url=f"http://{host}/v1")
            agent = treadle.Agent(model, tools=[remote])
            with record(tmp_path / "r.jsonl"):
                async with treadle.open(f"sqlite:///{tmp_path}/t.db", agents=[agent]) as runtime:
                    thread = await runtime.create_thread(agent)
                    run = await thread.send("Hi!")
                    seen = [event async for event in run.events()]
                    require_clean(*seen, *await thread.history())
        assert "*** cannot be reached" in str(seen)
        for file in tmp_path.iterdir():
            require_clean(file.read_bytes())
    require_clean(*logged)


async def test_recordings(kind: Kind, tmp_path: Path, logged: list[str]) -> None:
    folder = tmp_path / "kept"
    folder.mkdir()
    for raw in (http("401 No", ECHO), http("200 OK", ECHO, "text/event-stream"), b""):
        async with answering(raw) as host:
            with record(tmp_path / "r.jsonl"):
                proxy = f"http://me:{PASSWORD}@{host}"
                model = kind("m", api_key=KEY, base_url=f"http://{host}/v1", proxy=proxy)
                await failing(model, folder)
        require_clean((tmp_path / "r.jsonl").read_bytes())
    require_clean(*logged)


@treadle.tool
async def look() -> str:
    """Looks."""
    raise ValueError("nothing there")


async def test_a_run_that_goes_well(kind: Kind, tmp_path: Path, logged: list[str]) -> None:
    script = [Turn((Call("look"),)), Turn((Text("Hello."),))]
    async with ProviderSimulator(script * 2) as simulator:
        model = kind("m", api_key=KEY, base_url=simulator.base_url)
        settings = treadle.ModelSettings(extra_headers={"X-Api-Token": TOKEN})
        agent = treadle.Agent(model, settings=settings, tools=[look])
        async with agent.stream("Hi!") as run:
            events = [event async for event in run]
        async with treadle.open(f"sqlite:///{tmp_path}/treadle.db", agents=[agent]) as runtime:
            thread = await runtime.create_thread(agent)
            result = await (await thread.send("Hi!")).result()
        require_clean(*events, result, *logged)
    assert any("nothing there" in line for line in logged)
    for file in tmp_path.iterdir():
        require_clean(file.read_bytes())
