"""Failures: where they go, and that none is lost."""

import asyncio
from typing import Any

import pytest

from treadle.errors import ConfigurationError, JobError, NodeCancelled
from treadle.jobs import END, Commander, Graph, Handler, Job, Node, OnFailure, handler
from treadle.jobs.failure import MAX_KEPT, Failure, FailureLog

pytestmark = pytest.mark.anyio


async def boom(after: float = 1, text: str = "boom") -> None:
    await asyncio.sleep(after)
    raise ValueError(text)


class Family(Job[str]):
    """Has a child that fails after a second, and one that would take an hour."""

    async def task(self) -> str:
        self.failing = await self.submit(boom)
        self.sleeping = await self.submit(asyncio.sleep, 3600)
        await asyncio.sleep(10)
        return "done"


class Collecting(Family):
    on_failure = "collect"


async def test_fail_fast_cancels_the_others_and_fails_the_parent() -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    family = Family()
    with pytest.raises(ValueError, match="boom") as caught:
        async with Commander() as commander:
            await commander.submit(family)
            await asyncio.sleep(3600)
    assert loop.time() - start == 1
    assert (family.state, family.failing.state, family.sleeping.state) == (
        "failed",
        "failed",
        "cancelled",
    )
    assert family.exception is family.failing.exception is caught.value
    assert family.errors == ()
    assert commander.root.state == "failed"


async def test_collect_lists_the_failure_and_goes_on() -> None:
    family = Collecting()
    async with Commander() as commander:
        await commander.submit(family)
        assert await family == "done"
        assert family.state == family.sleeping.state == "completed"
        assert [str(error) for error in family.errors] == ["boom"]
        assert family.exception is None


async def test_a_failure_that_was_listed_and_not_looked_at_is_raised_at_the_end() -> None:
    family = Collecting()
    with pytest.raises(ValueError, match="boom"):
        async with Commander() as commander:
            await commander.submit(family)
    assert family.state == family.sleeping.state == "completed"


async def test_who_awaits_a_failure_has_it() -> None:
    class Careful(Job[str]):
        async def task(self) -> str:
            with pytest.raises(ValueError, match="boom"):
                await (await self.submit(boom))
            return "fine"

    async with Commander() as commander:
        node = await commander.submit(Careful())
        assert await node == "fine"
        assert node.errors == ()


async def test_a_failure_listed_first_and_awaited_later_is_seen() -> None:
    async with Commander(on_failure="collect") as commander:
        node = await commander.submit(boom)
        await asyncio.sleep(2)
        assert node.state == "failed"
        with pytest.raises(ValueError, match="boom"):
            await node


async def test_an_awaited_failure_that_goes_on_is_one_failure() -> None:
    class Careless(Job[None]):
        async def task(self) -> None:
            await (await self.submit(boom))

    careless = Careless()
    with pytest.raises(ValueError, match="boom"):
        async with Commander() as commander:
            await commander.submit(careless)
    assert isinstance(careless.exception, ValueError)


@pytest.mark.parametrize("policy", ["fail_fast", "collect"])
async def test_the_policy_is_inherited(policy: OnFailure) -> None:
    class Middle(Job[None]):
        async def task(self) -> None:
            self.family = Family()
            await self.submit(self.family)

    class Top(Middle):
        on_failure = policy

        async def task(self) -> None:
            self.middle = Middle()
            await self.submit(self.middle)

    top = Top()
    async with Commander(on_failure="collect" if policy == "fail_fast" else "fail_fast") as it:
        await it.submit(top)
        await top.settling()
        found = top.middle.family
        if policy == "collect":
            assert (found.state, len(found.errors)) == ("completed", 1)
            assert await found == "done"
        else:
            assert (found.state, top.state) == ("failed", "failed")
        assert (top.exception is None) == (policy == "collect")


async def test_a_handler_chooses_its_own_policy() -> None:
    @handler(on_failure="collect")
    async def gather(node: Handler[str]) -> str:
        await node.submit(boom)
        await asyncio.sleep(5)
        return "gathered"

    async with Commander() as commander:
        node = commander.call(gather())
        assert await node == "gathered"
        assert len(node.errors) == 1


async def test_collect_of_a_body_that_fails_leaves_its_children() -> None:
    class Fails(Job[None]):
        def __init__(self, policy: OnFailure) -> None:
            self._node_policy = policy

        async def task(self) -> None:
            self.child = await self.submit(asyncio.sleep, 10)
            await boom()

    for policy, state in (("collect", "completed"), ("fail_fast", "cancelled")):
        fails = Fails(policy)  # type: ignore[arg-type]
        async with Commander() as commander:
            await commander.submit(fails)
            with pytest.raises(ValueError, match="boom"):
                await fails
        assert (fails.state, fails.child.state) == ("failed", state)


