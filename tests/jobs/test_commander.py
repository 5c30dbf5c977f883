"""A commander: the ends of a run, from inside and from outside."""

import asyncio
import gc
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from treadle.errors import (
    CommanderNotRunning,
    CommanderRunning,
    ConfigurationError,
    NodeCancelled,
    NodeClosed,
)
from treadle.jobs import Commander, Handler, Job, Node, current_node, handler

pytestmark = pytest.mark.anyio


class Sum(Job[int]):
    """Adds up a range, by halves."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop

    async def task(self) -> int:
        if self.stop - self.start == 1:
            return self.start
        middle = (self.start + self.stop) // 2
        halves = [
            await self.submit(Sum(self.start, middle)),
            await self.submit(Sum(middle, self.stop)),
        ]
        return sum([await half for half in halves])


async def nap(seconds: float, value: str = "") -> str:
    await asyncio.sleep(seconds)
    return value


async def boom() -> None:
    raise ValueError("boom")


async def ends(value: object, wait: bool = True) -> None:
    node = current_node()
    assert node is not None
    node.exit(value, wait=wait)


# With an event loop of its own


def test_run_gives_the_result_of_the_job() -> None:
    assert Commander().run(Sum(0, 100)) == 4950
    assert Commander().run(nap, 0, "x") == "x"


def test_run_gives_what_exit_was_given() -> None:
    @handler
    async def inside(node: Handler[str]) -> str:
        node.exit("first")
        node.exit("second")
        return "not this"

    commander = Commander[str]()
    assert commander.run(inside()) == "first"
    assert commander.run(nap, 0, "a second run") == "a second run"


def test_run_waits_for_the_whole_tree() -> None:
    class Creator(Job[str]):
        async def task(self) -> str:
            self.other = await self.submit(nap, 0, parent=self.root)
            return "created"

    creator = Creator()
    assert Commander().run(creator) == "created"
    assert creator.other.is_settled


def test_run_raises_what_the_job_raised() -> None:
    for policy in ("fail_fast", "collect"):
        with pytest.raises(ValueError, match="boom"):
            Commander(on_failure=policy).run(boom)


def test_run_raises_a_failure_that_nobody_saw_also_after_exit() -> None:
    class Unseen(Job[None]):
        async def task(self) -> None:
            await self.submit(boom, parent=self.root)
            self.exit("result")

    with pytest.raises(ValueError, match="boom"):
        Commander(on_failure="collect").run(Unseen())


def test_run_of_a_job_that_is_cancelled() -> None:
    class Itself(Job[None]):
        async def task(self) -> None:
            await self.cancel()

    with pytest.raises(NodeCancelled):
        Commander().run(Itself())


def test_run_goes_on_until_exit() -> None:
    async def later(node: Node[Any]) -> None:
        await asyncio.sleep(0)
        node.exit("ended")

    class First(Job[str]):
        async def task(self) -> str:
            await self.submit(later, self)
            return "first"

    assert Commander[str]().run(First(), auto_exit=False) == "ended"


def test_run_without_an_end_that_is_cancelled() -> None:
    class Stops(Job[None]):
        async def task(self) -> None:
            self.root.cancel()
            await asyncio.sleep(0)

    with pytest.raises(NodeCancelled):
        Commander().run(Stops(), auto_exit=False)


async def test_run_is_for_synchronous_code() -> None:
    with pytest.raises(ConfigurationError, match=r"run\(\) has an event loop of its own"):
        Commander().run(boom)
    with pytest.raises(ConfigurationError, match="run_auto"):
        Commander().run_auto(boom)
    with pytest.raises(ConfigurationError, match="is not a job"):
        await asyncio.to_thread(lambda: Commander().run(7))  # type: ignore[call-overload]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_ends_the_run(error: type[BaseException]) -> None:
    ended = list[str]()

    async def rest() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append("cleaned up")

    class Ends(Job[None]):
        def __init__(self, where: str) -> None:
            self.where = where

        async def task(self) -> None:
            self.call(resting(), parent=self.root)
            for _ in range(5):
                await asyncio.sleep(0)  # it starts
            if self.where == "body":
                raise error

    @handler
    async def resting(node: Handler[None]) -> None:
        await rest()

    def fail() -> None:
        raise error

    def plain() -> Any:
        raise error

    async def fail_later() -> None:
        await asyncio.sleep(0)
        raise error

    commander = Commander()
    for job in (
        Ends("body"),
        Ends("callback").on("settled", fail),
        Ends("callback").on("settled", fail_later),
    ):
        with pytest.raises(error):
            commander.run(job)
        assert job.is_settled
    assert ended == ["cleaned up"] * 3
    with pytest.raises(error):
        commander.run(plain)
    gc.collect()


@pytest.fixture
def keyboard() -> Iterator[None]:
    """A keyboard that interrupts, also where a shell has started the tests in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("keyboard")
