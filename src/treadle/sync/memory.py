"""Memory blocks for synchronous code."""

from treadle.runtime.memory import Memory as AsyncMemory
from treadle.sync.handle import Handle, waits_for


class Memory(Handle[AsyncMemory]):
    """`treadle.Memory` for synchronous code: the same methods, which wait."""

    blocks = waits_for(AsyncMemory.blocks)
    get = waits_for(AsyncMemory.get)
    append = waits_for(AsyncMemory.append)
    replace = waits_for(AsyncMemory.replace)
    insert = waits_for(AsyncMemory.insert)
    rewrite = waits_for(AsyncMemory.rewrite)
    create = waits_for(AsyncMemory.create)
    configure = waits_for(AsyncMemory.configure)
    delete = waits_for(AsyncMemory.delete)
    undo = waits_for(AsyncMemory.undo)
    changes = waits_for(AsyncMemory.changes)

    @property
    def thread_id(self) -> str:
        """The thread whose events the changes are."""
        return self._target.thread_id
