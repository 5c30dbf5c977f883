"""Many rounds, and deep trees."""

import asyncio
import gc
import sys
import tracemalloc
from typing import Any

import pytest

from treadle.errors import NodeCancelled
from treadle.jobs import Commander, Job, Node, Root, StartQueue, Tree

pytestmark = pytest.mark.anyio

ROUNDS = 10_000
DEPTH = 10_000


class Round(Job[None]):
    """One of many: its settled callback submits the next under the root."""

    def __init__(self, counter: "Counter") -> None:
        self.counter = counter
        self.on("settled", counter.next, inject_node=True)

    async def task(self) -> None:
        await self.submit(self.part)
        await asyncio.sleep(0)

    async def part(self) -> None:
        if self.counter.fails:
            raise ValueError(self.counter.count)


class Counter:
    """Counts rounds, and notes the traced memory when it is warm and at the end."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails
        self.count = 0
        self.bytes = list[int]()

    async def next(self, node: Node[Any]) -> None:
        self.count += 1
        if self.count in {ROUNDS // 10, ROUNDS}:
            gc.collect()
            self.bytes.append(tracemalloc.get_traced_memory()[0])
        if self.count < ROUNDS:
            await node.submit(Round(self), parent=node.root)


@pytest.mark.parametrize("fails", [False, True])
async def test_rounds_without_end_take_flat_memory(fails: bool) -> None:
    loop = asyncio.get_running_loop()
    tree = Tree(loop, StartQueue(loop, limit=None, max_pending=10), lambda *_: None)
    root = Root(tree, lambda: None, on_failure="collect")
    counter = Counter(fails)
    tracemalloc.start()
    try:
        await root.submit(Round(counter))
        root.close()
        await root.settling()
    finally:
        tracemalloc.stop()
    first, last = counter.bytes
    assert counter.count == ROUNDS
    assert last - first < 20_000
    assert len(root.take_unseen()) == (101 if fails else 0)


class Deep(Job[int]):
    """A line of jobs, each a child of the one before."""

    def __init__(self, depth: int, end: str) -> None:
        self.depth, self.end = depth, end

    async def task(self) -> int:
        if self.depth > 1:
            await self.submit(Deep(self.depth - 1, self.end))
        elif self.end == "waits":
            await asyncio.sleep(3600)
        elif self.end == "fails":
            raise ValueError("deep down")
        return self.depth


async def test_a_deep_tree_settles_and_is_drawn() -> None:
    async with Commander() as commander:
        top = await commander.submit(Deep(DEPTH, "returns"))
        assert await top == DEPTH
        lines = top.drawing(max_nodes=2 * DEPTH).splitlines()
        assert len(lines) == DEPTH
        assert all(line.endswith("completed") for line in lines)
        deepest = top
        while deepest.children:
            (deepest,) = deepest.children
        assert len(deepest.ancestors) == DEPTH
    del top, deepest
    gc.collect()


async def test_a_deep_tree_is_cancelled() -> None:
    async with Commander() as commander:
        top = await commander.submit(Deep(DEPTH, "waits"))
        await asyncio.sleep(1)
        assert top.state == "waiting"
        await top.cancel()
        with pytest.raises(NodeCancelled):
            await top
        assert top.drawing(max_nodes=DEPTH).count("cancelled") == DEPTH


async def test_a_deep_tree_fails() -> None:
    top = Deep(DEPTH, "fails")
    with pytest.raises(ValueError, match="deep down"):
        async with Commander() as commander:
            await commander.submit(top)
    assert top.drawing(max_nodes=DEPTH).count("failed") == DEPTH


async def test_a_deep_tree_is_collected() -> None:
    collected = list[int]()

    class Counted(Deep):
        def __del__(self) -> None:
            collected.append(self.depth)

        async def task(self) -> int:
            if self.depth > 1:
                await self.submit(Counted(self.depth - 1, self.end))
            return self.depth

    assert sys.getrecursionlimit() < DEPTH
    commander = Commander()
    async with commander:
        await commander.submit(Counted(DEPTH, "returns"))
    gc.collect()
    assert len(collected) == DEPTH


async def test_a_wide_tree_settles() -> None:
    class Wide(Job[int]):
        async def task(self) -> int:
            children = [await self.submit(Deep(1, "returns")) for _ in range(DEPTH)]
            return sum([await child for child in children])

    async with Commander() as commander:
        assert await (await commander.submit(Wide())) == DEPTH
