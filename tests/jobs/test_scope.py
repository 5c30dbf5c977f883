"""A scope: a node whose body is a block of code elsewhere; and a root without a commander."""

import asyncio
from typing import Any

import pytest

from treadle.errors import NodeClosed
from treadle.jobs import Change, Commander, Job, Node, Root, Scope, StartQueue, Tree
from treadle.jobs.failure import MAX_KEPT, Failure

pytestmark = pytest.mark.anyio


class Holder:
    """Opens a scope, and closes it when it is interrupted, as who holds one does."""

    def __init__(self, **options: Any) -> None:
        self.interrupts = 0
        self.changes = list[str]()
        self.scope = Scope("scope", self.interrupt, listener=self.hear, **options)

    def interrupt(self) -> None:
        self.interrupts += 1

    def hear(self, change: Change) -> None:
        self.changes.append(f"{type(change).__name__} {change.node.name}")


def no_exit(result: object, wait: bool) -> None:
    raise AssertionError("no code exits")


def root_of_its_own(cls: type[Root] = Root, **options: Any) -> Root:
    loop = asyncio.get_running_loop()
    starts = StartQueue(loop, limit=None, max_pending=1024)
    tree = Tree(loop, starts, no_exit, None, kept=options.pop("kept", None))
    return cls(tree, lambda: None, on_failure="collect", **options)


async def boom(after: float = 0) -> None:
    await asyncio.sleep(after)
    raise ValueError("boom")


async def test_it_is_active_at_once_and_takes_no_place() -> None:
    holder = Holder()
    async with Commander(limit=1) as commander:
        await commander.submit(asyncio.sleep, 10)
        scope = commander.root.call(holder.scope)
        assert scope is holder.scope
        assert (scope.state, scope.parent) == ("active", commander.root)
        child = await scope.submit(asyncio.sleep, 1)
        holder.scope.close()
        holder.scope.close()
        assert scope.state == "waiting"
        await scope.settling()
        assert (scope.state, child.state) == ("completed", "completed")
        assert scope.children == ()
        assert await scope is None
    assert holder.interrupts == 0
    assert holder.changes == [
        "NodeSubmitted scope",
        "NodeStarted scope",
        "NodeSubmitted sleep",
        "NodeStarted sleep",
        "NodeSettled sleep",
        "NodeSettled scope",
    ]


async def test_a_scope_in_which_nothing_was_done() -> None:
    holder = Holder()
    async with Commander() as commander:
        commander.root.call(holder.scope)
        holder.scope.close()
        assert holder.scope.is_settled
        with pytest.raises(NodeClosed):
            await holder.scope.submit(asyncio.sleep, 1)


async def test_a_scope_that_is_closed_before_it_is_placed() -> None:
    holder = Holder()
    holder.scope.close()
    async with Commander() as commander:
        commander.root.call(holder.scope)
        assert holder.scope.state == "completed"


async def test_cancelled_while_open_it_tells_its_holder() -> None:
    holder = Holder()
    async with Commander() as commander:
        commander.root.call(holder.scope)
        child = await holder.scope.submit(asyncio.sleep, 100)
        await asyncio.sleep(1)
        cancelled = holder.scope.cancel()
        assert holder.interrupts == 1
        await asyncio.sleep(1)
        assert child.state == "cancelled"
        assert holder.scope.state == "active"  # until its holder closes it
        holder.scope.close()
        await cancelled
        assert holder.scope.state == "cancelled"
    assert holder.interrupts == 1


async def test_cancelled_after_its_end_it_tells_nobody() -> None:
    holder = Holder()
    async with Commander() as commander:
        commander.root.call(holder.scope)
        await holder.scope.submit(asyncio.sleep, 100)
        holder.scope.close()
        await holder.scope.cancel()
        assert holder.scope.state == "cancelled"
    assert holder.interrupts == 0


async def test_cancelled_from_above() -> None:
    holder = Holder()
    async with Commander() as commander:
        commander.root.call(holder.scope)
        commander.root.cancel()
        holder.scope.close()
    assert holder.interrupts == 1
    assert holder.scope.state == "cancelled"


