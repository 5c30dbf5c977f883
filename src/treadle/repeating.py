"""Tasks that run as long as their owner: each repeats a round of work until it is cancelled."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

FIRST_PAUSE_SECONDS = 0.5
LAST_PAUSE_SECONDS = 5.0
"""A round that failed is repeated after the first, then after twice as long, …. The last is short:
a node that sends no heartbeat for 15 seconds is taken for dead."""


async def repeat(
    play: Callable[[], Awaitable[None]], logger: logging.Logger, problem: str
) -> NoReturn:
    """Awaits `play` again and again, until the task is cancelled.

    `play` does one round, with its pause, and handles the errors that it expects. Any other one is
    a defect; no caller awaits the task, so the defect is logged with `problem` and its traceback,
    and the round is repeated after a pause.
    """
    task = asyncio.current_task()
    assert task is not None
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            await play()
        except asyncio.CancelledError:
            if task.cancelling():
                raise
            logger.exception("%s", problem)  # of a future that another one has cancelled
        except Exception:
            logger.exception("%s", problem)
        else:
            pause = FIRST_PAUSE_SECONDS
            continue
        await asyncio.sleep(pause)
        pause = min(2 * pause, LAST_PAUSE_SECONDS)
