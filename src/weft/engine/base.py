"""The port to engines: who drives a thread."""

from typing import Protocol


class Engine(Protocol):
    """Calls `drive(thread_id)` for the threads that are woken, for each at most once at a time.

    Progress is kept in the journal alone, so `drive` may be called once too often, never too
    rarely.
    """

    async def start(self) -> None:
        """Makes the engine ready."""
        ...

    def wake(self, thread_id: str) -> None:
        """Has the thread driven now, or again after the drive that goes on."""
        ...

    def is_driving(self, thread_id: str) -> bool:
        """Whether the thread is being driven, here."""
        ...

    async def interrupt(self, thread_id: str) -> None:
        """Interrupts the drive of a thread and waits for its end."""
        ...

    async def stop(self) -> None:
        """Interrupts all drives and waits for their end; a second call does nothing."""
        ...
