"""The agent loop: ask the model, run the tools it calls, until it calls none.

Pure orchestration: what is recorded and who sees it is the business of the `ThreadWriter` it is
given, what a model or a tool does that of their ports. All it knows of a run is the state of the
thread, so going on with a run after a restart is the same as going on with it after a step.
"""

import asyncio

from weft.control import RunControl
from weft.decision import correction, end_of_run, stop_reason
from weft.definition import AgentDefinition, Deps, Out
from weft.errors import WeftError
from weft.events import (
    MessageAdded,
    RunCancelled,
    RunExpired,
    RunFailed,
    TerminalEvent,
)
from weft.logging import InRun
from weft.state import Run
from weft.step import close_step, take_step
from weft.writer import ThreadWriter


async def drive(
    thread: ThreadWriter,
    definition: AgentDefinition[Deps, Out],
    deps: Deps,
    control: RunControl,
) -> Exception | None:
    """Drives the active run of a thread on; returns the error it failed with.

    Returns when the run has ended, or when its open step waits for outputs or approvals from
    outside: then it is to be called again once something came. Whatever ends the run, every call
    is answered and the terminal event is the last. A cancellation of the driving task ends only
    the driving: the run can be driven on.
    """
    scope = asyncio.timeout(definition.limits.max_seconds)
    try:
        async with scope:
            control.attach(scope)
            try:
                with InRun(thread.id, _run_of(thread).id):
                    await _steps(thread, definition, deps, control)
            finally:
                control.attach(None)
    except Exception as error:  # noqa: BLE001 - whatever fails, the run must end and say so
        if not scope.expired():
            return fail(thread, error)
        if _run_of(thread).status == "cancelling":
            cancel(thread)
        else:
            _end(thread, "The time of the run is used up", _out_of_time(thread))
    return None


async def _steps(
    thread: ThreadWriter,
    definition: AgentDefinition[Deps, Out],
    deps: Deps,
    control: RunControl,
) -> None:
    """Takes step after step until there is a reason to stop."""
    while True:
        if _run_of(thread).status == "cancelling":
            return cancel(thread)
        if thread.state.step is None:
            add_steering(thread)
            reason = stop_reason(thread.state, definition)
            if reason == "end_turn" and (message := correction(thread.state, definition)):
                run_id = _run_of(thread).id
                thread.record(MessageAdded(run_id=run_id, item=message, origin="runtime"))
                continue
            if reason is not None:
                return thread.record(end_of_run(thread.state, reason))
        await take_step(thread, definition, deps, control)
        if thread.state.step is not None:
            return None  # it waits for someone outside


def add_steering(thread: ThreadWriter) -> None:
    """Lets the messages that wait for a safe point enter the history; here is one."""
    for item in thread.state.steering:
        thread.record(MessageAdded(run_id=_run_of(thread).id, item=item, origin="user"))


def cancel(thread: ThreadWriter) -> None:
    """Ends the active run as cancelled, every open call answered."""
    run = _run_of(thread)
    _end(thread, "The run was cancelled", RunCancelled(run_id=run.id, usage=run.usage))


def expire(thread: ThreadWriter) -> None:
    """Ends the active run, which waited too long for someone outside."""
    run = _run_of(thread)
    _end(thread, "The answer took too long", RunExpired(run_id=run.id, usage=run.usage))


def fail(thread: ThreadWriter, error: Exception) -> Exception:
    """Ends the active run as failed with `error`, which it returns."""
    code, retryable, message = "internal_error", False, f"{type(error).__name__}: {error}"
    if isinstance(error, WeftError):
        code, retryable, message = error.code, error.retryable, error.message
    run = _run_of(thread)
    event = RunFailed(
        run_id=run.id, code=code, message=message, retryable=retryable, usage=run.usage
    )
    _end(thread, "The run failed", event)
    return error


def _out_of_time(thread: ThreadWriter) -> TerminalEvent:
    return end_of_run(thread.state, "max_seconds")


def _end(thread: ThreadWriter, reason: str, event: TerminalEvent) -> None:
    close_step(thread, reason)
    add_steering(thread)
    thread.record(event)


def _run_of(thread: ThreadWriter) -> Run:
    run = thread.state.run
    assert run is not None
    return run
