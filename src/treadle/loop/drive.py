"""The agent loop: ask the model, run the tools it calls, until it calls none.

Pure orchestration: what is recorded and who sees it is the business of the `ThreadWriter` it is
given, what a model or a tool does that of their ports. All it knows of a run is the state of the
thread, so going on with a run after a restart is the same as going on with it after a step.
"""

import asyncio
from typing import cast

from msgspec.structs import replace

from treadle.domain.events import (
    HandedOff,
    MessageAdded,
    RunCancelled,
    RunExpired,
    RunFailed,
    TerminalEvent,
)
from treadle.domain.state import Run
from treadle.errors import HookFailed, JobFailed, TreadleError
from treadle.logging import InRun, logger_of
from treadle.loop.control import RunControl
from treadle.loop.decision import Stop, correction, end_of_run, handoff, may_answer, stop
from treadle.loop.definition import AgentDefinition, Deps, Out
from treadle.loop.hook_context import HookContext, RunEnd
from treadle.loop.listener import EventListener
from treadle.loop.safe_point import after_completion
from treadle.loop.step import close_step, take_step
from treadle.ports import ThreadWriter

_LAST_WORD = Stop("end_turn")
_LOGGER = logger_of("treadle.hooks")


async def drive(
    thread: ThreadWriter,
    definition: AgentDefinition[Deps, Out],
    deps: Deps,
    control: RunControl,
    listener: EventListener[Deps] | None = None,
) -> Exception | None:
    """Drives the active run of a thread on; returns the error it failed with.

    `definition` is the agent that works on it now. Returns when the run has ended, or when its open
    step waits for outputs or approvals from outside: then it is to be called again once something
    came. Whatever ends the run, every call is answered and the terminal event is the last. A
    cancellation of the driving task ends only the driving: the run can be driven on.
    """
    with InRun(thread.id, _run_of(thread).id):
        if listener is None:
            failure = await _drive(thread, definition, deps, control, None)
        else:
            listener.start()
            try:
                failure = await _drive(thread, definition, deps, control, listener)
                await thread.durable()
            finally:
                await listener.stop()
            if thread.state.active_run is None:
                listener.log_failure()
        await run_ended(thread, definition, deps, control, failure)
        return failure


async def run_ended(
    thread: ThreadWriter,
    definition: AgentDefinition[Deps, Out],
    deps: Deps,
    control: RunControl,
    failure: Exception | None = None,
) -> None:
    """Calls the hooks `on_run_end` if the run has ended; what they raise is logged."""
    run = thread.state.run
    if run is None or run.is_active:
        return
    worker = _worker(definition, run)
    for hook in worker.hooks.at("on_run_end"):
        context = HookContext(thread, worker.name, deps, control.delegation, control.jobs)
        try:
            answer = hook(context, RunEnd(run, failure))
            if answer is not None:
                await hook.answer(answer)
        except HookFailed as error:
            _LOGGER.warning("%s", error.message)


async def _drive(
    thread: ThreadWriter,
    definition: AgentDefinition[Deps, Out],
    deps: Deps,
    control: RunControl,
    listener: EventListener[Deps] | None,
) -> Exception | None:
    scope = asyncio.timeout(_time_left(thread, definition))
    try:
        async with scope:
            control.attach(scope)
            control.skip()  # what was before the run was driven on is no time of it
            try:
                await _steps(thread, definition, deps, control, listener)
            finally:
                control.attach(None)
    except Exception as error:  # noqa: BLE001 - whatever fails, the run must end and say so
        seconds = control.lap()
        await stop_jobs(control)
        if not scope.expired():
            return fail(thread, error, seconds)
        if _run_of(thread).status == "cancelling":
            cancel(thread, seconds)
        elif _run_of(thread).job_failure:
            return fail(thread, _job_failure(_run_of(thread), control), seconds)
        else:
            _end(thread, "The time of the run is used up", _out_of_time(thread), seconds)
    return None


async def _steps(
    thread: ThreadWriter,
    definition: AgentDefinition[Deps, Out],
    deps: Deps,
    control: RunControl,
    listener: EventListener[Deps] | None,
) -> None:
    """Takes step after step until there is a reason to stop."""
    agent = definition
    await _prepare_memory(agent, control)
    while True:
        if _run_of(thread).status == "cancelling":
            await stop_jobs(control)
            return cancel(thread, control.kept())
        if _run_of(thread).job_failure:
            raise _job_failure(_run_of(thread), control)
        if thread.state.step is None:
            handed = handoff(thread.state, agent)  # before a hook lets the run go on
            await after_completion(thread, agent, deps, control)
            if listener is not None:
                await listener.caught_up()
            if handed is not None:
                agent = _hand_over(thread, agent, handed)
                control.limit(_time_left(thread, agent))
                await _prepare_memory(agent, control)
            stopped = await _settle(thread, agent, control)
            if _run_of(thread).status == "cancelling" or _run_of(thread).job_failure:
                continue  # that came while it waited for its jobs
            if stopped == _LAST_WORD and (message := correction(thread.state, agent)):
                run_id = _run_of(thread).id
                thread.record(MessageAdded(run_id=run_id, item=message, origin="runtime"))
                continue
            if stopped is not None:
                await stop_jobs(control)
                return _record_end(thread, end_of_run(thread.state, stopped), control.kept())
        await take_step(thread, agent, deps, control)
        if thread.state.step is not None:
            return None  # it waits for someone outside


