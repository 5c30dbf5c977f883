"""The alarm of debug mode: which job blocked the event loop, and for how long."""

import logging
import time
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

T = TypeVar("T")

BLOCKED_AFTER = 0.1
"""Seconds for which a job may keep the event loop, unless another bound was chosen."""

_LOGGER = logging.getLogger("treadle.jobs")


class BlockAlarm:
    """Warns of each step of a body that keeps the event loop for `threshold` seconds or longer.

    A step is what runs between two awaits that really wait. `clock` returns seconds.
    """

    def __init__(self, threshold: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._threshold = threshold
        self._clock = clock

    def watch(self, body: Coroutine[Any, Any, T], name: str) -> Coroutine[Any, Any, T]:
        """Returns a coroutine that does what `body` does, under watch."""
        return _Watched(body, name, self)

    def run(self, step: Callable[[], T], name: str) -> T:
        """Runs one step, and warns if it took too long."""
        start = self._clock()
        try:
            return step()
        finally:
            seconds = self._clock() - start
            if seconds >= self._threshold:
                _LOGGER.warning(
                    "%s blocked the event loop for %.3f s; nothing else could run. "
                    "Call what blocks with `await blocking(function, ...)`.",
                    name,
                    seconds,
                )


class _Watched(Coroutine[Any, Any, T]):
    """A coroutine whose steps are timed."""

    def __init__(self, body: Coroutine[Any, Any, T], name: str, alarm: BlockAlarm) -> None:
        self._body = body
        self._name = name
        self._alarm = alarm

    def send(self, value: Any, /) -> Any:
        return self._alarm.run(lambda: self._body.send(value), self._name)

    def throw(
        self,
        kind: Any,
        value: BaseException | object = None,
        traceback: TracebackType | None = None,
        /,
    ) -> Any:
        # The form with three arguments is deprecated; a task passes the exception alone.
        return self._alarm.run(lambda: self._body.throw(kind), self._name)

    def close(self) -> None:
        self._body.close()

    def __await__(self) -> Any:
        return (yield from self._body.__await__())
