"""The state that all nodes of one tree share."""

import asyncio
import contextvars
import itertools
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic

from typing_extensions import TypeVar

from treadle.errors import NodeClosed
from treadle.jobs.block_alarm import BlockAlarm
from treadle.jobs.callbacks import Callback
from treadle.jobs.failure import FailureLog
from treadle.jobs.start_queue import StartQueue

N = TypeVar("N", default=Any)  # the nodes, whose module imports this one

FATAL = (KeyboardInterrupt, SystemExit)


class Tree(Generic[N]):
    """The event loop, the context of what the tree itself calls, the start queue, the
    unseen failures, and the end.

    `exit` is called with the result of the run and whether to wait for what is under way.
    `inside_of` is the node in whose body the tree was made, if it was in one.
    `endings` are the callbacks for the end of the tree, each with its node. While nodes settle
    (`is_settling`), those whose bodies end meanwhile wait for their turn in `ended`.

    An owner that records the tree passes functions. `admit` is called with a parent and the node
    that is about to be placed below it, and refuses it by raising. `kept` is awaited by each
    submission before it returns. `context_of` returns the context of a node. `contained` wraps what
    runs in a task, and raises no `SystemExit`; one that a callback raises is then only its failure.
    `returned` is awaited with a node and what its body returned.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        starts: StartQueue,
        exit: Callable[[object, bool], None],
        alarm: BlockAlarm | None = None,
        *,
        admit: Callable[[Any, Any], None] | None = None,
        kept: Callable[[], Awaitable[None]] | None = None,
        context_of: Callable[[Any], object] = lambda node: None,
        contained: Callable[[Coroutine[Any, Any, Any]], Coroutine[Any, Any, Any]] | None = None,
        returned: Callable[[Any, object], Awaitable[None]] | None = None,
    ) -> None:
        self.loop = loop
        self.context = contextvars.copy_context()
        self.starts = starts
        self.failures = FailureLog()
        self.endings: list[tuple[N, Callback]] = []
        self.ended: deque[N] = deque()
        self.is_settling = False
        self.exit = exit
        self.is_exiting = False
        self.inside_of: N | None = None
        self.alarm = alarm
        self.admit = admit
        self.kept = kept
        self.context_of = context_of
        self.contained = contained
        self.returned = returned
        self.new_id = itertools.count(1).__next__

    def ends_by(self, error: BaseException) -> bool:
        """Whether `error` only means that the run takes no new work; it ends a loop of rounds."""
        return self.is_exiting and isinstance(error, NodeClosed)

    def raise_if_fatal(self, error: BaseException) -> None:
        """Lets the event loop stop by `error`, as it does by that of a task: such as Ctrl-C."""
        if isinstance(error, FATAL if self.contained is None else KeyboardInterrupt):
            self.loop.call_soon(_raise, error)


def _raise(error: BaseException) -> None:
    raise error
