"""The jobs of a thread: its tree in this process, and what the thread is told of it."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from treadle.actors.job_events import (
    Encoded,
    encoded_result,
    ending_of,
    interruption_of,
    restart_of,
)
from treadle.domain.events import JobStarted
from treadle.domain.ids import new_id
from treadle.domain.state import OpenJob
from treadle.errors import (
    ConfigurationError,
    JobNotRestartable,
    NodeClosed,
    NodeDeadlock,
    TooManyJobs,
)
from treadle.jobs.block_alarm import BLOCKED_AFTER, BlockAlarm
from treadle.jobs.context import JobContext
from treadle.jobs.failure import Failure, OnFailure
from treadle.jobs.job import Job
from treadle.jobs.node import Change, Node, NodeSettled, NodeStarted, NodeSubmitted, current_node
from treadle.jobs.root import Root
from treadle.jobs.scope import Scope
from treadle.jobs.settling import Settling
from treadle.jobs.start_queue import StartQueue
from treadle.jobs.stored import restored, stored
from treadle.jobs.tree import Tree
from treadle.loop.signals import Signals
from treadle.ports import Delegation, ThreadWriter
from treadle.tools.failure import as_exception, reraise_interrupt
from treadle.tools.output import truncated

T = TypeVar("T")

MAX_PENDING = 1024
"""How many jobs of a thread may wait for their start before a submission has to wait."""

MAX_OPEN = 10_000
"""How many jobs of a thread may be open at a time: its state tells each of them."""

MAX_NAME_CHARS = 200


class _Held(Scope):
    """A scope that the actor of the thread ends, and no node below it."""

    __slots__ = ()

    def stop(self) -> None:
        """Cancels what is below, unless that was done: its clean-up is not to be disturbed."""
        self.close()
        if not self._node_is_stopped and not self._node_is_settled:
            self._node_stop()

    def interrupt(self) -> None:
        """Cancels once more what still runs."""
        self._node_stop(again=True)

    def cancel(self) -> Settling:
        """Refuses: jobs are cancelled one by one, a run by its own means."""
        raise ConfigurationError(
            f"{self._node_label()} cannot be cancelled as a node: cancel the run with "
            "await run.cancel(), or each of its children."
        )

    async def _node_wait_in(self, waiting: "dict[asyncio.Future[T], None]") -> None:
        if self._is_open:
            raise NodeDeadlock(
                f"{self._node_label()} settles after the run has ended; await its children instead."
            )
        await super()._node_wait_in(waiting)


class _ThreadRoot(_Held, Root):
    """The root of a thread's tree; what fails below it is told by the event of its end."""

    def _node_child_failed(self, failure: Failure) -> None:
        failure.take()


class _RunScope(_Held):
    """A run, as a node of its thread's tree."""

    def __init__(
        self,
        run_id: str,
        name: str,
        on_interrupt: Callable[[], object],
        *,
        on_failure: OnFailure,
        listener: Callable[[Change], None],
    ) -> None:
        super().__init__(name, on_interrupt, on_failure=on_failure, listener=listener)
        self.run_id = run_id
        self.open_children = 0

    @property
    def fails_fast(self) -> bool:
        """Whether a failure that no task waits for fails the run, which has not been stopped."""
        return self._node_policy == "fail_fast" and not self._node_is_stopped

    def _node_child_failed(self, failure: Failure) -> None:
        if self._node_policy == "collect":
            failure.take()
        else:
            super()._node_child_failed(failure)


class _Placed(Struct):
    """A job in the tree: how its thread knows it."""

    job_id: str
    run_id: str
    background: bool
    attempt: int
    began: float = 0.0
    context: JobContext[object] | None = None
    encoded: Encoded | None = None
    on_told: tuple[Callable[[], object], ...] = ()
    by: str = ""


async def _no_agent(thread_id: str) -> None:
    """Does nothing: no agent is left behind if nothing outlives a run."""


