"""Jobs of other threads: submitted to a running tree, or run by the thread that comes first."""

import asyncio
import contextvars
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from treadle.errors import (
    CommanderNotRunning,
    CommanderRunning,
    ConfigurationError,
    NodeCancelled,
    NodeClosed,
)
from treadle.jobs import Commander, Job, Node, blocking, current_node

pytestmark = pytest.mark.real_clock

SECONDS = 20
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


async def give(value: str) -> str:
    return value


async def boom() -> None:
    raise ValueError("boom")


async def for_ever() -> None:
    await asyncio.Event().wait()


async def end(wait: bool = True) -> None:
    node = current_node()
    assert node is not None
    node.exit("ended", wait=wait)


class Thread(threading.Thread):
    """Calls a function; `result` waits for what it returns or raises."""

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        super().__init__(daemon=True)
        self._call = lambda: function(*args, **kwargs)
        self._future: Future[Any] = Future()
        self.start()

    def run(self) -> None:
        try:
            self._future.set_result(self._call())
        except BaseException as error:  # noqa: BLE001
            self._future.set_exception(error)

    def result(self) -> Any:
        return self._future.result(SECONDS)


@contextmanager
def serving(commander: Commander[Any]) -> Iterator[Thread]:
    """The commander runs in a thread, until it is told to exit."""
    started = threading.Event()

    class Started(Job[None]):
        async def task(self) -> None:
            started.set()

    thread = Thread(commander.run, Started(), auto_exit=False)
    assert started.wait(SECONDS)
    try:
        yield thread
    finally:
        with suppress(CommanderNotRunning):
            commander.submit_threadsafe(end, False)
        thread._future.exception(SECONDS)
        thread.join(SECONDS)


def test_a_future_has_the_result_or_the_exception() -> None:
    commander = Commander[str]()
    with serving(commander) as run:
        assert commander.submit_threadsafe(give, "x").result(SECONDS) == "x"
        with pytest.raises(ValueError, match="boom"):
            commander.submit_threadsafe(boom).result(SECONDS)
        assert isinstance(commander.submit_threadsafe(boom).exception(SECONDS), ValueError)
        with pytest.raises(ConfigurationError, match="is not a job"):
            commander.submit_threadsafe(7)  # type: ignore[call-overload]
        commander.submit_threadsafe(end).result(SECONDS)
        assert run.result() == "ended"
    with pytest.raises(CommanderNotRunning, match="start it first"):
        commander.submit_threadsafe(give, "late")


def test_a_future_is_cancelled_with_its_job_and_the_job_with_its_future() -> None:
    commander = Commander[str]()
    ended = threading.Event()

    class Waits(Job[None]):
        async def task(self) -> None:
            begun.set()
            try:
                await for_ever()
            finally:
                ended.set()

    with serving(commander):
        begun = threading.Event()
        future = commander.submit_threadsafe(Waits())
        assert begun.wait(SECONDS)
        assert future.cancel()
        assert future.cancelled()
        assert ended.wait(SECONDS)
        with pytest.raises(CancelledError):
            future.result(SECONDS)

        begun = threading.Event()
        job = Waits()
        future = commander.submit_threadsafe(job)
        assert begun.wait(SECONDS)

        async def cancel() -> None:
            await job.cancel()

        commander.submit_threadsafe(cancel).result(SECONDS)
        with pytest.raises(NodeCancelled):
            future.result(SECONDS)
        assert not future.cancel()


def test_a_future_cancelled_before_its_job_is_placed() -> None:
    commander = Commander[str]()
    gate, blocked = threading.Event(), threading.Event()

    async def block() -> None:
        blocked.set()
        while not gate.is_set():
            pass

    with serving(commander):
        commander.submit_threadsafe(block)
        assert blocked.wait(SECONDS)
        never = Waiting()
        future = commander.submit_threadsafe(never)
        assert future.cancel()
        gate.set()
        commander.submit_threadsafe(give, "x").result(SECONDS)
        assert never.id == 0


class Waiting(Job[None]):
    async def task(self) -> None:
        await for_ever()


def test_a_future_cancelled_after_the_end_of_the_loop() -> None:
    commander = Commander[str]()
    with serving(commander) as run:
        future = commander.submit_threadsafe(for_ever)
        commander.submit_threadsafe(end, False)
        run.result()
    with pytest.raises(NodeCancelled):
        future.result(SECONDS)
    assert not future.cancel()


