"""What an exception of foreign code is: one to describe to a model, or one that must pass.

Foreign code is what users give treadle to call: tools, hooks, instructions, embedders. It may raise
anything. Extensions in Rust raise kinds of `BaseException` when they panic
(https://pyo3.rs/main/doc/pyo3/panic/struct.panicexception); `sys.exit` raises another.
"""

import asyncio
from typing import Any, cast

from treadle.tools.output import truncated

MAX_FAILURE = 2000


def explain_failure(error: BaseException) -> str:
    """Returns `TypeOfError: message`, at most 2,000 characters and encodable as UTF-8."""
    kind, message = type(error).__name__, message_of(error)
    return truncated(f"{kind}: {message}" if message else kind, MAX_FAILURE)


def message_of(error: BaseException) -> str:
    """Returns the message of an exception, at most 2,000 characters and encodable as UTF-8."""
    try:
        return truncated(str(error), MAX_FAILURE)
    except BaseException as broken:  # noqa: BLE001 - must not hide the failure it describes
        reraise_interrupt(broken)
        return "(its message cannot be shown)"


def reraise_interrupt(error: BaseException, task: "asyncio.Task[Any] | None" = None) -> None:
    """Raises what must pass through the handler of an exception of foreign code, and no more.

    That is `KeyboardInterrupt`, also inside a group; and the cancellation of the running task.
    `task` is the one that awaits foreign code: the `GeneratorExit` with which the interpreter
    closes a coroutine that no task runs any more passes as well.
    """
    if isinstance(error, asyncio.CancelledError):
        if is_cancelled():
            raise error
    elif isinstance(error, KeyboardInterrupt) or (
        isinstance(error, GeneratorExit) and task is not None and _running() is not task
    ):
        raise error
    elif isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        if group.subgroup(KeyboardInterrupt) is not None:
            raise KeyboardInterrupt from error


def is_cancelled() -> bool:
    """Returns whether the running task was cancelled."""
    return cancel_count() > 0


def cancel_count() -> int:
    """Returns how many cancellations of the running task were not taken back; 0 without one."""
    task = _running()
    return task.cancelling() if task is not None else 0


def as_exception(error: BaseException) -> Exception:
    """Returns `error`, or a `RuntimeError` caused by it if callers do not expect its kind.

    Raised in a task, `SystemExit` would end the event loop, and other kinds the task group.
    """
    if isinstance(error, Exception):
        return error
    wrapped = RuntimeError(explain_failure(error))
    wrapped.__cause__ = error
    return wrapped


def _running() -> "asyncio.Task[Any] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None
