"""The contract of engines, run on every adapter with two nodes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests import restate_server
from tests.postgres import server

from treadle.actors import postgres_engine, restate_engine
from treadle.actors.engine import EmbeddedEngine, Engine
from treadle.actors.permits import RunLimits
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
        self.order: list[str] = []
        self.seconds = 0.0
        self.error: Exception | None = None

    async def send(self, thread_id: str) -> None:
        """Lets something come to a thread through this node."""
        if self._journal is None:
            self.engine.wake(thread_id)
        else:
            await self._journal.enqueue(thread_id, SendEntry("run_1", user_message("hi")))

    async def begin(self, thread_id: str) -> None:
        """Lets a run of a thread begin, which this node drives, or another one."""
        await self._set_status(thread_id, "in_progress")
        self.engine.wake(thread_id)

    async def _set_status(self, thread_id: str, status: str) -> None:
        if self._journal is not None:
            sql = "UPDATE activity SET status = ? WHERE n = (SELECT n FROM thread WHERE id = ?)"
            await self._journal._write_with_node(lambda c: c.execute(sql, (status, thread_id)))

    def ring(self, thread_id: str) -> None: ...

    def lose(self, thread_id: str) -> None: ...

    def node_ended(self) -> None: ...

    def release_unused(self, thread_id: str) -> None:
        self.engine.release(thread_id)

    def hand_over(self, thread_id: str) -> None:
        self.engine.release(thread_id)

    async def drive_thread(self, thread_id: str) -> None:
        if not await self.engine.take(thread_id):
            return
        if not await self.engine.permit(thread_id, owner_of(thread_id)):
            return
        self.order.append(thread_id)
        self.drives[thread_id] += 1
        self.under_way[thread_id] += 1
        self.most_at_once = max(self.most_at_once, self.under_way[thread_id])
        try:
            await asyncio.sleep(self.seconds)
            if self.error is not None:
                raise self.error
            await self._set_status(thread_id, "completed")
        finally:
            self.under_way[thread_id] -= 1


Nodes = tuple[Node, Node]


class Key:
    """What the two nodes share: it stands for their journal."""


POSTGRES = pytest.param("postgres", marks=pytest.mark.needs("postgres"))
RESTATE = pytest.param(
    "restate", marks=[pytest.mark.needs("postgres"), pytest.mark.needs("restate")]
)


THREADS = ("t", "u", *(f"{owner}{n}" for owner in ("ada", "bob", "") for n in range(4)))


def owner_of(thread_id: str) -> str:
    return thread_id.rstrip("0123456789") if thread_id not in {"t", "u"} else ""


@pytest.fixture
def limits() -> RunLimits:
    return RunLimits()


@pytest.fixture(autouse=True)
def sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Restate does not wait for the virtual clock, which does not wait for Restate."""
    monkeypatch.setattr(restate_engine, "SWEEP_SECONDS", 0.0)


@pytest.fixture(params=["embedded", POSTGRES, RESTATE])
async def nodes(request: pytest.FixtureRequest, limits: RunLimits) -> AsyncIterator[Nodes]:
    if request.param == "embedded":
        key = Key()
        one, two = Node(EmbeddedEngine(key, limits)), Node(EmbeddedEngine(key, limits))
        async with started(one, two):
            yield one, two
        return
    url = await asyncio.to_thread(lambda: server().url())
    async with opened(url) as first, opened(url) as second:
        for at, id in enumerate(THREADS):
            info = ThreadInfo(id=id, agent="a", owner=owner_of(id), created_at=at, updated_at=at)
            await first.create(info)
        if request.param == "postgres":
            one, two = (
                Node(PostgresEngine(j.nodes, lambda: ["a"], limits), j) for j in (first, second)
            )
            async with started(one, two):
                yield one, two
            return
        async with called_by_restate(limits, first, second) as (one, two):
            yield one, two


@asynccontextmanager
async def called_by_restate(
    limits: RunLimits, *journals: PostgresJournal
) -> AsyncIterator[list[Node]]:
    """Starts nodes that a Restate server calls in turn."""
    server, balancer = await asyncio.to_thread(restate_server.server), restate_server.Balancer()
    await balancer.start()
    settings = server.settings(balancer.url, restate_server.new_service())
    engines = [RestateEngine(one.nodes, lambda: ["a"], settings, limits) for one in journals]
    nodes = [Node(engine, journal) for engine, journal in zip(engines, journals, strict=True)]
    async with started(*nodes):
        balancer.ports = [engine.port for engine in engines]
        yield nodes
    await balancer.stop()


@asynccontextmanager
async def started(*nodes: Node) -> AsyncIterator[None]:
    for node in nodes:
        await node.engine.start(node)
    if isinstance(last := nodes[-1].engine, PostgresEngine):
        # Its first look, which finds all that waits, has ended then.
        while not last._others:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
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


