"""A client of a server: broken connections, errors, keys, outputs and the desk."""

import asyncio
import itertools
import socket
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from tests.client.proxy import cutting
from tests.server.serving import serving

from treadle import Agent, Message, Runtime, TextDelta, ThreadView, tool
from treadle.client import Client, RemoteRun, RemoteThread
from treadle.domain.events import RunRequiresAction
from treadle.errors import (
    ConfigurationError,
    Conflict,
    InvalidInput,
    JournalClosed,
    NotAuthenticated,
    OptionNotAllowed,
    RequestFailed,
    RunInProgress,
    RunNotFound,
    RunTimeout,
    ScopeMissing,
    ServerUnreachable,
    ThreadNotFound,
    UnknownAgent,
    UnknownFile,
    UnknownToolCall,
)
from treadle.journal.memory import MemoryJournal
from treadle.server import Keys, ServerSettings, new_key
from treadle.testing import Call, Pause, ScriptedModel, Text, Turn

pytestmark = pytest.mark.anyio

TEXT = "The quick brown fox jumps over the lazy dog, grün 🌱. " * 4


@tool(needs_approval=True)
async def pay(amount: int) -> str:
    """Pays."""
    return f"paid {amount}"


def slow(*texts: str) -> Agent:
    turns = [Turn((Text(text),), every=0.05) for text in texts]
    return Agent(ScriptedModel(turns), name="slow")


@asynccontextmanager
async def remote(*agents: Agent, known: bool = True, **options: Any) -> Any:
    """Opens a client of a server of agents in memory."""
    async with (
        serving(Runtime(MemoryJournal(), agents=agents)) as served,
        Client(
            str(served.http.base_url), key="", agents=agents if known else (), **options
        ) as client,
    ):
        yield client


async def text_of(run: RemoteRun) -> str:
    return "".join([text async for text in run.text_stream()])


@pytest.mark.parametrize("size", [1, 173, 611, 1999])
async def test_a_text_is_exact_however_often_the_connection_breaks(size: int) -> None:
    async with remote(slow(TEXT)) as direct:
        thread = await direct.create_thread("slow")
        run = await thread.send("go")
        # Some connections get less than the head of an answer, others some events.
        sizes = itertools.cycle([size, 900 + size, 2500])
        async with (
            cutting(direct.url, lambda: next(sizes)) as proxy,
            Client(direct.url, key="") as client,
        ):
            client._connection.url = proxy.url  # entering is tried once
            broken = RemoteRun(run.id, thread.id, client._connection, client._known.agent_of)
            assert await text_of(broken) == TEXT
            seen = client._thread(thread.id).subscribe()
            deltas, seqs = "", list[int]()
            async for event in seen:
                deltas += event.delta if type(event) is TextDelta else ""
                seqs += [event.seq] if hasattr(event, "seq") else []
                if event.type == "run.completed":
                    break
            await seen.aclose()
            assert deltas == TEXT
            assert seqs == list(range(1, len(seqs) + 1))


async def test_a_subscription_begins_with_the_present_state() -> None:
    async with remote(slow("Before.", TEXT)) as client:
        thread = await client.create_thread("slow")
        await (await thread.send("1")).result()
        await thread.send("2")
        async with thread.subscribe(after="state") as events:
            view = await anext(events)
            assert isinstance(view, ThreadView)
            assert view.thread.id == thread.id
            assert view.position == events.position
            deltas = ""
            async for event in events:
                deltas += event.delta if type(event) is TextDelta else ""
                if event.type == "run.completed":
                    break
        assert deltas == TEXT
        texts = [item.text for item in view.items if isinstance(item, Message)]
        assert texts == ["1", "Before.", "2"]


async def test_a_message_whose_answer_is_lost_is_sent_once() -> None:
    async with remote(slow("One.", "Two.")) as direct:
        thread = await direct.create_thread("slow")
        sizes = iter([0, 10, 100])
        async with (
            cutting(direct.url, lambda: next(sizes, None)) as proxy,
            Client(direct.url, key="") as client,
        ):
            client._connection.url = proxy.url
            run = await client._thread(thread.id).send("go")
            assert await run.text() == "One."
            assert sum(b"POST" in one for one in proxy.requests) == 4
        assert len(await thread.runs()) == 1
        assert len(await thread.history()) == 2


async def test_what_would_happen_twice_is_not_repeated() -> None:
    async with remote(slow("One.")) as direct:
        thread = await direct.create_thread("slow")
        async with (
            cutting(direct.url, lambda: 0) as proxy,
            Client(direct.url, key="") as client,
        ):
            client._connection.url = proxy.url
            for doing in (client.create_thread("slow"), client._thread(thread.id).fork()):
                with pytest.raises(ServerUnreachable):
                    await doing
            assert sum(b"POST" in one for one in proxy.requests) == 2


