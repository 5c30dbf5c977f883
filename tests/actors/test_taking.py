"""What a node of a PostgreSQL database believes to have is what it has there, whatever fails."""

import asyncio
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.actors.postgres_engine import PostgresEngine
from treadle.errors import JournalUnavailable
from treadle.journal.postgres_nodes import Look
from treadle.testing import VirtualClockLoop

THREADS = ("t", "u")


class Table:
    """Fulfils `Nodes` with the threads that one node has; writes take time, in their order."""

    id = 1

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.fails = 0
        self._writing = asyncio.Lock()

    async def _write(self) -> None:
        await asyncio.sleep(0.05)
        if self.fails:
            self.fails -= 1
            raise JournalUnavailable("The server is away.")

    async def join(self, agents: object) -> None: ...

    async def leave(self) -> None: ...

    async def listen(self, heard: object, lost: object) -> None: ...

    async def look(self, *_: object, **__: object) -> Look:
        return Look(is_member=True)

    async def take(self, thread_id: str) -> bool:
        async with self._writing:
            await self._write()
            self.held.add(thread_id)
        return True

    async def release(self, threads: list[str], *, tells: bool) -> None:
        async with self._writing:
            await self._write()
            self.held.difference_update(threads)


STEPS = st.tuples(
    st.sampled_from(["take", "release", "fail"]),
    st.sampled_from(THREADS),
    st.sampled_from([0.0, 0.01, 0.03, 0.3]),
)


async def interleave(steps: list[tuple[str, str, float]]) -> None:
    table = Table()
    engine = PostgresEngine(cast("Any", table), lambda: ["a"], jitter=lambda: 0.0)
    await engine.start(cast("Any", None))
    taking: list[asyncio.Task[bool]] = []
    for step, thread_id, seconds in steps:
        if step == "take":
            taking.append(asyncio.create_task(engine.take(thread_id)))
        elif step == "release":
            engine.release(thread_id)
        else:
            table.fails += 1
        await asyncio.sleep(seconds)
    await asyncio.gather(*taking, return_exceptions=True)
    table.fails = 0
    await asyncio.sleep(5)
    taken, released = cast("Any", engine)._taken, cast("Any", engine)._released
    assert taken <= table.held
    assert not taken & released
    for thread_id in THREADS:
        engine.release(thread_id)
    await asyncio.sleep(5)
    assert not table.held
    await engine.leave()


def play(steps: list[tuple[str, str, float]]) -> None:
    loop = VirtualClockLoop()
    try:
        loop.run_until_complete(interleave(steps))
    finally:
        loop.close()


def test_a_thread_that_is_taken_while_giving_it_back_fails_is_kept() -> None:
    play(
        [
            ("take", "t", 0.3),
            ("fail", "t", 0.0),
            ("release", "t", 0.01),
            ("take", "t", 0.3),
        ]
    )


@settings(max_examples=100)
@given(st.lists(STEPS, max_size=14))
def test_takes_and_releases_in_any_order(steps: list[tuple[str, str, float]]) -> None:
    play(steps)
