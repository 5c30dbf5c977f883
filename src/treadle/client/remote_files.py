"""The files of a server, as its users hold them."""

from treadle.client.address import segment
from treadle.client.connection import Connection
from treadle.domain.arguments import require_text
from treadle.errors import InvalidInput, ThreadNotFound, UnknownFile
from treadle.journal.files import FileInfo


class RemoteFiles:
    """The files of an owner or of a thread, with the methods of `treadle.Files`."""

    def __init__(self, connection: Connection, *, thread_id: str = "") -> None:
        self._connection = connection
        self._thread_id = thread_id

    async def put(
        self, content: bytes, *, name: str = "", media_type: str = "", owner: str = ""
    ) -> FileInfo:
        """Stores a file and returns what is known of it; its `id` is the `file_id` of a part.

        The same content has the same id, so it is sent again if the answer is lost.
        """
        if not isinstance(content, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InvalidInput("The content of a file must be bytes.")
        claimed = require_text("media_type", media_type) or "application/octet-stream"
        if not (claimed.isascii() and claimed.isprintable()):
            raise InvalidInput("media_type is not valid; it looks like text/markdown.")
        query = {"name": require_text("name", name)}
        if require_text("owner", owner) and not self._thread_id:
            query["owner"] = owner
        return await self._connection.call(
            "POST",
            self._path,
            FileInfo,
            query=query,
            content=content,
            headers={"content-type": claimed},
        )

    async def info(self, file_id: str) -> FileInfo:
        """Returns what is known of a file; raises `UnknownFile`."""
        return await self._connection.get(self._path_of(file_id), FileInfo)

    async def get(self, file_id: str) -> bytes:
        """Returns the content of a file; raises `UnknownFile`."""
        return await self._connection.get(f"{self._path_of(file_id)}/content", bytes)

    async def delete(self, file_id: str, *, owner: str = "") -> None:
        """Removes a file that the owner put; what threads use stays with them."""
        path = self._path_of(file_id)
        if self._thread_id:
            raise InvalidInput(
                "A file of a thread is removed together with the message that contains it; use "
                "remove_event() of the thread."
            )
        query = {"owner": require_text("owner", owner)}
        await self._connection.call("DELETE", path, query=query)

    @property
    def _path(self) -> str:
        if not self._thread_id:
            return "/files"
        return f"/threads/{segment(self._thread_id, ThreadNotFound, 'thread')}/files"

    def _path_of(self, file_id: str) -> str:
        return f"{self._path}/{segment(require_text('file_id', file_id), UnknownFile, 'file')}"
