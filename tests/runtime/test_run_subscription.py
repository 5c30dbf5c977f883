"""The events of a run after a position."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

import treadle
from treadle import Agent, MessageAdded, Runtime, TerminalEvent, TextDelta
from treadle.errors import InvalidInput
from treadle.journal.base import JournalReader
from treadle.journal.projection import RunRecord
from treadle.testing import Pause, ScriptedModel, Text

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
TEXT = "The quick brown fox jumps over the lazy dog."


async def read(run: treadle.ThreadRun, after: str | None = None) -> list[treadle.Envelope]:
    async with await run.subscribe(after) as subscription:
        return [envelope async for envelope in subscription.envelopes()]


async def test_it_has_the_events_of_the_run_alone(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["one", "two", "three"]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        runs = [await thread.send(text) for text in ("1", "2", "3")]
        for run, text in zip(runs, ("one", "two", "three"), strict=True):
            events = [envelope.event for envelope in await read(run)]
            assert {getattr(event, "run_id", run.id) for event in events} == {run.id}
            assert isinstance(events[-1], TerminalEvent)
            assert sum(isinstance(event, TerminalEvent) for event in events) == 1
            assert "".join(e.delta for e in events if isinstance(e, TextDelta)) == text


class _Late:
    """A journal in which a run begins and ends right after it was looked for."""

    def __init__(self, journal: JournalReader) -> None:
        self._journal = journal
        self._looks = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._journal, name)

    async def run(self, thread_id: str, run_id: str) -> RunRecord | None:
        self._looks += 1
        return None if self._looks == 1 else await self._journal.run(thread_id, run_id)


async def test_a_run_that_begins_and_ends_while_it_is_looked_for_is_read(
    open_runtime: Open,
) -> None:
    agent = Agent(ScriptedModel(["one"]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("1")
        await run.result()
        found = await runtime.run(run.id)
        found._journal = cast("JournalReader", _Late(found._journal))
        events = [envelope.event for envelope in await read(found)]
        assert isinstance(events[0], MessageAdded)
        assert isinstance(events[-1], TerminalEvent)


async def test_every_position_continues_exactly(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([TEXT, "Second."]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("1")
        await thread.send("2")
        whole = await read(run)
        for number, left in enumerate(whole):
            rest = await read(run, left.position)
            text = [e.event for e in (*whole[: number + 1], *rest) if type(e.event) is TextDelta]
            assert "".join(one.delta for one in text) == TEXT
            assert rest[-1].event == whole[-1].event if rest else number == len(whole) - 1


async def test_it_is_over_at_the_end_of_the_run(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["one"]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("1")
        last = (await read(run))[-1]
        assert (await run.subscribe(last.position)).is_over
        assert not (await run.subscribe(last.seq - 1)).is_over
        assert await read(run, last.position) == []
        with pytest.raises(InvalidInput, match="has no event 99"):
            await run.subscribe(99)


async def test_a_run_that_is_taken_out_of_the_queue_ends() -> None:
    agent = Agent(ScriptedModel([[Pause(60), Text("Hello.")]]))
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await thread.send("one")
        queued = await thread.send("two")
        early = await queued.subscribe()
        await queued.cancel()
        late = await queued.subscribe()
        for subscription in (early, late):
            events = [event async for event in subscription]
            assert [event.type for event in events][-1] == "run.cancelled"


async def test_what_has_arrived_is_taken_without_waiting(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["one"]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        subscription = thread.subscribe()
        assert subscription.take() is None
        await subscription.wait()  # opens the topic
        await (await thread.send("1")).result()
        types: list[str] = []
        while "run.completed" not in types:
            if (envelope := subscription.take()) is not None:
                types.append(envelope.event.type)
            else:
                await subscription.wait()
        assert types[:3] == ["message.added", "run.started", "step.started"]
        assert subscription.take() is None
        asyncio.get_running_loop().call_later(1, subscription.wake)
        await subscription.wait()
        assert subscription.take() is None
        await subscription.aclose()
        with pytest.raises(StopAsyncIteration):
            subscription.take()
