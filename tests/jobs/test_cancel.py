"""Cancellation reaches every descendant, and waits for it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from treadle.errors import NodeCancelled
from treadle.jobs import Change, Commander, Job, Node, NodeSettled, current_node

pytestmark = pytest.mark.anyio


class Chain(Job[None]):
    """A line of jobs, each a child of the one before; noted when it is interrupted."""

    def __init__(self, length: int, ended: list[int], cleanup: float = 0) -> None:
        self.length, self.ended, self.cleanup = length, ended, cleanup

    async def task(self) -> None:
        if self.length > 1:
            await self.submit(Chain(self.length - 1, self.ended, self.cleanup))
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(self.cleanup)
            self.ended.append(self.length)


async def test_it_reaches_every_descendant_and_waits_for_its_clean_up() -> None:
    loop = asyncio.get_running_loop()
    ended = list[int]()
    async with Commander() as commander:
        top = await commander.submit(Chain(5, ended, cleanup=10))
        other = await commander.submit(asyncio.sleep, 20)
        await asyncio.sleep(1)
        start = loop.time()
        await top.cancel()
        assert loop.time() - start == 10
        assert sorted(ended) == [1, 2, 3, 4, 5]
        assert top.drawing().count("cancelled") == 5
        with pytest.raises(NodeCancelled, match="Chain #1 was cancelled"):
            await top
        assert top.exception is None
    assert other.state == "completed"


async def test_what_has_not_started_never_starts() -> None:
    started = list[str]()

    async def start() -> None:
        started.append("started")

    async with Commander(limit=1) as commander:
        await commander.submit(asyncio.sleep, 5)
        pending = [await commander.submit(start) for _ in range(3)]
        for node in pending:
            node.cancel()
            assert node.state == "cancelled"
            assert node.is_settled
    assert not started


async def test_one_cancelled_before_its_first_step() -> None:
    started = list[str]()

    async def start() -> None:
        started.append("started")

    async with Commander() as commander:
        node = await commander.submit(start)
        node.on("start", lambda: asyncio.get_running_loop().call_soon(node.cancel))
        await node.settling()
    assert node.state in {"cancelled", "completed"}
    assert (node.state == "completed") == bool(started)


async def test_a_job_that_swallows_its_cancellation_once() -> None:
    loop = asyncio.get_running_loop()

    class Stubborn(Job[str]):
        async def task(self) -> str:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                await asyncio.sleep(100)
            return "finished"

    async with Commander() as commander:
        start = loop.time()
        node = await commander.submit(Stubborn())
        await asyncio.sleep(1)
        await node.cancel()
        assert loop.time() - start == 101
        assert (node.state, node.result) == ("cancelled", None)

        again = await commander.submit(Stubborn())
        await asyncio.sleep(1)
        again.cancel()
        await asyncio.sleep(1)
        await again.cancel()
        assert loop.time() - start == 103
        assert again.state == "cancelled"


async def test_one_that_cancels_itself_or_what_it_belongs_to() -> None:
    class Itself(Job[None]):
        async def task(self) -> None:
            self.child = await self.submit(asyncio.sleep, 100)
            await self.cancel()
            raise AssertionError("it continues")

    class Above(Job[None]):
        async def task(self) -> None:
            self.child = await self.submit(self.inside)
            await asyncio.sleep(100)

        async def inside(self) -> None:
            await self.cancel()
            raise AssertionError("it continues")

    async with Commander() as commander:
        for job in (Itself(), Above()):
            await commander.submit(job)
            await job.settling()
            assert (job.state, job.child.state) == ("cancelled", "cancelled")


async def test_siblings_may_cancel_each_other() -> None:
    async def cancel(other: Node[Any]) -> str:
        await other.cancel()
        assert other.is_settled
        return "cancelled it"

    async with Commander() as commander:
        victim = await commander.submit(Chain(3, []))
        await asyncio.sleep(1)
        assert await (await commander.submit(cancel, victim)) == "cancelled it"


async def test_a_body_that_raises_cancelled_error_is_cancelled() -> None:
    class Raises(Job[None]):
        async def task(self) -> None:
            self.child = await self.submit(asyncio.sleep, 100)
            raise asyncio.CancelledError

    async with Commander() as commander:
        raises = Raises()
        await commander.submit(raises)
        await raises.settling()
        assert (raises.state, raises.child.state) == ("cancelled", "cancelled")


async def test_a_failure_on_the_way_is_a_failure() -> None:
    async def fails() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            raise ValueError("clean-up")

    async with Commander(on_failure="collect") as commander:
        node = await commander.submit(fails)
        await asyncio.sleep(1)
        await node.cancel()
        assert (node.state, str(node.exception)) == ("failed", "clean-up")


async def test_a_waiting_node_is_cancelled_with_its_children() -> None:
    class Parent(Job[str]):
        async def task(self) -> str:
            self.child = await self.submit(asyncio.sleep, 100)
            return "its body has ended"

    async with Commander() as commander:
        parent = Parent()
        await commander.submit(parent)
        await asyncio.sleep(1)
        assert parent.state == "waiting"
        await parent.cancel()
        assert (parent.state, parent.child.state, parent.result) == ("cancelled", "cancelled", None)


async def test_waiting_for_several_that_one_cancels_at_once() -> None:
    async def wait(other: Node[Any]) -> None:
        await other

    class Group(Job[None]):
        async def task(self) -> None:
            later = await self.submit(asyncio.sleep, 100)
            self.first = await self.submit(wait, later)
            self.second = await self.submit(wait, self.first)

    async with Commander() as commander:
        group = Group()
        await commander.submit(group)
        await asyncio.sleep(1)
        await group.cancel()
        assert (group.first.state, group.second.state) == ("cancelled", "cancelled")


async def test_cancelling_is_no_more_than_asked_for() -> None:
    async with Commander() as commander:
        node = await commander.submit(asyncio.sleep, 1, "x")
        await node
        await node.cancel()
        assert (node.state, node.result) == ("completed", "x")
        assert current_node() is None


async def test_a_body_that_cancels_its_own_task_and_returns() -> None:
    async def body() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "done"

    async with Commander() as commander:
        node = await commander.submit(body)
        await node.settling()
    assert (node.state, node.result) == ("cancelled", None)


async def test_a_task_that_somebody_else_cancels_before_its_first_step() -> None:
    seen = list[object]()

    async def body() -> None:
        seen.append("started")

    before = asyncio.all_tasks()
    async with Commander() as commander:
        node = await commander.submit(body)
        node.on("cancelled", lambda: seen.append(current_node()))
        await asyncio.sleep(0)
        (task,) = asyncio.all_tasks() - before
        assert task.cancel()
        await node.settling()
    assert node.state == "cancelled"
    assert seen == [node]


async def test_callbacks_that_cancel_nodes_which_have_not_started() -> None:
    nodes = list[Node[Any]]()

    def cancel_all() -> None:
        for node in nodes:
            node.cancel()

    class FirstWins(Job[None]):
        async def task(self) -> None:
            for seconds in range(1, 501):
                node = await self.submit(asyncio.sleep, seconds)
                nodes.append(node.on("settled", cancel_all))

    async with Commander(limit=4) as commander:
        race = await commander.submit(FirstWins())
        await race.settling()
    assert asyncio.get_running_loop().time() == 1
    assert race.state == "completed"
    assert [node.state for node in nodes] == ["completed"] + 499 * ["cancelled"]
    assert not any(node.callback_errors for node in nodes)


@pytest.mark.parametrize("by", ["callback", "listener"])
async def test_each_cancels_the_next_in_a_long_row(by: str) -> None:
    """Cancelled by one another, they settle in a loop and not in one another's calls."""
    row = list[Node[Any]]()
    told = list[int]()

    def cancel_next(number: int) -> None:
        told.append(number)
        if number + 1 < len(row):
            row[number + 1].cancel()

    class Row(Job[None]):
        async def task(self) -> None:
            for number in range(3000):
                node = Nothing()
                if by == "callback":
                    node.on("cancelled", cancel_next, number)
                else:
                    node.listen(Heard(number, cancel_next))
                row.append(self.call(node))
            row[0].cancel()
            assert row[0].state == "cancelled"
            assert told == list(range(3000))

    async with Commander() as commander:
        job = await commander.submit(Row())
        await job
    assert {node.state for node in row} == {"cancelled"}
    assert not any(node.callback_errors for node in row)


class Nothing(Job[None]):
    async def task(self) -> None:
        raise AssertionError


class Heard:
    """Calls `function` with `number` when a node has settled."""

    def __init__(self, number: int, function: Callable[[int], None]) -> None:
        self.number, self.function = number, function

    def __call__(self, change: Change) -> None:
        if isinstance(change, NodeSettled):
            self.function(self.number)