async def test_several_that_nobody_saw_are_raised_together() -> None:
    with pytest.raises(ExceptionGroup, match="2 failures of jobs that were not seen") as caught:
        async with Commander(on_failure="collect") as commander:
            await commander.submit(boom, 1, "first")
            await commander.submit(boom, 2, "second")
    assert [str(error) for error in caught.value.exceptions] == ["first", "second"]


async def test_a_failure_during_the_clean_up_is_not_lost() -> None:
    async def fails_again() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            raise KeyError("clean-up")

    with pytest.raises(ExceptionGroup) as caught:
        async with Commander() as commander:
            await commander.submit(fails_again)
            await commander.submit(boom)
    assert {type(error) for error in caught.value.exceptions} == {ValueError, KeyError}


async def test_a_block_that_fails_with_what_nobody_saw() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with Commander(on_failure="collect") as commander:
            await commander.submit(boom)
            await asyncio.sleep(2)
            raise KeyError("the block")
    assert [type(error) for error in caught.value.exceptions] == [KeyError, ValueError]


async def test_a_block_that_fails_with_what_it_saw() -> None:
    with pytest.raises(ValueError, match="boom"):
        async with Commander() as commander:
            await (await commander.submit(boom))


async def test_awaiting_a_cancelled_node_that_fails_its_waiter() -> None:
    async def wait(other: Node[Any]) -> None:
        await other

    with pytest.raises(NodeCancelled, match="sleep #1 was cancelled"):
        async with Commander() as commander:
            sleeper = await commander.submit(asyncio.sleep, 100)
            await commander.submit(wait, sleeper)
            await asyncio.sleep(1)
            sleeper.cancel()


async def test_the_parent_that_is_failed_while_it_waits() -> None:
    class Waits(Job[None]):
        async def task(self) -> None:
            await self.submit(boom)
            await (await self.submit(asyncio.sleep, 3600))

    waits = Waits()
    with pytest.raises(ValueError, match="boom"):
        async with Commander() as commander:
            await commander.submit(waits)
    assert waits.errors == ()


async def test_failures_of_a_node_that_ends_in_clean_up_are_listed() -> None:
    class Parent(Job[None]):
        on_failure = "fail_fast"

        async def task(self) -> None:
            await self.submit(boom)
            try:
                await asyncio.sleep(100)
            finally:
                raise KeyError("clean-up")

    parent = Parent()
    async with Commander(on_failure="collect") as commander:
        await commander.submit(parent)
        with pytest.raises(ValueError, match="boom"):
            await parent
        assert [type(error) for error in parent.errors] == [KeyError]


async def test_the_same_exception_of_two_jobs_is_raised_once() -> None:
    error = ValueError("shared")

    async def share() -> None:
        raise error

    with pytest.raises(ValueError, match="shared"):
        async with Commander(on_failure="collect") as commander:
            await commander.submit(share)
            await commander.submit(share)


async def test_more_failures_than_are_kept_are_counted() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with Commander(on_failure="collect") as commander:
            for number in range(MAX_KEPT + 5):
                await commander.submit(boom, number, str(number))
    *kept, last = caught.value.exceptions
    assert [str(error) for error in kept] == [str(number) for number in range(MAX_KEPT)]
    assert isinstance(last, JobError)
    assert str(last).startswith("5 more unseen failures")
    assert len(commander.root.errors) == MAX_KEPT


async def test_all_failures_of_a_node_that_keeps_its_children_can_be_seen() -> None:
    class Many(Job[None]):
        on_failure = "collect"

        async def task(self) -> None:
            for number in range(3 * MAX_KEPT):
                await self.submit(boom, 1, str(number))

    async with Commander() as commander:
        many = await commander.submit(Many())
        await many
        assert len(many.errors) == 3 * MAX_KEPT


def test_the_log_forgets_what_was_seen() -> None:
    log = FailureLog()
    first = [Failure(ValueError(str(number))) for number in range(MAX_KEPT)]
    for failure in first:
        log.add(failure)
    left_out = Failure(ValueError("left out"))
    log.add(left_out)
    assert log.left_out == 1
    for failure in first:
        failure.take()
    log.add(first[0])
    late = Failure(ValueError("late"))
    log.add(late)
    left_out.take()
    left_out.take()
    assert log.left_out == 0
    assert log.take_unseen() == [late.exception]
    assert log.take_unseen() == []


def test_a_policy_that_does_not_exist_is_refused() -> None:
    wrong: Any = "colect"
    with pytest.raises(ConfigurationError, match="on_failure is 'colect'; it must be fail_fast or"):
        Commander(on_failure=wrong)
    with pytest.raises(ConfigurationError, match="it must be fail_fast or collect"):
        handler(on_failure=wrong)
    with pytest.raises(ConfigurationError, match="it must be fail_fast or collect"):
        Graph(steps={"a": boom}, edges={"a": END}, start="a", on_failure=wrong)
    with pytest.raises(ConfigurationError, match=r"Wrong\.on_failure is 'colect'"):

        class Wrong(Job[None]):
            on_failure = wrong
