"""The state machine over two runtimes, with all entries that continue, schedule and delete threads.

Senders of every kind are cancelled at any await and send again; the thread is deleted by either
node, also while the other one uses it, and created again with the same key.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partialmethod
from typing import TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule
from tests.actors.test_machine import Watcher
from tests.actors.test_two_nodes import SlowJournal, TwoNodes

from treadle import Thread, ThreadRun, user_message
from treadle.domain.entries import OnBusy
from treadle.domain.events import (
    ItemsAdded,
    MessageAdded,
    MessageQueued,
    RecordedEvent,
    RunCancelled,
    RunCancelling,
    RunQueued,
    RunStarted,
    ScheduleCancelled,
    ScheduleCreated,
    ScheduleFired,
)
from treadle.domain.fold import apply
from treadle.domain.items import FunctionCall, FunctionCallOutput, Item, Message
from treadle.domain.state import ThreadState
from treadle.errors import (
    Conflict,
    JournalLocked,
    RunInProgress,
    RunInterrupted,
    RunNotFound,
    ThreadNotFound,
)

T = TypeVar("T")

Turns = int | None
"""After how many turns of the event loop a sender is cancelled, and sends again."""

MOST_FORKS = 3

turns = st.sampled_from([None, None, 0, 1, 2, 3, 5, 8, 12])


class SlowerJournal(SlowJournal):
    """Takes its time for threads that come and go, too."""


for _method in ("create", "delete", "fork", "due", "info"):
    setattr(SlowerJournal, _method, partialmethod(SlowerJournal._slowly, _method))  # type: ignore[reportPrivateUsage]


class DeletionWatcher(Watcher):
    """Reads a thread until it is deleted."""

    async def watch(self, thread: Thread) -> None:
        with suppress(ThreadNotFound):
            await super().watch(thread)


class Entries(TwoNodes):
    """One thread with a key, whatever comes to it."""

    journal_class = SlowerJournal

    async def _open(self) -> None:
        self.nodes = [await self._start(), await self._start()]
        self.forks: dict[str, tuple[str, str]] = {}
        await self._create()

    async def _create(self) -> None:
        """Creates the thread from both nodes at once."""
        self.added: set[str] = set()
        self.expected: dict[str, int] = {}
        self.several: list[Sequence[str]] = []
        self.scheduled: set[str] = set()
        creating = (node.create_thread(self.agent, key="thread") for node in self.nodes)
        self.handles = list(await asyncio.gather(*creating))
        (self.thread_id,) = {handle.id for handle in self.handles}
        assert sum(handle.is_new for handle in self.handles) == 1
        assert await self.thread.events() == []
        assert not await self.thread.schedules()

    async def _impatiently(self, call: Callable[[], Awaitable[T]], turns: Turns) -> T:
        """Calls once, or once more after the first call was cancelled."""
        if turns is not None:
            calling = asyncio.ensure_future(call())
            for _ in range(turns):
                await asyncio.sleep(0)
            calling.cancel()
            await asyncio.wait([calling])
        return await call()

    def _sent(self, texts: Sequence[str], key: str, run: ThreadRun) -> None:
        if key in self.keys:
            assert run.id == self.keys[key]
            return
        self.keys[key] = run.id
        for text in texts:
            self.sent[text] = run.id
        if len(texts) > 1:
            self.several.append(texts)

    # What continues the thread

    @rule(key=st.sampled_from(["a1", "a2", ""]), behind=st.sampled_from([None, 0, 1]), turns=turns)
    def add(self, key: str, behind: int | None, turns: Turns) -> None:
        """Adds a message, and a call with its output, if nothing is in progress."""
        self.runner.run(self._add(key, behind, turns))

    async def _add(self, key: str, behind: int | None, turns: Turns) -> None:
        name = key or str(next(self.numbers))
        call_id = f"added {name}"
        items: Sequence[Item] = (
            Message("user", user_message(call_id).content, f"msg_{name}"),
            FunctionCall(call_id, "harmless", "{}", f"fc_{name}"),
            FunctionCallOutput(call_id, "done", id=f"fco_{name}"),
        )
        expect = await self._number(behind)
        was_added = key and call_id in self.added
        try:
            await self._impatiently(
                lambda: self.thread.add(items, key=key, expect=expect), turns if key else None
            )
        except (RunInProgress, Conflict):
            assert not was_added
        else:
            self.added.add(call_id)

    async def _number(self, behind: int | None) -> int | None:
        """Returns the number of the last event, or that of one `behind` it."""
        if behind is None:
            return None
        return max(0, (await self.thread.state()).seq - behind)

    @rule(
        key=st.sampled_from(["e1", "e2"]),
        behind=st.sampled_from([0, 1, 3]),
        on_busy=st.sampled_from(["queue", "steer", "reject", "cancel"]),
        turns=turns,
    )
    def send_expecting(self, key: str, behind: int, on_busy: OnBusy, turns: Turns) -> None:
        """Sends a message that is refused if the conversation has gone on."""
        self.runner.run(self._send_expecting(key, behind, on_busy, turns))

    async def _send_expecting(self, key: str, behind: int, on_busy: OnBusy, turns: Turns) -> None:
        text, expect = f"message {key}", await self._number(behind)
        try:
            run = await self._impatiently(
                lambda: self.thread.send(text, key=key, on_busy=on_busy, expect=expect), turns
            )
        except (Conflict, RunInProgress):
            assert key not in self.keys
        else:
            if key not in self.keys:
                assert expect is not None
                self.expected[text] = expect
            self._sent([text], key, run)

    @rule(
        key=st.sampled_from(["n1", "n2"]),
        on_busy=st.sampled_from(["queue", "steer", "cancel"]),
        turns=turns,
    )
    def send_several(self, key: str, on_busy: OnBusy, turns: Turns) -> None:
        """Sends three messages that one run answers."""
        texts = [f"message {key} {n}" for n in range(3)]
        messages = [user_message(text) for text in texts]
        run = self.runner.run(
            self._impatiently(lambda: self.thread.send(messages, key=key, on_busy=on_busy), turns)
        )
        self._sent(texts, key, run)

    @rule(share=st.sampled_from([0.0, 0.5, 0.9, 1.0]), turns=turns)
    def send_after(self, share: float, turns: Turns) -> None:
        """Continues the thread after an event, or a copy of it."""
        if len(self.forks) < MOST_FORKS:
            self.runner.run(self._send_after(share, turns))

    async def _send_after(self, share: float, turns: Turns) -> None:
        number = next(self.numbers)
        key, text = f"f{number}", f"after {number}"
        seq = int((await self.thread.state()).seq * share)
        run = await self._impatiently(lambda: self.thread.send_after(seq, text, key=key), turns)
        again = await self.handles[1 - self.side].send_after(seq, text, key=key)
        assert (again.id, again.thread_id) == (run.id, run.thread_id)
        if run.thread_id == self.thread_id:
            self.expected[text] = seq
            self._sent([text], key, run)
        else:
            self.forks[run.thread_id] = (text, run.id)

    # What is due later

    @rule(
        key=st.sampled_from(["s1", "s2", ""]),
        after=st.sampled_from([0, 0.1, 2, 30]),
        turns=turns,
    )
    def schedule(self, key: str, after: float, turns: Turns) -> None:
        """Schedules a message, once."""
        text = f"scheduled {key or next(self.numbers)}"
        made = self.runner.run(
            self._impatiently(
                lambda: self.thread.schedule(text, after=after, key=key), turns if key else None
            )
        )
        self.scheduled.add(made.id)

    @rule(turns=turns)
    def schedule_often(self, turns: Turns) -> None:
        """Schedules a message for each minute, unless it is scheduled already."""
        made = self.runner.run(
            self._impatiently(
                lambda: self.thread.schedule("every minute", cron="* * * * *", key="c"), turns
            )
        )
        self.scheduled.add(made.id)

    @rule(which=st.integers(0, 3))
    def cancel_schedule(self, which: int) -> None:
        """Cancels a schedule."""
        self.runner.run(self._cancel_schedule(which))

    async def _cancel_schedule(self, which: int) -> None:
        schedules = await self.thread.schedules()
        if schedules:
            await self.thread.cancel_schedule(schedules[which % len(schedules)].id)

    @rule(seconds=st.sampled_from([45, 150]))
    def wait_long(self, seconds: float) -> None:
        """Waits until something is due."""
        self.runner.run(asyncio.sleep(seconds))

    # What ends the thread

    async def _join(self, watcher: Watcher) -> None:
        await super()._join(DeletionWatcher(watcher.every))

    @rule(turns=st.sampled_from([0, 1, 3, 8]), racing=st.booleans())
    def delete(self, turns: int, racing: bool) -> None:
        """Either node deletes the thread, while the other one may send to it."""
        self.runner.run(self._delete(turns, racing))

    async def _delete(self, turns: int, racing: bool) -> None:
        other = self.handles[1 - self.side]
        sending = [asyncio.ensure_future(other.send("late"))] if racing else []
        for _ in range(turns):
            await asyncio.sleep(0)
        await self._delete_at(self.side)
        for one in sending:
            with suppress(ThreadNotFound, RunInterrupted):
                await one
        await self._gone()
        for task in self.tasks:
            await asyncio.wait_for(task, 600)  # a watcher learns it, however slow it is
        self.watchers, self.tasks, self.at = [], [], []
        self.sent, self.keys, self.ends = {}, {}, {}
        await self._create()

    async def _delete_at(self, side: int) -> None:
        """Deletes the thread, at the other node if that has it."""
        while True:
            try:
                return await self.handles[side].delete()
            except JournalLocked:
                side = 1 - side
                await asyncio.sleep(0.01)

    async def _gone(self) -> None:
        """What was deleted stays deleted."""
        for tasks in self.ends.values():
            for task in tasks:
                with suppress(ThreadNotFound, RunNotFound, RunInterrupted):
                    await asyncio.wait_for(task, 600)
        for _ in range(2):
            for node in self.nodes:
                try:
                    await node.connect(self.thread_id)
                except ThreadNotFound:
                    pass
                else:
                    raise AssertionError("a thread that was deleted is there again")
                assert self.thread_id not in {info.id for info in await node.threads(limit=100)}
                schedules = await node.schedules()
                assert not [one for one in schedules if one.thread_id not in self.forks]
            await asyncio.sleep(5)

    # The end

    async def _settle(self) -> None:
        await asyncio.sleep(5)  # until what waits in the inbox is taken
        for one in await self.thread.schedules():
            if one.cron:
                await self.thread.cancel_schedule(one.id)
        await asyncio.sleep(60)  # until all that is scheduled was due
        await super()._settle()
        for thread_id, (text, run_id) in self.forks.items():
            await self._settle_fork(await self.runtime.connect(thread_id), text, run_id)

    async def _settle_fork(self, fork: Thread, text: str, run_id: str) -> None:
        """A copy contains the message once, and runs on its own."""
        main, self.handles[self.side] = self.thread, fork
        try:
            await TwoNodes._settle(self)
        finally:
            self.handles[self.side] = main
        events = await fork.events(limit=10**6)
        said = Counter(e.item.text for e in events if isinstance(e, MessageAdded))
        assert said[text] == 1
        assert [e.run_id for e in events if isinstance(e, RunStarted)].count(run_id) == 1

    def _check(self, events: list[RecordedEvent]) -> None:
        super()._check(events)
        state, came, said_before = ThreadState(), dict[str, int](), 0
        for event in events:
            if isinstance(event, MessageAdded | MessageQueued | RunQueued) and event.item:
                came.setdefault(event.item.text, said_before)
            state = apply(state, event)
            if not isinstance(event, RunCancelling):  # which a message with "cancel" brings along
                said_before = state.said
        for text, expect in self.expected.items():
            assert came[text] <= expect, text
        said = [item.text for item in state.history if isinstance(item, Message)]
        for texts in self.several:
            if texts[0] in said:
                start = said.index(texts[0])
                assert said[start : start + len(texts)] == texts
        self._check_added(events, said)
        self._check_schedules(events, said)
        assert not state.schedules

    def _check_added(self, events: Sequence[RecordedEvent], said: Sequence[str]) -> None:
        added = Counter(
            item.call_id
            for event in events
            if isinstance(event, ItemsAdded)
            for item in event.items
            if isinstance(item, FunctionCallOutput)
        )
        assert added == Counter(self.added)
        assert [text for text in said if text.startswith("added ")] == list(added)

    def _check_schedules(self, events: Sequence[RecordedEvent], said: Sequence[str]) -> None:
        """Each due time started one run, and what was acknowledged was due or was cancelled."""
        texts: dict[str, str] = {}
        began = {e.run_id for e in events if isinstance(e, RunStarted)}
        began |= {e.run_id for e in events if isinstance(e, RunCancelled)}  # from the queue
        over: Counter[str] = Counter()
        fired: dict[str, list[float]] = {}
        for event in events:
            match event:
                case ScheduleCreated():
                    texts[event.schedule.id] = event.schedule.text
                case ScheduleFired():
                    assert event.run_id in began or not event.run_id
                    fired.setdefault(event.schedule_id, []).append(event.due_at)
                    over[event.schedule_id] += event.next_at is None
                case ScheduleCancelled():
                    over[event.schedule_id] += 1
                case _:
                    pass
        assert self.scheduled <= texts.keys() == over.keys()
        for schedule_id, times in fired.items():
            assert sorted(set(times)) == times
            if texts[schedule_id] != "every minute":
                assert len(times) == 1
                assert said.count(texts[schedule_id]) <= 1


TestEntries = Entries.TestCase
TestEntries.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, print_blob=True
)


def test_a_message_to_a_thread_that_is_being_deleted_finds_no_thread() -> None:
    """The node that sends drives the thread, and deletes it for the other one meanwhile."""
    story = Entries()
    story.begin(seed=1510, idle=0)
    story.send_after(share=0.0, turns=None)
    story.delete(turns=0, racing=False)
    story.send_impatiently(key="k1", turns=0)
    story.turn()
    story.delete(turns=1, racing=True)
    story.teardown()
