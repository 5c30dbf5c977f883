"""Signals to a run that is being driven: stop what it does, or look at its state again."""

import asyncio


class Signals:
    """Reaches a run in the middle of its work.

    The reason is on the thread already: a caller records it first, and signals then. So a signal
    that comes too late, or while the run is not driven, loses nothing.
    """

    def __init__(self) -> None:
        self._scope: asyncio.Timeout | None = None
        self._has_changed = False
        self._waiter: asyncio.Future[None] | None = None
        self._cause: tuple[str, BaseException] | None = None

    def interrupt(self) -> None:
        """Interrupts what the run is doing."""
        # A deadline that is over, instead of a cancelled task: so the loop can tell an interrupted
        # run, which it has to end, from a process that shuts down, which leaves the run open.
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())

    def fail(self, run_id: str, cause: BaseException) -> None:
        """Interrupts what the run is doing, because a job of it failed with `cause`."""
        self._cause = (run_id, cause)
        self.interrupt()
        self.notify()

    def cause_of(self, run_id: str) -> BaseException | None:
        """Returns what a job of the run failed with, if that was in this process."""
        return self._cause[1] if self._cause is not None and self._cause[0] == run_id else None

    def attach(self, scope: asyncio.Timeout | None) -> None:
        """Sets the scope in which the run works from now on; None when it no longer does."""
        self._scope = scope

    def limit(self, seconds: float | None) -> None:
        """Limits how long the run may work from now on; None is no limit."""
        if self._scope is None or self._scope.expired():
            return
        when = self._scope.when()
        now = asyncio.get_running_loop().time()
        # A deadline in the past is an interrupt that is about to be delivered: it must not be lost.
        if when is None or when > now:
            self._scope.reschedule(None if seconds is None else now + seconds)

    def notify(self) -> None:
        """Makes a run that waits in `changed` look at its state again."""
        self._has_changed = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def changed(self) -> None:
        """Waits for the next `notify`; returns at once if one came since the last wait."""
        if not self._has_changed:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._has_changed = False
