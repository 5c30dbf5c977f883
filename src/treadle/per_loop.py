"""What is opened once for each event loop and closed with it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Opens something when an event loop first needs it, and closes it when that loop shuts down.

    `open` returns the context manager to enter; it must not be made of an async generator. A
    suspended async generator is closed by its event loop when that shuts down
    (`loop.shutdown_asyncgens`, which `asyncio.run` calls), so the one in here sees to the closing,
    and nobody has to remember it.
    """

    def __init__(self, open: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._open = open
        self._slots: dict[asyncio.AbstractEventLoop, _Slot[T]] = {}

    async def get(self) -> T:
        """Returns what the running event loop has open, opening it first if need be."""
        loop = asyncio.get_running_loop()
        slot = self._slots.get(loop)
        if slot is None:
            slot = self._slots[loop] = _Slot()
        if not slot.values:
            async with slot.lock:
                if not slot.values:
                    slot.holder = self._hold(loop)
                    slot.values.append(await anext(slot.holder))
        return slot.values[0]

    async def aclose(self) -> None:
        """Closes what the running event loop has open; the next `get` opens it again."""
        slot = self._slots.get(asyncio.get_running_loop())
        if slot is not None:
            async with slot.lock:
                if slot.holder is not None:
                    await slot.holder.aclose()

    async def _hold(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[T]:
        try:
            async with self._open() as value:
                yield value
        finally:
            self._slots.pop(loop, None)


class _Slot(Generic[T]):
    """What one event loop has open: a value or none yet."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.values: list[T] = []
        self.holder: AsyncGenerator[T] | None = None
