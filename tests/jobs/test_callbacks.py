"""Callbacks: when they come, what they see, and what one that raises or waits does."""

import asyncio
from typing import Any

import pytest

from treadle.errors import ConfigurationError, NodeClosed, NodeDeadlock
from treadle.jobs import Callback, CallbackEvent, Callbacks, Commander, Job, Node, current_node

pytestmark = pytest.mark.anyio

EVENTS: tuple[CallbackEvent, ...] = ("start", "error", "cancelled", "settled", "tree_end")


class Nap(Job[str]):
    async def task(self) -> str:
        await asyncio.sleep(1)
        return "done"


class Boom(Job[str]):
    async def task(self) -> str:
        await asyncio.sleep(1)
        raise ValueError("boom")


class Told(list[tuple[str, str]]):
    """Notes each event with the state that the callback sees."""

    def on(self, node: Node[Any], *events: CallbackEvent) -> Node[Any]:
        for event in events or EVENTS:
            node.on(event, self.tell, event, inject_node=True)
            node.on(event, self.wait_and_tell, f"{event} async", inject_node=True)
        return node

    def tell(self, node: Node[Any], event: str) -> None:
        assert current_node() in {node, node.root}
        self.append((event, node.state))

    async def wait_and_tell(self, node: Node[Any], event: str) -> None:
        await asyncio.sleep(1)
        self.append((event, node.state))


async def test_of_a_node_that_completes() -> None:
    told = Told()
    async with Commander() as commander:
        node = await commander.submit(told.on(Nap()))
        assert await node == "done"
        settled = list(told)
    assert settled == [
        ("start", "active"),
        ("start async", "active"),
        ("settled", "completed"),
        ("settled async", "completed"),
    ]
    assert told == [*settled, ("tree_end", "completed"), ("tree_end async", "completed")]


async def test_of_a_node_that_fails() -> None:
    told = Told()
    async with Commander() as commander:
        node = await commander.submit(told.on(Boom()))
        with pytest.raises(ValueError, match="boom"):
            await node
    assert [event for event, _ in told if "async" not in event] == [
        "start",
        "error",
        "settled",
        "tree_end",
    ]
    assert {state for _, state in told[2:]} == {"failed"}


async def test_of_a_node_that_is_cancelled() -> None:
    told = Told()
    async with Commander(limit=1) as commander:
        await commander.submit(Nap())
        node = await commander.submit(told.on(Nap()))
        await node.cancel()
        assert [event for event, _ in told] == [
            "cancelled",
            "cancelled async",
            "settled",
            "settled async",
        ]
    assert {state for _, state in told} == {"cancelled"}


async def test_settled_sees_every_descendant_settled() -> None:
    class Parent(Job[None]):
        async def task(self) -> None:
            self.child = await self.submit(Nap())

    def look(node: Parent) -> None:
        assert node.state == "completed"
        assert not node.is_settled
        seen.append(node.child.is_settled)

    seen = list[bool]()
    async with Commander() as commander:
        await commander.submit(Parent().on("settled", look, inject_node=True))
    assert seen == [True]


async def test_arguments_and_merging() -> None:
    calls = list[object]()

    def note(*args: object, **kwargs: object) -> None:
        calls.append((args, kwargs))

    first = Callbacks(settled=(Callback(note, (1,), {"a": 2}),))
    second = Callbacks().on("settled", Callback(note, ("x",), inject_node=True))
    node = Nap().add_callbacks(first | second, first).on("settled", note, 3, b=4)
    async with Commander() as commander:
        await commander.submit(node)
    plain = ((1,), {"a": 2})
    assert calls == [plain, ((node, "x"), {}), plain, ((3,), {"b": 4})]


@pytest.mark.parametrize("event", EVENTS)
def test_callbacks_of_each_event_are_merged(event: CallbackEvent) -> None:
    one, other = Callback(print), Callback(repr)
    both = Callbacks().on(event, one) | Callbacks().on(event, other)
    assert getattr(both, event) == (one, other)
    assert sum(len(getattr(both, name)) for name in EVENTS) == 2


async def test_one_that_raises_is_recorded_and_stops_nothing() -> None:
    told = Told()

    def fail(text: str) -> None:
        raise KeyError(text)

    async def fail_later(text: str) -> None:
        await asyncio.sleep(1)
        raise KeyError(text)

    node = Nap()
    for event in EVENTS:
        node.on(event, fail, event).on(event, fail_later, f"{event} async")
    with pytest.raises(ExceptionGroup, match="6 failures") as caught:
        async with Commander() as commander:
            assert await (await commander.submit(told.on(node))) == "done"
    assert [event for event, _ in told] == [
        "start",
        "start async",
        "settled",
        "settled async",
        "tree_end",
        "tree_end async",
    ]
    assert node.state == "completed"
    assert node.callback_errors == caught.value.exceptions
    assert [error.args[0] for error in caught.value.exceptions] == [event for event, _ in told]


