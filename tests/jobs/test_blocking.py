"""Blocking calls, in a thread."""

import asyncio
import contextvars
import threading
import time

import pytest

from treadle.errors import NodeCancelled
from treadle.jobs import Commander, blocking, current_node

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def add(a: int, *, b: int) -> int:
    return a + b


async def test_it_returns_and_raises_what_the_function_does() -> None:
    assert await blocking(add, 1, b=2) == 3
    assert await blocking(threading.get_ident) != threading.get_ident()
    with pytest.raises(KeyError):
        await blocking({}.__getitem__, "x")
    with pytest.raises(RuntimeError, match="StopIteration"):
        await blocking(next, iter(()))


async def test_the_function_sees_the_context_of_the_caller() -> None:
    def look() -> tuple[str, object]:
        before = VARIABLE.get()
        VARIABLE.set("of the thread")
        return before, current_node()

    VARIABLE.set("of the caller")
    async with Commander() as commander:
        node = await commander.submit(blocking, look)
        assert await node == ("of the caller", node)
    assert VARIABLE.get() == "of the caller"


async def test_the_loop_goes_on_meanwhile() -> None:
    gate = threading.Event()
    async with Commander(debug=True, blocked_after=5) as commander:
        node = await commander.submit(blocking, gate.wait, 10)
        await asyncio.sleep(0)
        gate.set()
        assert await node is True


async def test_a_cancelled_call_is_left_and_runs_on() -> None:
    begun, gate, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        gate.wait(10)
        ended.set()

    start = time.monotonic()
    async with Commander() as commander:
        node = await commander.submit(blocking, work)
        assert await asyncio.to_thread(begun.wait, 10)
        await node.cancel()
        with pytest.raises(NodeCancelled):
            await node
    assert time.monotonic() - start < 5
    assert not ended.is_set()
    gate.set()
    assert await asyncio.to_thread(ended.wait, 10)
