"""Calls foreign code in the task of a run, and protects that task from it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class CancelledItself(Exception):
    """Foreign code has cancelled the task that runs it."""


class Watched(Generic[T]):
    """Awaits `value`, and takes back a cancellation of the running task that `value` itself makes.

    It would end the drive of the run as a shutdown does, and the run would not be resumed. Only
    what is called between two suspensions of `value` is its own doing, so a cancellation from
    outside keeps its meaning. Raises `CancelledItself`.
    """

    def __init__(self, value: Awaitable[T]) -> None:
        self._value = value

    def __await__(self) -> Generator[Any, Any, T]:
        task = asyncio.current_task()
        assert task is not None
        steps: Any = self._value.__await__()
        step, given = steps.send, None
        while True:
            before = task.cancelling()
            waited: Any = None
            try:
                waited = step(given)
            except StopIteration as ended:
                if task.cancelling() <= before:
                    return ended.value
            except BaseException:
                if task.cancelling() <= before:
                    raise
            if task.cancelling() > before:
                if hasattr(steps, "close"):
                    steps.close()
                yield from taken_back(task.cancelling() - before).__await__()
                raise CancelledItself("it cancelled the task of the run")
            try:
                given = yield waited
            except GeneratorExit:
                if hasattr(steps, "close"):
                    steps.close()
                raise
            except BaseException as error:  # noqa: BLE001 - it is for the code that waits
                step, given = steps.throw, error
            else:
                step = steps.send


async def taken_back(cancels: int) -> None:
    """Takes back cancellations of the running task that have not been delivered yet."""
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(asyncio.CancelledError):  # one from outside is counted below
        await asyncio.sleep(0)
    for _ in range(cancels):
        task.uncancel()
    if task.cancelling():
        raise asyncio.CancelledError
