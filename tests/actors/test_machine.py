"""A state machine over interleavings of sends, answers, cancels, watchers, time and crashes.

A crash is a journal that takes nothing more: whatever was not appended by then did not happen.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from itertools import count

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from treadle import Agent, RunContext, Runtime, Thread, tool
from treadle.domain.entries import OnBusy
from treadle.domain.events import (
    Delta,
    DeltaKey,
    DurableEvent,
    MessageAdded,
    RecordedEvent,
    RunCancelled,
    RunFailed,
    RunQueued,
    RunStarted,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallRequested,
    ToolCallStarted,
    ToolOutputRecorded,
    ToUserDelta,
    delta_key,
)
from treadle.domain.fold import apply
from treadle.domain.history import require_valid
from treadle.domain.items import FunctionCall, Message, OutputText
from treadle.domain.state import ThreadState
from treadle.domain.usage import Usage
from treadle.errors import (
    Conflict,
    JournalClosed,
    JournalError,
    RunInProgress,
    RunInterrupted,
    RunNotInProgress,
    UnknownToolCall,
)
from treadle.journal.base import Batch
from treadle.journal.memory import MemoryJournal
from treadle.models.base import ModelRequest
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent
from treadle.testing import VirtualClockLoop

NAMES = ["effect", "harmless", "remove", "ask_client", "alone"]


class CrashingJournal(MemoryJournal):
    """Keeps what it has, and takes nothing more once it has crashed."""

    def __init__(self, before: "CrashingJournal | None" = None) -> None:
        super().__init__()
        self.crashed = False
        if before is not None:
            self._threads, self._by_number = before._threads, before._by_number
            self._count = before._count

    def append(self, batch: Batch) -> asyncio.Future[None]:
        if self.crashed:
            refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            refused.set_exception(JournalClosed("The process was killed."))
            return refused
        return super().append(batch)


class RandomModel:
    """Answers with text, calls or both, in pieces, and takes its time."""

    name = provider = "random"

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._ids = count()

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamEvent]:
        require_valid(request.items)
        index = 0
        for _ in range(self._random.randint(0, 2)):
            text, item_id = "", f"msg_{next(self._ids)}"
            for _ in range(self._random.randint(1, 4)):
                await self._pause()
                piece = f"{self._random.random():.3f} "
                text += piece
                yield TextDelta(item_id, piece)
            yield ItemFinished(index, Message("assistant", (OutputText(text),), item_id))
            index += 1
        if self._random.random() < 0.5:
            for _ in range(self._random.randint(1, 4)):
                await self._pause()
                call_id = f"call_{next(self._ids)}"
                name = self._random.choice(NAMES)
                item_id, arguments = f"fc_{call_id}", ""
                yield ToolCallStarted(item_id, call_id, name)
                for piece in self._arguments():
                    await self._pause()
                    arguments += piece
                    yield ToolArgumentsDelta(item_id, call_id, piece)
                yield ItemFinished(index, FunctionCall(call_id, name, arguments, item_id))
                index += 1
        await self._pause()
        yield ResponseFinished("r", "stop", Usage(1, 1, requests=1))

    def _arguments(self) -> list[str]:
        """What a call says to the user, with an escape that is cut in two; or nothing at all."""
        if self._random.random() < 0.3:
            return ["{}"]
        words = [f"{self._random.random():.3f} " for _ in range(self._random.randint(1, 4))]
        return ['{"to_user":"', *words, "\\u00", 'e9"', "}"]

    async def _pause(self) -> None:
        if self._random.random() < 0.5:
            await asyncio.sleep(self._random.choice([0, 0.1, 1]))


class Watcher:
    """Reads a thread, with pauses, over crashes; checks what it sees as it comes."""

    def __init__(self, every: float) -> None:
        self.every = every
        self.position: int | str = 0
        self.durable: list[RecordedEvent] = []
        self.texts: dict[DeltaKey, str] = {}

    async def watch(self, thread: Thread) -> None:
        subscription = thread.subscribe(self.position)
        try:
            async with subscription:
                async for event in subscription:
                    self.position = subscription.position
                    self._see(event)
                    if self.every:
                        await asyncio.sleep(self.every)
        except (JournalError, RunInterrupted):
            pass  # the process was killed; the next one is watched from here

    def _see(self, event: object) -> None:
        if isinstance(event, Delta):
            key = delta_key(event)
            self.texts[key] = self.texts.get(key, "") + event.delta
        elif isinstance(event, DurableEvent):
            self.durable.append(event)  # type: ignore[arg-type]
            if isinstance(event, MessageAdded) and event.origin == "model":
                assert event.item.text.startswith(self._seen(TextDelta, event.item.id))
            elif isinstance(event, ToolCallRequested):
                item = event.item
                assert item.arguments.startswith(self._seen(ToolArgumentsDelta, item.id))
                assert event.said.startswith(self._seen(ToUserDelta, item.id))

    def _seen(self, kind: type[Delta], item_id: str) -> str:
        return self.texts.get((kind, item_id, ""), "")


class Conversation(RuleBasedStateMachine):
    """One thread, whatever happens to it."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.runner = asyncio.Runner(loop_factory=VirtualClockLoop)
        self.runner.get_loop().set_exception_handler(self._unexpected)
        self.problems: list[str] = []
        self.effects: Counter[str] = Counter()
        self.sent: dict[str, str] = {}
        self.keys: dict[str, str] = {}
        self.watchers: list[Watcher] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.numbers = count()
        self.journal = CrashingJournal()
        self.agent = self._agent(seed)
        self.runner.run(self._open())

    def _unexpected(self, loop: object, context: dict[str, object]) -> None:
        self.problems.append(str(context))

    def _agent(self, seed: int) -> Agent:
        effects = self.effects

        @tool
        async def effect(context: RunContext) -> str:
            """Happens at most once."""
            effects[context.call_id] += 1
            await asyncio.sleep(0.5)
            return "done"

        @tool(serial=True)
        async def alone(context: RunContext) -> str:
            """Happens at most once, and alone."""
            effects[context.call_id] += 1
            await asyncio.sleep(0.5)
            return "done"

        @tool(idempotent=True)
        async def harmless() -> str:
            """May happen again."""
            await asyncio.sleep(0.5)
            return "done"

        @tool(needs_approval=True)
        async def remove(context: RunContext) -> str:
            """Needs a person, and happens at most once."""
            effects[context.call_id] += 1
            return "removed"

        @tool(external=True)
        async def ask_client() -> str:
            """Is answered outside."""
            raise AssertionError

        return Agent(
            RandomModel(seed),
            name="a",
            tools=[effect, alone, harmless, remove, ask_client],
            to_user=True,
        )

    async def _open(self) -> None:
        self.runtime = Runtime(self.journal, agents=[self.agent], idle_seconds=3)
        await self.runtime.start()
        if not hasattr(self, "thread_id"):
            self.thread_id = (await self.runtime.create_thread(self.agent)).id
        self.thread = await self.runtime.connect(self.thread_id)
        self.tasks = [asyncio.create_task(one.watch(self.thread)) for one in self.watchers]

    async def _send(self, on_busy: OnBusy, key: str, wait: float) -> None:
        text = f"message {key or next(self.numbers)}"
        try:
            run = await self.thread.send(text, on_busy=on_busy, key=key)
        except RunInProgress:
            return
        if key and key in self.keys:
            assert run.id == self.keys[key]
        else:
            self.sent[text] = run.id
        if key:
            self.keys.setdefault(key, run.id)
        await asyncio.sleep(wait)

    @rule(
        on_busy=st.sampled_from(["queue", "steer", "reject", "cancel"]),
        key=st.sampled_from(["", "", "k1", "k2"]),
        wait=st.sampled_from([0, 0.2, 2]),
    )
    def send(self, on_busy: OnBusy, key: str, wait: float) -> None:
        self.runner.run(self._send(on_busy, key, wait))

    async def _answer(self, how: str, which: int) -> None:
        pending = await self.thread.pending_calls()
        if not pending:
            return
        call = pending[which % len(pending)]
        call_id = call.call.call_id
        try:
            if call.awaits == "output":
                await self.thread.submit_tool_output(call_id, "answer")
                await self.thread.submit_tool_output(call_id, "answer")
            elif how == "approve":
                await self.thread.approve(call_id)
            else:
                await self.thread.deny(call_id, "no")
        except (Conflict, UnknownToolCall, RunNotInProgress):
            pass  # the run has moved on meanwhile

    @rule(how=st.sampled_from(["approve", "deny"]), which=st.integers(0, 5))
    def answer(self, how: str, which: int) -> None:
        self.runner.run(self._answer(how, which))

    async def _end(self, finish: bool) -> None:
        run = await self.thread.active_run()
        if run is not None:
            await (run.finish() if finish else run.cancel())

    @rule(finish=st.booleans())
    def end_run(self, finish: bool) -> None:
        self.runner.run(self._end(finish))

    async def _join(self, watcher: Watcher) -> None:
        self.watchers.append(watcher)
        self.tasks.append(asyncio.create_task(watcher.watch(self.thread)))

    @rule(every=st.sampled_from([0, 0, 0.3]))
    def join(self, every: float) -> None:
        if len(self.watchers) < 4:
            self.runner.run(self._join(Watcher(every)))

    @rule(seconds=st.sampled_from([0, 0.05, 0.3, 1, 10]))
    def wait(self, seconds: float) -> None:
        self.runner.run(asyncio.sleep(seconds))

    async def _crash(self, after: float) -> None:
        await asyncio.sleep(after)
        self.journal.crashed = True
        for task in self.tasks:
            task.cancel()
        await asyncio.wait(self.tasks) if self.tasks else None
        await self.runtime.shutdown()
        self.journal = CrashingJournal(self.journal)
        await self._open()

    @rule(after=st.sampled_from([0, 0.02, 0.1, 0.3, 0.7, 1.5, 4]))
    def crash(self, after: float) -> None:
        self.runner.run(self._crash(after))

    async def _settle(self) -> None:
        """Answers all that is asked, until nothing is left to do."""
        for _ in range(300):
            info = await self.thread.info()
            if info.status not in {"queued", "in_progress", "requires_action", "cancelling"}:
                break
            await self._answer("approve", 0)
            await asyncio.sleep(5)
        else:
            raise AssertionError(f"the thread never came to rest: {info.status}")
        await asyncio.sleep(600)  # for the slow watchers

    def teardown(self) -> None:
        if not hasattr(self, "runner"):
            return
        try:
            self.runner.run(self._settle())
            self._check(self.runner.run(self.thread.events(limit=10**6)))
            for task in self.tasks:
                task.cancel()
            self.runner.run(self.runtime.shutdown())
        finally:
            self.runner.close()
        assert not self.problems

    def _check(self, events: list[RecordedEvent]) -> None:
        state = ThreadState()
        for event in events:  # numbered without gap or repeat, or `apply` raises
            state = apply(state, event)
        require_valid(state.history)
        assert not [event for event in events if isinstance(event, RunFailed)]
        assert state.active_run is None
        assert not state.queue
        assert max(self.effects.values(), default=0) <= 1
        said = [item.text for item in state.history if isinstance(item, Message)]
        started = Counter(e.run_id for e in events if isinstance(e, RunStarted))
        dropped = {e.run_id for e in events if isinstance(e, RunCancelled)} - set(started)
        assert max(started.values(), default=0) <= 1
        for text, run_id in self.sent.items():
            assert said.count(text) == (run_id not in dropped), text
        outputs = Counter(e.item.call_id for e in events if isinstance(e, ToolOutputRecorded))
        assert max(outputs.values(), default=0) <= 1
        queued = Counter(e.run_id for e in events if isinstance(e, RunQueued))
        assert max(queued.values(), default=0) <= 1
        for task in self.tasks:
            if task.done() and not task.cancelled():
                task.result()  # raises what a watcher found
        for watcher in self.watchers:
            assert watcher.durable == events


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=100, stateful_step_count=40, print_blob=True)
