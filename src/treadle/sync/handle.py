"""Handles for synchronous code: each method calls the one of the same name on the loop, and waits.

One line makes one method, with the parameters and the documentation of the asynchronous one.
"""

# The functions of this module make methods of `Handle`.
# pyright: reportPrivateUsage=false

from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from treadle.sync.background_loop import BackgroundLoop

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
Target = TypeVar("Target")
Result = TypeVar("Result")

_END = object()


class Handle(Generic[Target]):
    """An asynchronous handle, and the loop on which it is used. Any thread may use it."""

    def __init__(self, loop: BackgroundLoop, target: Target) -> None:
        self._loop = loop
        self._target = target

    def __repr__(self) -> str:
        return f"sync.{self._target!r}"


class Method(Protocol[P, T_co]):
    """A method with these parameters."""

    @overload
    def __get__(self, instance: None, owner: type, /) -> Callable[Concatenate[Any, P], T_co]: ...

    @overload
    def __get__(self, instance: object, owner: type, /) -> Callable[P, T_co]: ...


Coroutines = Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]
Make = Callable[[BackgroundLoop, Target], T]


def waits_for(method: Coroutines[P, T]) -> Method[P, T]:
    """Returns the method that waits for a coroutine method of the handle."""

    def call(self: Handle[Any], *args: object, **kwargs: object) -> object:
        return self._loop.call(getattr(self._target, method.__name__), *args, **kwargs)

    return _like(method, call)


def makes(handle: Make[Target, T], method: Coroutines[P, Target]) -> Method[P, T]:
    """Returns the method that waits for a coroutine method and makes a handle of what it returns.

    None stays None.
    """

    def call(self: Handle[Any], *args: object, **kwargs: object) -> object:
        made = self._loop.call(getattr(self._target, method.__name__), *args, **kwargs)
        return None if made is None else handle(self._loop, made)

    return _like(method, call)


def makes_at_once(
    handle: Make[Target, T], method: Callable[Concatenate[Any, P], Target]
) -> Method[P, T]:
    """Returns the same for a plain method, which is called on the loop."""

    def call(self: Handle[Any], *args: object, **kwargs: object) -> object:
        async def make() -> Target:
            return getattr(self._target, method.__name__)(*args, **kwargs)

        return handle(self._loop, self._loop.call(make))

    return _like(method, call)


def iterates(method: Callable[Concatenate[Any, P], AsyncGenerator[T]]) -> Method[P, Generator[T]]:
    """Returns the generator method for an asynchronous one; leaving it early closes that."""

    def call(self: Handle[Any], *args: object, **kwargs: object) -> Generator[object]:
        return iterate(self._loop, getattr(self._target, method.__name__)(*args, **kwargs))

    return _like(method, call)


def iterate(loop: BackgroundLoop, values: AsyncGenerator[T]) -> Generator[T]:
    """Yields what an asynchronous generator yields on a loop, and closes it."""

    async def following() -> T:
        return cast("T", await anext(values, _END))

    try:
        while (value := loop.call(following)) is not _END:
            yield value
    finally:
        # Not waited for: the garbage collector may be what ends this generator.
        loop.post(values.aclose)


def _like(method: Callable[..., object], call: Callable[..., object]) -> Any:
    return wraps(method)(call)
