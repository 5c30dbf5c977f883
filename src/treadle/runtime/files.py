"""The files that a journal keeps, as users hold them."""

import asyncio

from treadle.clock import now
from treadle.domain.arguments import require_text
from treadle.domain.media import MAX_CONTENT, media_type, safe_name, too_large
from treadle.errors import InvalidInput, UnknownFile
from treadle.journal.files import FileInfo, FileStore, file_id


class Files:
    """The files of an owner, of a thread, or of all: `Runtime.files` and `Thread.files`.

    A content is stored once, however many owners and threads use it, next to the journal. Each
    owner, and each thread, has only what was put or sent there; another file is an `UnknownFile`.
    All methods raise `JournalError`.
    """

    def __init__(self, store: FileStore, *, owner: str | None = None, thread_id: str = "") -> None:
        self._store = store
        self._owner = owner
        self._thread_id = thread_id

    async def put(
        self, content: bytes, *, name: str = "", media_type: str = "", owner: str = ""
    ) -> FileInfo:
        """Stores a file and returns what is known of it; its `id` is the `file_id` of a part.

        - `name`: its folder and what misleads people are left out.
        - `media_type`: chooses between kinds of text; the type is told from the bytes.
        - `owner`: the owner who may send it, by default that of the view. Files of a thread belong
          to its owner.

        Raises `InvalidInput` without bytes, for more than 50 MiB, and for another owner.
        """
        if not isinstance(content, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput("The content of a file must be bytes.")
        if not content:
            raise InvalidInput("The file is empty; give it some bytes.")
        if len(content) > MAX_CONTENT:
            raise InvalidInput(f"The file is refused: {too_large()}.")
        name = safe_name(require_text("name", name))
        claimed = require_text("media_type", media_type)
        user = self._owner if self._thread_id else self._owned(owner)
        info = await asyncio.to_thread(_described, content, name, claimed)
        await self._store.put(info, content, owner=user, thread_id=self._thread_id)
        return info

    async def info(self, file_id: str) -> FileInfo:
        """Returns what is known of a file; raises `UnknownFile`."""
        id = require_text("file_id", file_id)
        info = await self._store.info(id, owner=self._owner, thread_id=self._thread_id)
        if info is None:
            raise _unknown(id)
        return info

    async def get(self, file_id: str) -> bytes:
        """Returns the content of a file; raises `UnknownFile`."""
        id = require_text("file_id", file_id)
        content = await self._store.content(id, owner=self._owner, thread_id=self._thread_id)
        if content is None:
            raise _unknown(id)
        return content

    async def delete(self, file_id: str, *, owner: str = "") -> None:
        """Removes a file that an owner put, by default that of the view; raises `UnknownFile`.

        What threads use stays with them: it is removed together with the last message, or thread,
        that contains it.
        """
        id = require_text("file_id", file_id)
        if self._thread_id:
            raise InvalidInput(
                "A file of a thread is removed together with the message that contains it; use "
                "Thread.remove_event()."
            )
        if not await self._store.drop(id, owner=self._owned(owner)):
            raise _unknown(id)

    def _owned(self, owner: str) -> str:
        require_text("owner", owner)
        if self._owner is None:
            return owner
        if owner not in {"", self._owner}:
            raise InvalidInput(
                "This view reaches the files of one owner, and owner=… names another; leave it out."
            )
        return self._owner


def _described(content: bytes, name: str, claimed: str) -> FileInfo:
    kind = media_type(content, name, claimed)
    return FileInfo(file_id(content), kind, len(content), name, now())


def _unknown(id: str) -> UnknownFile:
    return UnknownFile(f"There is no file {id[:100]!r} here.")
