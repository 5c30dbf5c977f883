"""The spans of the runs of many threads: which run an event belongs to; pure."""

import itertools
from collections import OrderedDict
from typing import TypeVar

from treadle.domain.events import (
    AgentEvent,
    ContextCompacted,
    DurableEvent,
    Event,
    HostedCallProgress,
    JobDelegated,
    JobStarted,
    MessageAdded,
    ResponseCompleted,
    RunStarted,
    StepInterrupted,
    StepStarted,
    ToolApproved,
    ToolCallRequested,
    ToolDelegated,
    ToolOutputRecorded,
    ToolProgress,
    ToolStarted,
)
from treadle.domain.items import Message
from treadle.telemetry.content import input_messages
from treadle.telemetry.context_spans import compaction_signals
from treadle.telemetry.run_spans import Options, RunSpans
from treadle.telemetry.signal import Signal, Value

T = TypeVar("T")

# The first events of a run that began in another process, or that is resumed.
_GOES_ON = (
    StepStarted,
    ToolCallRequested,
    ToolApproved,
    ToolStarted,
    ToolOutputRecorded,
    ResponseCompleted,
    StepInterrupted,
)


class ThreadSpans:
    """Folds the events of any number of threads into signals.

    Events come in the order of their thread; a repeated event is ignored. The run of an agent that
    works for another is a child of the tool that started it.

    A thread has one run at a time. A run is forgotten when it ends, and, except for the name of its
    agent, when it waits for an outside reply. Beyond `max_runs`, the longest silent run is ended
    and forgotten.
    """

    def __init__(self, options: Options, *, max_runs: int = 10_000) -> None:
        self._options = options
        self._max_runs = max_runs
        self._runs: OrderedDict[str, RunSpans] = OrderedDict()
        self._asked: OrderedDict[str, tuple[str, list[Message]]] = OrderedDict()
        self._last_seq: OrderedDict[str, int] = OrderedDict()
        self._work_for: OrderedDict[str, tuple[str, str]] = OrderedDict()
        self._suspended: OrderedDict[str, str] = OrderedDict()
        self._ids = itertools.count(1)
        self._signals: list[Signal] = []

    @property
    def open_runs(self) -> int:
        """The number of runs with open spans."""
        return len(self._runs)

    def observe(self, thread_id: str, event: Event, now: float) -> list[Signal]:
        """Returns the signals of the next event of a thread; `now` is the time in Unix seconds."""
        if isinstance(event, AgentEvent):
            if event.call_id or event.thread_id not in self._work_for:
                self._keep(self._work_for, event.thread_id, (thread_id, event.call_id))
            return self.observe(event.thread_id, event.event, now)
        if not isinstance(event, DurableEvent):
            run = self._runs.get(thread_id)
            if (
                run is None
                or not run.awaits_first
                or isinstance(event, ToolProgress | HostedCallProgress)
            ):
                return []
            run.delta_seen(now)
            return self._taken()
        if not event.run_id:
            return []  # a change of the memory outside of runs
        if event.seq:
            # The events of an agent that works for another appear on both threads.
            if event.seq <= self._last_seq.get(event.run_id, 0):
                return []
            self._keep(self._last_seq, event.run_id, event.seq)
        if isinstance(event, ToolDelegated):
            self._keep(self._work_for, event.thread_id, (thread_id, event.call_id))
        elif isinstance(event, JobDelegated):
            above = self._runs.get(thread_id)
            # An agent of a background job has no parent run, because it may outlive all runs.
            is_traced = above is not None and above.has_job(event.job_id)
            work = (thread_id, event.job_id) if is_traced else ("", "")
            self._keep(self._work_for, event.thread_id, work)
        at = event.at or now
        if isinstance(event, ContextCompacted):
            return self._compacted(thread_id, event, at)
        run = self._run_of(thread_id, event, at)
        if run is not None:
            run.observe(event, at)
            if run.ended:
                del self._runs[thread_id]
                if run.suspended:
                    self._keep(self._suspended, run.run_id, run.agent)
        return self._taken()

    def close(self, now: float) -> list[Signal]:
        """Ends all open spans and returns the signals."""
        for run in self._runs.values():
            run.end(now)
        self._runs.clear()
        self._asked.clear()
        self._work_for.clear()
        return self._taken()

    def _compacted(self, thread_id: str, event: ContextCompacted, at: float) -> list[Signal]:
        run = self._runs.get(thread_id)
        is_of_run = run is not None and run.run_id == event.run_id
        parent = run.span_of("") if run is not None and is_of_run else None
        return compaction_signals(thread_id, event, id=next(self._ids), parent=parent, at=at)

    def _run_of(self, thread_id: str, event: DurableEvent, at: float) -> RunSpans | None:
        """Returns the run of the event; starts its spans if necessary."""
        run = self._runs.get(thread_id)
        if isinstance(event, RunStarted):
            attributes = self._input_of(thread_id, event.run_id)
            if event.agent_hash:
                attributes["gen_ai.agent.version"] = event.agent_hash
            return self._begin(thread_id, event.run_id, at, event.agent, attributes)
        if run is not None and run.run_id == event.run_id:
            self._runs.move_to_end(thread_id)
            return run
        if isinstance(event, MessageAdded):
            self._keep_input(thread_id, event)
        elif isinstance(event, _GOES_ON) or (
            isinstance(event, JobStarted) and not event.background
        ):
            agent = self._suspended.pop(event.run_id, "")
            return self._begin(thread_id, event.run_id, at, agent, {"treadle.resumed": True})
        return None

    def _begin(
        self, thread_id: str, run_id: str, at: float, agent: str, attributes: dict[str, Value]
    ) -> RunSpans:
        before = self._runs.pop(thread_id, None)
        if before is None and len(self._runs) >= self._max_runs:
            _, before = self._runs.popitem(last=False)
        if before is not None:
            before.end(at)
        run = self._runs[thread_id] = RunSpans(
            thread_id,
            run_id,
            at,
            agent=agent,
            parent=self._parent_of(thread_id),
            resumed="treadle.resumed" in attributes,
            attributes=attributes,
            options=self._options,
            new_id=lambda: next(self._ids),
            emit=self._signals.append,
        )
        return run

    def _parent_of(self, thread_id: str) -> int | None:
        """Returns the open span that the thread works for, if any."""
        above, call_id = self._work_for.get(thread_id, ("", ""))
        run = self._runs.get(above)
        return None if run is None else run.span_of(call_id)

    def _keep_input(self, thread_id: str, event: MessageAdded) -> None:
        """Keeps the input of the next run, which comes before the event of its start."""
        if not self._options.content or event.origin == "model":
            return
        run_id, messages = self._asked.pop(thread_id, ("", []))
        messages = [*messages, event.item] if run_id == event.run_id else [event.item]
        self._keep(self._asked, thread_id, (event.run_id, messages))

    def _input_of(self, thread_id: str, run_id: str) -> dict[str, Value]:
        asked, messages = self._asked.pop(thread_id, ("", []))
        return {"gen_ai.input.messages": input_messages(messages)} if asked == run_id else {}

    def _keep(self, kept: OrderedDict[str, T], key: str, value: T) -> None:
        kept[key] = value
        kept.move_to_end(key)
        if len(kept) > self._max_runs:
            kept.popitem(last=False)

    def _taken(self) -> list[Signal]:
        taken = self._signals[:]
        self._signals.clear()
        return taken
