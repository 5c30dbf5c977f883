"""A node: its state, and when it is settled."""

import asyncio
import contextvars
from typing import Any

import pytest

from treadle.errors import (
    ConfigurationError,
    NodeCancelled,
    NodeClosed,
    NodeDeadlock,
    NodeReused,
)
from treadle.jobs import (
    Commander,
    Handler,
    Job,
    Node,
    Root,
    StartQueue,
    Tree,
    current_node,
    handler,
)

pytestmark = pytest.mark.anyio

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


async def nap(seconds: float, value: str = "") -> str:
    await asyncio.sleep(seconds)
    return value


class Parent(Job[str]):
    """Ends after a second; its child, and the child of that, need longer."""

    async def task(self) -> str:
        self.child = await self.submit(Child())
        await asyncio.sleep(1)
        return "parent"


class Child(Job[None]):
    async def task(self) -> None:
        self.grandchild = await self.submit(nap, 10, "slept")


async def test_a_node_settles_after_its_whole_subtree() -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with Commander() as commander:
        parent = Parent()
        assert (parent.state, parent.id, parent.parent) == ("pending", 0, None)
        assert await commander.submit(parent) is parent
        assert parent.state == "pending"
        await asyncio.sleep(0.5)
        assert parent.state == "active"
        await asyncio.sleep(1)
        assert (parent.state, parent.child.state) == ("waiting", "waiting")
        assert parent.child.grandchild.state == "active"
        assert parent.result is None
        assert not parent.is_settled
        assert await parent == "parent"
        assert loop.time() - start == 10
        assert parent.state == parent.child.state == "completed"
        assert parent.result == "parent"
        assert parent.exception is None


async def test_where_a_node_stands() -> None:
    async with Commander() as commander:
        parent = Parent()
        await commander.submit(parent)
        await parent
        grandchild = parent.child.grandchild
        assert [parent.id, parent.child.id, grandchild.id] == [1, 2, 3]
        assert parent.children == (parent.child,)
        assert grandchild.parent is parent.child
        assert grandchild.ancestors == (parent.child, parent, commander.root)
        assert grandchild.root is commander.root
        assert parent.drawing() == (
            "Parent #1 completed\n  Child #2 completed\n    nap #3 completed"
        )
        assert parent.drawing(max_nodes=2).endswith("\n… and more")
        assert repr(grandchild) == "<nap #3 completed>"
    assert commander.root.state == "completed"


async def test_a_name_of_ones_own() -> None:
    async with Commander() as commander:
        parent = Parent()
        parent.name = "the parent"
        await commander.submit(parent)
        assert repr(parent) == "<the parent #1 pending>"


async def test_a_body_may_return_what_goes_on_for_it() -> None:
    @handler
    async def double(node: Handler[int], number: int) -> int:
        VARIABLE.set("of the handler")
        return 2 * number

    class First(Job[int]):
        async def task(self) -> int | Node[int]:
            VARIABLE.set("of the body")
            return double(21)

    class Second(Job[int]):
        async def task(self) -> int | Node[int]:
            inner = First()
            await self.submit(inner)
            await inner
            return inner

    seen = list[str]()
    async with Commander() as commander:
        first = await commander.submit(First())
        assert await first == 42
        assert [child.name for child in first.children] == ["double"]
        assert await (await commander.submit(Second())) == 42

        class Context(Job[None]):
            async def task(self) -> Node[None] | None:
                VARIABLE.set("of the body")
                return look()

        @handler
        async def look(node: Handler[None]) -> None:
            seen.append(VARIABLE.get())

        await (await commander.submit(Context()))
    assert seen == ["of the body"]


