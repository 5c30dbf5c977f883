"""The start queue: first in, first out, and as many at a time as allowed."""

import asyncio
import gc
import weakref
from typing import Any

import pytest

from treadle.errors import NodeCancelled
from treadle.jobs import Change, Commander, Job, Node, NodeSubmitted, Scope
from treadle.jobs.start_queue import BATCH

pytestmark = pytest.mark.anyio


class Busy:
    """Counts the bodies that run at a time, while they do not wait for another node."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self.order = list[int]()

    async def work(self, number: int, seconds: float = 1) -> int:
        self.order.append(number)
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(seconds)
        self.now -= 1
        return number


async def test_jobs_start_in_the_order_of_their_submission() -> None:
    busy = Busy()
    async with Commander() as commander:
        for number in range(3 * BATCH):
            await commander.submit(busy.work, number)
    assert busy.order == list(range(3 * BATCH))


@pytest.mark.parametrize("limit", [1, 3])
async def test_no_more_than_allowed_run_at_a_time(limit: int) -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    busy = Busy()
    async with Commander(limit=limit) as commander:
        for number in range(12):
            await commander.submit(busy.work, number)
    assert busy.order == list(range(12))
    assert busy.most == limit
    assert loop.time() - start == 12 / limit


async def test_one_that_awaits_does_not_hold_up_the_next() -> None:
    busy = Busy()

    class Parent(Job[int]):
        def __init__(self, depth: int) -> None:
            self.depth = depth

        async def task(self) -> int:
            if self.depth == 0:
                return await busy.work(0)
            return 1 + await (await self.submit(Parent(self.depth - 1)))

    async with Commander(limit=1) as commander:
        assert await (await commander.submit(Parent(20))) == 20


async def test_one_that_awaits_several_at_once_needs_its_place_when_the_last_is_there() -> None:
    busy = Busy()

    class Parent(Job[list[int]]):
        async def task(self) -> list[int]:
            children = [await self.submit(busy.work, number) for number in range(4)]
            found = await asyncio.gather(*children)
            await busy.work(4)
            return found

    async with Commander(limit=1) as commander:
        parents = [await commander.submit(Parent()) for _ in range(3)]
        for parent in parents:
            assert await parent == [0, 1, 2, 3]
    assert busy.most == 1


async def test_who_goes_on_is_before_who_has_not_started() -> None:
    busy = Busy()

    class Parent(Job[None]):
        async def task(self) -> None:
            await (await self.submit(busy.work, 1))
            await busy.work(2)

    async with Commander(limit=1) as commander:
        parent = Parent()
        await commander.submit(parent)
        await asyncio.sleep(0.5)
        for number in (3, 4):
            await commander.submit(busy.work, number)
    assert busy.order == [1, 2, 3, 4]
    assert busy.most == 1


async def test_after_a_time_out_the_place_counts_again() -> None:
    busy = Busy()

    class Impatient(Job[None]):
        async def task(self) -> None:
            slow = await self.submit(asyncio.sleep, 100)
            for _ in range(3):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(1):
                        await slow
            slow.cancel()
            await busy.work(1, 50)

    async with Commander(limit=2) as commander:
        await commander.submit(Impatient())
        await asyncio.sleep(4)
        for number in range(2, 6):
            await commander.submit(busy.work, number)
    assert busy.most == 2


async def test_a_wait_that_outlives_the_body_that_began_it() -> None:
    """A task of the body keeps waiting: the place is free, and stays free."""
    busy = Busy()
    left = list[asyncio.Task[Any]]()

    class Leaves(Job[None]):
        def __init__(self, other: Node[Any]) -> None:
            self.other = other

        async def wait(self) -> None:
            await self.other

        async def task(self) -> None:
            left.append(asyncio.create_task(self.wait()))
            await asyncio.sleep(1)

    async with Commander(limit=2) as commander:
        slow = await commander.submit(asyncio.sleep, 10)
        for _ in range(3):
            await commander.submit(Leaves(slow))
        await slow
        await asyncio.gather(*left)
        for number in range(6):
            await commander.submit(busy.work, number)
    assert busy.most == 2


async def test_a_body_cancelled_while_it_waits_for_its_place() -> None:
    busy = Busy()

    class Parent(Job[None]):
        async def task(self) -> None:
            child = await self.submit(asyncio.sleep, 1)
            await child

    async with Commander(limit=1) as commander:
        parent = Parent()
        await commander.submit(parent)
        await asyncio.sleep(0.5)
        await commander.submit(busy.work, 0, 10)
        await asyncio.sleep(0)
        parent.children[0].cancel()
        with pytest.raises(NodeCancelled):
            await parent
        for number in range(1, 4):
            await commander.submit(busy.work, number)
    assert busy.most == 1


async def test_the_host_and_others_wait_without_a_place() -> None:
    busy = Busy()
    async with Commander(limit=1) as commander:
        node = await commander.submit(busy.work, 0)
        assert await node == 0
        assert await (await commander.submit(busy.work, 1)) == 1


async def test_a_submitter_waits_for_room() -> None:
    busy = Busy()
    loop = asyncio.get_running_loop()

    class Crowd(Job[float]):
        async def task(self) -> float:
            start = loop.time()
            for number in range(10):
                await self.submit(busy.work, number)
            return loop.time() - start

    async with Commander(limit=1, max_pending=3) as commander:
        crowd = await commander.submit(Crowd())
        assert await crowd == 7
        assert busy.order == list(range(10))


async def test_a_submitter_that_gives_up_leaves_its_room_to_others() -> None:
    busy = Busy()
    async with Commander(limit=1, max_pending=1) as commander:

        async def submit(number: int) -> None:
            await commander.submit(busy.work, number, 10)

        await submit(0)
        await asyncio.sleep(1)
        await submit(1)
        waiting = [asyncio.create_task(submit(number)) for number in (2, 3)]
        await asyncio.sleep(1)
        # In the very turn in which it is given its room.
        asyncio.get_running_loop().call_later(8, waiting[0].cancel)
        await asyncio.sleep(20)
        assert waiting[0].cancelled()
        assert waiting[1].done()
    assert busy.order in ([0, 1, 3], [0, 1, 2, 3])


async def test_a_node_that_gives_up_waiting_for_room_keeps_its_place() -> None:
    busy = Busy()

    class Gives(Job[None]):
        async def task(self) -> None:
            await self.submit(busy.work, 0, 10)
            await self.submit(busy.work, 1, 10)
            await asyncio.sleep(0)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await self.submit(busy.work, 2)

    async with Commander(limit=1, max_pending=1) as commander:
        await (await commander.submit(Gives()))
    assert busy.most == 1


async def test_cancelled_ones_in_the_queue_take_no_turn() -> None:
    busy = Busy()
    async with Commander(limit=1) as commander:
        nodes = [await commander.submit(busy.work, number) for number in range(1000)]
        await asyncio.sleep(0)
        for node in nodes[1:-1]:
            node.cancel()
        assert await nodes[-1] == 999
    assert busy.order == [0, 999]


async def test_cancelled_ones_in_the_queue_take_no_room() -> None:
    loop = asyncio.get_running_loop()
    async with Commander(limit=1, max_pending=2) as commander:
        running = await commander.submit(asyncio.sleep, 3600)
        await asyncio.sleep(1)
        for _ in range(3000):
            await (await commander.submit(asyncio.sleep, 0)).cancel()
        assert loop.time() == 1
        nodes = [await commander.submit(asyncio.sleep, 0) for _ in range(2)]
        waiting = asyncio.create_task(commander.submit(asyncio.sleep, 0))
        await asyncio.sleep(1)
        assert not waiting.done()
        nodes[0].cancel()
        await waiting
        assert loop.time() == 2
        running.cancel()
    assert nodes[1].state == waiting.result().state == "completed"


async def test_cancelled_ones_in_the_queue_are_let_go() -> None:
    gone = list[weakref.ref[Nap]]()
    async with Commander(limit=1) as commander:
        running = await commander.submit(asyncio.sleep, 3600)
        await asyncio.sleep(1)
        for number in range(10 * BATCH):
            node = Nap()
            gone.append(weakref.ref(node))
            await commander.submit(node)
            if number % 20:
                await node.cancel()
        del node
        gc.collect()
        assert sum(ref() is not None for ref in gone) < 2 * BATCH
        running.cancel()
        await asyncio.sleep(1)
        gc.collect()
        assert not any(ref() for ref in gone)


async def test_one_that_is_cancelled_as_it_is_submitted_takes_no_room() -> None:
    def cancel(change: Change) -> None:
        if isinstance(change, NodeSubmitted) and isinstance(change.node, Nap | Scope):
            change.node.cancel()

    async with Commander(limit=1, max_pending=1, listener=cancel) as commander:
        running = await commander.submit(asyncio.sleep, 3600)
        await asyncio.sleep(1)
        for _ in range(3):
            assert (await commander.submit(Nap())).state == "cancelled"
            scope = Scope("scope", lambda: None)
            assert commander.call(scope).state == "cancelled"
        waiting = await commander.submit(asyncio.sleep, 1)
        assert asyncio.get_running_loop().time() == 1
        running.cancel()
    assert waiting.state == "completed"


class Nap(Job[None]):
    async def task(self) -> None:
        await asyncio.sleep(0)