async def test_a_server_that_is_away(free_port: int) -> None:
    url = f"http://127.0.0.1:{free_port}"
    clock = asyncio.get_running_loop().time
    began = clock()
    with pytest.raises(ServerUnreachable, match="treadle serve") as caught:
        async with Client(url, key="tk_secret"):
            pass
    assert clock() == began
    assert caught.value.retryable
    assert "secret" not in str(caught.value) + repr(caught.value.__cause__)
    client = Client(url, key="", retry_seconds=20)
    client._connection.open()
    try:
        for doing in (client.threads(), anext(client._thread("thread_x").subscribe())):
            began = clock()
            with pytest.raises(ServerUnreachable):
                await doing
            assert 5 < clock() - began <= 20
    finally:
        await client.shutdown()


async def test_a_server_that_comes_back_meanwhile(free_port: int) -> None:
    runtime = Runtime(MemoryJournal(), agents=[slow("One.")])
    client = Client(f"http://127.0.0.1:{free_port}", key="")
    client._connection.open()
    asked = asyncio.ensure_future(client.create_thread("slow"))
    await asyncio.sleep(3)
    async with serving(runtime) as served:
        client._connection.url = str(served.http.base_url).rstrip("/")
        run = await (await asked).send("go")
        assert await run.text() == "One."
        await client.shutdown()