def test_a_child_of_another_node() -> None:
    commander = Commander[str]()
    with serving(commander), serving(Commander()) as _:
        parent = Waiting()
        commander.submit_threadsafe(parent)

        async def look() -> str:
            node = current_node()
            assert node is not None
            return f"{node.parent is parent} {VARIABLE.get()}"

        VARIABLE.set("of the submitter")
        found = commander.submit_threadsafe(look, parent=parent).result(SECONDS)
        assert found == "True of the submitter"
        settled = Job[None]()
        with pytest.raises(NotImplementedError):
            commander.submit_threadsafe(settled).result(SECONDS)
        with pytest.raises(NodeClosed):
            commander.submit_threadsafe(look, parent=settled).result(SECONDS)
        with pytest.raises(ConfigurationError, match="another tree"):
            commander.submit_threadsafe(look, parent=Waiting()).result(SECONDS)


def test_what_was_handed_over_before_the_end_is_done() -> None:
    commander = Commander[str]()
    gate, blocked = threading.Event(), threading.Event()

    async def block() -> None:
        blocked.set()
        while not gate.is_set():
            pass
        node = current_node()
        assert node is not None
        node.exit("ended")

    with serving(commander) as run:
        commander.submit_threadsafe(block)
        assert blocked.wait(SECONDS)
        future = commander.submit_threadsafe(give, "in time")
        gate.set()
        assert future.result(SECONDS) == "in time"
        assert run.result() == "ended"


def test_submissions_race_with_the_end() -> None:
    """Each is either accepted, and done, or refused at once."""
    commander = Commander[None]()
    accepted, refused = list[str](), list[str]()
    stop = threading.Event()

    def submit() -> None:
        while not stop.is_set():
            try:
                future = commander.submit_threadsafe(give, "done")
            except CommanderNotRunning:
                refused.append("refused")
            else:
                accepted.append(future.result(SECONDS))

    async def end_soon() -> None:
        before = len(accepted)
        for _ in range(1000):
            if len(accepted) > before:
                break
            await asyncio.sleep(0)
        await end()

    threads = [Thread(submit) for _ in range(2)]
    try:
        for _ in range(30):
            commander.run(end_soon)
    finally:
        stop.set()
    for thread in threads:
        thread.result()
    assert set(accepted) == {"done"}
    assert refused


def test_run_auto_starts_a_run_or_joins_one() -> None:
    commander = Commander[str]()
    done = list[str]()

    async def note(text: str) -> None:
        done.append(text)

    assert commander.run_auto(note, "started") is True
    with serving(commander) as run:
        assert commander.run_auto(note, "joined") is False
        commander.submit_threadsafe(end)
        run.result()
    assert done == ["started", "joined"]


def test_run_auto_within_the_tree_joins_it() -> None:
    commander = Commander()
    joined = Given()

    class Outer(Job[bool]):
        async def task(self) -> bool:
            return commander.run_auto(joined)

    assert commander.run(Outer()) is False
    assert joined.state == "completed"


class Given(Job[None]):
    async def task(self) -> None:
        await asyncio.sleep(0)


def test_run_auto_from_two_threads() -> None:
    commander = Commander()
    jobs = [Given() for _ in range(200)]

    def run(part: list[Given]) -> list[bool]:
        return [commander.run_auto(job) for job in part]

    threads = [Thread(run, jobs[:100]), Thread(run, jobs[100:])]
    started = [one for thread in threads for one in thread.result()]
    Thread(commander.run, give, "the last is at its end").result()
    assert all(job.state == "completed" for job in jobs)
    assert any(started)


def test_run_auto_waits_for_a_run_that_is_ending() -> None:
    commander = Commander()
    ending, go_on, waiting = threading.Event(), threading.Event(), threading.Event()

    async def ends() -> None:
        node = current_node()
        assert node is not None
        node.exit()
        ending.set()
        await asyncio.to_thread(go_on.wait, SECONDS)

    def run_auto() -> bool:
        waiting.set()
        return commander.run_auto(give, "its own run")

    first = Thread(commander.run, ends)
    assert ending.wait(SECONDS)
    with pytest.raises(CommanderNotRunning):
        commander.submit_threadsafe(give, "late")
    second = Thread(run_auto)
    assert waiting.wait(SECONDS)
    go_on.set()
    first.result()
    assert second.result() is True


def test_what_run_auto_handed_over_is_like_any_other_child_of_the_root() -> None:
    commander = Commander()
    with serving(commander) as run:
        assert commander.run_auto(boom) is False
        with pytest.raises(ValueError, match="boom"):
            run.result()


