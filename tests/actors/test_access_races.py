"""What falls between: callers that leave, nodes that end, threads that come and go meanwhile."""

import asyncio
import gc
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.actors.test_failures import FailingJournal

import treadle
from treadle import Agent, Runtime, Thread, tool, user_message
from treadle.actors import actor
from treadle.actors.engine import EmbeddedEngine
from treadle.actors.following import Following
from treadle.bus.base import Take
from treadle.bus.position import Position
from treadle.bus.topic import Topic
from treadle.domain.entries import DenialEntry, Entry, OnBusy
from treadle.domain.envelope import Envelope
from treadle.domain.events import Event, RunCompleted, TerminalEvent
from treadle.domain.items import Message
from treadle.domain.state import ThreadState
from treadle.errors import (
    Conflict,
    JournalClosed,
    JournalError,
    JournalFull,
    RunInProgress,
    ThreadNotFound,
    UnknownMessage,
)
from treadle.journal.base import Batch, Claim, ThreadInfo
from treadle.journal.files import NewFile
from treadle.journal.memory import MemoryJournal
from treadle.journal.projection import Projection
from treadle.memory import Block
from treadle.testing import Call, Pause, ScriptedModel, Text

pytestmark = pytest.mark.anyio


class PausingJournal(FailingJournal):
    """Waits in one method, before or after what it does, until it is told to continue."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses: dict[str, asyncio.Event] = {}
        self.append_seconds = 0.0
        self.delete_error: JournalError | None = None

    async def _pause(self, at: str) -> None:
        await asyncio.sleep(0)  # like any database
        if at in self.pauses:
            await self.pauses[at].wait()

    def append(self, batch: Batch) -> asyncio.Future[None]:
        if not self.append_seconds:
            return super().append(batch)
        loop = asyncio.get_running_loop()
        kept: asyncio.Future[None] = loop.create_future()

        def write() -> None:
            super(PausingJournal, self).append(batch)
            kept.set_result(None)

        loop.call_later(self.append_seconds, write)
        return kept

    async def claim(self, thread_id: str) -> Claim:
        await self._pause("claim")
        return await super().claim(thread_id)

    async def create(
        self,
        info: ThreadInfo,
        entries: Sequence[Envelope] = (),
        projection: Projection | None = None,
        files: Sequence[NewFile] = (),
    ) -> Claim:
        claim = await super().create(info, entries, projection, files)
        await self._pause("created")
        return claim

    async def enqueue(self, thread_id: str, entry: Entry) -> None:
        await self._pause("enqueue")
        await super().enqueue(thread_id, entry)
        await self._pause("enqueued")

    async def delete(self, thread_id: str) -> None:
        if self.delete_error is not None:
            raise self.delete_error
        await super().delete(thread_id)


@tool(external=True)
async def ask_client(question: str) -> str:
    """Is answered outside."""
    raise AssertionError(question)


@tool(needs_approval=True)
async def pay() -> str:
    """Pays."""
    return "Paid."


def agent_of(*answers: object, **options: object) -> Agent:
    return Agent(ScriptedModel(list(answers)), name="assistant", **options)  # type: ignore[arg-type]


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def last_of(thread: Thread) -> Event | None:
    async for event in thread.subscribe():
        if isinstance(event, TerminalEvent):
            return event
    return None


async def said(thread: Thread) -> list[str]:
    return [item.text for item in await thread.history() if isinstance(item, Message)]


# Callers that leave


async def test_a_sender_that_leaves_does_not_take_another_of_the_same_key_with_it() -> None:
    journal, agent = PausingJournal(), agent_of("One.")
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        journal.append_seconds = 1
        first = asyncio.create_task(thread.send("hi", key="k"))
        second = asyncio.create_task(thread.send("hi", key="k"))
        await asyncio.sleep(0.5)
        first.cancel()
        assert (await (await second).result()).text == "One."
        assert await said(thread) == ["hi", "One."]


async def test_a_message_of_a_sender_that_left_is_not_taken_again() -> None:
    journal, agent = PausingJournal(), agent_of("One.")
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        journal.append_seconds = 1
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await thread.send("hi", key="k")
        run = await thread.send("hi", key="k")  # the journal does not have the first yet
        assert (await run.result()).text == "One."
        assert await said(thread) == ["hi", "One."]
        assert [record.id for record in await thread.runs()] == [run.id]


@pytest.mark.parametrize("on_busy", ["queue", "steer", "cancel", "reject"])
@pytest.mark.parametrize("is_busy", [False, True])
async def test_a_key_holds_whenever_its_sender_leaves(on_busy: OnBusy, is_busy: bool) -> None:
    for turn in range(25):
        journal = PausingJournal()
        agent = agent_of([Pause(5), Text("Busy.")], *["Yes."] * 9)
        async with Runtime(journal, agents=[agent]) as runtime:
            thread = await runtime.create_thread(agent)
            if is_busy:
                await thread.send("first")
            journal.append_seconds = 0.001  # the append takes a while, as on a disk
            leaving = asyncio.create_task(thread.send("hi", key="k", on_busy=on_busy))
            await turns(turn)
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            for _ in range(3):
                try:
                    run = await thread.send("hi", key="k", on_busy=on_busy)
                except RunInProgress:
                    await asyncio.sleep(20)
                else:
                    await run.result()
            await asyncio.sleep(20)
            assert (await said(thread)).count("hi") == 1
            assert (await thread.state()).active_run is None


async def test_what_a_caller_that_left_has_loaded_is_resumed() -> None:
    journal, agent = PausingJournal(), agent_of([Pause(100), "Lost."], "One.")
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("hi")
    async with Runtime(journal, idle_seconds=1) as runtime:
        await asyncio.sleep(5)  # it could not drive the run, and has dropped the thread
        runtime.register(agent)
        thread = await runtime.connect(thread.id)
        journal.pauses["claim"] = asyncio.Event()
        leaving = asyncio.create_task(thread.memory.create("notes"))
        await turns()
        leaving.cancel()
        await turns()
        journal.pauses.pop("claim").set()
        await turns()
        async with asyncio.timeout(60):
            assert (await (await thread.run(run.id)).result()).text == "One."


async def test_a_subscription_that_is_closed_while_it_opens_leaves_no_topic() -> None:
    journal, agent = MemoryJournal(), agent_of()
    async with Runtime(journal, agents=[agent]) as one, Runtime(journal, agents=[agent]) as two:
        thread = await one.create_thread(agent)
        following = two._threads._following  # type: ignore[reportPrivateUsage]
        subscription = (await two.connect(thread.id)).subscribe()
        open_topic = subscription._open  # type: ignore[reportPrivateUsage]

        async def leave_while_it_opens() -> Topic:
            topic = await open_topic()
            await subscription.aclose()
            return topic

        subscription._open = leave_while_it_opens  # type: ignore[reportPrivateUsage]
        with pytest.raises(StopAsyncIteration):
            await anext(subscription)
        assert not following._topics
        await asyncio.sleep(1)
        assert not following._tasks


async def test_those_who_come_and_go_leave_nothing() -> None:
    journal, agent = MemoryJournal(), agent_of("One.")
    async with (
        Runtime(journal, agents=[agent], idle_seconds=1) as one,
        Runtime(journal, agents=[agent]) as two,
        Runtime(journal, agents=[agent], drive=False) as three,
    ):
        thread = await one.create_thread(agent)
        await (await thread.send("hi")).result()
        tasks = len(asyncio.all_tasks())
        for runtime in (one, two, three):
            handle = await runtime.connect(thread.id)
            for number in range(300):
                async with handle.subscribe() as subscription:
                    await anext(subscription)
                    if number % 10 == 0:
                        await turns(5)
        await asyncio.sleep(10)
        assert len(asyncio.all_tasks()) <= tasks
        for runtime in (one, two, three):
            following = runtime._threads._following  # type: ignore[reportPrivateUsage]
            assert not following._topics
            assert not following._tasks
        driver = one._threads._driver  # type: ignore[reportPrivateUsage]
        assert not driver._actors
        assert not driver._engine._group.taken


async def test_a_message_is_taken_even_if_its_sender_left_before_the_ring() -> None:
    journal, agent = PausingJournal(), agent_of("One.")
    async with Runtime(journal, agents=[agent]) as one, Runtime(journal, agents=[agent]) as two:
        thread = await one.create_thread(agent)
        other = await two.connect(thread.id)
        journal.pauses["enqueued"] = asyncio.Event()
        sending = asyncio.create_task(other.send("hi"))
        await turns()
        sending.cancel()
        await asyncio.sleep(1)
        assert await said(thread) == ["hi", "One."]


# Threads that come and go


@pytest.mark.parametrize("idle", [0, 0.0001])
async def test_a_thread_that_leaves_the_memory_at_once_takes_entries(idle: float) -> None:
    journal, agent = PausingJournal(), agent_of(*["Yes."] * 5)
    async with Runtime(journal, agents=[agent], idle_seconds=idle) as runtime:
        thread = await runtime.create_thread(agent)
        for _ in range(5):
            await asyncio.sleep(1)
            run = await thread.send("again")
            assert (await run.result()).text == "Yes."


async def test_a_thread_that_failed_stays_taken_while_it_is_loaded_again() -> None:
    journal, agent = PausingJournal(), agent_of(*["Yes."] * 4)
    async with (
        Runtime(journal, agents=[agent], idle_seconds=1) as one,
        Runtime(journal, agents=[agent]) as two,
    ):
        thread = await one.create_thread(agent)
        journal.failing = thread.id
        with pytest.raises(JournalFull):
            await thread.send("lost")
        journal.failing = None
        journal.pauses["claim"] = asyncio.Event()
        sending = asyncio.create_task(thread.send("one"))
        await asyncio.sleep(3)  # so long that the failed actor would leave
        other = asyncio.create_task((await two.connect(thread.id)).send("two"))
        await asyncio.sleep(1)
        journal.pauses.pop("claim").set()
        assert (await (await sending).result()).status == "completed"
        assert (await (await other).result()).status == "completed"
        assert (await journal.claim(thread.id)).epoch == 3  # created, loaded again, and now


async def test_watchers_that_came_after_a_failure_follow_the_next_node() -> None:
    journal, agent = PausingJournal(), agent_of("One.", "One.")
    async with (
        Runtime(journal, agents=[agent], idle_seconds=1) as one,
        Runtime(journal, agents=[agent]) as two,
    ):
        thread = await one.create_thread(agent)
        journal.failing = thread.id
        with pytest.raises(JournalFull):
            await thread.send("lost")
        journal.failing = None
        watching = asyncio.create_task(last_of(thread))
        await asyncio.sleep(5)  # the actor that failed has left
        assert not watching.done()
        await (await two.connect(thread.id)).send("one")
        async with asyncio.timeout(60):
            assert isinstance(await watching, RunCompleted)


async def test_a_thread_that_was_deleted_ends_for_those_who_watch_it_elsewhere() -> None:
    journal, agent = MemoryJournal(), agent_of("One.")
    async with (
        Runtime(journal, agents=[agent], idle_seconds=1) as one,
        Runtime(journal, agents=[agent]) as two,
    ):
        thread = await one.create_thread(agent)
        await asyncio.sleep(5)  # it is in no memory
        watching = asyncio.create_task(last_of(await two.connect(thread.id)))
        await turns()
        await thread.delete()
        async with asyncio.timeout(60):
            with pytest.raises(ThreadNotFound):
                await watching


async def test_a_thread_that_cannot_be_deleted_is_given_back() -> None:
    journal, agent = PausingJournal(), agent_of("One.")
    async with (
        Runtime(journal, agents=[agent], idle_seconds=1) as one,
        Runtime(journal, agents=[agent]) as two,
    ):
        thread = await one.create_thread(agent)
        await asyncio.sleep(5)
        journal.delete_error = JournalFull("The disk is full.")
        with pytest.raises(JournalFull):
            await thread.delete()
        other = await two.connect(thread.id)
        assert (await (await other.send("hi")).result()).text == "One."
        assert two._threads._driver.drives(thread.id)  # type: ignore[reportPrivateUsage]


async def test_an_entry_is_not_missed_when_the_thread_is_given_back_meanwhile() -> None:
    journal, agent = PausingJournal(), agent_of("One.")
    async with (
        Runtime(journal, agents=[agent], idle_seconds=1) as one,
        Runtime(journal, agents=[agent]) as two,
    ):
        thread = await one.create_thread(agent)
        journal.pauses["enqueue"] = asyncio.Event()
        sending = asyncio.create_task((await two.connect(thread.id)).send("hi"))
        await asyncio.sleep(5)  # the first runtime has given the thread back
        journal.pauses.pop("enqueue").set()
        await sending
        await asyncio.sleep(1)
        assert await said(thread) == ["hi", "One."]


async def test_an_entry_is_not_missed_when_the_actor_that_would_take_it_has_failed() -> None:
    journal, agent = PausingJournal(), agent_of("One.", "One.")
    async with Runtime(journal, agents=[agent]) as one, Runtime(journal, agents=[agent]) as two:
        thread = await one.create_thread(agent)
        journal.failing = thread.id
        with pytest.raises(JournalFull):
            await thread.send("lost")
        journal.failing = None
        async with asyncio.timeout(10):
            run = await (await two.connect(thread.id)).send("hi")
            assert (await run.result()).text == "One."


async def test_a_run_that_can_never_be_kept_is_not_begun_again_and_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    journal, agent = PausingJournal(), agent_of([Pause(100), "Lost."], [Pause(100), "Lost."])
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await thread.send("hi")
    async with Runtime(journal, agents=[agent]):
        journal.failing = thread.id
        await asyncio.sleep(50)
        assert 0 < len(caplog.records) < 20  # the pauses grow


async def test_a_shared_memory_that_two_nodes_make_at_once_has_one_driver() -> None:
    journal, agent = PausingJournal(), agent_of()
    async with Runtime(journal, agents=[agent]) as one, Runtime(journal, agents=[agent]) as two:
        journal.pauses["created"] = asyncio.Event()
        making = asyncio.create_task(one.memory("office"))
        await turns()
        theirs = await two.memory("office")
        await theirs.create("board", "first")
        journal.pauses.pop("created").set()
        mine = await making
        await mine.append("board", "second")
        await theirs.append("board", "third")
        await asyncio.sleep(1)
        (block,) = await mine.blocks()
        assert sorted(block.value.splitlines()) == ["first", "second", "third"]
        assert not (await journal.inbox(mine.thread_id))


# Nodes that end


async def test_a_runtime_that_was_shut_down_takes_no_thread() -> None:
    journal, agent = MemoryJournal(), agent_of("One.", "Two.")
    async with Runtime(journal, agents=[agent]) as two:
        async with Runtime(journal, agents=[agent], idle_seconds=1) as one:
            thread = await one.create_thread(agent)
            await asyncio.sleep(5)
        run = await thread.send("hi")
        other = await two.connect(thread.id)
        await asyncio.sleep(1)
        assert (await (await other.run(run.id)).result()).text == "One."
        with pytest.raises(JournalClosed):
            await run.result()
        with pytest.raises(JournalClosed):
            await anext(thread.subscribe())
        assert (await (await other.send("again")).result()).text == "Two."
        assert two._threads._driver.drives(thread.id)  # type: ignore[reportPrivateUsage]


async def test_what_waits_in_an_inbox_is_taken_when_a_node_starts() -> None:
    journal, agent = MemoryJournal(), agent_of("One.")
    async with Runtime(journal, agents=[agent]) as one:
        thread = await one.create_thread(agent)
    async with Runtime(journal, drive=False) as outside:
        run = await (await outside.connect(thread.id)).send("hi")
        async with Runtime(journal, agents=[agent]), asyncio.timeout(60):
            waiting = await outside._threads.ended(thread.id, run.id)  # type: ignore[reportPrivateUsage]
            assert isinstance(waiting.event, RunCompleted)


async def test_a_run_expires_at_the_node_that_is_left() -> None:
    journal = MemoryJournal()
    agent = Agent(
        ScriptedModel([[Call("ask_client", '{"question": "?"}', "c1")]]),
        name="assistant",
        tools=[ask_client],
        action_timeout=100,
    )
    async with Runtime(journal, agents=[agent]) as two:
        async with Runtime(journal, agents=[agent], idle_seconds=1) as one:
            thread = await one.create_thread(agent)
            await thread.send("hi")
            await asyncio.sleep(10)
            assert (await thread.info()).status == "requires_action"
        await asyncio.sleep(200)
        other = await two.connect(thread.id)
        assert [record.status for record in await other.runs()] == ["expired"]


async def test_a_node_that_is_not_told_in_time_does_not_end_a_later_wait() -> None:
    call = [Call("ask_client", '{"question": "?"}', "c1")]
    later = [Call("ask_client", '{"question": "?"}', "c2")]
    agent = Agent(
        ScriptedModel([call, "One.", later, "Two."]),
        name="assistant",
        tools=[ask_client],
        action_timeout=100,
    )
    journal = MemoryJournal()
    async with (
        Runtime(journal, agents=[agent], idle_seconds=1) as one,
        Runtime(journal, agents=[agent], idle_seconds=20) as two,
    ):
        thread = await one.create_thread(agent)
        run = await thread.send("hi")
        await asyncio.sleep(70)
        other = await two.connect(thread.id)
        await other.submit_tool_output("c1", "yes")  # the first node has given it back
        await (await other.run(run.id)).result()
        second = await other.send("again")
        await asyncio.sleep(19)
        watching = asyncio.create_task(last_of(other))  # it keeps the thread in memory there
        await asyncio.sleep(20)  # the first wait would have ended meanwhile
        watching.cancel()
        await asyncio.sleep(30)
        assert (await thread.info()).status == "requires_action"
        await thread.memory.create("notes", "now the first node has it again")
        await asyncio.sleep(1)
        assert (await thread.info()).status == "requires_action"
        await thread.submit_tool_output("c2", "yes")
        assert (await (await thread.run(second.id)).result()).text == "Two."


async def test_an_agent_that_works_elsewhere_can_be_abandoned() -> None:
    journal, agent = MemoryJournal(), agent_of([Pause(100), "Late."])
    async with Runtime(journal, agents=[agent]) as one, Runtime(journal, agents=[agent]) as two:
        thread = await one.create_thread(agent)
        run = await thread.send("hi")
        state = await two._threads._driver.abandon(thread.id)  # type: ignore[reportPrivateUsage]
        assert state.active_run is None
        assert (await run.result(raise_on_incomplete=False)).status == "cancelled"


class UnreadJournal(MemoryJournal):
    """Notes which threads are loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []

    async def load(self, thread_id: str, *, at: int | None = None) -> ThreadState:
        self.loaded.append(thread_id)
        return await super().load(thread_id, at=at)


