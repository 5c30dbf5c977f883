"""One tool call: from the arguments the model wrote to the output it reads.

Every failure becomes an output that describes it; only a cancellation passes through.
"""

import asyncio
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar, cast

import msgspec
from msgspec import Struct

from treadle.domain.events import Awaited
from treadle.domain.ids import new_id
from treadle.domain.items import FunctionCall, FunctionCallOutput, OutputPart
from treadle.errors import HookFailed, ModelRetry, StreamInvalid
from treadle.logging import logger_of
from treadle.streaming.jsonfields import MAX_DEPTH, JsonFieldScanner
from treadle.tools import deferred_pydantic as pydantic
from treadle.tools.callables import Pending
from treadle.tools.context import RunContext, for_attempt, runs_agents
from treadle.tools.failure import (
    as_exception,
    cancel_count,
    explain_failure,
    is_cancelled,
    reraise_interrupt,
)
from treadle.tools.function import Tool
from treadle.tools.output import encode_output, to_output
from treadle.tools.threads import NeverStarted, Start, in_thread
from treadle.tools.toolset import Toolset
from treadle.tools.validation import explain_validation
from treadle.tools.watched import GRACE_SECONDS

Deps = TypeVar("Deps")

_LOGGER = logger_of("treadle.tools")
_MAX_ARGUMENTS = 8 * 1024 * 1024

_LEFT_BEHIND: set["asyncio.Task[object]"] = set()


class PreparedCall(Struct, frozen=True):
    """A call whose tool exists and whose arguments are valid."""

    call: FunctionCall
    tool: Tool[..., object]
    arguments: Mapping[str, object]


class RefusedCall(Struct, frozen=True):
    """A call that cannot be made; `problem` is the reason, for the model."""

    call: FunctionCall
    problem: str


class AnsweredCall(Struct, frozen=True):
    """A call that has an output without having run."""

    call: FunctionCall
    arguments: Mapping[str, object]
    output: str | tuple[OutputPart, ...]
    is_error: bool


Prepared = PreparedCall | RefusedCall | AnsweredCall


class ToolOutcome(Struct, frozen=True):
    """The outcome of a call: its output, the exception behind a failure, and the time it took."""

    output: FunctionCallOutput
    error: Exception | None = None
    seconds: float = 0.0


class _AttemptFailed(Exception):
    """An attempt failed; the text is for the model, the cause is the original exception."""


class _NotJson(Exception):
    """The function returned what cannot be represented as JSON; the text is for the model."""


def prepare(tools: Toolset, call: FunctionCall) -> PreparedCall | RefusedCall:
    """Looks the tool up and validates the arguments; pure."""
    tool = tools.of(call)
    if tool is None:
        known = ", ".join(tools.names) or "none"
        problem = f"There is no tool {call.name[:100]!r}. Tools: {known}."
        return RefusedCall(call, " ".join([problem, *tools.missing]))
    try:
        arguments = tool.validate(_decode(tool, call.arguments))
    except pydantic.ValidationError as error:
        return RefusedCall(
            call, f"The arguments of {tool.name} are not valid: {explain_validation(error)}."
        )
    except ValueError as error:
        if tool.takes_output:
            return PreparedCall(call, tool, {})
        return RefusedCall(call, f"The arguments of {tool.name} are not valid: {error}.")
    except BaseException as error:  # noqa: BLE001 - a user's validator may raise anything
        reraise_interrupt(error)
        problem = explain_failure(error)
        return RefusedCall(call, f"The arguments of {tool.name} cannot be validated: {problem}")
    return PreparedCall(call, tool, arguments)


def awaits_of(
    tools: Toolset, call: FunctionCall, context: Callable[[], RunContext[object]]
) -> Awaited | Pending[bool] | None:
    """Returns what the call needs from outside; of an async rule for approval, what it will say.

    A call that cannot be made needs nothing. If the rule for approval fails, the call needs
    approval; a cancellation of the running task by a plain rule is taken back by the caller.
    """
    tool = tools.of(call)
    if tool is None or tool.is_local:
        return None
    prepared = prepare(tools, call)
    if isinstance(prepared, RefusedCall):
        return None
    if tool.external:
        return "output"
    rule = tool.needs_approval
    if isinstance(rule, bool):
        return "approval"
    before = cancel_count()
    try:
        needed = rule(context(), prepared.arguments)
    except HookFailed as error:
        return _approval_after(error.message)
    if not isinstance(needed, Pending):
        return "approval" if needed else None
    if cancel_count() == before:
        return needed
    needed.close()
    return _approval_after(f"{rule.subject} failed: it cancelled the task of the run")


async def decided(rule: Pending[bool]) -> Awaited | None:
    """Returns what a call needs from outside, once its rule for approval has returned."""
    try:
        return "approval" if await rule else None
    except HookFailed as error:
        return _approval_after(error.message)


def _approval_after(problem: str) -> Awaited:
    _LOGGER.warning("%s; the call needs approval.", problem)
    return "approval"


