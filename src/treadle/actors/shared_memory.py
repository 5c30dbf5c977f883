"""Shared memories: threads without an agent, named within their owner."""

from treadle.actors.access import ThreadAccess
from treadle.clock import now
from treadle.domain.block_edits import require_memory_name
from treadle.domain.ids import id_of
from treadle.errors import JournalError, ThreadNotFound
from treadle.journal.base import Journal, ThreadInfo


def shared_id(owner: str, name: str) -> str:
    """Returns the id of the thread that is the shared memory `name` of an owner.

    So a thread reaches those of its own owner only. Raises `InvalidInput` for a name that is none.
    """
    require_memory_name(name)
    return id_of("memory", owner, name)


async def require_shared(threads: ThreadAccess, journal: Journal, owner: str, name: str) -> str:
    """Returns the id of a shared memory, made if it is not there; raises as `shared_id`.

    Another process may make it at the same time. Within a process it is called once at a time.
    """
    id = shared_id(owner, name)
    try:
        await journal.info(id)
    except ThreadNotFound:
        created_at = now()
        info = ThreadInfo(
            id=id, agent="", owner=owner, created_at=created_at, updated_at=created_at, memory=name
        )
        try:
            await threads.create(info)
        except JournalError as error:
            try:
                await journal.info(id)  # another process made it meanwhile
            except ThreadNotFound:
                raise error from None
    return id
