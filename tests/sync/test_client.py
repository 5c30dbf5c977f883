"""A client of a server without asyncio: the same programs as with a runtime."""

import asyncio
import inspect
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from tests.server.serving import serving

import treadle
from treadle import Agent, sync, tool
from treadle.client import Client
from treadle.errors import (
    ConfigurationError,
    JournalClosed,
    RunTimeout,
    ServerUnreachable,
    ThreadNotFound,
)
from treadle.testing import Call, Pause, ScriptedModel, Text

pytestmark = pytest.mark.real_clock

SLOW = 20


@tool(needs_approval=True)
async def pay(amount: int) -> str:
    """Pays."""
    return f"paid {amount}"


SCRIPT: list[Any] = [
    [Text("Hel"), Pause(5), Text("lo.")],
    [Call("pay", '{"amount": 1}', "call_1")],
    "Paid.",
]


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """A server on a loop of its own, in another thread."""
    address, loops = Future[str](), Future[asyncio.AbstractEventLoop]()
    end = asyncio.Event()

    async def serve() -> None:
        agents = [Agent(ScriptedModel(SCRIPT), name="a", tools=[pay])]
        async with serving(treadle.open(f"sqlite:///{tmp_path}/t.db", agents=agents)) as client:
            loops.set_result(asyncio.get_running_loop())
            address.set_result(str(client.http.base_url))
            await end.wait()

    thread = threading.Thread(target=asyncio.run, args=[serve()])
    thread.start()
    try:
        yield address.result(SLOW)
        loops.result(SLOW).call_soon_threadsafe(end.set)
    finally:
        thread.join(SLOW)


def test_it_has_the_methods_of_the_other_client() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    attributes = {"files", "by", "owner", "scopes", "url"}
    assert public(Client) | attributes == public(sync.Client)
    for name in public(Client) - attributes:
        method, waiting = getattr(Client, name), getattr(sync.Client, name)
        assert not inspect.iscoroutinefunction(waiting), name
        assert list(inspect.signature(waiting).parameters) == list(
            inspect.signature(method).parameters
        ), name


def test_a_conversation(url: str) -> None:
    with sync.Client(url, key="") as client:
        assert (client.url, client.owner, client.by, client.scopes[0]) == (url, None, "", "admin")
        assert [agent.name for agent in client.agents()] == ["a"]
        ann = client.for_owner("acme", by="ann")
        thread = ann.create_thread("a", key="k")
        assert (thread.is_new, ann.create_thread("a", key="k").is_new) == (True, False)
        run = thread.send("Hi.")
        assert "".join(run.text_stream()) == "Hello."
        assert run.result(timeout=SLOW).text == "Hello."
        assert [event.type for event in run][-1] == "run.completed"
        asked = thread.send("Pay.")
        with pytest.raises(RunTimeout):
            asked.result(timeout=0.2)
        with client.subscribe(after="start") as desk:
            assert next(event for event in desk if event.event.type == "run.requires_action")
        (call,) = client.calls()
        assert call.owner == "acme"
        thread.approve("call_1")
        assert asked.text(timeout=SLOW) == "Paid."
        with thread.subscribe(after="state") as events:
            assert len(next(events).items) == 7  # type: ignore[union-attr]
        with thread.subscribe(thread.last_seq()) as events:
            assert next(events.envelopes(heartbeat=0.05)) is None
        thread.memory.create("notes", "x")
        assert [block.label for block in thread.memory.blocks()] == ["notes"]
        thread.archive.insert("A fact.")
        assert ann.archive().search()[0].passage.text == "A fact."
        assert thread.files.info(thread.files.put(b"text").id).size == 4
        assert thread.fork().history() == thread.history()
        ann.delete_owner()
        with pytest.raises(ThreadNotFound):
            thread.info()
    with pytest.raises(JournalClosed):
        client.threads()
    with pytest.raises(ConfigurationError, match="started before"):
        client.start()


def test_threads_share_a_client(url: str) -> None:
    with sync.Client(url, key="") as client:
        ids: list[str] = []

        def create() -> None:
            ids.append(client.create_thread("a").id)

        threads = [threading.Thread(target=create) for _ in range(8)]
        for one in threads:
            one.start()
        for one in threads:
            one.join(SLOW)
        assert len(set(ids)) == len(client.threads()) == 8


def test_a_server_that_is_not_there() -> None:
    client = sync.Client("http://127.0.0.1:9", key="")
    with pytest.raises(ServerUnreachable), client:
        pass
    client.shutdown()  # again
