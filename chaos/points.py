"""Named commit points: the places where a kill is most likely to lose or double something."""

import os
import signal
from collections.abc import Callable
from typing import Any

import weft.step
from weft.bus.topic import Topic
from weft.events import ToolOutputRecorded
from weft.journal.sqlite_writes import Transactions
from weft.runtime.actor import ThreadActor
from weft.runtime.journaled import JournaledThread

Wrapped = Callable[..., Any]


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Countdown:
    """Kills this process when the point was reached for the n-th time."""

    def __init__(self, n: int) -> None:
        self._left = n

    def reached(self) -> None:
        """Counts; the last one does not return."""
        self._left -= 1
        if self._left <= 0:
            _kill()


def _before(original: Wrapped, countdown: Countdown) -> Wrapped:
    def wrapper(*args: Any, **options: Any) -> Any:
        countdown.reached()
        return original(*args, **options)

    return wrapper


def _after(original: Wrapped, countdown: Countdown) -> Wrapped:
    def wrapper(*args: Any, **options: Any) -> Any:
        result = original(*args, **options)
        countdown.reached()
        return result

    return wrapper


def _after_await(original: Wrapped, countdown: Countdown) -> Wrapped:
    async def wrapper(*args: Any, **options: Any) -> Any:
        result = await original(*args, **options)
        countdown.reached()
        return result

    return wrapper


def _on_output(original: Wrapped, countdown: Countdown) -> Wrapped:
    def wrapper(self: JournaledThread, event: Any) -> None:
        original(self, event)
        if isinstance(event, ToolOutputRecorded):
            countdown.reached()

    return wrapper


POINTS: dict[str, tuple[type, str, Callable[[Wrapped, Countdown], Wrapped]]] = {
    "before the transaction": (Transactions, "commit", _before),
    "in the transaction": (Transactions, "_append", _after),
    "after the transaction": (Transactions, "commit", _after),
    "before publishing": (Topic, "publish", _before),
    "after publishing": (Topic, "publish", _after),
    "message taken": (ThreadActor, "_accept_message", _after),
    "answer taken": (ThreadActor, "_accept_answer", _after),
    "cancel taken": (ThreadActor, "_accept_cancel", _after),
    "inbox taken": (ThreadActor, "_take_inbox", _after_await),
    "tool started": (weft.step._Step, "_attempt", _after_await),
    "tool output recorded": (JournaledThread, "record", _on_output),
    "snapshot kept": (ThreadActor, "_keep_snapshot", _after_await),
}


def arm(name: str, n: int) -> None:
    """Has this process killed when it reaches the point for the n-th time."""
    owner, attribute, wrap = POINTS[name]
    setattr(owner, attribute, wrap(getattr(owner, attribute), Countdown(n)))
