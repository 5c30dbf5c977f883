"""Functions that the program gives treadle to call: their forms, and how they are called.

One rule for all of them: a function is plain or async, and may take the `RunContext` of the run as
its first parameter. Plain functions are called on the event loop, so they should be short. What a
function takes is decided once, when it is given; a function that fits no form is refused there.
"""

import asyncio
import inspect
import typing
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeGuard, TypeVar, cast, get_origin

from treadle.errors import ConfigurationError, HookFailed, TreadleError
from treadle.tools.async_only import AsyncOnly
from treadle.tools.context import RunContext
from treadle.tools.failure import cancel_count, explain_failure, reraise_interrupt
from treadle.tools.watched import CancelledItself, Watched, taken_back

T = TypeVar("T")

Now = T | Awaitable[T]
"""What a function returns that is plain or async."""

TakesContext = Literal["optional", "always", "never"]


@dataclass(frozen=True, eq=False)
class UserFunction(Generic[T]):
    """A function of the program, checked and ready to be called; made by `user_function`.

    - `subject`: how errors name it. `takes_context`: whether it is given the context.
    - `failure`: what is raised if it fails. `passes`: exceptions that are raised as they are.
    """

    function: Callable[..., Now[T]]
    subject: str
    takes_context: bool
    failure: type[TreadleError]
    passes: tuple[type[Exception], ...] = ()

    def __call__(self, context: object, *arguments: object) -> "T | Pending[T]":
        """Calls the function; returns its value, or what a caller awaits to get it.

        In two parts for callers that do not wait for plain functions; see `result`.
        """
        given = (context, *arguments) if self.takes_context else arguments
        try:
            value = begin(self.function, *given)
        except BaseException as error:
            raise self.failed(error) from error
        return Pending(self, value) if is_awaitable(value) else cast("T", value)

    async def result(self, context: object, *arguments: object) -> T:
        """Calls the function and returns its value.

        Raises `failure`, whose cause is what the function raised; a cancellation of the calling
        task passes.
        """
        value = self(context, *arguments)
        return await cast("Pending[T]", value) if isinstance(value, Pending) else value

    def failed(
        self, error: BaseException, task: "asyncio.Task[Any] | None" = None
    ) -> BaseException:
        """Returns what is raised for what the function raised; a cancellation of `task` passes."""
        reraise_interrupt(error, task)
        if isinstance(error, self.passes):
            return error
        return self.failure(f"{self.subject} failed: {explain_failure(error)}")


class Pending(Generic[T]):
    """What an async function will return: awaited once, or closed."""

    def __init__(self, function: UserFunction[T], value: Awaitable[object]) -> None:
        self._function = function
        self._value = value

    def __await__(self) -> Generator[Any, Any, T]:
        return self._answer().__await__()

    def close(self) -> None:
        """Closes the coroutine of the function, if it has not ended."""
        if inspect.iscoroutine(self._value):
            self._value.close()

    async def _answer(self) -> T:
        task = asyncio.current_task()
        try:
            return cast("T", await Watched(self._value, self._function.subject))
        except BaseException as error:
            raise self._function.failed(error, task) from error


def user_function(
    function: Callable[..., Now[T]],
    role: str,
    parameters: Sequence[str] = (),
    *,
    subject: str = "",
    context: TakesContext = "optional",
    refusal: type[TreadleError] = ConfigurationError,
    failure: type[TreadleError] = HookFailed,
    passes: tuple[type[Exception], ...] = (),
) -> UserFunction[T]:
    """Checks a function of the program, and returns what calls it.

    - `role`: what the function is for, as errors name it: "instructions".
    - `parameters`: the names of what it is given besides the context.
    - `subject`: the function in errors; by default the role and the name of the function.
    - `context`: whether the context comes first: if the function takes it, always, or never.
    - `failure`, `passes`: see `UserFunction`.

    Raises `refusal` for what cannot be called so; the message shows the forms that can.
    """
    if not callable(function):
        raise refusal(f"{function!r:.100} is not a function; {role} must be one.")
    name = name_of(function)
    if is_generator(function):
        raise refusal(f"{name} is a generator, and cannot be called as {role}; make it a function.")
    takes_context = _takes_context(function, parameters, context)
    if takes_context is None:
        raise refusal(
            f"{name}{_signature(function)} cannot be called as {role}; write "
            f"{_forms(function, parameters, context)}, plain or async."
        )
    return UserFunction(function, subject or f"The {role} {name}", takes_context, failure, passes)