async def test_a_returned_node_that_fails_or_is_cancelled() -> None:
    async def boom() -> None:
        raise ValueError("boom")

    class Returns(Job[None]):
        def __init__(self, policy: Any) -> None:
            self._node_policy = policy

        async def task(self) -> Node[None] | None:
            return Boom()

    class Boom(Job[None]):
        async def task(self) -> None:
            await boom()

    class Cancelled(Job[None]):
        async def task(self) -> Node[None] | None:
            self.child = Sleeper()
            return self.child

    class Sleeper(Job[None]):
        async def task(self) -> None:
            await asyncio.sleep(100)

    async with Commander() as commander:
        for policy in ("fail_fast", "collect"):
            node = await commander.submit(Returns(policy))
            with pytest.raises(ValueError, match="boom"):
                await node
            assert node.state == "failed"
            assert node.errors == ()
        cancelled = Cancelled()
        await commander.submit(cancelled)
        await asyncio.sleep(1)
        cancelled.child.cancel()
        with pytest.raises(NodeCancelled):
            await cancelled
        assert cancelled.state == "cancelled"


@pytest.mark.parametrize("policy", ["fail_fast", "collect"])
async def test_a_returned_child_gives_its_result(policy: Any) -> None:
    class Returns(Job[str]):
        on_failure = policy

        def __init__(self, end: str) -> None:
            self.end = end

        async def task(self) -> Node[str]:
            child = self.call(ends, self.end)
            if self.end == "cancelled":
                await asyncio.sleep(0.5)
                child.cancel()
            return child

    async def ends(how: str) -> str:
        await asyncio.sleep(1)
        if how == "failed":
            raise ValueError("boom")
        return how

    async with Commander() as commander:
        assert await (await commander.submit(Returns("completed"))) == "completed"
        failed = await commander.submit(Returns("failed"))
        with pytest.raises(ValueError, match="boom"):
            await failed
        assert failed.errors == ()
        cancelled = await commander.submit(Returns("cancelled"))
        with pytest.raises(NodeCancelled):
            await cancelled
    assert (failed.state, cancelled.state) == ("failed", "cancelled")


async def test_a_returned_node_has_to_be_new() -> None:
    class Returns(Job[None]):
        def __init__(self, other: Node[None]) -> None:
            self.other = other

        async def task(self) -> Node[None] | None:
            return self.other

    class Itself(Job[None]):
        async def task(self) -> Node[None] | None:
            return self

    async with Commander() as commander:
        sleeper = await commander.submit(asyncio.sleep, 10)
        with pytest.raises(NodeReused, match="await it"):
            await (await commander.submit(Returns(sleeper)))
        with pytest.raises(NodeReused, match="await it"):
            await (await commander.submit(Itself()))


async def test_a_returned_node_of_a_cancelled_one_never_starts() -> None:
    started = list[str]()

    class Late(Job[None]):
        async def task(self) -> None:
            started.append("late")

    class Stubborn(Job[None]):
        async def task(self) -> Node[None] | None:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                return Late()

    async with Commander() as commander:
        node = await commander.submit(Stubborn())
        await asyncio.sleep(1)
        await node.cancel()
        assert node.state == "cancelled"
    assert not started


async def test_a_child_under_the_root_outlives_its_creator() -> None:
    class Creator(Job[Node[str]]):
        async def task(self) -> Any:
            self.background = await self.submit(nap, 10, "done", parent=self.root)
            self.handled = self.call(rest(), parent=self.root)

    @handler
    async def rest(node: Handler[None]) -> None:
        await asyncio.sleep(5)

    async with Commander() as commander:
        creator = Creator()
        await (await commander.submit(creator))
        assert not creator.background.is_settled
        assert creator.background.parent is creator.handled.parent is commander.root
        assert creator.children == ()
        assert await creator.background == "done"


async def test_several_await_one_and_it_may_have_settled() -> None:
    async with Commander() as commander:
        node = await commander.submit(nap, 1, "x")

        async def wait() -> str:
            return await node

        waiting = [await commander.submit(wait) for _ in range(3)]
        assert [await one for one in waiting] == ["x"] * 3
        assert await node == "x"
        assert await asyncio.gather(node, node) == ["x", "x"]
        await node.settling()
        await node.cancel()
        assert node.state == "completed"
        assert node.outcome() == "x"
        assert node.taking().result() is None


async def test_jobs_of_the_same_data_are_two_nodes() -> None:
    from dataclasses import dataclass

    @dataclass
    class Say(Job[str]):
        text: str

        async def task(self) -> str:
            return self.text

    async with Commander() as commander:
        one, other = Say("x"), Say("x")
        assert one != other
        assert len({one, other}) == 2
        nodes = [await commander.submit(one), await commander.submit(other)]
        assert await asyncio.gather(*nodes) == ["x", "x"]


