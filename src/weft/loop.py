"""The agent loop: ask the model, run the tools it calls, until it calls none.

Pure orchestration: what is recorded and who sees it is the business of the `Thread` it is given,
what a model or a tool does that of their ports.
"""

import asyncio

from weft.decision import correction, end_of_run, stop_reason
from weft.definition import AgentDefinition, Deps, Out
from weft.errors import WeftError
from weft.events import MessageAdded, RunCancelled, RunFailed, RunStarted
from weft.step import close_step, take_step
from weft.thread import Thread
from weft.usage import Usage


class RunControl:
    """What the holder of a run may ask of it while it goes on."""

    def __init__(self) -> None:
        self.finish_requested = False
        self.cancel_requested = False
        self._scope: asyncio.Timeout | None = None

    def finish(self) -> None:
        """Ends the run after the step it is in."""
        self.finish_requested = True

    def cancel(self) -> None:
        """Ends the run now; a second call does nothing."""
        self.cancel_requested = True
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())

    def attach(self, scope: asyncio.Timeout | None) -> None:
        """The run works inside `scope` from now on, or no longer."""
        self._scope = scope
        if scope is not None and self.cancel_requested:
            scope.reschedule(asyncio.get_running_loop().time())


async def drive(
    thread: Thread,
    run_id: str,
    definition: AgentDefinition[Deps, Out],
    deps: Deps,
    control: RunControl,
) -> Exception | None:
    """Drives a run from its start to its terminal event; returns the error it failed with.

    Whatever happens, also when the driving task is cancelled, every call is answered and the
    terminal event is the last.
    """
    await thread.record(RunStarted(run_id=run_id, agent=definition.name))
    scope = asyncio.timeout(definition.limits.max_seconds)
    try:
        async with scope:
            control.attach(scope)
            try:
                await _steps(thread, run_id, definition, deps, control)
            finally:
                control.attach(None)
    except asyncio.CancelledError:
        await _cancelled(thread, run_id)
        raise
    except Exception as error:  # noqa: BLE001 - whatever fails, the run must end and say so
        if not scope.expired():
            return await _failed(thread, run_id, error)
        if control.cancel_requested:
            await _cancelled(thread, run_id)
        else:
            await close_step(thread, run_id, "The time of the run is used up")
            await thread.record(end_of_run(thread.state, "max_seconds"))
    return None


async def _steps(
    thread: Thread,
    run_id: str,
    definition: AgentDefinition[Deps, Out],
    deps: Deps,
    control: RunControl,
) -> None:
    """Takes step after step until there is a reason to stop."""
    while True:
        if control.cancel_requested:
            await asyncio.sleep(0)  # a cancellation arrives where its task waits
        reason = stop_reason(thread.state, definition, finish_requested=control.finish_requested)
        if reason is None:
            await take_step(thread, run_id, definition, deps)
        elif reason == "end_turn" and (message := correction(thread.state, definition)):
            await thread.record(MessageAdded(run_id=run_id, item=message, origin="runtime"))
        else:
            await thread.record(end_of_run(thread.state, reason))
            return


async def _cancelled(thread: Thread, run_id: str) -> None:
    await close_step(thread, run_id, "The run was cancelled")
    await thread.record(RunCancelled(run_id=run_id, usage=_usage(thread)))


async def _failed(thread: Thread, run_id: str, error: Exception) -> Exception:
    await close_step(thread, run_id, "The run failed")
    code, retryable, message = "internal_error", False, f"{type(error).__name__}: {error}"
    if isinstance(error, WeftError):
        code, retryable, message = error.code, error.retryable, error.message
    await thread.record(
        RunFailed(
            run_id=run_id, code=code, message=message, retryable=retryable, usage=_usage(thread)
        )
    )
    return error


def _usage(thread: Thread) -> Usage:
    run = thread.state.run
    return run.usage if run is not None else Usage()
