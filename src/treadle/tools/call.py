"""One tool call: from the arguments the model wrote to the output it reads.

Every failure becomes an output that describes it; only a cancellation passes through.
"""

import asyncio
import contextvars
import functools
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar, cast

import msgspec
from pydantic import ValidationError

from treadle.domain.events import Awaited
from treadle.domain.ids import new_id
from treadle.domain.items import FunctionCall, FunctionCallOutput, OutputPart
from treadle.errors import StreamInvalid
from treadle.executor import DaemonExecutor
from treadle.logging import logger_of
from treadle.streaming.jsonfields import MAX_DEPTH, JsonFieldScanner
from treadle.tools.context import RunContext, for_attempt
from treadle.tools.failure import explain_failure
from treadle.tools.function import Tool
from treadle.tools.output import to_output
from treadle.tools.toolset import Toolset
from treadle.tools.validation import explain_validation

Deps = TypeVar("Deps")

_LOGGER = logger_of("treadle.tools")
_MAX_ARGUMENTS = 8 * 1024 * 1024
_THREADS = DaemonExecutor()


@dataclass(frozen=True)
class PreparedCall:
    """A call whose tool exists and whose arguments are valid."""

    call: FunctionCall
    tool: Tool[..., object]
    arguments: Mapping[str, object]


@dataclass(frozen=True)
class RefusedCall:
    """A call that cannot be made; `problem` is the reason, for the model."""

    call: FunctionCall
    problem: str


@dataclass(frozen=True)
class AnsweredCall:
    """A call that has an output without having run."""

    call: FunctionCall
    arguments: Mapping[str, object]
    output: str | tuple[OutputPart, ...]
    is_error: bool


Prepared = PreparedCall | RefusedCall | AnsweredCall


@dataclass(frozen=True)
class ToolOutcome:
    """The outcome of a call: its output, the exception behind a failure, and the time it took."""

    output: FunctionCallOutput
    error: Exception | None = None
    seconds: float = 0.0


class _AttemptFailed(Exception):
    """An attempt failed; the text is for the model, the cause is the original exception."""


def prepare(tools: Toolset, call: FunctionCall) -> PreparedCall | RefusedCall:
    """Looks the tool up and validates the arguments; pure."""
    tool = tools.get(call.name)
    if tool is None:
        known = ", ".join(tools.names) or "none"
        problem = f"There is no tool {call.name[:100]!r}. Tools: {known}."
        return RefusedCall(call, " ".join([problem, *tools.missing]))
    try:
        arguments = tool.validate(_decode(tool, call.arguments))
    except ValidationError as error:
        return RefusedCall(
            call, f"The arguments of {tool.name} are not valid: {explain_validation(error)}."
        )
    except ValueError as error:
        return RefusedCall(call, f"The arguments of {tool.name} are not valid: {error}.")
    except Exception as error:  # noqa: BLE001 - a user's validator may raise anything
        problem = explain_failure(error)
        return RefusedCall(call, f"The arguments of {tool.name} cannot be validated: {problem}")
    return PreparedCall(call, tool, arguments)


def awaits_of(tools: Toolset, call: FunctionCall) -> Awaited | None:
    """Returns what the call needs from outside; a call that cannot be made needs nothing.

    If the rule for approval fails, the call needs approval.
    """
    tool = tools.get(call.name)
    if tool is None or tool.is_local:
        return None
    prepared = prepare(tools, call)
    if isinstance(prepared, RefusedCall):
        return None
    if tool.external:
        return "output"
    if tool.needs_approval is True or not callable(tool.needs_approval):
        return "approval"
    try:
        needed = tool.needs_approval(prepared.arguments)
    except Exception as error:  # noqa: BLE001 - a user's function may raise anything
        _LOGGER.warning("needs_approval of %s failed: %s", tool.name, explain_failure(error))
        return "approval"
    return "approval" if needed else None


async def execute(
    prepared: Prepared,
    context: RunContext[Deps],
    *,
    on_attempt: Callable[[int], Awaitable[None]],
) -> ToolOutcome:
    """Makes the call, again if it fails and the tool has retries.

    `on_attempt` is awaited before each time the function is called. A cancellation of the calling
    task reaches an async tool as `CancelledError`, and a thread as its token; a thread that ignores
    its token keeps running, and its result is dropped.
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
            value = await _attempt(prepared, for_attempt(context, attempt))
            output = _output(call, to_output(value, tool.max_output_chars), is_error=False)
            return ToolOutcome(output, seconds=loop.time() - start)
        except _AttemptFailed as failure:
            if attempt > tool.retries:
                return _failed(call, str(failure), failure.__cause__, loop.time() - start)
        except TypeError as error:  # only `to_output` raises it; a retry would not help
            text = f"{tool.name} failed: {error}."
            return _failed(call, text, error, loop.time() - start)


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


async def _attempt(prepared: PreparedCall, context: RunContext[Deps]) -> object:
    """Calls the function once; every failure of it raises `_AttemptFailed`."""
    tool = prepared.tool
    limit = asyncio.timeout(tool.timeout)
    try:
        async with limit:
            return await _call(prepared, context)
    except asyncio.CancelledError as error:
        context.cancelled.set()
        if _is_cancelled():
            raise
        raise _AttemptFailed(f"{tool.name} failed: it cancelled itself.") from error
    except TimeoutError as error:
        if limit.expired():
            context.cancelled.set()
            text = f"{tool.name} timed out after {tool.timeout:g} s."
            raise _AttemptFailed(text) from error
        raise _failure(tool, error) from error
    except (Exception, SystemExit) as error:
        raise _failure(tool, error) from error


async def _call(prepared: PreparedCall, context: RunContext[Deps]) -> object:
    tool = prepared.tool
    arguments = dict(prepared.arguments)
    if tool.signature.context_parameter is not None:
        arguments[tool.signature.context_parameter] = context
    if tool.is_async:
        return await cast("Awaitable[object]", tool.function(**arguments))
    job = functools.partial(contextvars.copy_context().run, tool.function, **arguments)
    value = await asyncio.get_running_loop().run_in_executor(_THREADS, job)
    return await cast("Awaitable[object]", value) if inspect.isawaitable(value) else value


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _failure(tool: Tool[..., object], error: BaseException) -> _AttemptFailed:
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
