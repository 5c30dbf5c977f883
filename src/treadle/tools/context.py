"""What a tool may know about its call: `RunContext` and `CancellationToken`."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, Literal, overload

import msgspec
from msgspec import Struct
from typing_extensions import TypeVar

from treadle.domain.items import Input, Message
from treadle.domain.result import RunResult, require_complete
from treadle.errors import ConfigurationError
from treadle.jobs.node import Node
from treadle.jobs.run_jobs import RunJobs
from treadle.ports import Delegation, RunMemory, RunSchedules, ThreadWriter, Worker
from treadle.tools.run_facts import RunFacts

Deps = TypeVar("Deps", default=None)
Deps_co = TypeVar("Deps_co", default=None, covariant=True)
Out = TypeVar("Out")

MAX_PROGRESS = 2000


_TOKENS = threading.Lock()
"""Held for a moment while the event of a token is made or set."""


class CallCancelled(Exception):
    """Raised by `CancellationToken.raise_if_set` in a thread whose call was cancelled."""


class CancellationToken:
    """Shows a tool in a thread that its call was cancelled. Safe to use from any thread.

    A thread cannot be stopped from outside: a long-running tool checks its token from time to time.
    """

    __slots__ = ("_event", "_is_set")

    def __init__(self) -> None:
        self._is_set = False
        self._event: threading.Event | None = None  # made for the first that waits: few tools do

    @property
    def is_set(self) -> bool:
        """Whether the call was cancelled or timed out."""
        return self._is_set

    def set(self) -> None:
        """Marks the call as cancelled."""
        with _TOKENS:
            self._is_set = True
            event = self._event
        if event is not None:
            event.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Blocks the thread until the call is cancelled, at most `timeout` seconds.

        Returns whether it was: a sleep that ends early.
        """
        with _TOKENS:
            if self._is_set:
                return True
            if self._event is None:
                self._event = threading.Event()
            event = self._event
        return event.wait(timeout)

    def raise_if_set(self) -> None:
        """Raises `CallCancelled` if the call was cancelled or timed out."""
        if self.is_set:
            raise CallCancelled("This tool call was cancelled or timed out.")


def _drop(_: str) -> None:
    """Progress that is not shown."""


class CallServices(Struct, frozen=True, kw_only=True):
    """What the loop lends to a call; `RunContext` offers the part that tools may use.

    `writer` is the thread of the run. `report` shows progress; it is called on `loop`.
    """

    writer: ThreadWriter | None = None
    report: Callable[[str], None] = _drop
    loop: asyncio.AbstractEventLoop = msgspec.field(default_factory=asyncio.get_running_loop)
    delegation: Delegation | None = None
    jobs: RunJobs | None = None
    memory: RunMemory | None = None
    schedules: RunSchedules | None = None