class ThreadJobs:
    """Fulfils `RunJobs` for one thread; the tree is made when the first job is submitted.

    `signals` reach the run in progress, and `wake` is called for what wakes the
    agent when no run is. `deps` is what jobs get, `policy` what the failure of a job does to its
    run, `end_agent` ends what an agent does on a thread for a job that an earlier process ran.
    Without `journal`, nothing outlives a run.
    """

    def __init__(
        self,
        thread: ThreadWriter,
        signals: Signals,
        *,
        delegation: Delegation,
        deps: Callable[[], object],
        policy: Callable[[], OnFailure],
        wake: Callable[[], object] = lambda: None,
        end_agent: Callable[[str], Awaitable[object]] = _no_agent,
        journal: bool,
    ) -> None:
        self._thread = thread
        self._signals = signals
        self._delegation = delegation
        self._deps = deps
        self._policy = policy
        self._wake = wake
        self._end_agent = end_agent
        self._has_journal = journal
        self._root: _ThreadRoot | None = None
        self._scope: _RunScope | None = None
        self._stopped = ""
        self._is_closing = False
        self._placed: dict[int, _Placed] = {}
        self._made_deps: tuple[object, ...] = ()

    # The port of the loop

    @property
    def node(self) -> Node[None]:
        """The run's node, opened when it is first asked for."""
        run = self._thread.state.active_run
        if run is None or run.id == self._stopped or self._is_closing:
            raise NodeClosed("The run has ended, or is about to: it takes no more jobs.")
        if self._scope is None:
            scope = _RunScope(
                run.id,
                run.agent,
                self._interrupted,
                on_failure=self._policy(),
                listener=self._heard,
            )
            self._tree_root().call(scope)
            self._scope = scope
        return self._scope

    @property
    def is_open(self) -> bool:
        """Whether a job of the run has not settled."""
        return self._scope is not None and self._scope.open_children > 0

    async def stop(self) -> None:
        """Cancels what is open of the run, and waits for its end."""
        run, scope = self._thread.state.active_run, self._scope
        self._stopped = run.id if run is not None else ""
        if scope is not None:
            scope.stop()
            await scope.settling()
            self._scope = None

    async def stop_for_good(self) -> None:
        """Stops a run that is not resumed; cancelled while it waits, it interrupts the clean-up."""
        stopping = asyncio.ensure_future(self.stop())
        while not stopping.done():
            try:
                await asyncio.shield(stopping)
            except asyncio.CancelledError:  # raised by the caller, once all has ended
                if self._scope is not None and not stopping.done():
                    self._scope.interrupt()
        stopping.result()

    # What the holder of the thread does

    @property
    def is_busy(self) -> bool:
        """Whether any job of the thread is under way here."""
        return bool(self._placed)

    async def recover(self) -> None:
        """Takes care of the jobs that an earlier process left; called once, before any other.

        Those that may be started again are; they start what they need below them anew. The others
        settle as interrupted, once the agents that worked for them have ended: were it the other
        way round, the end of this process could leave these at work in vain. Raises
        `UnknownAgent` before anything is done.
        """
        jobs = self._thread.state.jobs
        if any(not job.background for job in jobs.values()):
            _ = self.node  # raises here, if its agent is not known, and not halfway
        restarts: dict[str, Job[Any]] = {}
        why: dict[str, str] = {}
        for job in jobs.values():
            if job.kind and not any(above in restarts for above in _ancestors(jobs, job)):
                try:
                    restarts[job.id] = restored(job.kind, job.arguments)
                except JobNotRestartable as error:
                    why[job.id] = f" {error.message}"
        for job in jobs.values():
            if job.id not in restarts:
                await self._end_agents(job.delegated)
        if self._is_closing:
            return
        for job_id in restarts:
            self._thread.record(restart_of(jobs[job_id]))
        for job in reversed(list(jobs.values())):
            if job.id not in restarts:
                self._thread.record(interruption_of(job, why.get(job.id, "")))
        for job_id, node in restarts.items():
            job = self._thread.state.jobs[job_id]
            if job.delegated:  # it may end before it asks them again
                node.on("error", self._end_agents, job.delegated)
                node.on("cancelled", self._end_agents, job.delegated)
            self._placed[id(node)] = _Placed(job_id, job.run_id, job.background, job.attempt)
            (self._tree_root() if job.background else self.node).call(node)

    async def _end_agents(self, thread_ids: Sequence[str]) -> None:
        """Stops agents that worked for a job, unless they continue in the next process."""
        for thread_id in thread_ids:
            if not self._is_closing:
                await self._end_agent(thread_id)

    def begin(self, job: Job[Any]) -> None:
        """Starts a background job of the thread that no run asked for."""
        self._tree_root().call(job)

    def cancel(
        self, job_id: str, on_told: Callable[[], object] = lambda: None, by: str = ""
    ) -> None:
        """Cancels a job and all below it; does nothing for one that has settled.

        `by` is the principal that asked first.
        `on_told` is called together with the event of its end; at once if none will come.
        """
        below: list[Node[object]] = [] if self._root is None else [self._root]
        while below:
            node = below.pop()
            placed = self._placed.get(id(node))
            if placed is not None and placed.job_id == job_id:
                asked_before, placed.on_told = placed.on_told, (*placed.on_told, on_told)
                if not asked_before:  # else its clean-up would be interrupted
                    placed.by = by
                    node.cancel()
                return
            below += node.children
        on_told()

    async def cancel_background(self) -> None:
        """Cancels the background jobs, and waits for their end."""
        if self._root is not None:
            jobs = [node for node in self._root.children if not isinstance(node, Scope)]
            for settling in [node.cancel() for node in jobs]:
                await settling

    def abandon(self) -> None:
        """Cancels all jobs without recording it: the thread continues as after a crash."""
        if self._is_closing:
            return  # their clean-up is not to be disturbed
        self._is_closing = True
        if self._root is not None:
            if self._scope is not None:
                self._scope.stop()
                self._scope = None
            self._root.stop()

    def refuse_inside(self, what: str) -> None:
        """Raises `ConfigurationError` where a job of this thread wants what would end itself."""
        node = current_node()
        if node is not None and self._root is not None and node.root is self._root:
            raise ConfigurationError(
                f"A job cannot {what}, because that waits for the job; let its holder do it."
            )

    async def close(self) -> None:
        """Abandons all there is, and waits for its end."""
        self.abandon()
        if self._root is not None:
            await self._root.settling()

    # The tree

    def _tree_root(self) -> _ThreadRoot:
        if self._root is None:
            # Not in the context of whatever tool was the first to submit a job.
            self._root = contextvars.Context().run(self._new_root)
        return self._root

    def _new_root(self) -> _ThreadRoot:
        loop = asyncio.get_running_loop()
        tree = Tree(
            loop,
            StartQueue(loop, limit=None, max_pending=MAX_PENDING),
            _refuse_exit,
            BlockAlarm(BLOCKED_AFTER) if loop.get_debug() else None,
            admit=self._admit,
            kept=self._thread.durable if self._has_journal else None,
            context_of=self._context_of,
            contained=_Contained,
            returned=self._returned,
        )
        return _ThreadRoot(tree, lambda: None, on_failure="collect", listener=self._heard)

    async def _returned(self, node: Node[object], value: object) -> None:
        """Encodes a large result of a job, before it settles."""
        placed = self._placed.get(id(node))
        if placed is not None and value is not None:
            placed.encoded = await encoded_result(value)

    def _context_of(self, node: Node[object]) -> JobContext[object] | None:
        placed = self._placed.get(id(node))
        if placed is None:
            return None
        if placed.context is None:
            placed.context = JobContext(
                self._deps_of_jobs,
                self._delegation,
                thread_id=self._thread.id,
                run_id=placed.run_id,
                job_id=placed.job_id,
                attempt=placed.attempt,
                background=placed.background,
            )
        return placed.context

    def _deps_of_jobs(self) -> object:
        """What all jobs of this tree get; made when the first asks."""
        if not self._made_deps:
            self._made_deps = (self._deps(),)
        return self._made_deps[0]

    def _interrupted(self) -> None:
        """The run's node was stopped before the run has ended."""
        scope = self._scope
        error = scope.exception if scope is not None else None
        if scope is not None and error is not None:
            self._signals.fail(scope.run_id, error)
            self._wake()

    # What the thread is told

    def _admit(self, parent: Node[object], node: Node[object]) -> None:
        """Records that a job is placed; what cannot be recorded is not placed."""
        if isinstance(node, Scope) or id(node) in self._placed:
            return
        if self._is_closing:
            raise NodeClosed("The thread is given up by this process: it takes no more jobs.")
        if len(self._thread.state.jobs) >= MAX_OPEN:
            raise TooManyJobs(
                f"The thread has {MAX_OPEN:,} open jobs; await some before it starts more."
            )
        above, scope, run = self._placed.get(id(parent)), self._scope, self._thread.state.run
        assert run is not None
        run_id, background, agent = run.id, False, run.agent
        if above is not None:
            run_id, background = above.run_id, above.background
            agent = self._thread.state.jobs[above.job_id].agent
        elif parent is not scope:
            if not self._has_journal:
                raise ConfigurationError(
                    "A background job needs a thread that outlives its run: use a Runtime."
                )
            current = current_node()
            placed = self._placed.get(id(current))
            run_id, background = (placed.run_id if placed is not None else run.id), True
        job = node if isinstance(node, Job) else None
        kind, arguments = stored(job) if job is not None and job.restartable else ("", "")
        job_id = new_id("job")
        self._thread.record(
            JobStarted(
                run_id=run_id,
                job_id=job_id,
                name=truncated(node.name[:MAX_NAME_CHARS], MAX_NAME_CHARS),
                parent=above.job_id if above is not None else "",
                background=background,
                agent=agent if background else "",
                announces=job.announces if job is not None else "wake",
                kind=kind,
                arguments=arguments,
            )
        )
        self._placed[id(node)] = _Placed(job_id, run_id, background, 1)

    def _heard(self, change: Change) -> None:
        node, scope = change.node, self._scope
        if isinstance(node, Scope):
            return
        match change:
            case NodeSubmitted():
                if scope is not None and node.parent is scope:
                    scope.open_children += 1
                if self._has_journal:
                    node.on("start", self._thread.durable)
                self._placed[id(node)].began = asyncio.get_running_loop().time()
            case NodeStarted():
                self._placed[id(node)].began = asyncio.get_running_loop().time()
            case NodeSettled():
                if scope is not None and node.parent is scope:
                    scope.open_children -= 1
                    self._signals.notify()
                placed = self._placed.pop(id(node))
                if not self._is_closing:
                    self._settled(node, placed)

    def _fails_run(self, node: Node[object]) -> bool:
        scope = self._scope
        return (
            scope is not None
            and node.parent is scope
            and scope.fails_fast
            and node.state == "failed"
            and not node.is_awaited
        )

    def _settled(self, node: Node[object], placed: _Placed) -> None:
        job = self._thread.state.jobs[placed.job_id]
        seconds = asyncio.get_running_loop().time() - placed.began
        settled = ending_of(
            node, job, seconds, encoded=placed.encoded, fails_run=self._fails_run(node)
        )
        if placed.by and settled.outcome == "cancelled":
            settled = replace(settled, by=placed.by)
        self._thread.record(settled)
        for on_told in placed.on_told:
            on_told()
        if settled.wakes:
            self._signals.notify()
        if settled.wakes or not self._placed:
            self._wake()  # for what was told, or to be idle