@pytest.fixture
def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\ncontent-type: text/html\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-type: application/json\r\n\r\n{}",
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
    ],
)
async def test_what_is_not_a_treadle_server(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        with suppress(OSError):
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(RequestFailed) as caught:
            async with Client(url, key="tk_secret"):
                pass
        assert not isinstance(caught.value, ServerUnreachable)
        server.close()


async def test_a_server_that_does_not_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(ServerUnreachable, match="no answer in time"):
            async with Client(url, key="", timeout=2):
                pass
        server.close()


@pytest.mark.parametrize(
    "url",
    ["", "localhost:8000", "ftp://x", "http://", "http://u:secret@x", "http://x?key=secret",
     "http://x#key=secret", "http://x:99999"],
)  # fmt: skip
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Client(url)
    assert "secret" not in str(caught.value)


def test_arguments_that_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for given in ({"timeout": 0}, {"retry_seconds": -1}, {"key": "a\nb"}, {"key": "ä"}):
        with pytest.raises(ConfigurationError):
            Client("http://x", **given)
    with pytest.raises(ConfigurationError, match=r"agents=\[agent\]"):
        Client("http://x", agents=["demo"])  # type: ignore[list-item]
    monkeypatch.setenv("TREADLE_URL", "http://example.com/agents/")
    monkeypatch.setenv("TREADLE_KEY", "tk_secret")
    client = Client()
    assert client.url == "http://example.com/agents"
    assert "secret" not in f"{client!r} {client._connection!r} {client._thread('x')!r}"


async def test_keys_and_scopes() -> None:
    full, one = new_key(owner="ann")
    reading, other = new_key(owner="ann", scopes=["read"])
    foreign, third = new_key(owner="bob")
    runtime = Runtime(MemoryJournal(), agents=[slow("One.")])
    settings = ServerSettings(access_log=False)
    async with serving(runtime, settings, keys=Keys(None, [one, other, third])) as served:
        url = str(served.http.base_url)
        for key in ("", "tk_wrong"):
            with pytest.raises(NotAuthenticated) as caught:
                async with Client(url, key=key):
                    pass
            assert caught.value.status == 401
        async with (
            Client(url, key=full) as ann,
            Client(url, key=reading) as reader,
            Client(url, key=foreign) as bob,
        ):
            assert (ann.owner, reader.scopes) == ("ann", ("read",))
            thread = await ann.create_thread("slow")
            with pytest.raises(ScopeMissing, match="write"):
                await (await reader.connect(thread.id)).send("no")
            run = await thread.send("go")
            assert await (await reader.run(run.id)).text() == "One."
            for doing in (
                bob.connect(thread.id),
                bob._thread(thread.id).history(),
                anext(bob._thread(thread.id).subscribe()),
            ):
                with pytest.raises(ThreadNotFound):
                    await doing
            with pytest.raises(RunNotFound):
                await bob.run(run.id)
            assert list(await bob.threads()) == []


async def test_errors_have_their_classes() -> None:
    agent = Agent(ScriptedModel([[Pause(60), Text("One.")]]), name="a")
    async with remote(agent) as client:
        thread = await client.create_thread("a")
        run = await thread.send("go", key="k")
        with pytest.raises(RunInProgress) as busy:
            await thread.send("no", on_busy="reject")
        assert busy.value.run_id == run.id
        with pytest.raises(Conflict):
            await thread.send("other", key="k")
        with pytest.raises(OptionNotAllowed):
            await thread.send("go", instructions="Rob a bank.")
        with pytest.raises(UnknownAgent):
            await client.create_thread("b")
        with pytest.raises(UnknownToolCall):
            await thread.approve("call/../x")
        with pytest.raises(InvalidInput):
            await thread.send("")
        with pytest.raises(InvalidInput):
            await anext(thread.subscribe(99))
        with pytest.raises(RunTimeout):
            await run.result(timeout=5)
        with pytest.raises(RunTimeout):
            await run.text(timeout=40)


@pytest.mark.parametrize(
    "id", ["", ".", "..", "../agents", "a/../../me", "x?y=1", "x#y", "ä", "%2e"]
)
async def test_no_id_leads_to_another_path(id: str) -> None:
    async with remote(slow("One.")) as client:
        for doing in (
            client.connect(id),
            client._thread(id).delete(),
            client._thread(id).send("x"),
        ):
            with pytest.raises(ThreadNotFound):
                await doing
        with pytest.raises(ThreadNotFound):
            await anext(client._thread(id).subscribe())
        with pytest.raises(RunNotFound):
            await client.run(id)
        with pytest.raises(UnknownFile):
            await client.files.get(id)


@dataclass
class City:
    name: str
    people: int


@dataclass
class Town:
    name: str


async def test_outputs_have_their_types_where_the_agent_is_known() -> None:
    agent = Agent(
        ScriptedModel(['{"name": "Oslo", "people": 7}', '{"name": "Oslo"}']),
        name="a",
        output=City,
        overridable=["output"],
    )
    async with remote(agent, known=False) as client:
        thread = await client.create_thread("a")
        run = await thread.send("go")
        assert (await run.result()).output == {"name": "Oslo", "people": 7}
        with pytest.raises(UnknownAgent):
            async for _ in run.partial_output():
                pass
        client.register(agent)
        assert (await run.result()).output == City("Oslo", 7)
        partial = [output async for output in run.partial_output()]
        assert partial[-1] == City("Oslo", 7)
        given = await thread.send("go", output=Town)
        assert (await given.result()).output == Town("Oslo")
        again = await client.run(given.id)  # only its sender knows the type
        assert (await again.result()).output == {"name": "Oslo"}


async def test_the_desk_and_an_approval() -> None:
    agent = Agent(
        ScriptedModel([Call("pay", '{"amount": 5}', "call:1/x"), "Paid.", "More."]),
        name="a",
        tools=[pay],
    )
    async with remote(agent) as client:
        page = await client.calls()
        assert (list(page), page.position != "") == ([], True)
        thread = await client.create_thread("a")
        async with client.subscribe(types=[RunRequiresAction, "run.completed"]) as desk:
            run = await thread.send("go")
            asked = await anext(desk)
            assert (asked.thread_id, asked.type) == (thread.id, "run.requires_action")
            (call,) = await client.calls(thread_id=thread.id, awaits="approval")
            assert [one.call.call_id for one in await thread.pending_calls()] == ["call:1/x"]
            assert (call.tool, call.arguments) == ("pay", {"amount": 5})
            waiting = asyncio.ensure_future(run.result())
            await asyncio.sleep(100)
            assert not waiting.done()
            for bad in ({"amount": "x"}, {"amount": object()}, "x"):
                with pytest.raises(InvalidInput):
                    await thread.approve(call.call.call_id, arguments=bad)
            await thread.approve(call.call.call_id, arguments={"amount": 6})
            assert (await waiting).text == "Paid."
            done = await anext(desk)
            assert done.type == "run.completed"
        from_start = client.subscribe(after="start")
        assert (await anext(from_start)).type == "thread.created"
        await from_start.aclose()
        again = client.subscribe(after=asked.position, types=["run.completed"])
        assert (await anext(again)).position == done.position
        await again.aclose()
        with pytest.raises(InvalidInput):
            await anext(client.subscribe(types=["nothing"]))


async def test_the_end_of_a_thread_and_of_a_subscription() -> None:
    async with remote(slow("One.")) as client:
        thread: RemoteThread = await client.create_thread("slow")
        seen = thread.subscribe()
        waiting = asyncio.ensure_future(anext(seen))
        await asyncio.sleep(1)
        await seen.aclose()
        with pytest.raises(StopAsyncIteration):
            await waiting
        left = thread.subscribe()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await anext(left)
        run = await thread.send("go")
        assert (await anext(left)).type == "message.added"
        await run.result()
        await thread.delete()
        with pytest.raises(ThreadNotFound):
            async for _ in left:
                pass
        with pytest.raises(ThreadNotFound):
            await thread.info()
    with pytest.raises(JournalClosed):
        await thread.info()
