"""The agent loop: ask the model, run the tools it calls, until it calls none.

Pure orchestration: what comes next is decided in `next_step.py`; what is recorded and who sees it
is the business of the `ThreadWriter`, what a model or a tool does that of their ports. All that the
loop knows of a run is the state of the thread, so resuming a run after a restart is the same as
continuing it after a step.
"""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Generic, Self, assert_never, cast

from msgspec.structs import replace

from treadle.domain.events import (
    HandedOff,
    MessageAdded,
    RunCancelled,
    RunExpired,
    RunFailed,
    TerminalEvent,
)
from treadle.domain.items import message
from treadle.errors import HookFailed, TreadleError
from treadle.logging import InRun, logger_of
from treadle.loop.activation import Activation
from treadle.loop.definition import AgentDefinition, Deps, Out, handed_to, reachable_from
from treadle.loop.hook_context import RunEnd
from treadle.loop.next_step import (
    Ask,
    Cancel,
    Correct,
    Enter,
    Fail,
    HandOff,
    NextStep,
    Pause,
    Resume,
    Settle,
    Validate,
    Wait,
    find_interruption,
    next_step,
)
from treadle.loop.outcome import End, end_event, run_of
from treadle.loop.output_validators import Verdict
from treadle.loop.safe_point import settle
from treadle.loop.steering import steering_messages
from treadle.loop.step import close_step, take_step
from treadle.loop.validation import validate
from treadle.ports import ThreadWriter
from treadle.tools.failure import as_exception, explain_failure, reraise_interrupt

_LOGGER = logger_of("treadle.hooks")

DEPS_SECONDS = 60.0
"""How long the deps of a run that is about to end may take to be made."""


async def drive(activation: Activation[Deps, Out]) -> Exception | None:
    """Drives the active run of a thread; returns the error it failed with.

    Returns when the run has ended, or when its open step waits for outputs or approvals from
    outside: call it again, with a new activation, once something came. Whatever ends the run, every
    call is answered and the terminal event is the last. A cancellation of the driving task ends
    only the driving: the run can be resumed. A run whose deps cannot be made ends without its
    hooks, which would be given them.
    """
    with InRun(activation.thread.id, activation.run.id):
        if activation.make_deps is not None:
            seconds = activation.seconds_left
            if find_interruption(activation.run) is not None:
                seconds = DEPS_SECONDS  # an interrupt from before cannot break it off
            async with _Interruptible(activation, seconds) as work:
                activation.deps = await activation.make_deps()
            if work.is_broken:
                return work.failure
        async with activation.listening():
            async with _Interruptible(activation, activation.seconds_left) as work:
                _require_deps(activation)
                await _loop(activation)
            if work.is_interrupted and activation.listener is not None:
                activation.listener.hurry()
        await run_ended(activation, work.failure)
        return work.failure


class _Interruptible(Generic[Deps, Out]):
    """Work on a run that signals interrupt; a run whose work is broken off is ended.

    - `is_broken`: whether that was so. `failure`: what the run failed with, if it failed.
    - `is_interrupted`: whether a signal or the deadline, in `seconds`, broke it off.

    A context manager, which is no frame between the loop and a model.
    """

    def __init__(self, activation: Activation[Deps, Out], seconds: float | None) -> None:
        self._activation = activation
        self._scope = asyncio.timeout(seconds)
        self._task = asyncio.current_task()
        self.is_broken = False
        self.failure: Exception | None = None

    @property
    def is_interrupted(self) -> bool:
        return self._scope.expired()

    async def __aenter__(self) -> Self:
        await self._scope.__aenter__()
        self._activation.signals.attach(self._scope)
        self._activation.stopwatch.skip()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        self._activation.signals.attach(None)
        try:
            await self._scope.__aexit__(kind, error, traceback)
        except TimeoutError as expired:
            error = expired
        if error is None:
            return False
        reraise_interrupt(error, self._task)
        self.is_broken = True
        self.failure = await _end_by(
            self._activation, as_exception(error), is_interrupted=self.is_interrupted
        )
        return True


def _require_deps(activation: Activation[Deps, Out]) -> None:
    """Raises `ConfigurationError` if a tool of an agent that may work needs deps, without any."""
    if activation.deps is None:
        agents = cast("Mapping[str, AgentDefinition[Any, Any]]", reachable_from(activation.agent))
        for agent in agents.values():
            agent.tools.require_deps()


