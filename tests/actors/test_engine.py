"""The contract of engines, run on every adapter with two nodes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from treadle.actors.engine import EmbeddedEngine, Engine
from treadle.errors import JournalFull, TreadleError, UnknownAgent

pytestmark = pytest.mark.anyio


class Node:
    """A node that drives: it notes what it is asked for, and may wait or fail."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.drives: Counter[str] = Counter()
        self.under_way: Counter[str] = Counter()
        self.most_at_once = 0
        self.seconds = 0.0
        self.error: Exception | None = None

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


@pytest.fixture(params=["embedded"])
async def nodes() -> AsyncIterator[Nodes]:
    key = Key()
    one, two = Node(EmbeddedEngine(key)), Node(EmbeddedEngine(key))
    for node in (one, two):
        await node.engine.start(node)
    yield one, two
    for node in (one, two):
        await node.engine.stop()


async def test_one_node_at_a_time_has_a_thread(nodes: Nodes) -> None:
    one, two = nodes
    assert await one.engine.take("t")
    assert await one.engine.take("t")
    assert not await two.engine.take("t")
    two.engine.release("t")  # what it does not have, it cannot give back
    assert not await two.engine.take("t")
    one.engine.release("t")
    assert await two.engine.take("t")
    assert not await one.engine.take("t")


async def test_a_wake_reaches_the_node_that_has_the_thread(nodes: Nodes) -> None:
    one, two = nodes
    await one.engine.take("t")
    two.engine.wake("t")
    await asyncio.sleep(1)
    assert (one.drives["t"], two.drives["t"]) == (1, 0)
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
    one.engine.wake("t")
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
