"""The port to the files of a journal: contents that are stored once, and who uses them.

A content is stored under its SHA-256, however many messages contain it. It is used by threads, and
by owners that put it there; it is removed together with its last use. Two tables are enough for an
adapter: contents by id, and uses by id, owner and thread.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from treadle.errors import UnknownFile


class FileInfo(Struct, frozen=True):
    """A file that a journal keeps.

    `media_type` was told from the bytes, `size` is in bytes, `name` has no folder, `created_at` is
    when the owner put it, or the thread used it first, in Unix seconds.
    """

    id: str
    media_type: str
    size: int
    name: str = ""
    created_at: float = 0.0


class NewFile(Struct, frozen=True, eq=False):
    """A file that a new thread uses; `content` is None for one that is stored already."""

    info: FileInfo
    content: bytes | None = None


def file_id(content: bytes) -> str:
    """Returns the id of a content."""
    return f"file_{hashlib.sha256(content).hexdigest()}"


class FileStore(Protocol):
    """Keeps contents of files. Every method returns when its change is durable.

    All methods raise `JournalError` or a subclass, `ThreadNotFound` for a thread that does not
    exist, or does not belong to an `owner` that is given with it. Deleting a thread ends its uses,
    a fork has those of its source; see `Journal`.
    """

    async def put(
        self, file: FileInfo, content: bytes, *, owner: str | None = None, thread_id: str = ""
    ) -> None:
        """Stores a content, unless it is stored, and notes that a thread uses it.

        Without a thread, the owner uses it; None is the owner "". A second call of the same user
        changes nothing.
        """
        ...

    async def use(self, ids: Sequence[str], thread_id: str) -> Mapping[str, FileInfo]:
        """Notes that a thread uses files; returns those that its owner may read, by id.

        These are files that the owner put, and files of the owner's threads.
        """
        ...

    async def info(
        self, id: str, *, owner: str | None = None, thread_id: str = ""
    ) -> FileInfo | None:
        """Returns a file that a thread uses, or an owner may read; None if there is none.

        `owner` None is every owner.
        """
        ...

    async def content(
        self, id: str, *, owner: str | None = None, thread_id: str = ""
    ) -> bytes | None:
        """Returns the content of a file that `info` would return."""
        ...

    async def drop(self, id: str, *, owner: str) -> bool:
        """Ends the use of an owner; returns whether there was one."""
        ...

    async def drop_owner(self, owner: str) -> None:
        """Ends all uses of an owner, except those of threads."""
        ...


def unknown_file(id: str) -> UnknownFile:
    """Returns the error for a file that an item mentions and its owner has not."""
    return UnknownFile(f"There is no file {id[:100]}; put it into runtime.files.")


def preferred(infos: Iterable[FileInfo]) -> FileInfo | None:
    """Returns the oldest description of a content that several use."""
    return min(infos, key=lambda info: (info.created_at, info.name), default=None)