async def test_waiting_with_a_time_out_leaves_nothing_behind() -> None:
    async with Commander() as commander:
        node = await commander.submit(nap, 10)
        for _ in range(3):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1):
                    await node
        assert not node._node_takers
        assert await node == ""


async def test_who_would_wait_for_itself() -> None:
    class Waits(Job[None]):
        async def task(self) -> None:
            with pytest.raises(NodeDeadlock, match=r"Waits #1 waits for Waits #1"):
                await self
            with pytest.raises(NodeDeadlock):
                await self.settling()
            await (await self.submit(self.inside))

        async def inside(self) -> None:
            with pytest.raises(NodeDeadlock, match=r"inside #2 waits for Waits #1"):
                await self
            node = current_node()
            assert node is not None
            with pytest.raises(NodeDeadlock, match="waits for root #0"):
                await node.root

    async with Commander() as commander:
        await (await commander.submit(Waits()))
    assert current_node() is None


async def test_a_settled_or_cancelled_node_takes_no_children() -> None:
    class Parent(Job[None]):
        async def task(self) -> None:
            try:
                await asyncio.sleep(10)
            except asyncio.CancelledError:
                with pytest.raises(NodeClosed, match="parent="):
                    await self.submit(nap, 1)
                await self.submit(nap, 1, parent=self.root)

    async with Commander() as commander:
        settled = await commander.submit(nap, 0)
        await settled
        with pytest.raises(NodeClosed, match="nap #1 takes no more children"):
            await commander.root.submit(nap, 0, parent=settled)
        parent = await commander.submit(Parent())
        await asyncio.sleep(1)
        await parent.cancel()
        assert parent.state == "cancelled"


async def test_a_waiting_node_takes_children() -> None:
    async with Commander() as commander:
        parent = Parent()
        await commander.submit(parent)
        await asyncio.sleep(5)
        assert parent.state == "waiting"
        late = await parent.submit(nap, 100)
        await parent
        assert late.state == "completed"


async def test_a_pending_node_takes_children() -> None:
    async with Commander(limit=1) as commander:
        await commander.submit(nap, 1)
        parent = await commander.submit(nap, 1)
        child = await parent.submit(nap, 1)
        assert parent.state == "pending"
        assert await parent == ""
        assert child.is_settled


async def test_a_node_is_submitted_once() -> None:
    async with Commander() as commander, Commander() as other:
        job = Parent()
        await commander.submit(job)
        for place in (commander, other):
            with pytest.raises(NodeReused, match="make a new one"):
                await place.submit(job)
        with pytest.raises(ConfigurationError, match="another tree"):
            await commander.root.submit(nap, 0, parent=other.root)
        with pytest.raises(NodeReused):
            await commander.submit(other.root)


async def test_what_is_asked_of_a_node_in_no_tree() -> None:
    job = Parent()
    with pytest.raises(ConfigurationError, match="submit it first"):
        await job.submit(nap, 0)
    with pytest.raises(ConfigurationError):
        job.cancel()
    with pytest.raises(ConfigurationError):
        await job
    with pytest.raises(ConfigurationError):
        await job.settling()
    with pytest.raises(ConfigurationError):
        job.exit()
    async with Commander() as commander:
        node = await commander.submit(nap, 1)
        with pytest.raises(ConfigurationError, match="await it"):
            node.outcome()


async def test_what_is_no_job() -> None:
    def plain() -> Any:
        return 7

    def broken() -> Any:
        raise KeyError("x")

    async with Commander() as commander:
        for work in (7, nap(1)):
            with pytest.raises(ConfigurationError, match="is not a job"):
                await commander.submit(work)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match=r"plain gave 7 where a coroutine"):
            await (await commander.submit(plain))
        with pytest.raises(KeyError):
            await (await commander.submit(broken))
        with pytest.raises(TypeError, match="positional argument"):
            await (await commander.submit(nap))  # type: ignore[call-arg]
        with pytest.raises(NotImplementedError, match="Job has no task"):
            await (await commander.submit(Job[None]()))