def _ancestors(jobs: Mapping[str, OpenJob], job: OpenJob) -> Iterator[str]:
    while job.parent:
        job = jobs[job.parent]
        yield job.id


class _Contained(Coroutine[Any, Any, T]):
    """The body or a callback of a job, as its task runs it.

    `SystemExit` would end the event loop, and with it all threads: it fails the job instead.
    """

    def __init__(self, body: Coroutine[Any, Any, T]) -> None:
        self._body = body

    def send(self, value: object, /) -> object:
        """Runs until the next time it waits."""
        return _without_exits(self._body.send, value)

    def throw(self, *error: Any) -> object:
        """Raises an exception where it waits."""
        return _without_exits(self._body.throw, *error)

    def close(self) -> None:
        """Ends it where it waits."""
        self._body.close()

    def __await__(self) -> Generator[Any, Any, T]:
        return self._body.__await__()


def _without_exits(step: Callable[..., object], *arguments: object) -> object:
    try:
        return step(*arguments)
    except (Exception, asyncio.CancelledError):
        raise
    except BaseException as error:
        reraise_interrupt(error)
        raise as_exception(error) from error


def _refuse_exit(result: object, wait: bool) -> None:
    raise ConfigurationError(
        "A job under a thread cannot end it: cancel the run, or let its own node end."
    )
