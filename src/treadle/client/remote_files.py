"""The files of a server, as its users hold them."""

from treadle.client.address import segment
from treadle.client.connection import Connection
from treadle.domain.arguments import require_text
from treadle.errors import InvalidInput, UnknownFile
from treadle.journal.files import FileInfo


class RemoteFiles:
    """The files of the owner of the key, with the methods of `treadle.Files`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

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
        return await self._connection.call(
            "POST",
            "/files",
            FileInfo,
            query={"name": require_text("name", name), "owner": require_text("owner", owner)},
            content=content,
            headers={"content-type": claimed},
        )

    async def info(self, file_id: str) -> FileInfo:
        """Returns what is known of a file; raises `UnknownFile`."""
        return await self._connection.get(_path(file_id), FileInfo)

    async def get(self, file_id: str) -> bytes:
        """Returns the content of a file; raises `UnknownFile`."""
        return await self._connection.get(f"{_path(file_id)}/content", bytes)

    async def delete(self, file_id: str, *, owner: str = "") -> None:
        """Removes a file that the owner put; what threads use stays with them."""
        query = {"owner": require_text("owner", owner)}
        await self._connection.call("DELETE", _path(file_id), query=query)


def _path(file_id: str) -> str:
    return f"/files/{segment(require_text('file_id', file_id), UnknownFile, 'file')}"
