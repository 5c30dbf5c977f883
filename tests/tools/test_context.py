import asyncio
import threading
from typing import Any

import pytest

from treadle import RunContext, tool
from treadle.domain.items import FunctionCall
from treadle.errors import ConfigurationError
from treadle.tools.call import execute, prepare
from treadle.tools.context import CallServices
from treadle.tools.toolset import Toolset

pytestmark = pytest.mark.anyio


def context(seen: list[str]) -> RunContext[None]:
    return RunContext(
        deps=None,
        thread_id="t",
        run_id="r",
        call_id="c",
        tool_name="n",
        _services=CallServices(report=seen.append),
    )


async def in_thread(function: Any, *arguments: object) -> None:
    await asyncio.get_running_loop().run_in_executor(None, function, *arguments)


async def test_progress_of_an_async_tool_comes_before_its_output() -> None:
    seen: list[str] = []

    @tool
    async def work(context: RunContext[None]) -> str:
        """Works."""
        context.progress("half\ud800")
        return ""

    async def ignore(attempt: int) -> None: ...

    prepared = prepare(Toolset([work]), FunctionCall("c", "work", "{}"))
    await execute(prepared, context(seen), on_attempt=ignore)
    assert seen == ["half?"]


async def test_progress_of_a_call_that_nobody_waits_for_is_dropped() -> None:
    seen: list[str] = []
    made = context(seen)
    await in_thread(made.progress, "one")
    made.progress("two")
    made.cancelled.set()
    made.progress("three")
    await in_thread(made.progress, "four")
    await asyncio.sleep(1)
    assert seen == ["one", "two"]


async def test_progress_on_its_way_when_the_call_is_cancelled_is_dropped() -> None:
    seen: list[str] = []
    made = context(seen)
    other = asyncio.new_event_loop()
    try:
        await in_thread(other.run_until_complete, asyncio.sleep(0))
        # The loop waits for the thread, so that it cannot show the progress in between.
        late = threading.Thread(target=lambda: (made.progress("late"), made.cancelled.set()))
        late.start()
        late.join()
    finally:
        other.close()
    await asyncio.sleep(1)
    assert seen == []


async def test_a_tool_sees_what_is_its_own() -> None:
    public = {name for name in dir(context([])) if not name.startswith("_")}
    assert public == {
        "agent",
        "attempt",
        "call_id",
        "cancelled",
        "deps",
        "history",
        "idempotency_key",
        "jobs",
        "memory",
        "message",
        "metadata",
        "owner",
        "progress",
        "run_agent",
        "run_id",
        "run_metadata",
        "schedules",
        "spent",
        "step",
        "thread_id",
        "tool_name",
        "usage",
    }


async def test_a_context_of_a_test_lends_nothing() -> None:
    made: RunContext[None] = RunContext(
        deps=None, thread_id="t", run_id="r", call_id="c", tool_name="n"
    )
    made.progress("not shown")
    for use in (lambda: made.jobs, lambda: made.memory):
        with pytest.raises(ConfigurationError):
            use()