async def test_a_child_that_fails_interrupts_its_holder() -> None:
    holder = Holder(on_failure="fail_fast")
    async with Commander(on_failure="collect") as commander:
        commander.root.call(holder.scope)
        await holder.scope.submit(boom)
        await asyncio.sleep(1)
        assert holder.interrupts == 1
        holder.scope.close()
        with pytest.raises(ValueError, match="boom"):
            await holder.scope


async def test_start_callbacks_of_a_scope() -> None:
    order = list[str]()

    async def slow() -> None:
        await asyncio.sleep(1)
        order.append("start")

    holder = Holder()
    holder.scope.on("start", slow).on("settled", order.append, "settled")
    async with Commander() as commander:
        commander.root.call(holder.scope)
        holder.scope.close()
        assert holder.scope.state == "active"
    assert order == ["start", "settled"]

    cancelled = Holder()
    cancelled.scope.on("start", slow)
    async with Commander() as commander:
        commander.root.call(cancelled.scope)
        await asyncio.sleep(0.5)
        cancelled.scope.cancel()
        await asyncio.sleep(0)
        assert cancelled.scope.state == "active"
        cancelled.scope.close()
    assert order == ["start", "settled"]

    closing = Holder()
    closing.scope.on("start", closing.scope.close).on("settled", order.append, "closed")
    async with Commander() as commander:
        commander.root.call(closing.scope)
        assert closing.scope.is_settled
    assert order[2:] == ["closed"]


async def test_a_root_without_a_commander() -> None:
    interrupts = list[str]()
    loop = asyncio.get_running_loop()
    starts = StartQueue(loop, limit=None, max_pending=1024)
    exits = list[object]()
    tree = Tree(loop, starts, lambda *call: exits.append(call))
    root = Root(tree, lambda: interrupts.append("interrupted"), on_failure="collect")
    scope = root.call(Scope("run", lambda: None))
    child = await scope.submit(asyncio.sleep, 10)
    background = await scope.submit(asyncio.sleep, 20, parent=root)
    scope.close()
    await scope.settling()
    assert (child.state, background.state) == ("completed", "active")
    background.exit("x", wait=False)
    assert exits == [("x", False)]
    root.cancel()
    assert interrupts == ["interrupted"]
    root.close()
    await root.settling()
    assert (background.state, root.state) == ("cancelled", "cancelled")


async def test_a_submission_returns_when_it_is_kept() -> None:
    kept = asyncio.Event()
    order = list[str]()

    async def keep() -> None:
        order.append("placed")
        await kept.wait()

    root = root_of_its_own(kept=keep)

    async def submit() -> Node[Any]:
        node = await root.submit(asyncio.sleep, 1)
        order.append("submitted")
        return node

    task = asyncio.create_task(submit())
    await asyncio.sleep(5)
    assert order == ["placed"]
    kept.set()
    node = await task
    assert node.state == "completed"
    root.close()


async def test_failures_of_a_root_that_lives_long_are_bounded() -> None:
    noted = list[Failure]()

    class Noting(Root):
        def _node_child_failed(self, failure: Failure) -> None:
            noted.append(failure)
            super()._node_child_failed(failure)

    root = root_of_its_own(Noting)
    for _ in range(3 * MAX_KEPT):
        await root.submit(boom)
    await asyncio.sleep(1)
    assert len(noted) == 3 * MAX_KEPT
    assert len(root.errors) == MAX_KEPT
    assert root.children == ()
    root.close()
    await root.settling()
    assert root.state == "completed"
    assert len(root.take_unseen()) == 1  # only the number of those that were not kept


async def test_a_scope_under_a_job() -> None:
    class Works(Job[str]):
        async def task(self) -> str:
            scope = self.call(Scope("part", self.cancel))
            await scope.submit(asyncio.sleep, 10)
            scope.close()
            await scope
            return "worked"

    async with Commander() as commander:
        assert await (await commander.submit(Works())) == "worked"
