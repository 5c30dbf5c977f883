"""Pages of lists as a server answers them."""

from typing import Generic, TypeVar

import msgspec
from msgspec import Struct

from treadle.client.address import segment
from treadle.client.connection import JSON, Connection, decoded
from treadle.domain.envelope import decode_recorded
from treadle.domain.events import RecordedEvent
from treadle.domain.page import Page
from treadle.errors import RequestFailed, ThreadNotFound

T = TypeVar("T")

MAX_EVENTS = 1000
"""The most events of one page."""


class Listed(Struct, Generic[T]):
    """A page: its entries, the `after` of the next page, and where a desk continues it."""

    data: list[T]
    next: str | None = None
    position: str = ""

    @property
    def page(self) -> Page[T]:
        """The same as the runtime gives it."""
        return Page(self.data, self.next or "", self.position)


async def read_events(
    connection: Connection, thread_id: str, after: int, limit: int | None
) -> list[RecordedEvent]:
    """Returns durable events after number `after`: at most `limit`, or all of them."""
    path = f"/threads/{segment(thread_id, ThreadNotFound, 'thread')}/events"
    found: list[RecordedEvent] = []
    while limit is None or len(found) < limit:
        wanted = MAX_EVENTS if limit is None else min(limit - len(found), MAX_EVENTS)
        query = {"after": str(after), "limit": wanted}
        _, answer = await connection.send("GET", path, query=query, headers={"accept": JSON})
        page: Listed[msgspec.Raw] = decoded(answer, Listed[msgspec.Raw])
        if not page.data:
            break
        try:
            found += [decode_recorded(bytes(one)) for one in page.data]
        except msgspec.MsgspecError as error:
            raise RequestFailed(
                f"The server sent an event of another form: {error}. Use the same version of "
                "treadle on both sides."
            ) from error
        after = found[-1].seq
    return found