async def _loop(activation: Activation[Deps, Out]) -> None:
    """Does what comes next, until the run has ended or must wait for something from outside.

    Where the process drains, it also returns before the next request.
    """
    thread, services, stopwatch = activation.thread, activation.services, activation.stopwatch
    await services.memory.prepare(activation.agent.blocks)
    is_settled = False
    verdict: Verdict | None = None
    while True:
        following = _following(activation, is_settled, verdict)
        match following:
            case Settle():
                await settle(activation)
                is_settled = True
            case HandOff(event):
                await settle(activation)
                await _hand_off(activation, event)
                is_settled = True
            case Enter(messages):
                for entering in messages:
                    thread.record(entering)
            case Ask() | Resume():
                if isinstance(following, Ask) and services.require_budget is not None:
                    await services.require_budget()
                await take_step(activation)
                is_settled = False
            case Correct(text):
                item = message("user", text)
                thread.record(MessageAdded(run_id=activation.run.id, item=item, origin="runtime"))
                is_settled = False
            case Validate(step, output):
                verdict = await validate(activation, step, cast("Out", output))
            case Wait():
                await _wait_for_jobs(activation)
            case Pause():
                return
            case End():
                await services.jobs.stop()
                _record_end(thread, end_event(thread.state, following), stopwatch.kept())
                return
            case Cancel():
                await services.jobs.stop()
                cancel(thread, stopwatch.kept())
                return
            case Fail(error):
                raise error from activation.signals.cause_of(activation.run.id)
            case _ as unreachable:
                assert_never(unreachable)


def _following(
    activation: Activation[Deps, Out], is_settled: bool, verdict: Verdict | None
) -> NextStep:
    """Returns what comes next; a process that drains leaves the next request to another one."""
    services = activation.services
    following = next_step(
        activation.thread.state,
        activation.agent,
        is_settled=is_settled,
        has_open_jobs=services.jobs.is_open,
        verdict=verdict,
    )
    if isinstance(following, Ask) and services.is_draining is not None and services.is_draining():
        return Pause()
    return following


async def _wait_for_jobs(activation: Activation[Deps, Out]) -> None:
    activation.stopwatch.skip()  # the time of hooks is not counted, that of jobs is
    await activation.signals.changed()
    activation.stopwatch.keep()


async def _hand_off(activation: Activation[Deps, Out], event: HandedOff) -> None:
    """Lets another agent take the next step, within what was left to the one before."""
    agent = activation.agent
    activation.thread.record(event)
    activation.agent = cast("AgentDefinition[Deps, Out]", handed_to(agent, event.agent))
    activation.signals.limit(activation.seconds_left)
    await activation.services.memory.prepare(activation.agent.blocks)


async def _end_by(
    activation: Activation[Deps, Out], error: Exception, *, is_interrupted: bool
) -> Exception | None:
    """Ends a run whose work `error` broke off; returns what it failed with, if it failed."""
    thread, seconds = activation.thread, activation.stopwatch.lap()
    await activation.services.jobs.stop()
    if not is_interrupted:
        return fail(thread, error, seconds)
    # The interrupt wins over what the interrupted work raised; its reason is on the thread.
    match find_interruption(activation.run):
        case Cancel():
            cancel(thread, seconds)
        case Fail(failure):
            failure.__cause__ = activation.signals.cause_of(activation.run.id)
            return fail(thread, failure, seconds)
        case None:
            event = end_event(thread.state, End("max_seconds"))
            _end(thread, "The time of the run is used up", event, seconds)
    return None


async def run_ended(activation: Activation[Deps, Out], failure: Exception | None = None) -> None:
    """Calls the hooks `on_run_end` if the run has ended; what they raise is logged."""
    run = activation.run
    if run.is_active:
        return
    for hook in activation.agent.hooks.at("on_run_end"):
        try:
            answer = hook(activation.hook_context(), RunEnd(run, failure))
            if answer is not None:
                await hook.answer(answer)
        except HookFailed as error:
            _LOGGER.warning("%s", error.message)


def cancel(thread: ThreadWriter, seconds: float = 0.0) -> None:
    """Ends the active run as cancelled, every open call answered.

    `seconds` is the time that the open step took so far, or the run since its last.
    """
    run = run_of(thread.state)
    event = RunCancelled(run_id=run.id, usage=run.usage, by=run.cancelled_by)
    _end(thread, "The run was cancelled", event, seconds)


def expire(thread: ThreadWriter) -> None:
    """Ends the active run, which waited too long for a reply from outside."""
    run = run_of(thread.state)
    _end(thread, "The answer took too long", RunExpired(run_id=run.id, usage=run.usage))


def fail(thread: ThreadWriter, error: Exception, seconds: float = 0.0) -> Exception:
    """Ends the active run as failed with `error`, which it returns; see `cancel`."""
    code, retryable, message = "internal_error", False, explain_failure(error)
    if isinstance(error, TreadleError):
        code, retryable, message = error.code, error.retryable, error.message
    run = run_of(thread.state)
    event = RunFailed(
        run_id=run.id, code=code, message=message, retryable=retryable, usage=run.usage
    )
    _end(thread, "The run failed", event, seconds)
    return error


def _end(thread: ThreadWriter, reason: str, event: TerminalEvent, seconds: float = 0.0) -> None:
    if thread.state.step is not None:
        by = event.by if isinstance(event, RunCancelled) else ""
        close_step(thread, reason, seconds, by)
        seconds = 0.0
    for entering in steering_messages(thread.state):
        thread.record(entering)
    _record_end(thread, event, seconds)


def _record_end(thread: ThreadWriter, event: TerminalEvent, seconds: float) -> None:
    thread.record(replace(event, seconds=seconds) if seconds else event)