def takes_context(prepared: Prepared) -> bool:
    """Whether a call is made with a `RunContext`; most are not, and it costs as much as a step."""
    return (
        isinstance(prepared, PreparedCall) and prepared.tool.signature.context_parameter is not None
    )


async def execute(
    prepared: Prepared,
    context: RunContext[Deps] | None,
    *,
    on_attempt: Callable[[int], Awaitable[None]],
) -> ToolOutcome:
    """Makes the call, again if it fails and the tool has retries.

    `context` may be None if the tool does not take one (`takes_context`). `on_attempt` is awaited
    before each time the function is called. A cancellation of the calling
    task reaches an async tool as `CancelledError`, and a thread as its token. A tool that has not
    ended `GRACE_SECONDS` later, and a thread that ignores its token, keep running, and their
    results are dropped.
    """
    if isinstance(prepared, RefusedCall):
        return ToolOutcome(_output(prepared.call, prepared.problem, is_error=True))
    if isinstance(prepared, AnsweredCall):
        return ToolOutcome(_output(prepared.call, prepared.output, is_error=prepared.is_error))
    call, tool = prepared.call, prepared.tool
    loop = asyncio.get_running_loop()
    start = loop.time()
    attempt = 0
    while True:
        attempt += 1
        await on_attempt(attempt)
        try:
            given = None if context is None else for_attempt(context, attempt)
            value = await _attempt(prepared, given)
            return ToolOutcome(_output(call, value, is_error=False), seconds=loop.time() - start)
        except _AttemptFailed as failure:
            if isinstance(failure.__cause__, ModelRetry):
                output = _output(call, str(failure), is_error=True)
                return ToolOutcome(output, seconds=loop.time() - start)
            if attempt > tool.retries or is_cancelled():
                return _failed(call, str(failure), failure.__cause__, loop.time() - start)
        except _NotJson as error:  # a retry would not help
            text = f"{tool.name} failed: {error}."
            _LOGGER.warning("%s", text)
            return _failed(call, text, error.__cause__, loop.time() - start)


def _decode(tool: Tool[..., object], arguments: str) -> Mapping[str, object]:
    if len(arguments) > _MAX_ARGUMENTS:
        raise ValueError(f"they exceed {_MAX_ARGUMENTS} characters")
    if not arguments.strip():
        if tool.signature.takes_nothing:
            return {}  # some providers send an empty text for a call without arguments
        raise ValueError("they are empty; send a JSON object")
    try:
        _require_flat(arguments)
        decoded = msgspec.json.decode(arguments)
    except (StreamInvalid, RecursionError) as error:
        raise ValueError(
            f"they are nested deeper than {MAX_DEPTH}; send a flatter object"
        ) from error
    except (msgspec.DecodeError, UnicodeError) as error:
        raise ValueError(f"they are not valid JSON ({error})") from error
    if not isinstance(decoded, dict):
        raise ValueError("they are JSON, but not an object")
    return cast("Mapping[str, object]", decoded)


def _require_flat(arguments: str) -> None:
    """Raises `StreamInvalid` for an object that is nested too deeply."""
    if arguments.count("{") + arguments.count("[") >= MAX_DEPTH:
        JsonFieldScanner(max_chars=len(arguments)).feed(arguments)


async def _attempt(
    prepared: PreparedCall, context: RunContext[Deps] | None
) -> str | tuple[OutputPart, ...]:
    """Calls the function once, and returns its output.

    Every failure of it raises `_AttemptFailed`, or `_NotJson`.
    """
    tool, start = prepared.tool, Start()
    # A task of its own: a tool that swallows its cancellation can be left behind, and one that
    # cancels its own task does not cancel what belongs to the run.
    work = asyncio.create_task(_work(prepared, context, start))
    try:
        await _ended(work, tool.timeout)
    except asyncio.CancelledError:
        if not await _left(work, tool, context) or work.cancelled():
            raise
        return _result(tool, work)
    if work.done():
        return _result(tool, work)
    never_started = not tool.is_async and start.refuse()
    has_ended = await _left(work, tool, context)
    if has_ended and not work.cancelled():
        return _result(tool, work)
    text = f"{tool.name} timed out after {tool.timeout:g} s"
    if never_started:
        text += "; it never started, because no thread was free"
    elif not has_ended:
        text += "; it did not stop when it was cancelled, and may still be running"
    raise _AttemptFailed(f"{text}.") from TimeoutError(text)


async def _ended(work: "asyncio.Task[_Outcome]", seconds: float | None) -> None:
    """Waits until a task has ended, at most `seconds`; as `asyncio.wait`, for half of its calls."""
    loop = asyncio.get_running_loop()
    waiter = loop.create_future()

    def wake(_: object = None) -> None:
        if not waiter.done():
            waiter.set_result(None)

    timer = None if seconds is None else loop.call_later(seconds, wake)
    work.add_done_callback(wake)
    try:
        await waiter
    finally:
        work.remove_done_callback(wake)
        if timer is not None:
            timer.cancel()


