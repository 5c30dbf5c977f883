"""What all nodes of one tree share."""

import asyncio
import contextvars
import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

from weft.jobs.block_alarm import BlockAlarm
from weft.jobs.failure import FailureLog
from weft.jobs.start_queue import StartQueue

if TYPE_CHECKING:
    from weft.jobs.callbacks import Callback
    from weft.jobs.node import Node


class Tree:
    """The event loop, the context of what the tree itself calls, the start queue, the
    failures nobody has seen, and the end.

    `exit` is called with the result of the run and whether to wait for what is under way.
    `endings` are the callbacks for the end of the tree, each with its node.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        starts: StartQueue,
        exit: Callable[[object, bool], None],
        alarm: BlockAlarm | None,
    ) -> None:
        self.loop = loop
        self.context = contextvars.copy_context()
        self.starts = starts
        self.failures = FailureLog()
        self.endings: list[tuple[Node[object], Callback]] = []
        self.exit = exit
        self.is_exiting = False
        self.alarm = alarm
        self.new_id = itertools.count(1).__next__