async def test_what_was_seen_of_callbacks_is_not_raised_again() -> None:
    def fail() -> None:
        raise KeyError("x")

    async with Commander() as commander:
        node = (await commander.submit(Nap())).on("settled", fail)
        await node
        assert [type(error) for error in node.callback_errors] == [KeyError]


async def test_a_callback_may_submit_under_the_root() -> None:
    def again(node: Node[Any]) -> None:
        rounds.append(node.root.call(Nap()))

    async def again_later(node: Node[Any]) -> None:
        rounds.append(await node.submit(Nap(), parent=node.root))

    rounds = list[Node[Any]]()
    async with Commander() as commander:
        node = Nap().on("settled", again, inject_node=True)
        await commander.submit(node.on("settled", again_later, inject_node=True))
    assert [one.state for one in rounds] == ["completed", "completed"]


async def test_a_callback_may_not_submit_under_its_own_settled_node() -> None:
    async with Commander() as commander:
        node = Nap().on("settled", lambda node: node.submit(Nap()), inject_node=True)
        await (await commander.submit(node))
        assert [type(error) for error in node.callback_errors] == [NodeClosed]


async def test_a_callback_may_not_await_its_own_node() -> None:
    async def wait(node: Node[Any]) -> None:
        await node

    async with Commander() as commander:
        node = Nap().on("settled", wait, inject_node=True)
        await (await commander.submit(node))
        assert [type(error) for error in node.callback_errors] == [NodeDeadlock]


async def test_a_start_callback_that_is_cancelled() -> None:
    started = list[str]()

    async def wait() -> None:
        started.append("callback")
        await asyncio.sleep(1000)

    class Body(Job[None]):
        async def task(self) -> None:
            started.append("body")

    async with Commander() as commander:
        node = Body().on("start", wait).on("start", started.append, "second")
        await commander.submit(node)
        await asyncio.sleep(1)
        assert node.state == "active"
        await node.cancel()
    assert node.state == "cancelled"
    assert started == ["callback"]


async def test_a_start_callback_may_cancel_its_node() -> None:
    node = Nap().on("start", lambda node: node.cancel() and None, inject_node=True)
    async with Commander() as commander:
        await commander.submit(node)
    assert node.state == "cancelled"


async def test_a_settled_callback_is_cancelled_where_that_is_asked_again() -> None:
    ended = list[str]()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("first")

    async with Commander() as commander:
        node = Nap().on("settled", wait).on("settled", ended.append, "second")
        await commander.submit(node)
        await asyncio.sleep(10)
        assert node.state == "completed"
        assert not node.is_settled
        node.cancel()
        await asyncio.sleep(10)
        assert not node.is_settled
        await node.cancel()
        assert node.is_settled
    assert ended == ["first", "second"]
    assert node.state == "completed"
    assert [type(error) for error in node.callback_errors] == [asyncio.CancelledError]


async def test_what_ends_around_it_does_not_interrupt_a_settled_callback() -> None:
    saved = list[str]()

    async def save(node: Node[Any]) -> None:
        await asyncio.sleep(1)
        saved.append(node.state)

    node = Nap().on("settled", save, inject_node=True)
    with pytest.raises(ValueError, match="boom"):
        async with Commander() as commander:
            await commander.submit(node)
            await asyncio.sleep(0.5)
            await commander.submit(Boom())
            await asyncio.sleep(3600)
    assert node.callback_errors == ()
    node = Nap().on("settled", save, inject_node=True)
    async with Commander() as commander:
        await commander.submit(node)
        await asyncio.sleep(1.5)
        commander.exit(wait=False)
    assert node.callback_errors == ()
    assert saved == ["completed", "completed"]


@pytest.mark.parametrize("event", ["start", "settled", "tree_end"])
@pytest.mark.parametrize("is_async", [False, True])
async def test_one_that_ends_by_a_cancellation_of_its_own(
    event: CallbackEvent, is_async: bool
) -> None:
    def cancelled() -> None:
        raise asyncio.CancelledError("mine")

    async def waits_for_a_cancelled_task() -> None:
        task = asyncio.create_task(asyncio.sleep(5))
        task.cancel("mine")
        await task

    node = Nap().on(event, waits_for_a_cancelled_task if is_async else cancelled)
    async with Commander() as commander:
        await commander.submit(node)
    assert node.state == "completed"
    (error,) = node.callback_errors
    assert isinstance(error, asyncio.CancelledError)