async def _left(
    work: "asyncio.Task[_Outcome]", tool: Tool[..., object], context: RunContext[Deps] | None
) -> bool:
    """Cancels the task of a tool, and its token; returns whether it has ended in time.

    A task that has not is left behind: it neither delays the end of the run nor that of the event
    loop. A tool that runs agents is waited for, because these end in time themselves.
    """
    loop = asyncio.get_running_loop()
    if context is not None:
        context.cancelled.set()
    work.cancel()
    end = loop.time() + GRACE_SECONDS
    while not work.done():
        rest = end - loop.time()
        if rest <= 0 and (context is None or not runs_agents(context)):
            break
        try:
            await _ended(work, rest if rest > 0 else GRACE_SECONDS)
        except asyncio.CancelledError:
            continue  # the run ends already
    if work.done():
        return True
    _LEFT_BEHIND.add(work)
    work.add_done_callback(_ended_late)
    # `asyncio.run` would wait for it without end, and the interpreter report that it is pending.
    asyncio.tasks._unregister_task(work)
    setattr(work, "_log_destroy_pending", False)  # noqa: B010 - not declared
    _LOGGER.error(
        "The tool %s did not stop within %g s after it was cancelled, and is left behind; now "
        "%d calls are left behind in this process.",
        tool.name,
        GRACE_SECONDS,
        len(_LEFT_BEHIND),
    )
    return False


def _ended_late(work: "asyncio.Task[object]") -> None:
    _LEFT_BEHIND.discard(work)
    if not work.cancelled():
        work.exception()  # its result is dropped, and its error is not reported as unseen


def _result(
    tool: Tool[..., object], work: "asyncio.Task[_Outcome]"
) -> str | tuple[OutputPart, ...]:
    """Returns the output of a task that has ended; raises why it has none."""
    result = _Raised(asyncio.CancelledError()) if work.cancelled() else work.result()
    match result:
        case _Raised(asyncio.CancelledError() as error):
            raise _AttemptFailed(f"{tool.name} failed: it cancelled itself.") from error
        case _Raised(error):
            if isinstance(error, _NotJson):
                raise error
            if isinstance(error, NeverStarted):
                raise _AttemptFailed(f"{tool.name} failed: {error}.") from error
            raise _failure(tool, error) from as_exception(error)
        case output:
            return output


@dataclass(frozen=True)
class _Raised:
    """What a function raised. A value, because a task that raises `SystemExit` ends the loop."""

    error: BaseException


_Outcome = str | tuple[OutputPart, ...] | _Raised


async def _work(prepared: PreparedCall, context: RunContext[Deps] | None, start: Start) -> _Outcome:
    """Calls the function, and encodes what it returns; both off the event loop if need be."""
    tool, task = prepared.tool, asyncio.current_task()
    arguments = dict(prepared.arguments)
    if tool.signature.context_parameter is not None:
        arguments[tool.signature.context_parameter] = context
    try:
        if tool.is_async:
            value = await cast("Awaitable[object]", tool.function(**arguments))
        else:
            job = functools.partial(_called, tool, arguments)
            value = await in_thread(job, start=start)
            if isinstance(value, _Encoded):
                return value.output
            value = await cast("Awaitable[object]", value)
        try:
            return await encode_output(value, tool.max_output_chars)
        except TypeError as error:
            raise _NotJson(str(error)) from error
    except asyncio.CancelledError as error:
        assert task is not None
        if task.cancelling():
            raise
        return _Raised(error)
    except BaseException as error:  # noqa: BLE001 - foreign code may raise anything
        reraise_interrupt(error, task)
        return _Raised(error)


def _called(tool: Tool[..., object], arguments: dict[str, object]) -> object:
    """Calls a plain function; returns its output as `_Encoded`, or the awaitable it returned."""
    value = tool.function(**arguments)
    if inspect.isawaitable(value):
        return value
    try:
        return _Encoded(to_output(value, tool.max_output_chars))
    except TypeError as error:
        raise _NotJson(str(error)) from error


@dataclass(frozen=True)
class _Encoded:
    output: str | tuple[OutputPart, ...]


def _failure(tool: Tool[..., object], error: BaseException) -> _AttemptFailed:
    if isinstance(error, ModelRetry):
        return _AttemptFailed(error.message)
    text = f"{tool.name} failed: {explain_failure(error)}"
    # The traceback contains the user's data, so it is logged at the level DEBUG only.
    shown = error if _LOGGER.isEnabledFor(logging.DEBUG) else None
    _LOGGER.warning("%s", text, exc_info=shown)
    return _AttemptFailed(text)


def _failed(
    call: FunctionCall, text: str, cause: BaseException | None, seconds: float
) -> ToolOutcome:
    error = cause if isinstance(cause, Exception) else RuntimeError(text)
    return ToolOutcome(_output(call, text, is_error=True), error, seconds)


def _output(
    call: FunctionCall, output: str | tuple[OutputPart, ...], *, is_error: bool
) -> FunctionCallOutput:
    return FunctionCallOutput(call.call_id, output, new_id("fco"), is_error)
