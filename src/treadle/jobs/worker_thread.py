"""Blocking calls: made in a thread, so that the event loop continues."""

import asyncio
import contextvars
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from treadle.executor import DaemonExecutor

P = ParamSpec("P")
T = TypeVar("T")

_EXECUTOR = DaemonExecutor()


async def blocking(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Calls a function that blocks in a thread, and returns what it returns.

    The function sees the context variables of the caller; what it sets in them stays with it. At
    most 128 such calls run at a time, the others wait their turn. Raises what the function raises.

    A cancelled call is abandoned at once. A thread cannot be stopped: the function runs to its end,
    and its result is dropped; one that has not begun never begins. If a call must end cleanly, pass
    the function an object that it checks, such as a `threading.Event`. The thread does not keep
    the process alive.
    """
    call = functools.partial(contextvars.copy_context().run, function, *args, **kwargs)
    return await asyncio.get_running_loop().run_in_executor(_EXECUTOR, call)
