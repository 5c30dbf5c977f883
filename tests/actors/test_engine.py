"""The contract of engines, run on every adapter with two nodes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests import restate_server
from tests.postgres import server

from treadle.actors import restate_engine
from treadle.actors.engine import EmbeddedEngine, Engine
from treadle.actors.postgres_engine import PostgresEngine
from treadle.actors.restate_engine import RestateEngine
from treadle.domain.entries import SendEntry
from treadle.domain.items import user_message
from treadle.errors import JournalFull, TreadleError, UnknownAgent
from treadle.journal.base import ThreadInfo
from treadle.journal.postgres import PostgresJournal

pytestmark = pytest.mark.anyio


class Node:
    """A node that drives: it notes what it is asked for, and may wait or fail."""

    def __init__(self, engine: Engine, journal: PostgresJournal | None = None) -> None:
        self.engine = engine
        self._journal = journal
        self.drives: Counter[str] = Counter()
        self.under_way: Counter[str] = Counter()
        self.most_at_once = 0
        self.seconds = 0.0
        self.error: Exception | None = None

    async def send(self, thread_id: str) -> None:
        """Lets something come to a thread through this node."""
        if self._journal is None:
            self.engine.wake(thread_id)
        else:
            await self._journal.enqueue(thread_id, SendEntry("run_1", user_message("hi")))

    def ring(self, thread_id: str) -> None: ...

    def lose(self, thread_id: str) -> None: ...

    def node_ended(self) -> None: ...

    def release_unused(self, thread_id: str) -> None:
        self.engine.release(thread_id)

    async def drive_thread(self, thread_id: str) -> None:
        if not await self.engine.take(thread_id):
            return
        self.drives[thread_id] += 1
        self.under_way[thread_id] += 1
        self.most_at_once = max(self.most_at_once, self.under_way[thread_id])
        try:
            await asyncio.sleep(self.seconds)
            if self.error is not None:
                raise self.error
        finally:
            self.under_way[thread_id] -= 1


Nodes = tuple[Node, Node]


class Key:
    """What the two nodes share: it stands for their journal."""


POSTGRES = pytest.param("postgres", marks=pytest.mark.needs("postgres"))
RESTATE = pytest.param(
    "restate", marks=[pytest.mark.needs("postgres"), pytest.mark.needs("restate")]
)


@pytest.fixture(params=["embedded", POSTGRES, RESTATE])
async def nodes(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Nodes]:
    if request.param == "embedded":
        key = Key()
        one, two = Node(EmbeddedEngine(key)), Node(EmbeddedEngine(key))
        async with started(one, two):
            yield one, two
        return
    url = await asyncio.to_thread(lambda: server().url())
    async with opened(url) as first, opened(url) as second:
        for id in ("t", "u"):
            await first.create(ThreadInfo(id=id, agent="a", created_at=1, updated_at=1))
        if request.param == "postgres":
            one, two = (Node(PostgresEngine(j.nodes, lambda: ["a"]), j) for j in (first, second))
            async with started(one, two):
                yield one, two
            return
        # Restate does not wait for the virtual clock, which does not wait for Restate.
        monkeypatch.setattr(restate_engine, "SWEEP_SECONDS", 0.0)
        async with called_by_restate(first, second) as (one, two):
            yield one, two


@asynccontextmanager
async def called_by_restate(*journals: PostgresJournal) -> AsyncIterator[list[Node]]:
    """Starts nodes that a Restate server calls in turn."""
    server, balancer = await asyncio.to_thread(restate_server.server), restate_server.Balancer()
    await balancer.start()
    settings = server.settings(balancer.url, restate_server.new_service())
    engines = [RestateEngine(one.nodes, lambda: ["a"], settings) for one in journals]
    nodes = [Node(engine, journal) for engine, journal in zip(engines, journals, strict=True)]
    async with started(*nodes):
        balancer.ports = [engine.port for engine in engines]
        yield nodes
    await balancer.stop()


@asynccontextmanager
async def started(*nodes: Node) -> AsyncIterator[None]:
    for node in nodes:
        await node.engine.start(node)
    yield
    for node in nodes:
        await node.engine.stop()
        await node.engine.leave()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresJournal]:
    journal = PostgresJournal(url)
    await journal.open()
    yield journal
    await journal.close()


async def test_one_node_at_a_time_has_a_thread(nodes: Nodes) -> None:
    one, two = nodes
    assert await one.engine.take("t")
    assert await one.engine.take("t")
    assert not await two.engine.take("t")
    two.engine.release("t")  # what it does not have, it cannot give back
    assert not await two.engine.take("t")
    one.engine.release("t")
    await asyncio.sleep(2)  # the others know it soon
    assert await two.engine.take("t")
    assert not await one.engine.take("t")


async def test_a_wake_reaches_the_node_that_has_the_thread(nodes: Nodes) -> None:
    one, two = nodes
    await one.engine.take("t")
    await two.send("t")
    await asyncio.sleep(1)
    assert one.drives["t"] > 0
    assert two.drives["t"] == 0
    assert not one.engine.is_driving("t")


async def test_a_thread_that_no_node_has_is_driven_by_one(nodes: Nodes) -> None:
    one, two = nodes
    one.engine.wake("t")
    two.engine.wake("t")
    await asyncio.sleep(1)
    assert sum(node.drives["t"] > 0 for node in nodes) == 1


async def test_a_wake_during_a_drive_is_not_lost_and_does_not_overlap(nodes: Nodes) -> None:
    one, _ = nodes
    one.seconds = 5
    one.engine.wake("t")
    await asyncio.sleep(1)
    assert one.engine.is_driving("t")
    for _ in range(3):
        one.engine.wake("t")
    await asyncio.sleep(20)
    assert one.drives["t"] == 2
    assert one.most_at_once == 1


@pytest.mark.parametrize("error", [JournalFull("full"), UnknownAgent("?"), RuntimeError("defect")])
async def test_a_drive_that_fails_ends_no_other_and_can_be_repeated(
    nodes: Nodes, error: Exception
) -> None:
    one, _ = nodes
    one.error = error
    one.engine.wake("t")
    await asyncio.sleep(1)
    one.error = None
    one.engine.wake("t")
    one.engine.wake("u")
    await asyncio.sleep(1)
    assert one.drives["u"] == 1
    retried = not isinstance(error, TreadleError) or error.retryable
    assert one.drives["t"] > 2 if retried else one.drives["t"] == 2
    one.drives.clear()
    await asyncio.sleep(100)
    assert not one.drives  # what has succeeded is not repeated


async def test_an_interrupted_drive_has_ended_and_the_thread_is_still_taken(nodes: Nodes) -> None:
    one, two = nodes
    one.seconds = 100
    one.engine.wake("t")
    await asyncio.sleep(1)
    await one.engine.interrupt("t")
    assert not one.engine.is_driving("t")
    assert one.under_way["t"] == 0
    assert not await two.engine.take("t")
    await one.engine.interrupt("t")  # there is nothing to interrupt


async def test_a_stopped_engine_drives_no_more_and_another_takes_over(nodes: Nodes) -> None:
    one, two = nodes
    one.seconds = 100
    await one.engine.take("t")
    await one.send("t")
    await asyncio.sleep(1)
    await one.engine.stop()
    await one.engine.stop()
    assert one.under_way["t"] == 0
    one.engine.wake("t")
    await asyncio.sleep(1)
    assert one.drives["t"] == 1
    assert not two.drives  # until what the node had under way is kept, and the thread given back
    one.engine.release("t")
    await asyncio.sleep(1)
    assert two.drives["t"] == 1
