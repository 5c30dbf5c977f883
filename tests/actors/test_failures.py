"""A journal that fails under a thread: typed errors, nothing half done, others go on."""

import asyncio

import pytest

from treadle import Agent, Runtime, Thread, tool
from treadle.domain.entries import ApprovalEntry, FinishEntry, SendEntry
from treadle.domain.events import RunCompleted, ToolStarted
from treadle.domain.items import Message, user_message
from treadle.errors import (
    JournalError,
    JournalFull,
    RunInterrupted,
    RunNotFound,
    StaleWriter,
    StreamIncomplete,
    UnknownAgent,
)
from treadle.journal.base import Batch, ThreadInfo
from treadle.journal.memory import MemoryJournal
from treadle.loop.definition import OnInterruption
from treadle.models.base import ModelRequest
from treadle.testing import Call, Pause, ScriptedModel, Text, Unfinished

pytestmark = pytest.mark.anyio


class FailingJournal(MemoryJournal):
    """Fails the appends of one thread, as long as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.failing: str | None = None
        self.error: Exception = JournalFull("The disk is full; make room and try again.")

    def append(self, batch: Batch) -> asyncio.Future[None]:
        kept = self._by_number.get(batch.claim.number)
        if kept is not None and kept.info.id == self.failing:
            refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            refused.set_exception(self.error)
            return refused
        return super().append(batch)


@tool
async def slow(seconds: float) -> str:
    """Takes its time."""
    await asyncio.sleep(seconds)
    return "slept"


async def first(thread: Thread, kind: type) -> None:
    async for event in thread.subscribe():
        if isinstance(event, kind):
            return


async def test_a_send_that_cannot_be_kept_raises_and_the_thread_comes_back() -> None:
    journal = FailingJournal()
    # The model may have been asked before the journal refused; nobody sees what it said.
    answers = ["Lost.", "One.", "Lost again.", "Other."]
    agent = Agent(ScriptedModel(answers))
    async with Runtime(journal, agents=[agent]) as runtime:
        thread, other = [await runtime.create_thread(agent) for _ in range(2)]
        journal.failing = thread.id
        with pytest.raises(JournalFull):
            await thread.send("lost")
        assert await thread.events() == []
        assert (await (await other.send("hi")).result()).text == "One."
        with pytest.raises(JournalFull):
            await thread.send("lost again", key="k")
        journal.failing = None
        assert (await (await thread.send("kept", key="k")).result()).text == "Other."
        assert [i.text for i in await thread.history() if isinstance(i, Message)] == [
            "kept",
            "Other.",
        ]


async def test_a_run_whose_journal_fails_is_resumed_and_its_result_is_waited_for() -> None:
    journal = FailingJournal()
    # What the model says while the journal refuses is lost, and it is asked again.
    model = ScriptedModel([[Call("slow", '{"seconds": 5}')], *["Whole."] * 99])
    agent = Agent(model, tools=[slow])
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        await first(thread, ToolStarted)
        watching = asyncio.create_task(first(thread, RunCompleted))
        waiting = asyncio.create_task(run.result())
        await asyncio.sleep(1)
        journal.failing = thread.id
        await asyncio.sleep(10)
        assert not waiting.done()
        journal.failing = None
        await asyncio.sleep(60)  # longer than the longest pause of the engine
        await watching
        assert waiting.done()
        assert (await waiting).text == "Whole."


async def test_a_journal_that_cannot_append_is_tried_at_growing_intervals() -> None:
    journal = FailingJournal()
    asked: list[float] = []

    def answer(request: ModelRequest) -> str:
        asked.append(asyncio.get_running_loop().time())
        return "Whole."

    agent = Agent(ScriptedModel([[Call("slow", '{"seconds": 5}')], *[answer] * 999]), tools=[slow])
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        await first(thread, ToolStarted)
        waiting = [asyncio.create_task(run.result()) for _ in range(3)]
        journal.failing = thread.id
        await asyncio.sleep(600)
        assert len(asked) < 80  # each is paid: at most 30 s apart, and not in a loop
        assert not any(task.done() for task in waiting)
        journal.failing = None
        assert {(await task).text for task in waiting} == {"Whole."}


@pytest.mark.parametrize("policy", [None, "retry", "fail"])
async def test_a_response_that_breaks_off_on_a_thread(policy: OnInterruption | None) -> None:
    cut = [Unfinished(Text("Half a")), StreamIncomplete("cut")]
    agent = Agent(ScriptedModel([cut, "Whole."]), on_interruption=policy)
    async with Runtime(MemoryJournal(), agents=[agent]) as runtime:
        run = await (await runtime.create_thread(agent)).send("go")
        if policy == "fail":
            with pytest.raises(StreamIncomplete):
                await run.result()
        else:
            assert (await run.result()).text == "Whole."


@pytest.mark.parametrize("policy", [None, "fail"])
async def test_a_process_that_ends_within_a_response(policy: OnInterruption | None) -> None:
    journal = MemoryJournal()
    agent = Agent(ScriptedModel([[Pause(9), "Lost."], "Whole."]), on_interruption=policy)
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        await asyncio.sleep(1)
    async with Runtime(journal, agents=[agent]) as runtime:
        run = await (await runtime.connect(thread.id)).run(run.id)
        if policy == "fail":
            with pytest.raises(RunInterrupted, match="not repeated"):
                await run.result()
        else:
            assert (await run.result()).text == "Whole."


async def test_an_error_of_another_kind_is_a_journal_error() -> None:
    journal = FailingJournal()
    journal.error = OSError("odd")
    agent = Agent(ScriptedModel([]))
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        journal.failing = thread.id
        with pytest.raises(JournalError, match="odd"):
            await thread.send("hi")


async def test_a_driver_that_lost_its_thread_stops() -> None:
    journal = FailingJournal()
    agent = Agent(ScriptedModel([[Pause(5), Text("Mine.")], "Ours."]))
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        await journal.claim(thread.id)  # somebody else drives from now on
        with pytest.raises(StaleWriter):
            await run.result()


async def test_inputs_from_outside_that_have_no_effect_are_consumed() -> None:
    journal = FailingJournal()
    agent = Agent(ScriptedModel(["One.", "Two."]), name="a")
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("one", key="k")).result()
        await journal.enqueue(thread.id, SendEntry("run_x", user_message("again"), key="k"))
        await journal.enqueue(thread.id, ApprovalEntry("call_none"))
        await journal.enqueue(thread.id, FinishEntry("run_none"))
        await journal.enqueue(thread.id, SendEntry("run_y", user_message("two")))
        actor = await runtime._threads._driver.reach(thread.id)  # type: ignore[attr-defined]
        actor.ring()
        assert (await (await _known(thread, "run_y")).result()).text == "Two."
        assert await journal.inbox(thread.id) == []
        with pytest.raises(RunNotFound):
            await thread.run("run_x")


async def _known(thread: Thread, run_id: str) -> object:
    async for event in thread.subscribe():
        if getattr(event, "run_id", "") == run_id:
            break
    return await thread.run(run_id)


async def test_a_message_from_outside_waits_for_its_agent() -> None:
    journal = FailingJournal()
    async with Runtime(journal) as runtime:
        now = ThreadInfo(id="thread_1", agent="later", created_at=1.0, updated_at=1.0)
        await journal.create(now)
        thread = await runtime.connect("thread_1")
        await journal.enqueue(thread.id, SendEntry("run_y", user_message("two")))
        actor = await runtime._threads._driver.reach(thread.id)  # type: ignore[attr-defined]
        actor.ring()
        await asyncio.sleep(1)
        assert [run.status for run in await thread.runs()] == ["queued"]
        runtime.register(Agent(ScriptedModel(["Now."]), name="later"))
        actor.ring()
        run = await thread.run("run_y")
        assert (await run.result()).text == "Now."


async def test_a_result_needs_the_agent_that_made_it() -> None:
    journal = MemoryJournal()
    agent = Agent(ScriptedModel(["One."]), name="a")
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
        await run.result()
    async with Runtime(journal) as runtime:
        thread = await runtime.connect(thread.id)
        with pytest.raises(UnknownAgent):
            await (await thread.run(run.id)).result()
