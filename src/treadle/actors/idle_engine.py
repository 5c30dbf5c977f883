"""The engine of a process that deletes threads of a database, and drives none."""

from treadle.actors.engine import EmbeddedEngine


class IdleEngine(EmbeddedEngine):
    """Takes a thread only to delete it: nothing is resumed, and no entry or due time begins a run.

    The agents of the threads need not be known. What is to be done on the others waits for the next
    process that drives the database.
    """

    finds_work = True  # else the driver wakes what was not finished, and reads the inboxes

    async def take(self, thread_id: str) -> bool:
        """Returns False: no thread is driven here."""
        return False

    async def seize(self, thread_id: str) -> bool:
        """Takes a thread unless another runtime of this process has it."""
        return await super().take(thread_id)

    def wake(self, thread_id: str) -> None:
        """Does nothing."""