def running(nodes: Nodes, owner: str) -> int:
    return sum(node.under_way[id] for node in nodes for id in THREADS if owner_of(id) == owner)


async def passed(seconds: float) -> None:
    """Lets time pass slowly enough for what nodes tell each other."""
    for _ in range(int(seconds * 5)):
        await asyncio.sleep(0.2)


@pytest.fixture
def no_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is woken, and is not found by looking."""
    monkeypatch.setattr(postgres_engine, "LOOK_SECONDS", 3600)
    monkeypatch.setattr(restate_engine, "SWEEP_SECONDS", 3600)
    monkeypatch.setattr(restate_engine, "HELD_LOOK_SECONDS", 3600)


OF_OWNER = pytest.mark.parametrize("limits", [RunLimits(per_owner=2)])


@OF_OWNER
@pytest.mark.usefixtures("no_looks")
async def test_the_threads_of_an_owner_that_run_at_a_time_are_limited(nodes: Nodes) -> None:
    for node in nodes:
        node.seconds = 5
    for n in range(4):
        for owner in ("ada", "bob", ""):
            await nodes[n % 2].begin(f"{owner}{n}")
    done = 0
    for _ in range(3):
        await passed(2)
        assert running(nodes, "ada") <= 2
        assert running(nodes, "bob") <= 2
        done = max(done, running(nodes, "ada"))
        await passed(2)
    assert done == 2
    await passed(10)
    assert {id for node in nodes for id in node.drives} == set(THREADS) - {"t", "u"}


@OF_OWNER
@pytest.mark.usefixtures("no_looks")
async def test_threads_run_in_the_order_in_which_their_entries_came(nodes: Nodes) -> None:
    one, _ = nodes
    one.seconds = 5
    for n in range(4):
        await one.begin(f"ada{n}")
        await passed(0.2)
    await passed(30)
    assert one.order == [f"ada{n}" for n in range(4)]


@OF_OWNER
@pytest.mark.usefixtures("no_looks")
async def test_a_drive_that_fails_or_is_interrupted_keeps_no_permit(nodes: Nodes) -> None:
    one, two = nodes
    one.seconds = 1000
    for n in range(2):
        await one.begin(f"ada{n}")
    await passed(1)
    await two.begin("ada2")
    await two.begin("ada3")
    await passed(1)
    assert not two.drives
    await one.engine.interrupt("ada0")
    await passed(1)
    assert two.drives["ada2"] == 1
    two.error = UnknownAgent("?")
    one.error = UnknownAgent("?")
    await passed(1)
    assert two.drives["ada3"] == 1
    await two.engine.interrupt("ada3")  # there is nothing to interrupt


@OF_OWNER
async def test_a_node_that_stops_leaves_its_permits_to_the_others(nodes: Nodes) -> None:
    one, two = nodes
    one.seconds = 1000
    for n in range(4):
        await one.begin(f"ada{n}")
    await passed(1)
    assert running(nodes, "ada") == 2
    for n in range(4):
        await one.engine.interrupt(f"ada{n}")
    await one.engine.stop()
    for n in range(4):
        one.engine.release(f"ada{n}")
    await one.engine.leave()
    for n in range(4):
        await two.begin(f"ada{n}")
    await passed(3)
    assert set(two.drives) == {f"ada{n}" for n in range(4)}


@pytest.mark.parametrize("limits", [RunLimits(per_node=2)])
async def test_the_threads_that_a_node_runs_at_a_time_are_limited(nodes: Nodes) -> None:
    one, two = nodes
    two.seconds = one.seconds = 5
    for n in range(4):
        for owner in ("ada", "bob"):
            await one.begin(f"{owner}{n}")
    for _ in range(10):
        await passed(1)
        for node in nodes:
            assert node.under_way.total() <= 2
    await passed(40)
    driven = {id for node in nodes for id in node.drives}
    assert driven == {f"{owner}{n}" for owner in ("ada", "bob") for n in range(4)}


@pytest.mark.parametrize("limits", [RunLimits(per_owner=1, per_node=1)])
async def test_both_limits_hold_at_once(nodes: Nodes) -> None:
    for node in nodes:
        node.seconds = 1
    for n in range(3):
        for owner in ("ada", "bob", ""):
            await nodes[0].begin(f"{owner}{n}")
    for _ in range(60):
        await passed(0.6)
        assert running(nodes, "ada") <= 1
        assert running(nodes, "bob") <= 1
        assert all(node.under_way.total() <= 1 for node in nodes)
    driven = {id for node in nodes for id in node.drives}
    assert driven == {f"{owner}{n}" for owner in ("ada", "bob", "") for n in range(3)}
