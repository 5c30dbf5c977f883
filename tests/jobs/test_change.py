"""The changes of a tree, as a listener hears of them."""

import asyncio
from typing import Any

import pytest

from treadle.jobs import Change, Commander, Job, Node, NodeSettled, NodeStarted, NodeSubmitted

pytestmark = pytest.mark.anyio


class Parent(Job[None]):
    async def task(self) -> None:
        await self.submit(asyncio.sleep, 1)


def told(changes: list[Change]) -> list[str]:
    return [f"{type(change).__name__[4:]} {change.node.id}" for change in changes]


async def test_each_change_is_told_in_its_turn() -> None:
    states = list[tuple[str, str, bool]]()

    def hear(change: Change) -> None:
        states.append((type(change).__name__, change.node.state, change.node.is_settled))

    async with Commander(listener=hear) as commander:
        node = await commander.submit(asyncio.sleep, 1)
        assert states == [("NodeSubmitted", "pending", False)]
        await node
        assert states[1:] == [("NodeStarted", "active", False), ("NodeSettled", "completed", True)]
    assert states[3:] == [("NodeSettled", "completed", True)]  # the root


async def test_a_child_is_settled_before_its_parent() -> None:
    changes = list[Change]()
    async with Commander(listener=changes.append) as commander:
        await commander.submit(Parent())
    assert told(changes) == [
        "Submitted 1",
        "Started 1",
        "Submitted 2",
        "Started 2",
        "Settled 2",
        "Settled 1",
        "Settled 0",
    ]
    assert {type(change) for change in changes} == {NodeSubmitted, NodeStarted, NodeSettled}


async def test_one_that_never_starts_is_settled_all_the_same() -> None:
    changes = list[Change]()
    async with Commander(limit=1, listener=changes.append) as commander:
        await commander.submit(asyncio.sleep, 1)
        (await commander.submit(asyncio.sleep, 1)).cancel()
    assert told(changes) == [
        "Submitted 1",
        "Submitted 2",
        "Settled 2",
        "Started 1",
        "Settled 1",
        "Settled 0",
    ]


async def test_a_part_of_the_tree_may_have_a_listener_of_its_own() -> None:
    changes = list[Change]()
    async with Commander() as commander:
        parent = Parent()
        parent.listen(changes.append)
        await commander.submit(parent)
        await commander.submit(Parent())
    assert told(changes) == [
        "Submitted 1",
        "Started 1",
        "Submitted 3",
        "Started 3",
        "Settled 3",
        "Settled 1",
    ]


async def test_a_listener_that_raises_stops_nothing() -> None:
    def fail(change: Change) -> None:
        raise KeyError(type(change).__name__)

    nodes = list[Node[Any]]()
    with pytest.raises(ExceptionGroup) as caught:
        async with Commander(listener=fail) as commander:
            nodes.append(await commander.submit(asyncio.sleep, 1))
    (node,) = nodes
    assert node.state == "completed"
    names = ["NodeSubmitted", "NodeStarted", "NodeSettled"]
    assert [error.args[0] for error in node.callback_errors] == names
    assert [error.args[0] for error in caught.value.exceptions] == [*names, "NodeSettled"]


async def test_a_listener_that_raises_a_cancellation_stops_nothing() -> None:
    def cancel(change: Change) -> None:
        raise asyncio.CancelledError(type(change).__name__)

    async with Commander(listener=cancel) as commander:
        node = await commander.submit(asyncio.sleep, 1, "slept")
        assert await node == "slept"
    assert [str(error) for error in node.callback_errors] == [
        "NodeSubmitted",
        "NodeStarted",
        "NodeSettled",
    ]


def test_a_listener_that_exits_ends_the_run() -> None:
    def leave(change: Change) -> None:
        if isinstance(change, NodeStarted):
            raise SystemExit(3)

    commander = Commander(listener=leave)
    with pytest.raises(SystemExit):
        commander.run(asyncio.sleep, 3600)
    assert commander.root.is_settled
