"""Hooks: functions of the program that are called at defined points of a run.

    step:  before_model → response → before_tool → tool → after_tool → after_completion
    run:   on_event, at any time; on_run_end, once it has ended

`after_completion` is called at the safe point: the response is complete, every output of its calls
is in the history, and the model has not been asked again.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar, cast

from msgspec import Struct
from typing_extensions import TypeVar as TypeVarWithDefault

from treadle.domain.events import Event
from treadle.domain.items import FunctionCallOutput
from treadle.errors import HookFailed, InvalidHook
from treadle.logging import logger_of
from treadle.loop.hook_context import Completion, CompletionContext, HookContext, RunEnd
from treadle.models.base import ModelRequest
from treadle.tools.callables import begin, is_async, is_awaitable, user_function
from treadle.tools.failure import explain_failure, reraise_interrupt
from treadle.tools.threads import in_thread
from treadle.tools.watched import Watched

Deps = TypeVarWithDefault("Deps", default=None)
F = TypeVar("F", bound=Callable[..., object])

_LOGGER = logger_of("treadle.hooks")


@dataclass(frozen=True)
class Veto:
    """Returned by a `before_tool` hook: the tool is not called, and this is its output."""

    output: object
    is_error: bool = True


@dataclass(frozen=True)
class ChangedArguments:
    """Returned by a `before_tool` hook: the tool is called with these arguments.

    They are validated like those of the model, which stay in the history unchanged.
    """

    arguments: Mapping[str, object]


class ToolCall(Struct, frozen=True):
    """A call, as hooks see it; the tool is called with `arguments`."""

    call_id: str
    name: str
    arguments: Mapping[str, object]


Answer = TypeVar("Answer")
Now = Answer | Awaitable[Answer]

BeforeModel = Callable[[HookContext[Deps], ModelRequest], Now[ModelRequest | None]]
AfterCompletion = Callable[[CompletionContext[Deps], Completion], Now[None]]
BeforeTool = Callable[[HookContext[Deps], ToolCall], Now[Veto | ChangedArguments | None]]
AfterTool = Callable[[HookContext[Deps], ToolCall, FunctionCallOutput], Now[object]]
OnRunEnd = Callable[[HookContext[Deps], RunEnd], Now[None]]
OnEvent = Callable[[HookContext[Deps], Event], Now[None]]


@dataclass(frozen=True)
class Hook(Generic[F]):
    """A function and how it is called; made by `hook`."""

    function: F
    isolated: bool = False
    blocking: bool = False

    @cached_property
    def name(self) -> str:
        """The name of the function."""
        return getattr(self.function, "__qualname__", type(self.function).__qualname__)

    def __call__(self, *arguments: object, undo: Callable[[], None] | None = None) -> object:
        """Calls the function; returns None, or what the caller must pass to `answer`.

        In two parts, because most hooks are plain functions that return nothing, and a coroutine
        for each would cost as much as they do. Raises `HookFailed`; if the hook is isolated, the
        failure is logged instead, and `undo` is called.
        """
        try:
            if self.blocking:
                return in_thread(functools.partial(self.function, *arguments))
            return begin(self.function, *arguments)
        except BaseException as error:  # noqa: BLE001 - foreign code may raise anything
            return self._failed(error, undo)

    async def answer(
        self,
        value: object,
        undo: Callable[[], None] | None = None,
        runs_agents: Callable[[], bool] = lambda: False,
    ) -> object:
        """Returns the result of the hook, awaited if need be; raises as the call does.

        `runs_agents` returns whether agents work for the hook at the moment.
        """
        if not is_awaitable(value):
            return value
        task = asyncio.current_task()
        try:
            return await Watched(value, f"The hook {self.name}", runs_agents)
        except BaseException as error:  # noqa: BLE001 - as above
            return self._failed(error, undo, task)

    def _failed(
        self,
        error: BaseException,
        undo: Callable[[], None] | None,
        task: "asyncio.Task[Any] | None" = None,
    ) -> None:
        # A cancellation passes if it is that of the run; else the hook awaited a task that was
        # cancelled.
        reraise_interrupt(error, task)
        if not self.isolated:
            raise HookFailed(f"The hook {self.name} failed: {explain_failure(error)}") from error
        _LOGGER.warning(
            "The hook %s failed, and is isolated: %s", self.name, explain_failure(error)
        )
        if undo is not None:
            undo()


def hook(function: F, *, isolated: bool = False, blocking: bool = False) -> Hook[F]:
    """Sets how a hook is called: `Hooks(after_completion=hook(look, isolated=True))`.

    - `isolated`: its errors are logged, and the run continues without the changes of the hook.
    - `blocking`: a plain function that waits or computes for long, and is called in a thread.

    Raises `InvalidHook`.
    """
    made = Hook(function, isolated, blocking)
    _require_function(made, None)
    return made


Several = F | Hook[F] | Sequence[F | Hook[F]]


@dataclass(frozen=True, kw_only=True)
class Hooks(Generic[Deps]):
    """The hooks of an agent: for each point a function, or several that are called in order.

    Functions are async, or plain and short; see `hook` for others. Their first argument is a
    `HookContext`.

    - `before_model(context, request)`: may return a changed request for this step.
    - `after_completion(context, completion)`: at the safe point after each response, including the
      last, once all outputs of its calls are in the history, including those from outside. Not
      after a failure or a cancel. After a crash it may be called again for a response for which it
      had changed nothing yet.
    - `before_tool(context, call)`: before a call that runs here, after its approval. May return a
      `Veto` or `ChangedArguments`.
    - `after_tool(context, call, output)`: may return another output, as tools do.
    - `on_run_end(context, end)`: once the run has ended in any way; its errors are logged.
    - `on_event(context, event)`: all events of the run in order, durable ones once they are kept.
      The run waits for it before its next step.

    An error of any other hook fails the run with `hook_failed`; its history stays valid. Raises
    `InvalidHook`.
    """

    before_model: Several[BeforeModel[Deps]] | None = None
    after_completion: Several[AfterCompletion[Deps]] | None = None
    before_tool: Several[BeforeTool[Deps]] | None = None
    after_tool: Several[AfterTool[Deps]] | None = None
    on_run_end: Several[OnRunEnd[Deps]] | None = None
    on_event: Several[OnEvent[Deps]] | None = None
    _made: dict[str, tuple[Hook[Any], ...]] = field(
        default_factory=dict[str, tuple[Hook[Any], ...]], init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        for point in POINTS:
            given: Any = getattr(self, point)
            given = () if given is None else given
            several = cast("Sequence[Any]", given if isinstance(given, Sequence) else (given,))
            self._made[point] = tuple(_made(one, point) for one in several)

    def __add__(self, other: "Hooks[Deps]") -> "Hooks[Deps]":
        """Returns the hooks of both, these first."""
        both: Any = {point: (*self.at(point), *other.at(point)) for point in POINTS}
        return Hooks(**both)

    def at(self, point: str) -> "tuple[Hook[Any], ...]":
        """The hooks of a point, such as `"before_model"`, in order."""
        return self._made[point]


POINTS: Mapping[str, tuple[str, ...]] = {
    "before_model": ("request",),
    "after_completion": ("completion",),
    "before_tool": ("call",),
    "after_tool": ("call", "output"),
    "on_run_end": ("end",),
    "on_event": ("event",),
}
"""The points, and what a hook is given there besides its context."""


def _made(one: Any, point: str) -> "Hook[Any]":
    made = cast("Hook[Any]", one if isinstance(one, Hook) else Hook(one))
    _require_function(made, point)
    return made


def _require_function(hook: "Hook[Any]", point: str | None) -> None:
    """Raises `InvalidHook` for a function that cannot be called at `point`; None is any."""
    function = hook.function
    if not callable(function):
        raise InvalidHook(f"{function!r:.100} is not a function; a hook must be one.")
    if hook.blocking and is_async(function):
        raise InvalidHook(f"The hook {hook.name} is async; blocking=True is for plain functions.")
    if point is not None:
        parameters = POINTS[point]
        user_function(function, point, parameters, context="always", refusal=InvalidHook)
