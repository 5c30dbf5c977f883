"""Tasks that nothing awaits outlive a defect, are heard, and do not repeat it without a pause."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import pytest
from tests.bus.directory import Directory, Place

from treadle import Agent, Runtime
from treadle.actors import driver
from treadle.actors.due_times import DueTimes
from treadle.actors.postgres_engine import PostgresEngine
from treadle.bus.network import NetworkBus
from treadle.bus.position import Position
from treadle.journal.memory import MemoryJournal
from treadle.journal.postgres_nodes import Look
from treadle.repeating import repeat
from treadle.server.open_requests import OpenRequests
from treadle.testing import ScriptedModel

pytestmark = pytest.mark.anyio


class Broken:
    """Raises at its first calls, and counts all of them."""

    def __init__(self, times: int = 1, error: BaseException | None = None) -> None:
        self.times = times
        self.error = error or RuntimeError("a defect")
        self.calls = 0

    async def __call__(self, *_: object, **__: object) -> Any:
        self.calls += 1
        if self.calls <= self.times:
            raise self.error
        return []


async def due_times(broken: Broken) -> Callable[[], Awaitable[None]]:
    journal = MemoryJournal()
    await journal.open()
    cast("Any", journal).due = broken
    watched = DueTimes(journal, cast("Any", broken))
    watched.start()
    await asyncio.sleep(10)
    watched.look()
    return watched.stop


async def inbox_poller(broken: Broken) -> Callable[[], Awaitable[None]]:
    class SharedJournal(MemoryJournal):
        is_shared = True

    journal = SharedJournal()
    runtime = Runtime(journal, agents=[Agent(ScriptedModel([]), name="a")])
    await runtime.start()
    cast("Any", journal).waiting_threads = broken
    return runtime.shutdown


async def node(broken: Broken) -> Callable[[], Awaitable[None]]:
    class Nodes:
        id = 1

        async def join(self, agents: object) -> None: ...

        async def leave(self) -> None: ...

        async def listen(self, heard: object, lost: object) -> object:
            await broken()
            return None

        async def look(self, *_: object, **__: object) -> Look:
            return Look(is_member=True)

    engine = PostgresEngine(cast("Any", Nodes()), lambda: ["a"])
    await engine.start(cast("Any", None))
    return engine.leave


async def connections_to_nodes(broken: Broken) -> Callable[[], Awaitable[None]]:
    class BrokenDirectory(Directory):
        async def addresses(self) -> Mapping[int, str]:
            await broken()
            return {}

    bus = NetworkBus(BrokenDirectory(Place()))
    assert [one async for one in bus.follow("t", Position(0))] == []
    return bus.close


async def open_requests(broken: Broken) -> Callable[[], Awaitable[None]]:
    class Request:
        def tick(self, now: float) -> None: ...

        def wake(self) -> None:
            requests.remove(self)

        def cut(self) -> None: ...

    requests = OpenRequests(1.0, before_tick=broken)
    requests.start()
    requests.add(Request())
    return requests.stop


@pytest.mark.parametrize(
    "start", [due_times, inbox_poller, node, connections_to_nodes, open_requests]
)
async def test_a_task_outlives_a_defect(
    start: Callable[[Broken], Awaitable[Callable[[], Awaitable[None]]]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    broken = Broken(2)
    with caplog.at_level(logging.ERROR):
        stop = await start(broken)
        await asyncio.sleep(200)
        await stop()
    assert broken.calls > 2
    logged = [one for one in caplog.records if one.exc_info is not None]
    assert [cast("Any", one.exc_info)[1] for one in logged] == [broken.error] * 2
    calls = broken.calls
    await asyncio.sleep(200)
    assert broken.calls == calls  # its owner has ended it


async def test_a_defect_that_stays_is_met_after_growing_pauses() -> None:
    broken = Broken(1_000_000)
    task = asyncio.create_task(repeat(broken, logging.getLogger("treadle.tests"), "It failed."))
    await asyncio.sleep(100)
    assert 15 < broken.calls < 30
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_future_that_another_one_cancels_does_not_end_a_task() -> None:
    broken = Broken(1, asyncio.CancelledError())

    async def play() -> None:
        await broken()
        await asyncio.sleep(1)

    task = asyncio.create_task(repeat(play, logging.getLogger("treadle.tests"), "It failed."))
    await asyncio.sleep(10)
    assert broken.calls > 1
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_a_round_that_pauses_is_repeated_at_once() -> None:
    times: list[float] = []

    async def play() -> None:
        times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(driver.POLL_SECONDS)

    task = asyncio.create_task(repeat(play, logging.getLogger("treadle.tests"), "It failed."))
    await asyncio.sleep(1.05 * driver.POLL_SECONDS)
    task.cancel()
    await asyncio.wait([task])
    assert len(times) == 2