async def test_an_entry_about_runs_does_not_load_the_thread_elsewhere() -> None:
    journal, agent = UnreadJournal(), agent_of([Pause(100), Text("Late.")], [Text("Two.")])
    async with Runtime(journal, agents=[agent]) as one, Runtime(journal, agents=[agent]) as two:
        thread = await one.create_thread(agent)
        run = await thread.send("hi")
        mine = await two.connect(thread.id)
        journal.loaded.clear()
        assert (await mine.send("left", on_busy="steer")).id == run.id
        with pytest.raises(RunInProgress) as raised:
            await mine.send("no", on_busy="reject")
        assert raised.value.run_id == run.id
        second = await mine.send("two", on_busy="queue")
        await (await mine.run(run.id)).finish()
        await mine.update(title="Renamed")
        await (await mine.run(run.id)).cancel()
        assert (await run.result(raise_on_incomplete=False)).status == "cancelled"
        await (await mine.run(run.id)).cancel()  # of a run that has ended: not even stored
        assert await journal.inbox(thread.id) == []
        assert (await (await thread.run(second.id)).result()).text == "Two."
        assert journal.loaded == []


async def test_no_other_entry_loads_a_thread_with_a_snapshot_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What a snapshot has besides the history decides, and the node that drives about old items."""
    monkeypatch.setattr(actor, "SNAPSHOT_EVERY", 8)
    calls = [
        Call("ask_client", '{"question": "?"}', "call_0"),
        *(Call("pay", "{}", f"call_{n}") for n in (1, 2)),
    ]
    agent = Agent(
        ScriptedModel(["One.", "Two.", [*calls, Text("?")], "Three.", "Four."]),
        name="agent",
        tools=[ask_client, pay],
        blocks=[Block("human", "Ada")],
    )
    journal = UnreadJournal()
    async with Runtime(journal, agents=[agent]) as one, Runtime(journal, agents=[agent]) as two:
        thread = await one.create_thread(agent, history=[user_message("An old message.")])
        (await (await thread.send("hi")).result(), await (await thread.send("hi")).result())
        assert await journal.snapshot_seq(thread.id) > 8
        mine = await two.connect(thread.id)
        old, *_ = [item for item in await thread.history() if isinstance(item, Message)]
        journal.loaded.clear()
        run = await mine.send("Ask.", expect=await mine.last_seq())
        await asyncio.sleep(1)  # until the calls wait
        await mine.submit_tool_output("call_0", "out")
        await mine.approve("call_1")
        await mine.deny("call_2")
        await run.result()
        await mine.add([user_message("Added.")], expect=await mine.last_seq())
        await mine.memory.rewrite("human", "Grace")
        await mine.memory.undo("human")
        schedule = await mine.schedule("Later.", after=60, key="once")
        await asyncio.sleep(1)  # until they are taken
        (block,) = await mine.memory.blocks()
        assert block.value == "Ada"
        assert [one.id for one in await mine.schedules()] == [schedule.id]
        await mine.cancel_schedule(schedule.id)
        await mine.cancel_job("job_1")
        await mine.pin(old.id)
        assert (await thread.state()).context.pinned == (old.id,)
        await mine.unpin(old.id)
        assert journal.loaded == [thread.id]  # the end of the run, for its result
        with pytest.raises(UnknownMessage):
            await mine.pin("msg_unknown")
        with pytest.raises(Conflict):
            await mine.send("no", expect=3)


class LateDenials(MemoryJournal):
    """Stores a denial only once it may."""

    def __init__(self) -> None:
        super().__init__()
        self.may_store = asyncio.Event()

    async def enqueue(self, thread_id: str, entry: Entry) -> None:
        if isinstance(entry, DenialEntry):
            await self.may_store.wait()
        await super().enqueue(thread_id, entry)


async def test_a_denial_that_comes_after_an_approval_was_taken_is_a_conflict() -> None:
    journal = LateDenials()
    agent = Agent(ScriptedModel([Call("pay", "{}", "call_1"), "Paid."]), name="a", tools=[pay])
    async with Runtime(journal, agents=[agent]) as one, Runtime(journal, agents=[agent]) as two:
        thread = await one.create_thread(agent)
        run = await thread.send("Pay.")
        await asyncio.sleep(1)
        mine = await two.connect(thread.id)
        denying = asyncio.create_task(mine.deny("call_1"))
        await turns()
        await thread.approve("call_1")
        journal.may_store.set()
        with pytest.raises(Conflict):
            await denying
        assert (await run.result()).text == "Paid."


async def test_snapshots_are_kept_of_a_thread_that_is_never_in_use_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(actor, "SNAPSHOT_EVERY", 20)
    journal, agent = MemoryJournal(), Agent(ScriptedModel(["One."] * 6), name="agent")
    async with Runtime(journal, agents=[agent], idle_seconds=0) as runtime:
        thread = await runtime.create_thread(agent)
        for number in range(6):
            await (await thread.send(f"message {number}")).result()
            await asyncio.sleep(1)
        assert await journal.snapshot_seq(thread.id) >= 20


# The engine


class Worker:
    """Notes what it drives."""

    def __init__(self) -> None:
        self.driven: list[str] = []

    async def drive_thread(self, thread_id: str) -> None:
        self.driven.append(thread_id)


class Key:
    """What engines share: it stands for their journal."""


async def started(key: object) -> tuple[EmbeddedEngine, Worker]:
    engine, worker = EmbeddedEngine(key), Worker()
    await engine.start(worker)
    return engine, worker


async def test_a_drive_that_is_interrupted_before_its_first_step_can_be_woken_again() -> None:
    engine, worker = await started(Key())
    engine.wake("t")
    await engine.interrupt("t")
    assert not engine.is_driving("t")
    engine.wake("t")
    await turns()
    assert worker.driven == ["t"]
    await engine.stop()


async def test_a_wake_reaches_the_engine_that_is_left_when_others_stop_together() -> None:
    key = Key()
    (one, _), (two, _), (three, worker) = [await started(key) for _ in range(3)]
    await one.take("t")
    one.wake("u")
    stopping = asyncio.create_task(two.stop())
    await one.stop()  # before the drive that was woken could take its thread
    one.release("t")
    await stopping
    await turns()
    assert sorted(worker.driven) == ["t", "u"]
    await three.stop()


# Following


class OneShotBus:
    """Delivers nothing, and announces that a node drives the thread right when it ends."""

    def __init__(self) -> None:
        self.asked = 0
        self.following: Following | None = None

    async def deliver(self, thread_id: str, after: Position, take: Take) -> None:
        self.asked += 1
        if self.asked == 1:
            assert self.following is not None
            self.following.follow(thread_id)


async def test_an_announcement_is_not_missed_while_the_last_node_leaves() -> None:
    journal, bus = MemoryJournal(), OneShotBus()
    await journal.create(ThreadInfo(id="t", agent="a", created_at=0, updated_at=0))
    following = Following(journal, bus, polls=False, on_unwatched=lambda _: None)  # type: ignore[arg-type]
    bus.following = following
    topic = await following.topic("t")

    class Idle:
        def put(self, envelope: Envelope, /) -> None: ...

        def close(self, error: Exception | None, /) -> None: ...

    topic.attach(Idle())
    await turns()
    assert bus.asked == 2
    await following.stop()


# Next to a process that drives


@pytest.mark.real_clock
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_client_that_sends_garbage_is_sent_away(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    garbage = [
        b'{"type":"ring","thread_id":"thread_none"}\n',
        b'{"type":"ring","thread_id":"\\ud800"}\n',
        b'{"type":"ring","thread_id":"x","more":' + b"[" * 30_000 + b"\n",
        b'{"type":"watch","thread_id":"x","seq":-1}\n',
        b'{"type":"watch","thread_id":"x","seq":' + b"9" * 40 + b"}\n",
        b'{"type":"watch","thread_id":"\\ud800","seq":1,"n":-5}\n',
        b"\xff\xfe\n",
        b"x" * 100_000,
    ]
    problems: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: problems.append(context))
    async with treadle.open(f"sqlite:///{tmp_path / 't.db'}"):
        for sent in garbage:
            reader, writer = await asyncio.open_unix_connection(tmp_path / "t.db-live")
            writer.write(sent)
            writer.write_eof()
            assert await reader.read() == b""
            writer.close()
    gc.collect()
    await turns()
    assert not problems
    assert not caplog.records
