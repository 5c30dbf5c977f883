"""Resources that are opened once per event loop and closed with it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

T = TypeVar("T")


class PerLoop(Generic[T]):
    """Opens a resource when an event loop first needs it, and closes it when the loop shuts down.

    `open` returns the context manager to enter. It must not be based on an async generator.
    """

    def __init__(self, open: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._open = open
        self._slots: dict[asyncio.AbstractEventLoop, _Slot[T]] = {}

    async def get(self) -> T:
        """Returns the resource of the running event loop, opening it on the first call."""
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
        """Closes the resource of the running event loop; the next `get` opens it again."""
        slot = self._slots.get(asyncio.get_running_loop())
        if slot is not None:
            async with slot.lock:
                if slot.holder is not None:
                    await slot.holder.aclose()

    async def _hold(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[T]:
        # An event loop that shuts down closes its suspended async generators
        # (`loop.shutdown_asyncgens`, which `asyncio.run` calls). This one stays suspended while the
        # resource is open, so the loop itself closes it. If `open` were based on an async
        # generator, that one would be closed at the same time as this one, in any order.
        try:
            async with self._open() as value:
                yield value
        finally:
            self._slots.pop(loop, None)


class _Slot(Generic[T]):
    """The resource of one event loop; `values` is empty until it is open."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.values: list[T] = []
        self.holder: AsyncGenerator[T] | None = None
