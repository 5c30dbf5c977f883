"""A state machine over two runtimes that drive the threads of one journal.

Callers are cancelled, watchers go from one runtime to the other, idle threads are given back, and
either runtime may end at any moment, while the journal takes its time.
"""

import asyncio
import random
from contextlib import suppress
from functools import partialmethod

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from tests.actors.test_machine import Conversation, Watcher

from treadle import Runtime, Thread
from treadle.errors import JournalClosed, RunInterrupted
from treadle.journal.base import Batch
from treadle.journal.memory import MemoryJournal


class SlowJournal(MemoryJournal):
    """Takes its time, as a database does: what was read may be old when it arrives."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(seed)
        self._written_at = 0.0

    def append(self, batch: Batch) -> asyncio.Future[None]:
        """Appends later, but in order, and reports it later still."""
        loop = asyncio.get_running_loop()
        kept: asyncio.Future[None] = loop.create_future()
        delay = self._random.choice([0, 0, 0.001, 0.02])
        self._written_at = max(self._written_at + 1e-6, loop.time() + delay)
        loop.call_at(self._written_at, self._write, batch, kept)
        return kept

    def _write(self, batch: Batch, kept: asyncio.Future[None]) -> None:
        done = super().append(batch)
        error = done.exception()
        loop = asyncio.get_running_loop()
        if error is None:
            loop.call_soon(kept.set_result, None)
        else:
            loop.call_soon(kept.set_exception, error)

    async def _slowly(self, method: str, *args: object, **options: object) -> object:
        await self._pause()
        try:
            return await getattr(super(), method)(*args, **options)
        finally:
            await self._pause()

    async def _pause(self) -> None:
        for _ in range(self._random.choice([0, 0, 1, 3])):
            await asyncio.sleep(0)
        if self._random.random() < 0.1:
            await asyncio.sleep(self._random.choice([0.001, 0.02]))


for _method in (
    "claim", "load", "head", "read", "snapshot", "snapshot_seq", "run", "open_runs", "sent",
    "enqueue", "inbox",
):  # fmt: skip
    setattr(SlowJournal, _method, partialmethod(SlowJournal._slowly, _method))  # type: ignore[reportPrivateUsage]


class TwoNodes(Conversation):
    """One thread, used from two runtimes."""

    journal_class = SlowJournal

    @initialize(seed=st.integers(0, 2**32), idle=st.sampled_from([0, 0.001, 0.5, 5]))
    def begin(self, seed: int, idle: float = 0) -> None:
        """Opens both runtimes on one journal."""
        self.idle, self.side = idle, 0
        self.slow = self.journal_class(seed)
        self.nodes: list[Runtime] = []
        self.handles: list[Thread] = []
        self.at: list[int] = []
        self.ends: dict[str, list[asyncio.Task[object]]] = {}
        super().begin(seed)

    @property
    def thread(self) -> Thread:
        """The thread, as the runtime that is used now has it."""
        return self.handles[self.side]

    @property
    def runtime(self) -> Runtime:
        """The runtime that is used now."""
        return self.nodes[self.side]

    async def _open(self) -> None:
        self.nodes = [await self._start(), await self._start()]
        self.thread_id = (await self.nodes[0].create_thread(self.agent)).id
        self.handles = [await node.connect(self.thread_id) for node in self.nodes]

    async def _start(self) -> Runtime:
        node = Runtime(self.slow, agents=[self.agent], idle_seconds=self.idle)
        await node.start()
        return node

    @rule()
    def turn(self) -> None:
        """Uses the other runtime from now on."""
        self.side = 1 - self.side

    async def _join(self, watcher: Watcher) -> None:
        self.at.append(self.side)
        await super()._join(watcher)

    async def _move(self, which: int) -> None:
        self.tasks[which].cancel()
        await asyncio.wait([self.tasks[which]])
        self.at[which] = self.side
        self.tasks[which] = asyncio.create_task(self.watchers[which].watch(self.thread))

    @rule(which=st.integers(0, 3))
    def move(self, which: int) -> None:
        """A watcher leaves, and comes back at the runtime that is used now."""
        if which < len(self.watchers):
            self.runner.run(self._move(which))

    async def _send_impatiently(self, key: str, turns: int) -> None:
        text = f"message {key}"
        sending = asyncio.create_task(self.thread.send(text, key=key))
        for _ in range(turns):
            await asyncio.sleep(0)
        sending.cancel()
        await asyncio.wait([sending])
        if key in self.keys:
            return
        run = await self.thread.send(text, key=key)  # as a client does that heard nothing
        self.keys[key] = self.sent[text] = run.id

    @rule(key=st.sampled_from(["k1", "k2", "k3", "k4"]), turns=st.integers(0, 12))
    def send_impatiently(self, key: str, turns: int) -> None:
        """A sender is cancelled at any await, and sends again."""
        self.runner.run(self._send_impatiently(key, turns))

    @rule(key=st.sampled_from(["k1", "k2", "k3", "k5"]), other=st.booleans())
    def send_twice(self, key: str, other: bool) -> None:
        """A message is sent twice at once; the first sender may be cancelled."""
        self.runner.run(self._send_twice(key, other))

    async def _send_twice(self, key: str, other: bool) -> None:
        text = f"message {key}"
        sides = [self.thread, self.handles[1 - self.side]]
        first = asyncio.create_task(sides[other].send(text, key=key))
        second = asyncio.create_task(self.thread.send(text, key=key))
        await asyncio.sleep(0)
        first.cancel()
        run = await second
        await asyncio.wait([first])
        if key in self.keys:
            assert run.id == self.keys[key]
        else:
            self.keys[key] = self.sent[text] = run.id

    @rule()
    def await_end(self) -> None:
        """A caller waits for the end of the newest run."""
        if self.sent:
            run_id = list(self.sent.values())[-1]
            self.runner.run(self._await_end(run_id))

    async def _await_end(self, run_id: str) -> None:
        threads = self.runtime._threads  # type: ignore[reportPrivateUsage]
        ended = asyncio.create_task(threads.ended(self.thread_id, run_id))
        self.ends.setdefault(run_id, []).append(ended)

    async def _crash(self, after: float) -> None:
        """The runtime used now ends and a new one comes; its watchers continue at the other."""
        await asyncio.sleep(after)
        ending, side = self.runtime, self.side
        self.side = 1 - side
        shutdown = asyncio.create_task(ending.shutdown())
        for which in [which for which, at in enumerate(self.at) if at == side]:
            await self._move(which)
        await shutdown
        self.nodes[side] = await self._start()
        self.handles[side] = await self.nodes[side].connect(self.thread_id)

    async def _settle(self) -> None:
        await asyncio.sleep(5)  # until what waits in the inbox is taken
        await super()._settle()
        for run_id, tasks in self.ends.items():
            for task in tasks:
                assert task.done(), f"the end of {run_id} was never told"
                with suppress(RunInterrupted, JournalClosed):  # it was asked of a node that ended
                    await task

    def teardown(self) -> None:
        """Both runtimes end, and nothing is left of them."""
        if not hasattr(self, "runner"):
            return
        try:
            self.runner.run(self._settle())
            self._check(self.runner.run(self.thread.events(limit=10**6)))
            self.runner.run(self._end_all())
        finally:
            self.runner.close()
        assert not self.problems

    async def _end_all(self) -> None:
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)
        for node in self.nodes:
            await node.shutdown()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, left


TestTwoNodes = TwoNodes.TestCase
TestTwoNodes.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, print_blob=True
)


@pytest.mark.parametrize(("idle", "wait"), [(0, 1), (0, 2), (0.001, 2)])
def test_a_watcher_changes_the_node_in_the_middle_of_a_text(idle: float, wait: float) -> None:
    """A position in a text is of the node that gave it; another one gave the text once more."""
    story = TwoNodes()
    story.begin(seed=0, idle=idle)
    story.join(0)
    story.send(on_busy="queue", key="", wait=wait)
    story.turn()
    story.end_run(finish=True)
    assert "." in str(story.watchers[0].position)
    story.move(0)
    story.teardown()


def test_a_message_that_steers_has_the_run_that_was_promised() -> None:
    """The other node ends the run between the promise and the moment it takes the message."""
    story = TwoNodes()
    story.begin(seed=973, idle=0.5)
    story.turn()
    story.send_impatiently("k2", 5)
    story.send(key="k1", on_busy="steer", wait=0.2)
    story.send(key="k1", on_busy="queue", wait=0)
    story.teardown()
