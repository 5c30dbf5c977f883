"""Plain functions in threads: a pool that is full, and functions that hang."""

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from treadle import tool
from treadle.executor import DaemonExecutor
from treadle.tools import call as call_module
from treadle.tools import threads as module
from treadle.tools.threads import NeverStarted, Start, in_thread

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def gate() -> Any:
    gate = threading.Event()
    yield gate
    gate.set()


async def hang(threads: DaemonExecutor, gate: threading.Event, number: int) -> list[Any]:
    """Starts functions that hang, and waits until each has a thread."""
    tasks = [asyncio.create_task(in_thread(gate.wait, threads=threads)) for _ in range(number)]
    while threads.size < number:  # noqa: ASYNC110 - the pool has no event for it
        await asyncio.sleep(0.01)
    return tasks


async def test_functions_that_hang_make_the_pool_grow(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.01)
    threads = DaemonExecutor(max_threads=2)
    hanging = await hang(threads, gate, 10)
    assert await in_thread(lambda: 7, threads=threads) == 7
    gate.set()
    assert await asyncio.gather(*hanging) == [True] * 10


async def test_a_full_pool_is_reported_and_the_function_never_starts(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(module, "START_SECONDS", 0.1)
    threads, called = DaemonExecutor(max_threads=1), list[int]()
    hanging = await hang(threads, gate, 8)
    for task in hanging[:3]:
        task.cancel()
    await asyncio.sleep(0.05)
    with pytest.raises(NeverStarted, match=r"all 8 threads .* busy for 0.1 s, [0-9] of them"):
        await in_thread(lambda: called.append(1), threads=threads)
    assert [r.levelno for r in caplog.records if r.name == "treadle.tools"] == [logging.ERROR]
    gate.set()
    assert await in_thread(lambda: 7, threads=threads) == 7
    assert not called


async def test_a_caller_that_leaves_while_it_waits(gate: threading.Event) -> None:
    threads, called = DaemonExecutor(max_threads=1), list[int]()
    await hang(threads, gate, 1)
    waiting = asyncio.create_task(in_thread(lambda: called.append(1), threads=threads))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gate.set()
    assert await in_thread(lambda: 7, threads=threads) == 7
    assert not called


def test_either_the_thread_begins_or_the_caller_refuses() -> None:
    first, second = Start(), Start()
    assert (first.begin(), first.refuse(), first.has_begun) == (True, False, True)
    assert (second.refuse(), second.begin(), second.has_begun) == (True, False, False)


async def test_hung_tools_starve_no_other_and_a_timeout_says_that_it_never_started(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.tools.test_call import Calls

    threads = DaemonExecutor(max_threads=4)

    async def in_these(function: Callable[[], Any], *, start: Start) -> Any:
        return await in_thread(function, start=start, threads=threads)

    monkeypatch.setattr(call_module, "in_thread", in_these)

    @tool(timeout=0.05)
    def hangs() -> str:
        """Hangs."""
        gate.wait(20)
        return ""

    @tool
    def healthy() -> str:
        """Is healthy."""
        return "quick"

    for _ in range(3):  # 12 of the 32 threads are left behind
        outcomes = await asyncio.gather(*(Calls().make(hangs) for _ in range(4)))
        assert {o.output.text for o in outcomes} == {"hangs timed out after 0.05 s."}
    assert (await Calls().make(healthy)).output.text == "quick"
    for _ in range(20):
        await asyncio.gather(*(Calls().make(hangs) for _ in range(4)))
    never = (await Calls().make(hangs)).output.text
    assert never == "hangs timed out after 0.05 s; it never started, because no thread was free."
