"""The archive for synchronous code."""

from treadle.runtime.archive import Archive as AsyncArchive
from treadle.sync.handle import Handle, waits_for


class Archive(Handle[AsyncArchive]):
    """`treadle.Archive` for synchronous code: the same methods, which wait."""

    insert = waits_for(AsyncArchive.insert)
    insert_many = waits_for(AsyncArchive.insert_many)
    search = waits_for(AsyncArchive.search)
    get = waits_for(AsyncArchive.get)
    remove = waits_for(AsyncArchive.remove)
    statistics = waits_for(AsyncArchive.statistics)
    follow = waits_for(AsyncArchive.follow)