def test_run_auto_raises_what_the_job_raised() -> None:
    commander = Commander()

    async def runs_itself() -> None:
        async with commander:
            raise AssertionError("it is entered twice")

    with pytest.raises(CommanderRunning):
        commander.run_auto(runs_itself)
    with pytest.raises(ValueError, match="boom"):
        commander.run_auto(boom)


def test_a_commander_in_another_thread_is_running() -> None:
    commander = Commander()
    with serving(commander), pytest.raises(CommanderRunning):
        commander.run(give, "x")


def test_a_failure_that_nobody_asked_a_future_for_is_raised_at_the_end() -> None:
    commander = Commander()
    with serving(commander) as run:
        commander.submit_threadsafe(boom)
        commander.submit_threadsafe(give, "x").result(SECONDS)
        assert commander.root.state == "active"
        commander.submit_threadsafe(end)
        with pytest.raises(ValueError, match="boom"):
            run.result()


def test_a_cancelled_future_whose_job_fails_on_the_way() -> None:
    commander = Commander()

    class Fails(Job[None]):
        async def task(self) -> None:
            begun.set()
            try:
                await for_ever()
            finally:
                raise ValueError("clean-up")

    with serving(commander) as run:
        begun = threading.Event()
        future = commander.submit_threadsafe(Fails())
        assert begun.wait(SECONDS)
        future.cancel()
        commander.submit_threadsafe(end)
        with pytest.raises(ValueError, match="clean-up"):
            run.result()


def test_a_future_in_async_code() -> None:
    commander = Commander()

    async def ask() -> None:
        assert await asyncio.wrap_future(commander.submit_threadsafe(give, "x")) == "x"
        with pytest.raises(ValueError, match="boom"):
            await asyncio.wrap_future(commander.submit_threadsafe(boom))

    with serving(commander):
        asyncio.run(ask())


def test_many_threads_at_once() -> None:
    commander = Commander(limit=3)

    def submit(number: int) -> list[str]:
        futures = [commander.submit_threadsafe(give, f"{number} {n}") for n in range(200)]
        return [future.result(SECONDS) for future in futures]

    with serving(commander):
        threads = [Thread(submit, number) for number in range(4)]
        for number, thread in enumerate(threads):
            assert thread.result() == [f"{number} {n}" for n in range(200)]


@pytest.mark.parametrize("wait", [True, False])
def test_exit_from_another_thread(wait: bool) -> None:
    commander = Commander[str]()
    started = threading.Event()

    async def serve() -> None:
        started.set()
        await commander.exited()

    running = Thread(commander.run, serve, auto_exit=False)
    assert started.wait(SECONDS)
    commander.exit("first", wait=wait)
    with suppress(CommanderNotRunning):  # the run has ended by then, or is about to
        commander.exit("second")
    assert running.result() == "first"
    with pytest.raises(CommanderNotRunning, match="has ended"):
        commander.exit()


def test_exit_in_a_thread_of_a_job() -> None:
    async def job() -> None:
        node = current_node()
        assert node is not None
        await blocking(node.exit, "ended", wait=False)
        await asyncio.sleep(3600)

    assert Commander[str]().run(job) == "ended"


def test_exit_from_another_thread_cancels_what_an_earlier_one_waits_for() -> None:
    commander = Commander[str]()
    with serving(commander):
        future = commander.submit_threadsafe(for_ever)
        commander.exit("first")
        commander.exit("second", wait=False)
        with pytest.raises(NodeCancelled):
            future.result(SECONDS)


def test_the_root_as_the_parent_is_no_parent_at_all() -> None:
    futures = list[Future[str]]()

    async def submits_and_exits() -> None:
        futures.append(commander.submit_threadsafe(give, "a"))
        futures.append(commander.submit_threadsafe(give, "b", parent=commander.root))
        commander.exit()

    commander = Commander[None]()
    commander.run(submits_and_exits)
    assert [future.result(SECONDS) for future in futures] == ["a", "b"]


def test_a_node_is_awaited_in_its_own_event_loop() -> None:
    refused = list[str]()

    async def wait_for(node: Node[str]) -> None:
        with pytest.raises(ConfigurationError, match="runs in another event loop") as raised:
            await node
        refused.append(raised.value.message)

    class Fails(Job[None]):
        async def task(self) -> None:
            tried = asyncio.Event()
            node = await self.submit(boom_after, tried)
            await blocking(lambda: asyncio.run(wait_for(node)))
            tried.set()
            await asyncio.sleep(3600)

    with pytest.raises(ValueError, match="boom"):  # which was not seen
        Commander().run(Fails())
    assert len(refused) == 1


async def boom_after(event: asyncio.Event) -> Any:
    await event.wait()
    raise ValueError("boom")