async def test_context_variables_go_down_the_tree() -> None:
    async def look() -> str:
        return VARIABLE.get()

    async def change() -> str:
        VARIABLE.set("inner")
        node = current_node()
        assert node is not None
        return await (await node.submit(look))

    async with Commander() as commander:
        VARIABLE.set("outer")
        assert await (await commander.submit(change)) == "inner"
        assert await (await commander.submit(look)) == "outer"


async def test_the_block_of_a_commander_cannot_wait_for_its_root() -> None:
    async with Commander() as commander:
        await commander.submit(nap, 1)
        with pytest.raises(NodeDeadlock, match="waits for root #0, which settles only after it"):
            await commander.root
        with pytest.raises(NodeDeadlock):
            await commander.root.settling()
        watching = asyncio.create_task(watch(commander.root))
    assert await watching == "completed"


async def watch(node: Node[Any]) -> str:
    await node
    return node.state


async def test_the_block_of_a_commander_may_cancel_its_root() -> None:
    async with Commander() as commander:
        await commander.submit(nap, 3600)
        await commander.root.cancel()
        raise AssertionError
    assert commander.root.state == "cancelled"


async def test_a_job_cannot_wait_for_the_job_in_which_its_commander_runs() -> None:
    class Outer(Job[str]):
        async def task(self) -> str:
            async with Commander() as inner:
                await inner.submit(nap, 1)
                node = await inner.submit(self.wait)
                with pytest.raises(NodeDeadlock, match=r"wait #2 waits for Outer #1"):
                    await node
                return await (await inner.submit(self.of_the_outer_tree))

        async def wait(self) -> str:
            return await self

        async def of_the_outer_tree(self) -> str:
            return await (await self.submit(nap, 1, "slept"))

    async with Commander() as commander:
        assert await (await commander.submit(Outer())) == "slept"


async def test_a_job_that_counts_as_false_is_a_parent() -> None:
    class Basket(Job[None]):
        def __len__(self) -> int:
            return 0

        async def task(self) -> None:
            await asyncio.sleep(1)

    async with Commander() as commander:
        basket = await commander.submit(Basket())
        node = await commander.root.submit(nap, 1, parent=basket)
        other = commander.root.call(Basket(), parent=basket)
        assert (node.parent, other.parent) == (basket, basket)


async def test_who_takes_the_outcome_and_gives_it_up_leaves_nothing() -> None:
    async with Commander() as commander:
        node = await commander.submit(nap, 3600)
        for _ in range(10):
            node.taking().cancel()
        await asyncio.sleep(1)
        assert not node.is_awaited
        assert not node._node_takers
        node.cancel()


async def test_call_takes_what_submit_takes() -> None:
    async with Commander() as commander:
        assert await commander.call(nap, 1, "slept") == "slept"
        assert await commander.root.call(nap, 1, "slept") == "slept"
        begun: Any = nap(1)
        with pytest.raises(ConfigurationError, match="is not a job"):
            commander.call(begun)


async def test_a_closed_tree_is_not_advised_as_a_place() -> None:
    async with Commander() as commander:
        settled = await commander.submit(nap, 1)
    for parent in (None, settled):
        with pytest.raises(NodeClosed, match="takes no more children, nor does any other node"):
            await commander.root.submit(nap, 1, parent=parent)


async def test_a_returned_node_that_is_not_admitted_fails_its_node() -> None:
    def admit(parent: Node[Any], node: Node[Any]) -> None:
        if isinstance(node, Parent):
            raise ConfigurationError("not admitted")

    async def returns() -> Any:
        return Parent()

    loop = asyncio.get_running_loop()
    tree = Tree(
        loop, StartQueue(loop, limit=None, max_pending=9), lambda result, wait: None, admit=admit
    )
    root = Root(tree, lambda: None, on_failure="collect")
    node = await root.submit(returns)
    with pytest.raises(ConfigurationError, match="not admitted"):
        await node
    root.close()
    assert (node.children, root.is_settled) == ((), True)
