"""Calls foreign code in the task of a run, and protects that task from it."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

from treadle.logging import logger_of
from treadle.tools.failure import cancel_count, reraise_interrupt

T = TypeVar("T")

_LOGGER = logger_of("treadle.hooks")

GRACE_SECONDS = 5.0
"""How long cancelled code of the user may take to end, before it is left behind."""

_LEFT_BEHIND: list[object] = []
"""Code that refused to end; if it were collected, the interpreter would report that once more."""


class CancelledItself(Exception):
    """Foreign code has cancelled the task that runs it."""


def _no_agents() -> bool:
    return False


class Watched(Generic[T]):
    """Awaits `value`, which is code of the user named `name`, in the running task.

    A cancellation of the task that `value` itself makes is taken back, and raises
    `CancelledItself`: it would end the drive of the run as a shutdown does, and the run would not
    be resumed. Only what is called between two suspensions of `value` is its own doing, so a
    cancellation from outside keeps its meaning. If `value` ends without passing it on, it is raised
    here; if `value` has not ended `GRACE_SECONDS` later, it is closed, unless `runs_agents`, which
    end in time themselves.
    """

    def __init__(
        self, value: Awaitable[T], name: str, runs_agents: Callable[[], bool] = _no_agents
    ) -> None:
        self._value = value
        self._name = name
        self._runs_agents = runs_agents
        self._grace: asyncio.TimerHandle | None = None
        self._is_over = False
        self._turn: asyncio.Future[None] | None = None

    def __await__(self) -> Generator[Any, Any, T]:
        task = asyncio.current_task()
        assert task is not None
        try:
            return (yield from self._steps(task))
        finally:
            self._end_grace()

    def _steps(self, task: "asyncio.Task[Any]") -> Generator[Any, Any, T]:
        at_first = task.cancelling()
        steps: Any = self._value.__await__()
        step, given = steps.send, None
        while True:
            before = task.cancelling()
            waited: Any = None
            try:
                waited = step(given)
            except StopIteration as ended:
                if task.cancelling() <= before:
                    if self._grace is not None and task.cancelling() > at_first:
                        raise asyncio.CancelledError from None  # it has swallowed it
                    return ended.value
            except BaseException:
                if task.cancelling() <= before:
                    raise
            if task.cancelling() > before:
                _end(steps)
                yield from taken_back(task.cancelling() - before).__await__()
                raise CancelledItself("it cancelled the task of the run")
            if task.cancelling() <= at_first:
                self._end_grace()  # it was a timeout in the code itself
            try:
                given = yield from self._suspended(waited, task)
            except GeneratorExit:
                _end(steps)
                raise
            except BaseException as error:  # noqa: BLE001 - it is for the code that waits
                step, given = steps.throw, error
                self._begin_grace(task)
            else:
                step = steps.send
            if self._is_over:
                self._close(steps)
                raise asyncio.CancelledError

    def _suspended(self, waited: Any, task: "asyncio.Task[Any]") -> Generator[Any, Any, Any]:
        """Waits as the task would, but is woken as well when the time of grace is over.

        A task that waits for a future directly is not even woken by a cancellation if what the
        future stands for swallows it.
        """
        loop = task.get_loop()
        if (
            not asyncio.isfuture(waited)
            or not waited._asyncio_future_blocking
            or waited.get_loop() is not loop
            or waited is task
        ):
            return (yield waited)  # nothing, or what the task refuses
        waited._asyncio_future_blocking = False  # as a task sets it, once it has seen it
        waited.add_done_callback(self._wake)
        try:
            while not waited.done() and not self._is_over:
                self._turn = loop.create_future()
                try:
                    yield from self._turn
                except asyncio.CancelledError:
                    self._begin_grace(task)
                    if not waited.cancel():
                        raise
        finally:
            self._turn = None
            waited.remove_done_callback(self._wake)
        return None

    def _wake(self, _: object = None) -> None:
        if self._turn is not None and not self._turn.done():
            self._turn.set_result(None)

    def _begin_grace(self, task: "asyncio.Task[Any]") -> None:
        if self._grace is None and task.cancelling():
            self._grace = task.get_loop().call_later(GRACE_SECONDS, self._grace_ended, task)

    def _grace_ended(self, task: "asyncio.Task[Any]") -> None:
        if self._runs_agents():
            self._grace = None
            self._begin_grace(task)
        else:
            self._is_over = True
            self._wake()

    def _end_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def _close(self, steps: Any) -> None:
        waiting: list[Any] = []
        one: Any = self._value
        while one is not None:
            waiting.append(one)
            one = getattr(one, "cr_await", None)
        try:
            _end(steps)
        except BaseException as error:  # noqa: BLE001 - foreign code may raise anything
            reraise_interrupt(error)
            _LEFT_BEHIND.extend(waiting)  # one of them may have refused this as well
        _LOGGER.error(
            "%s did not stop within %g s after it was cancelled, and was broken off.",
            self._name,
            GRACE_SECONDS,
        )


def _end(steps: Any) -> None:
    if hasattr(steps, "close"):
        steps.close()


class OwnCancels:
    """Takes back cancellations of the running task that plain functions of the user make.

    They are called in its block, which must not wait for anything. Raises `CancelledItself`.
    """

    async def __aenter__(self) -> None:
        self._before = cancel_count()

    async def __aexit__(self, kind: object, error: BaseException | None, _: object) -> None:
        if (count := cancel_count() - self._before) > 0:
            await taken_back(count)
            raise CancelledItself("it cancelled the task of the run") from error


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
