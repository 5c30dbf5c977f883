"""The alarm of debug mode: which job blocked the event loop."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest

from treadle.jobs import Commander, Job, current_node
from treadle.jobs.block_alarm import BlockAlarm

pytestmark = pytest.mark.anyio


class Clock:
    """A clock that only blocking moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def block(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(
        "treadle.jobs.commander.BlockAlarm", lambda threshold: BlockAlarm(threshold, clock)
    )
    return clock


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "treadle.jobs"]


async def test_a_body_that_blocks_is_named(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    class Blocks(Job[str]):
        async def task(self) -> str:
            clock.block(0.09)
            await asyncio.sleep(1)
            clock.block(0.25)
            await asyncio.sleep(1)
            return "done"

    async with Commander(debug=True) as commander:
        assert await (await commander.submit(Blocks())) == "done"
    (warning,) = warnings(caplog)
    assert warning == (
        "Blocks blocked the event loop for 0.250 s; nothing else could run. "
        "Call what blocks with `await blocking(function, ...)`."
    )
    assert caplog.records[0].levelno == logging.WARNING


async def test_one_that_blocks_and_raises_or_cleans_up(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails() -> None:
        clock.block(1)
        raise ValueError("x")

    async def cleans_up() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            clock.block(2)

    async with Commander(debug=True, blocked_after=0.5) as commander:
        with pytest.raises(ValueError, match="x"):
            await (await commander.submit(fails))
        node = await commander.submit(cleans_up)
        await asyncio.sleep(1)
        await node.cancel()
    assert [text.split(";")[0].rpartition("<locals>.")[2] for text in warnings(caplog)] == [
        "fails blocked the event loop for 1.000 s",
        "cleans_up blocked the event loop for 2.000 s",
    ]


async def test_callbacks_that_block(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    async def later() -> None:
        await asyncio.sleep(1)
        clock.block(1)

    class Nap(Job[None]):
        async def task(self) -> None:
            await asyncio.sleep(1)

    async with Commander(debug=True) as commander:
        nap = Nap().on("settled", clock.block, 2).on("settled", later)
        await commander.submit(nap.on("tree_end", clock.block, 3))
    seconds = [text.split(" for ")[1][:5] for text in warnings(caplog)]
    assert seconds == ["2.000", "1.000", "3.000"]
    assert all(text.startswith("a callback of Nap") for text in warnings(caplog))


async def test_without_debug_mode_nobody_watches(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def blocks() -> None:
        clock.block(10)

    async with Commander() as commander:
        await commander.submit(blocks)
    assert not warnings(caplog)


@pytest.mark.parametrize(("debug", "watched"), [(True, 1), (False, 0)])
async def test_by_default_it_follows_the_event_loop(
    clock: Clock, caplog: pytest.LogCaptureFixture, debug: bool, watched: int
) -> None:
    async def blocks() -> None:
        clock.block(10)

    loop = asyncio.get_running_loop()
    before = loop.get_debug()
    loop.set_debug(debug)
    try:
        async with Commander() as commander:
            await commander.submit(blocks)
    finally:
        loop.set_debug(before)
    assert len(warnings(caplog)) == watched


async def test_a_watched_coroutine_is_one_like_any_other() -> None:
    async def body() -> str:
        try:
            await asyncio.sleep(1)
        except ValueError:
            return "caught"
        return "slept"

    alarm = BlockAlarm(10)
    assert await alarm.watch(body(), "body") == "slept"
    inner: Callable[[], Any] = body
    unused = alarm.watch(inner(), "body")
    unused.close()
    thrown = alarm.watch(inner(), "body")
    thrown.send(None)
    with pytest.raises(StopIteration, match="caught"):
        thrown.throw(ValueError())


async def test_who_ended_last_is_not_blamed_for_a_callback_above_it(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async def parent() -> None:
        node = current_node()
        assert node is not None
        await node.submit(asyncio.sleep, 0)

    async with Commander(debug=True) as commander:
        (await commander.submit(parent)).on("settled", clock.block, 10)
    assert [warning.partition(" blocked")[0] for warning in warnings(caplog)] == [
        "a callback of parent"
    ]