@dataclass(frozen=True, kw_only=True)
class RunContext(RunFacts, Generic[Deps_co]):
    """What a function of the program may know about the run that it is called for.

    Tools, instructions, rules for approval, validators, dynamic tools and `deps` can take it as a
    parameter.

    - `deps`: the dependencies that the caller gave the run.
    - `thread_id`, `run_id`: the thread and the run. `agent`: the name of the agent at work.
    - `owner`: the owner of the thread, or "". `metadata`: what was given with the thread.
    - `run_metadata`: the option `metadata` of the run.
    - `message`: the message that the run began with, None without one.
    - `call_id`, `tool_name`: the call, for tools and rules for approval; "" for others.
    - `attempt`: 1 for the first, more for retries.
    - `cancelled`: for plain tools, which run in threads; async tools get `CancelledError`.
    """

    deps: Deps_co
    thread_id: str
    run_id: str
    call_id: str = ""
    tool_name: str = ""
    agent: str = ""
    owner: str = ""
    metadata: Mapping[str, object] = field(default_factory=dict[str, object])
    run_metadata: Mapping[str, object] = field(default_factory=dict[str, object])
    message: Message | None = None
    attempt: int = 1
    cancelled: CancellationToken = field(default_factory=CancellationToken)
    _services: CallServices = field(default_factory=CallServices, repr=False)
    # Numbers the agents of this attempt: after a crash the same order gives the same keys.
    _delegated: "Iterator[int]" = field(default_factory=itertools.count, repr=False)
    _at_work: set[str] = field(default_factory=set[str], repr=False)  # agents, by their keys

    @property
    def _writer(self) -> ThreadWriter | None:
        return self._services.writer

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of one call; pass it to services that accept such a key."""
        return self.call_id

    @property
    def jobs(self) -> Node[None]:
        """The run's node in the tree of its thread: submit jobs to it.

        The run ends when they have settled. Jobs placed under the root, with
        `ctx.jobs.submit(job, parent=ctx.jobs.root)`, belong to the thread: they may outlive the run
        and announce their end with a message. Only async tools can use it: plain functions run in
        threads without an event loop. Raises `ConfigurationError` there, and `NodeClosed` once the
        run is about to end.
        """
        jobs = self._services.jobs
        if jobs is None:
            raise ConfigurationError("This context has no jobs: it was not made by a run.")
        if not self._is_on_loop():
            raise ConfigurationError("Jobs are started on the event loop: make the tool async.")
        return jobs.node

    @property
    def memory(self) -> RunMemory:
        """The memory blocks of the agent, and the archive.

        Raises `ConfigurationError` if the context has no memory.
        """
        memory = self._services.memory
        if memory is None:
            raise ConfigurationError("This context has no memory: it was not made by a run.")
        return memory

    @property
    def schedules(self) -> RunSchedules:
        """The schedules of the thread: messages that are sent to it later.

        Raises `ConfigurationError` if the thread is not kept in a runtime.
        """
        schedules = self._services.schedules
        if schedules is None:
            raise ConfigurationError(
                "This run cannot be continued later, because its thread is not kept; run the agent "
                "on a thread of a runtime (treadle.open)."
            )
        return schedules

    @overload
    async def run_agent(
        self, agent: Worker[Out], input: Input, *, raise_on_incomplete: Literal[True] = True
    ) -> RunResult[Out]: ...

    @overload
    async def run_agent(
        self, agent: Worker[Out], input: Input, *, raise_on_incomplete: bool
    ) -> RunResult[Out | None]: ...

    async def run_agent(
        self, agent: Worker[Out], input: Input, *, raise_on_incomplete: bool = True
    ) -> RunResult[Out] | RunResult[Out | None]:
        """Runs another agent for this call, on a thread of its own, and returns its result.

        Its events are shown under the run, its usage counts for the run, and it is cancelled with
        the call. After a crash, an `idempotent` tool that runs the same agents in the same order
        continues their work; a retry starts again.

        Raises the error of a run that failed, a kind of `RunStopped` if the run ended without an
        output (unless `raise_on_incomplete` is False), `AgentsTooDeep` and `BudgetUsedUp`.
        """
        delegation = self._services.delegation
        if delegation is None:
            raise ConfigurationError("This context cannot run agents: it was not made by a run.")
        key = f"{self.call_id}/{self.attempt}/{next(self._delegated)}"
        self._at_work.add(key)
        try:
            result = await delegation.run(agent, input, key=key, call_id=self.call_id)
        finally:
            self._at_work.discard(key)
        return require_complete(result) if raise_on_incomplete else result

    def progress(self, message: str) -> None:
        """Shows the progress of the tool to subscribers; callable from any thread.

        `message` is cut after 2,000 characters. Does nothing once the call was cancelled or timed
        out, because the call has an output then.
        """
        text = message[:MAX_PROGRESS].encode("utf-8", "replace").decode("utf-8")
        if self._is_on_loop():
            self._report(text)  # at once, so that it comes before the output of the tool
        elif not self.cancelled.is_set:
            self._services.loop.call_soon_threadsafe(self._report, text)

    def _is_on_loop(self) -> bool:
        try:
            return asyncio.get_running_loop() is self._services.loop
        except RuntimeError:  # a thread without a loop
            return False

    def _report(self, text: str) -> None:
        if not self.cancelled.is_set:
            self._services.report(text)


def for_attempt(context: RunContext[Deps], attempt: int) -> RunContext[Deps]:
    """Returns the context of another attempt, with a token of its own."""
    if attempt == context.attempt:
        return context  # the first, for which it was made
    return replace(
        context,
        attempt=attempt,
        cancelled=CancellationToken(),
        _delegated=itertools.count(),
        _at_work=set[str](),
    )


def runs_agents(context: RunContext[Deps]) -> bool:
    """Returns whether an agent works for the call at this moment."""
    return bool(context._at_work)  # pyright: ignore[reportPrivateUsage]