def name_of(function: object) -> str:
    """Returns the qualified name of a function, or the type of another callable."""
    return getattr(function, "__qualname__", type(function).__qualname__)


def is_async(function: object) -> bool:
    """Whether calling the function returns a coroutine, as far as its definition shows."""
    return any(map(inspect.iscoroutinefunction, _callables(function)))


def is_awaitable(value: object) -> TypeGuard[Awaitable[object]]:
    """Whether a value that a function returned is to be awaited."""
    return inspect.isawaitable(value) and not isinstance(value, AsyncOnly)


def begin(function: Callable[..., object], *arguments: object) -> object:
    """Calls foreign code; returns its value, or an awaitable for `Watched`.

    If the call cancels the running task, what it returned or raised is dropped, and the awaitable
    takes the cancellation back and raises `CancelledItself`.
    """
    before = cancel_count()
    try:
        value = function(*arguments)
    except BaseException:
        if cancel_count() <= before:
            raise
        value = None
    if (cancels := cancel_count() - before) > 0:
        if inspect.iscoroutine(value):
            value.close()
        return _TakenBack(cancels)
    return value


class _TakenBack:
    """Takes back what a call has cancelled; not a coroutine, so that it may be left unawaited."""

    def __init__(self, cancels: int) -> None:
        self._cancels = cancels

    def __await__(self) -> Generator[Any, Any, object]:
        yield from taken_back(self._cancels).__await__()
        raise CancelledItself("it cancelled the task of the run")


def _callables(function: object) -> tuple[object, object]:
    while hasattr(function, "func") and hasattr(function, "keywords"):  # functools.partial
        function = cast("Any", function).func
    call = getattr(function, "__call__", None)  # noqa: B004 - its kind is asked, not its presence
    return function, call


def is_generator(function: object) -> bool:
    """Whether a function is a generator, plain or async."""
    return any(
        inspect.isgeneratorfunction(one) or inspect.isasyncgenfunction(one)
        for one in _callables(function)
    )


def _signature(function: Callable[..., object]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None  # a function written in C may have none


def _takes_context(
    function: Callable[..., object], parameters: Sequence[str], context: TakesContext
) -> bool | None:
    """Returns whether the context is passed; None if the function fits no form."""
    signature, count = _signature(function), len(parameters)
    if signature is None:
        return context == "always"
    with_context, without = _fits(signature, count + 1), _fits(signature, count)
    if context == "always":
        return with_context or None
    if context == "never":
        return False if without else None
    first = _first_hint(function, signature)
    if _is_context(first):
        return with_context or None
    if without:
        return False
    return True if with_context and _accepts_context(first) else None


def _fits(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def _first_hint(function: Callable[..., object], signature: inspect.Signature) -> object:
    """Returns the annotation of the first parameter, resolved if possible; None without one."""
    first = next(iter(signature.parameters.values()), None)
    if first is None or first.annotation is inspect.Parameter.empty:
        return None
    if not isinstance(first.annotation, str):
        return cast("object", first.annotation)
    for one in _callables(function):
        try:
            hints = typing.get_type_hints(cast("Callable[..., object]", one))
        except Exception:  # noqa: BLE001, S112 - a name that is known to type checkers only
            continue
        if first.name in hints:
            return hints[first.name]
    return first.annotation


def _is_context(hint: object) -> bool:
    if isinstance(hint, str):
        return hint.partition("[")[0].rpartition(".")[2] == RunContext.__name__
    return (get_origin(hint) or hint) is RunContext


def _accepts_context(hint: object) -> bool:
    """Whether an annotation does not exclude the context: it may be a protocol, or `Any`."""
    origin = get_origin(hint) or hint
    if not isinstance(origin, type):
        return True
    try:
        return issubclass(RunContext, origin)
    except TypeError:  # a protocol that cannot be checked
        return True


def _forms(
    function: Callable[..., object], parameters: Sequence[str], context: TakesContext
) -> str:
    name = name_of(function).rpartition(".")[2]
    name = "f" if name == "<lambda>" else name
    forms: list[str] = []
    if context != "always":
        forms.append(f"{name}({', '.join(parameters)})")
    if context != "never":
        kind = "context: RunContext" if context == "optional" else "context"
        forms.append(f"{name}({', '.join([kind, *parameters])})")
    return " or ".join(forms)