def test_interrupted_from_the_keyboard() -> None:
    ended = list[str]()

    async def rest() -> None:
        signal.raise_signal(signal.SIGINT)
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0)
            ended.append("cleaned up")

    commander = Commander()
    with pytest.raises(KeyboardInterrupt):
        commander.run(rest)
    assert ended == ["cleaned up"]
    assert commander.root.state == "cancelled"


# Inside a running event loop


async def test_the_block_waits_for_the_tree() -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    async with Commander() as commander:
        node = await commander.submit(nap, 10)
        handled = commander.call(rests())
        assert commander.root.children == (node, handled)
    assert loop.time() - start == 20
    assert node.is_settled
    assert commander.root.is_settled
    assert commander.root.children == ()


@handler
async def rests(node: Handler[None]) -> None:
    await asyncio.sleep(20)


async def test_exit_drains_what_is_under_way() -> None:
    class Works(Job[str]):
        async def task(self) -> str:
            await asyncio.sleep(1)
            with pytest.raises(NodeClosed, match="The run is ending"):
                await self.submit(nap, 1, parent=self.root)
            self.child = await self.submit(nap, 10)
            return "worked"

    async with Commander() as commander:
        works = Works()
        await commander.submit(works)
        await asyncio.sleep(0)
        commander.exit()
        with pytest.raises(NodeClosed, match="takes no new work such as nap"):
            await commander.submit(nap, 1)
    assert (works.result, works.child.state) == ("worked", "completed")


async def test_exit_may_cancel_what_is_under_way() -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    settled = list[str]()
    async with Commander() as commander:
        node = await commander.submit(nap, 3600)
        node.on("settled", settled.append, "settled").on("tree_end", settled.append, "end")
        await commander.submit(ends, "result", False)
        await asyncio.sleep(3600)
        raise AssertionError("the block continues")
    assert loop.time() == start
    assert settled == ["settled", "end"]
    assert node.state == "cancelled"
    await asyncio.sleep(1)  # the host is not cancelled any more
    host = asyncio.current_task()
    assert host is not None
    assert host.cancelling() == 0


async def test_exit_that_waits_and_then_does_not() -> None:
    async with Commander() as commander:
        node = await commander.submit(nap, 3600)
        await asyncio.sleep(1)
        commander.exit()
        commander.exit(wait=False)
    assert node.state == "cancelled"
    await asyncio.sleep(1)
    with pytest.raises(CommanderNotRunning, match="ended already"):
        commander.exit()


async def test_a_loop_of_rounds_ends_by_exit() -> None:
    rounds = list[Node[Any]]()

    def again(node: Node[Any]) -> None:
        if len(rounds) == 10:
            node.exit()
        rounds.append(node.root.call(Round().on("settled", again, inject_node=True)))

    class Round(Job[None]):
        async def task(self) -> None:
            await asyncio.sleep(1)

    async with Commander() as commander:
        await commander.submit(Round().on("settled", again, inject_node=True))
    assert len(rounds) == 10


async def test_a_body_that_is_refused_while_the_run_ends_stops_no_other() -> None:
    class Late(Job[None]):
        async def task(self) -> None:
            await asyncio.sleep(1)
            await self.submit(nap, 1, parent=self.root)

    async with Commander() as commander:
        late = await commander.submit(Late())
        other = await commander.submit(nap, 10, "drained")
        await asyncio.sleep(0)
        commander.exit()
    assert (late.state, other.state) == ("failed", "completed")


async def test_it_serves_until_told_to_stop() -> None:
    async def stop() -> None:
        await asyncio.sleep(10)
        commander.exit()

    async with Commander() as commander:
        await commander.submit(stop)
        await commander.exited()
        await commander.exited()


async def test_an_error_of_the_block_cancels_the_tree() -> None:
    with pytest.raises(KeyError):
        async with Commander() as commander:
            node = await commander.submit(nap, 3600)
            raise KeyError("x")
    assert node.state == "cancelled"


async def test_the_host_is_cancelled() -> None:
    nodes = list[Node[Any]]()
    ended = list[str]()

    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(10)
            ended.append("cleaned up")

    async def host(in_block: bool) -> None:
        async with Commander() as commander:
            nodes.append(await commander.submit(slow_to_end))
            if in_block:
                await asyncio.sleep(3600)

    for in_block in (True, False):
        task = asyncio.create_task(host(in_block))
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()
    assert [node.state for node in nodes] == ["cancelled"] * 2
    assert len(ended) == 2


