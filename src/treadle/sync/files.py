"""Stored files for synchronous code."""

from treadle.runtime.files import Files as AsyncFiles
from treadle.sync.handle import Handle, waits_for


class Files(Handle[AsyncFiles]):
    """`treadle.Files` for synchronous code: the same methods, which wait."""

    put = waits_for(AsyncFiles.put)
    info = waits_for(AsyncFiles.info)
    get = waits_for(AsyncFiles.get)
    delete = waits_for(AsyncFiles.delete)
