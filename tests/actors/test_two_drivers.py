"""Two runtimes that both drive, on one journal: neither takes a thread away from the other."""

import asyncio
from collections.abc import AsyncIterator

import pytest

import treadle
from treadle import Agent, Runtime, tool
from treadle.domain.events import Event, RunRequiresAction, TerminalEvent, TextDelta
from treadle.domain.items import Message, OutputText
from treadle.domain.usage import Usage
from treadle.errors import Conflict, JournalLocked, RunInProgress
from treadle.journal.memory import MemoryJournal
from treadle.models.base import ModelRequest
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent
from treadle.testing import Call, Pause, ScriptedModel

pytestmark = pytest.mark.anyio

PIECES = [f"piece {n}, " for n in range(10)]
TEXT = "".join(PIECES)


class SlowModel:
    """Answers with one text, a piece a second."""

    name = provider = "slow"

    def __init__(self) -> None:
        self.requests: list[ModelRequest] = []

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamEvent]:
        self.requests.append(request)
        item_id = f"msg_{len(self.requests)}"
        for piece in PIECES:
            await asyncio.sleep(1)
            yield TextDelta(item_id, piece)
        yield ItemFinished(0, Message("assistant", (OutputText(TEXT),), item_id))
        yield ResponseFinished("r", "stop", Usage(1, 1, requests=1))


@tool(needs_approval=True)
async def remove(name: str) -> str:
    """Needs a person."""
    return f"removed {name}"


def slow_agent() -> tuple[Agent, SlowModel]:
    model = SlowModel()
    return Agent(model, name="assistant"), model


async def events_of(thread: treadle.Thread) -> list[Event]:
    events: list[Event] = []
    async for event in thread.subscribe():
        events.append(event)
        if isinstance(event, TerminalEvent):
            break
    return events


async def test_a_second_runtime_reads_watches_and_sends_without_ending_the_run() -> None:
    journal, (agent, model) = MemoryJournal(), slow_agent()
    async with Runtime(journal, agents=[agent]) as one, Runtime(journal, agents=[agent]) as two:
        thread = await one.create_thread(agent)
        run = await thread.send("go")
        await asyncio.sleep(2.5)
        other = await two.connect(thread.id)
        assert (await other.state()).active_run is not None
        watching = asyncio.create_task(events_of(other))
        await asyncio.sleep(0.5)
        with pytest.raises(RunInProgress):
            await other.send("no", on_busy="reject")
        later = await other.send("and then?")
        assert (await run.result()).text == TEXT
        seen = await watching
        assert "".join(e.delta for e in seen if isinstance(e, TextDelta)) == TEXT
        assert (await later.result()).text == TEXT
        assert len(model.requests) == 2  # nothing was asked for twice
        claim = await journal.claim(thread.id)
        assert claim.epoch == 2  # when it was created, and now: it was never taken away


async def test_answers_cancels_and_edits_come_from_either_runtime() -> None:
    call = Call("remove", '{"name": "x"}', "c1")
    journal = MemoryJournal()
    agent = Agent(ScriptedModel([[call], "Done.", [Pause(100)]]), name="assistant", tools=[remove])
    async with Runtime(journal, agents=[agent]) as one, Runtime(journal, agents=[agent]) as two:
        thread = await one.create_thread(agent)
        other = await two.connect(thread.id)
        run = await other.send("go")
        async for event in other.subscribe():
            if isinstance(event, RunRequiresAction):
                break
        await other.memory.create("notes", "one")
        await other.approve("c1")
        assert (await run.result()).text == "Done."
        assert await thread.memory.get("notes") is not None
        with pytest.raises(Conflict):
            await other.deny("c1")
        run = await thread.send("again")
        await asyncio.sleep(2)
        await (await other.run(run.id)).cancel()
        assert (await run.result(raise_on_incomplete=False)).status == "cancelled"


async def test_a_thread_is_deleted_where_it_is_driven() -> None:
    journal, (agent, _) = MemoryJournal(), slow_agent()
    async with Runtime(journal, agents=[agent]) as one, Runtime(journal, agents=[agent]) as two:
        thread = await one.create_thread(agent)
        await thread.send("go")
        with pytest.raises(JournalLocked):
            await (await two.connect(thread.id)).delete()
        await thread.delete()


async def test_the_other_runtime_takes_over_what_one_leaves() -> None:
    journal, (agent, _) = MemoryJournal(), slow_agent()
    async with Runtime(journal, agents=[agent]) as two:
        async with Runtime(journal, agents=[agent]) as one:
            thread = await one.create_thread(agent)
            run = await thread.send("go")
            other = await two.connect(thread.id)
            watching = asyncio.create_task(events_of(other))
            waiting = asyncio.create_task((await other.run(run.id)).result())
            await asyncio.sleep(2)
        assert (await waiting).text == TEXT
        assert isinstance((await watching)[-1], treadle.RunCompleted)
        said = [item.text for item in await other.history() if isinstance(item, Message)]
        assert said == ["go", TEXT]


async def test_an_idle_thread_is_given_back_and_the_other_runtime_takes_it() -> None:
    journal, agent = MemoryJournal(), Agent(ScriptedModel(["One.", "Two."]), name="assistant")
    async with (
        Runtime(journal, agents=[agent], idle_seconds=1) as one,
        Runtime(journal, agents=[agent]) as two,
    ):
        thread = await one.create_thread(agent)
        await (await thread.send("one")).result()
        await asyncio.sleep(5)
        other = await two.connect(thread.id)
        watching = asyncio.create_task(events_of(thread))  # now it watches what two drives
        await asyncio.sleep(0.1)
        assert (await (await other.send("two")).result()).text == "Two."
        assert (await journal.claim(thread.id)).epoch == 3
        await watching
