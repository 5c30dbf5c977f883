"""The archive of a server, as its users hold it."""

from collections.abc import Iterable, Sequence

from msgspec import Struct

from treadle.client.address import segment
from treadle.client.connection import Connection
from treadle.client.listed import Listed
from treadle.domain.arguments import require_text, shown
from treadle.domain.ids import new_id
from treadle.domain.passages import By, Found, Passage
from treadle.errors import InvalidInput, ThreadNotFound, UnknownPassage
from treadle.journal.base import ThreadInfo
from treadle.memory.archive.pages import Statistics
from treadle.memory.archive.query import Moment, filters_of, moment, new_passage


class _Inserted(Struct):
    id: str


class RemoteArchive:
    """Texts that are kept and found again, with the methods of `treadle.Archive`."""

    def __init__(
        self, connection: Connection, *, owner: str | None = None, thread_id: str = ""
    ) -> None:
        self._connection = connection
        self._owner = owner
        self._thread_id = thread_id

    async def insert(
        self,
        text: str,
        *,
        tags: Sequence[str] = (),
        created_at: Moment | None = None,
        key: str = "",
    ) -> str:
        """Puts a text in; returns its id once it cannot be lost any more; see `Archive.insert`.

        Without a `key` it gets one of its own, so that the request can be repeated.
        """
        at = None if created_at is None else moment(created_at)
        new_passage("", text, tags, at)  # refuses it before anything is sent
        body = {
            "text": text,
            "tags": list(tags),
            "created_at": at,
            "key": require_text("key", key) or new_id("evt"),
            "thread_id": self._thread_id,
            "owner": self._owner,
        }
        return (await self._connection.call("POST", "/archive", _Inserted, body=body)).id

    async def insert_many(
        self, texts: Iterable[str], *, tags: Sequence[str] = (), created_at: Moment | None = None
    ) -> list[str]:
        """Puts texts in, one request for each; returns their ids."""
        if isinstance(texts, str) or not hasattr(texts, "__iter__"):
            raise InvalidInput(
                f"insert_many takes a list of texts, not {shown(texts)}; a single one goes to "
                "insert."
            )
        return [await self.insert(text, tags=tags, created_at=created_at) for text in texts]

    async def search(
        self,
        text: str = "",
        *,
        any_tags: Sequence[str] = (),
        all_tags: Sequence[str] = (),
        since: Moment | None = None,
        until: Moment | None = None,
        this_thread: bool = False,
        by: By = "both",
        limit: int = 10,
        offset: int = 0,
    ) -> list[Found]:
        """Returns the texts that fit `text` best; without a text, the newest."""
        # Refuses moments and tags as the runtime does, before anything is sent.
        filters_of("archive", any_tags=any_tags, all_tags=all_tags, since=since, until=until)
        if this_thread and not self._thread_id:
            raise InvalidInput("this_thread is for the archive of a thread: Thread.archive.")
        query = {
            "text": require_text("text", text),
            "tag": tuple(all_tags),
            "any_tag": tuple(any_tags),
            "since": text_of_moment(since),
            "until": text_of_moment(until),
            "thread_id": self._thread_id if this_thread else "",
            "by": by,
            "limit": limit,
            "offset": offset,
            "owner": await self._owned_by(),
        }
        return (await self._connection.get("/archive", Listed[Found], query)).data

    async def get(self, passage_id: str) -> Passage:
        """Returns a text of the owner's archive; raises `UnknownPassage`."""
        query = {"owner": await self._owned_by()}
        return await self._connection.get(_path(passage_id), Passage, query)

    async def remove(self, passage_id: str) -> None:
        """Takes a text out, wherever in the owner's archive it is; raises `UnknownPassage`."""
        query = {"owner": await self._owned_by()}
        await self._connection.call("DELETE", _path(passage_id), query=query)

    async def statistics(self) -> Statistics:
        """Returns how much of the owner's is in the index of the server."""
        query = {"owner": await self._owned_by()}
        return await self._connection.get("/archive/statistics", Statistics, query)

    async def _owned_by(self) -> str | None:
        if not self._thread_id:
            return self._owner
        path = f"/threads/{segment(self._thread_id, ThreadNotFound, 'thread')}"
        return (await self._connection.get(path, ThreadInfo)).owner


def text_of_moment(given: Moment | None) -> str:
    """Returns a moment as a parameter; "" for none."""
    if given is None:
        return ""
    return given if isinstance(given, str) else given.isoformat()


def _path(passage_id: str) -> str:
    return f"/archive/{segment(require_text('passage_id', passage_id), UnknownPassage, 'passage')}"