async def test_what_a_callback_returns_is_awaited() -> None:
    order = list[str]()

    async def later(text: str) -> None:
        await asyncio.sleep(1)
        order.append(text)

    node = Nap()
    node.on("start", lambda: asyncio.ensure_future(later("started")))
    node.on("settled", lambda: asyncio.ensure_future(later("settled")))
    node.on("settled", order.append, "next")
    async with Commander() as commander:
        other = await commander.submit(asyncio.sleep, 3600)
        node.on("settled", other.cancel)
        assert await (await commander.submit(node)) == "done"
    assert order == ["started", "settled", "next"]


async def test_a_callback_waits_for_no_node_that_it_returns() -> None:
    nodes = [Nap(), Nap()]
    nodes[0].on("settled", nodes[1].cancel)
    nodes[1].on("settled", nodes[0].cancel)
    nodes[1].on("settled", lambda node: node.root.call(Nap()), inject_node=True)
    async with Commander() as commander:
        for node in nodes:
            await commander.submit(node)
    assert [node.callback_errors for node in nodes] == [(), ()]
    assert asyncio.get_running_loop().time() == 2


async def test_a_callback_that_returns_a_new_node() -> None:
    node = Nap().on("settled", Nap)
    with pytest.raises(
        ConfigurationError, match=r"^a callback of Nap returned Nap, which is in no"
    ):
        async with Commander() as commander:
            await commander.submit(node)
    assert [type(error) for error in node.callback_errors] == [ConfigurationError]


async def test_a_callback_of_a_cancelled_node_may_cancel_what_it_belongs_to() -> None:
    async def stop(node: Node[Any]) -> None:
        await node.root.cancel()

    async with Commander() as commander:
        node = Nap().on("cancelled", stop, inject_node=True)
        await commander.submit(node)
        await asyncio.sleep(0.5)
        node.cancel()
    assert commander.root.state == "cancelled"


async def test_callbacks_added_too_late_are_not_called() -> None:
    calls = list[str]()
    async with Commander() as commander:
        node = await commander.submit(Nap())
        await node
        node.on("settled", calls.append, "settled").on("tree_end", calls.append, "tree end")
    node.on("tree_end", calls.append, "after the end")
    assert calls == ["tree end"]


async def test_the_end_of_the_tree_comes_last_and_takes_no_more() -> None:
    async def last(node: Node[Any]) -> None:
        order.append("end")
        with pytest.raises(NodeClosed):
            await node.submit(Nap(), parent=node.root)

    order = list[str]()
    async with Commander() as commander:
        first = Nap().on("tree_end", last, inject_node=True)
        await commander.submit(first.on("settled", order.append, "first"))
        await commander.submit(Nap().on("settled", order.append, "second"))
    assert order == ["first", "second", "end"]


async def test_a_callback_with_a_cancelled_error_of_its_own() -> None:
    def cancel() -> None:
        raise asyncio.CancelledError

    async with Commander() as commander:
        node = await commander.submit(Nap().on("settled", cancel))
        await node
        assert [type(error) for error in node.callback_errors] == [asyncio.CancelledError]


async def test_a_partial_or_an_object_as_callback_and_what_it_returns() -> None:
    class Awaitable:
        def __call__(self) -> int:
            calls.append("called")
            return 7

    calls = list[str]()
    async with Commander() as commander:
        await (await commander.submit(Nap().on("settled", Awaitable())))
    assert calls == ["called"]


def test_an_event_that_does_not_exist() -> None:
    wrong: Any = "setled"
    with pytest.raises(ConfigurationError, match="'setled' is not a callback event; use start, er"):
        Nap().on(wrong, print)


async def test_a_callback_may_be_given_arguments_of_any_name() -> None:
    told = list[dict[str, str]]()

    def tell(**given: str) -> None:
        told.append(given)

    async with Commander() as commander:
        await commander.submit(Nap().on("settled", tell, event="a", function="b"))
    assert told == [{"event": "a", "function": "b"}]


async def test_what_a_settled_callback_may_ask() -> None:
    told = list[object]()

    def ask(node: Node[Any]) -> None:
        told.append(node.result)
        with pytest.raises(ConfigurationError, match="ask it for its state, its result or its ex"):
            node.outcome()

    node = Nap().on("settled", ask, inject_node=True)
    async with Commander() as commander:
        await commander.submit(node)
    assert told == ["done"]
    assert node.callback_errors == ()
