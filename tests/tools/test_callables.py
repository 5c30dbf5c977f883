"""Functions of the program: which forms fit, and what happens when they are called."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Protocol

import pytest

import treadle
from treadle import RunContext
from treadle.errors import ConfigurationError, HookFailed, InvalidTool
from treadle.tools.callables import Pending, is_async, user_function

pytestmark = pytest.mark.anyio


def context(deps: object = None) -> RunContext[Any]:
    return RunContext(deps=deps, thread_id="t", run_id="r")


class HasOwner(Protocol):
    @property
    def owner(self) -> str: ...


class Later:
    """A callable object with an async `__call__`."""

    async def __call__(self, value: str) -> str:
        return value


class Plain:
    def both(self, context: object, value: str) -> str:
        return f"{type(context).__name__} {value}"

    def own(self, value: str) -> str:
        return value


def own(value: str) -> str:
    return value


async def later(value: str) -> str:
    await asyncio.sleep(1)
    return value


def both(context: RunContext[object], value: str) -> str:
    return f"{context.run_id} {value}"


async def both_later(context: RunContext[object], value: str) -> str:
    await asyncio.sleep(1)
    return f"{context.run_id} {value}"


def optional(context: RunContext[object], value: str = "?") -> str:
    return f"{context.run_id} {value}"


def quoted(context: "RunContext[object]", value: str) -> str:
    return f"{context.run_id} {value}"


def unresolved(context: Any, value: str) -> str:
    return f"{context.run_id} {value}"


unresolved.__annotations__["context"] = "treadle.RunContext[Unknown]"  # for type checkers only


def structural(who: HasOwner, value: str) -> str:
    return f"{who.owner}{value}"


def strict(value: str, strict: bool = True) -> str:
    return f"{value} {strict}"


FITS: list[tuple[Callable[..., Any], str]] = [
    (own, "v"),
    (later, "v"),
    (lambda value: later(value), "v"),  # noqa: PLW0108 - a plain function that returns a coroutine
    (Later(), "v"),
    (both, "r v"),
    (both_later, "r v"),
    (optional, "r v"),
    (quoted, "r v"),
    (unresolved, "r v"),
    (structural, "v"),
    (strict, "v True"),
    (Plain().both, "RunContext v"),
    (Plain().own, "v"),
    (functools.partial(strict, strict=False), "v False"),
    (functools.partial(both_later), "r v"),
    (lambda context, value: context.run_id + value, "rv"),
    (lambda *arguments: "".join(arguments), "v"),
    (str, "v"),
]


@pytest.mark.parametrize(("function", "value"), FITS)
async def test_a_function_that_fits(function: Callable[..., Any], value: str) -> None:
    made = user_function(function, "test", ("value",))
    assert await made.result(context(), "v") == value


class Holds:
    def __init__(self, deps: object) -> None: ...


def generator(value: str) -> Iterator[str]:
    yield value


async def async_generator(value: str) -> Any:
    yield value


def deps_first(deps: Holds, value: str) -> str:
    return f"{deps}{value}"


REFUSED: list[tuple[object, str]] = [
    (lambda: "", r"\(\) cannot be called as rule; write f\(value\) or "),
    (lambda a, b, c: "", r"\(a, b, c\) cannot be called as rule"),
    (deps_first, r"write deps_first\(value\) or deps_first\(context: RunContext, value\), plain"),
    (generator, "generator is a generator"),
    (async_generator, "async_generator is a generator"),
    (lambda *, value: "", r"\(\*, value\) cannot be called as rule"),
    (lambda value, *, other: "", r"cannot be called as rule"),
    ("no", "'no' is not a function; rule must be one"),
]


@pytest.mark.parametrize(("function", "message"), REFUSED)
def test_a_function_that_fits_no_form_is_refused(function: Any, message: str) -> None:
    with pytest.raises(InvalidTool, match=message):
        user_function(function, "rule", ("value",), refusal=InvalidTool)


def test_a_context_alone_is_not_enough() -> None:
    def rule(context: RunContext[object]) -> bool:
        return bool(context)

    with pytest.raises(ConfigurationError, match=r"rule\(context: RunContext, value\)"):
        user_function(rule, "rule", ("value",))


@pytest.mark.parametrize(
    ("kind", "good", "bad"), [("always", both, own), ("never", own, both), ("optional", own, None)]
)
def test_which_forms_there_are(kind: Any, good: Any, bad: Any) -> None:
    assert user_function(good, "test", ("value",), context=kind).takes_context is (kind == "always")
    if bad is not None:
        with pytest.raises(ConfigurationError):
            user_function(bad, "test", ("value",), context=kind)


async def test_a_plain_function_is_called_at_once_and_an_async_one_returns_a_coroutine() -> None:
    assert user_function(own, "test", ("value",))(context(), "v") == "v"
    waiting = user_function(later, "test", ("value",))(context(), "v")
    assert isinstance(waiting, Pending)
    assert await waiting == "v"


async def test_a_failure_has_the_exception_as_its_cause() -> None:
    async def fails(value: str) -> str:
        raise KeyError(value)

    for function in (fails, lambda value: {}[value]):
        made = user_function(function, "test", ("value",))
        with pytest.raises(HookFailed, match=r"The test .* failed: KeyError: 'v'") as failed:
            await made.result(context(), "v")
        assert isinstance(failed.value.__cause__, KeyError)


async def test_an_exception_that_passes() -> None:
    async def fails() -> str:
        raise LookupError("again")

    def raises() -> str:
        raise LookupError("again")

    for function in (fails, raises):
        with pytest.raises(LookupError, match="again"):
            await user_function(function, "test", passes=(LookupError,)).result(context())


async def test_a_function_that_cancels_its_task() -> None:
    def cancels() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    async def cancels_later() -> None:
        cancels()

    async def cancels_and_waits() -> None:
        cancels()
        await asyncio.sleep(1)

    def cancels_and_returns() -> Awaitable[None]:
        cancels()
        return cancels_later()

    for function in (cancels, cancels_later, cancels_and_waits, cancels_and_returns):
        with pytest.raises(HookFailed, match="it cancelled the task of the run"):
            await user_function(function, "test").result(context())
        task = asyncio.current_task()
        assert task is not None
        assert not task.cancelling()


async def test_a_cancellation_from_outside_passes() -> None:
    made = user_function(later, "test", ("value",))
    waiting = asyncio.ensure_future(made.result(context(), "v"))
    await asyncio.sleep(0.5)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_runtime_that_is_returned_is_not_awaited() -> None:
    runtime = treadle.open()
    assert await user_function(lambda: runtime, "deps").result(context()) is runtime


def test_kinds() -> None:
    assert is_async(later)
    assert is_async(Later())
    assert is_async(functools.partial(later))
    assert not is_async(own)
    assert not is_async(functools.partial(own))