async def _prepare_memory(agent: AgentDefinition[Deps, Out], control: RunControl) -> None:
    """Makes the memory blocks be there that the agent declares."""
    if control.memory is not None:
        await control.memory.prepare(agent.blocks)


async def _settle(
    thread: ThreadWriter, agent: AgentDefinition[Deps, Out], control: RunControl
) -> Stop | None:
    """Lets what waits for a safe point enter the history; returns why the run ends, if it does.

    A run does not end before its jobs have: what comes meanwhile may let it go on.
    """
    while True:
        add_steering(thread)
        add_announcements(thread, agent)
        stopped = stop(thread.state, agent)
        jobs = control.jobs
        if stopped is None or jobs is None or not jobs.is_open:
            return stopped
        control.skip()
        await control.change()
        control.keep()


def _job_failure(run: Run, control: RunControl) -> JobFailed:
    failure = JobFailed(f"A job of the run failed: {run.job_failure}")
    failure.__cause__ = control.cause_of(run.id)
    return failure


def _hand_over(
    thread: ThreadWriter, agent: AgentDefinition[Deps, Out], handed: HandedOff
) -> AgentDefinition[Deps, Out]:
    """Returns the agent that takes the next step, within what was left to the one before."""
    thread.record(handed)
    other = cast("AgentDefinition[Deps, Out]", agent.handoffs[handed.agent])
    return other if agent.given is None else other.within(agent.given)


def _time_left(thread: ThreadWriter, agent: AgentDefinition[Deps, Out]) -> float | None:
    limit = agent.limits.max_seconds
    return None if limit is None else max(0.0, limit - _run_of(thread).seconds)


def _worker(definition: AgentDefinition[Deps, Out], run: Run) -> AgentDefinition[Deps, Out]:
    """The agent that worked on the run last; `definition` is that which did when it was begun."""
    return cast(
        "AgentDefinition[Deps, Out]",
        definition if run.agent == definition.name else definition.reachable[run.agent],
    )


def add_steering(thread: ThreadWriter) -> None:
    """Lets the messages that wait for a safe point enter the history; here is one."""
    for item in thread.state.steering:
        thread.record(MessageAdded(run_id=_run_of(thread).id, item=item, origin="user"))


def add_announcements(thread: ThreadWriter, agent: AgentDefinition[Deps, Out]) -> None:
    """Lets what background jobs tell enter the history, where a limit does not end the run next."""
    if thread.state.announced and may_answer(thread.state, agent):
        tell_announcements(thread, _run_of(thread).id)


def tell_announcements(thread: ThreadWriter, run_id: str) -> None:
    """Lets what background jobs tell enter the history, for the run `run_id`."""
    for told in thread.state.announced:
        thread.record(MessageAdded(run_id=run_id, item=told.item, origin="job"))


async def stop_jobs(control: RunControl) -> None:
    """Ends the jobs of a run that is about to end; usually there are none."""
    if control.jobs is not None:
        await control.jobs.stop()


def cancel(thread: ThreadWriter, seconds: float = 0.0) -> None:
    """Ends the active run as cancelled, every open call answered.

    `seconds` is the time that the open step took so far, or the run since its last.
    """
    run = _run_of(thread)
    _end(thread, "The run was cancelled", RunCancelled(run_id=run.id, usage=run.usage), seconds)


def expire(thread: ThreadWriter) -> None:
    """Ends the active run, which waited too long for someone outside."""
    run = _run_of(thread)
    _end(thread, "The answer took too long", RunExpired(run_id=run.id, usage=run.usage))


def fail(thread: ThreadWriter, error: Exception, seconds: float = 0.0) -> Exception:
    """Ends the active run as failed with `error`, which it returns; see `cancel`."""
    code, retryable, message = "internal_error", False, f"{type(error).__name__}: {error}"
    if isinstance(error, TreadleError):
        code, retryable, message = error.code, error.retryable, error.message
    run = _run_of(thread)
    event = RunFailed(
        run_id=run.id, code=code, message=message, retryable=retryable, usage=run.usage
    )
    _end(thread, "The run failed", event, seconds)
    return error


def _out_of_time(thread: ThreadWriter) -> TerminalEvent:
    return end_of_run(thread.state, Stop("max_seconds"))


def _end(thread: ThreadWriter, reason: str, event: TerminalEvent, seconds: float = 0.0) -> None:
    if thread.state.step is not None:
        close_step(thread, reason, seconds)
        seconds = 0.0
    add_steering(thread)
    _record_end(thread, event, seconds)


def _record_end(thread: ThreadWriter, event: TerminalEvent, seconds: float) -> None:
    thread.record(replace(event, seconds=seconds) if seconds else event)


def _run_of(thread: ThreadWriter) -> Run:
    run = thread.state.run
    assert run is not None
    return run