async def test_cancelled_again_it_interrupts_the_clean_up() -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()

    async def slow_to_end() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(3600)

    async def host() -> None:
        async with Commander() as commander:
            await commander.submit(slow_to_end)

    task = asyncio.create_task(host())
    for _ in range(2):
        await asyncio.sleep(1)
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert loop.time() - start == 2


async def test_a_time_out_around_a_commander() -> None:
    loop = asyncio.get_running_loop()
    start = loop.time()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5), Commander() as commander:
            node = await commander.submit(nap, 3600)
    assert node.state == "cancelled"
    assert loop.time() - start == 5
    with pytest.raises(ValueError, match="boom"):
        async with asyncio.timeout(5), Commander() as commander:
            await commander.submit(boom)
            await asyncio.sleep(3600)
    async with asyncio.timeout(5), Commander() as commander:
        await commander.submit(ends, None, False)
        await asyncio.sleep(3600)
    await asyncio.sleep(10)
    host = asyncio.current_task()
    assert host is not None
    assert host.cancelling() == 0


async def test_a_time_out_within_the_block() -> None:
    async with Commander() as commander:
        node = await commander.submit(nap, 10, "x")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await node
        assert await node == "x"


async def test_cancelled_from_outside_and_interrupted_at_once() -> None:
    async def host() -> None:
        async with Commander() as commander:
            await commander.submit(ends, None, False)
            await asyncio.sleep(3600)

    task = asyncio.create_task(host())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_exit_as_the_last_of_the_block() -> None:
    """The block has no await left in which the interruption could reach it."""
    async with Commander() as commander:
        node = await commander.submit(nap, 3600)
        commander.exit(wait=False)
    await asyncio.sleep(1)
    assert node.state == "cancelled"

    with pytest.raises(KeyError):
        async with Commander() as commander:
            commander.exit(wait=False)
            raise KeyError("x")
    await asyncio.sleep(1)


async def test_a_block_that_swallows_its_interruption() -> None:
    with pytest.raises(ValueError, match="boom"):
        async with Commander() as commander:
            await commander.submit(boom)
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                await asyncio.sleep(1)
    await asyncio.sleep(1)


async def test_a_commander_within_a_job_of_another() -> None:
    async def inner() -> str:
        async with Commander() as commander:
            node = await commander.submit(nap, 1, "inner")
            assert node.root is commander.root
            return await node

    async with Commander(limit=1) as commander:
        first = await commander.submit(inner)
        second = await commander.submit(inner)
        assert await asyncio.gather(first, second) == ["inner", "inner"]
        assert len(commander.root.children) == 0


async def test_a_commander_runs_one_tree_at_a_time() -> None:
    commander = Commander()
    with pytest.raises(CommanderNotRunning, match="not run yet"):
        await commander.submit(boom)
    with pytest.raises(CommanderNotRunning):
        await commander.exited()
    with pytest.raises(CommanderNotRunning):
        commander.exit()
    with pytest.raises(CommanderNotRunning):
        commander.submit_threadsafe(boom)
    async with commander:
        with pytest.raises(CommanderRunning, match="make another"):
            async with commander:
                raise AssertionError("it is entered")
        first = commander.root
    with pytest.raises(NodeClosed):
        await commander.submit(nap, 0)
    async with commander:
        assert commander.root is not first
        assert await (await commander.submit(nap, 1, "again")) == "again"


@pytest.mark.parametrize("options", [{"limit": 0}, {"max_pending": 0}])
def test_bounds_are_at_least_one(options: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match="at least 1"):
        Commander(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_the_threshold_of_the_alarm_is_above_zero(seconds: float) -> None:
    with pytest.raises(ConfigurationError, match="blocked_after must be above 0"):
        Commander(blocked_after=seconds)


async def test_nothing_goes_on_after_the_end() -> None:
    tasks = asyncio.all_tasks()
    reported = list[dict[str, Any]]()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    with pytest.raises(ExceptionGroup):
        async with Commander(on_failure="collect") as commander:
            for _ in range(3):
                await commander.submit(boom)
                await commander.submit(Sum(0, 10))
            await asyncio.sleep(1)
            slow = await commander.submit(nap, 3600)
            slow.on("settled", lambda: asyncio.sleep(5)).on("settled", boom)
            slow.cancel()
    del commander, slow
    gc.collect()
    await asyncio.sleep(0)
    assert not reported
    assert asyncio.all_tasks() == tasks
