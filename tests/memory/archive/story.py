"""A journal with messages and notes on its threads, and the archive that follows it."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from msgspec.structs import replace

from treadle.domain.envelope import Envelope
from treadle.domain.events import MessageAdded, PassageAdded, PassageRemoved, RecordedEvent
from treadle.domain.items import Message, message
from treadle.domain.limits import Limits
from treadle.domain.passages import By, Filters, Found
from treadle.journal.base import Batch, Claim, Journal, ThreadInfo, Work
from treadle.journal.memory import MemoryJournal
from treadle.journal.postgres import PostgresJournal
from treadle.memory.archive.access import Store
from treadle.memory.archive.embedders import Embedder
from treadle.memory.archive.postgres_archive import PostgresArchive
from treadle.memory.archive.store import ArchiveStore

OWNER = "ann"
ALL = Filters()
DAY = 86_400.0


class Teller:
    """Appends messages and notes to threads; the n-th event of a thread is of the n-th day.

    All events are `later` by this many seconds.
    """

    def __init__(self, journal: Journal | None = None, later: float = 0.0) -> None:
        self._later = later
        self.journal = journal or MemoryJournal()
        self._claims: dict[str, Claim] = {}
        self._seqs: dict[str, int] = {}

    async def thread(self, id: str, owner: str = OWNER, parent: str = "") -> None:
        work = Work(parent, "run", "call", 1, Limits()) if parent else None
        info = ThreadInfo(id=id, agent="a", owner=owner, created_at=1.0, updated_at=1.0, work=work)
        self._claims[id] = await self.journal.create(info)
        self._seqs[id] = 0

    async def note(
        self,
        thread: str,
        text: str,
        id: str = "",
        tags: Sequence[str] = (),
        at: float | None = None,
    ) -> str:
        id = id or f"passage_{thread}_{self._seqs[thread]}"
        await self.append(
            thread,
            PassageAdded(passage_id=id, text=text, author="user", tags=tuple(tags), written_at=at),
        )
        return id

    async def say(self, thread: str, said: str | Message, role: str = "user") -> None:
        item = message(role, said) if isinstance(said, str) else said  # type: ignore[arg-type]
        await self.append(thread, MessageAdded(run_id="run", item=item, origin="user"))

    async def unnote(self, thread: str, id: str) -> None:
        await self.append(thread, PassageRemoved(passage_id=id))

    async def append(self, thread: str, event: RecordedEvent) -> None:
        seq = self._seqs[thread] = self._seqs[thread] + 1
        event = replace(event, seq=seq, at=self._later + seq * DAY)
        await self.journal.append(Batch(self._claims[thread], [Envelope(event, seq)]))

    def seq(self, thread: str) -> int:
        return self._seqs[thread]

    async def delete(self, thread: str) -> None:
        await self.journal.delete(thread)
        del self._claims[thread]


def store_of(
    teller: Teller, path: Path | None = None, embedder: Embedder | None = None
) -> ArchiveStore:
    return ArchiveStore(teller.journal, path, embedder)


def any_store_of(
    teller: Teller, path: Path | None = None, embedder: Embedder | None = None
) -> Store:
    """Returns an archive in the database of the journal, if it has one for all nodes."""
    if teller.journal.has_nodes:
        return PostgresArchive(cast("PostgresJournal", teller.journal), embedder)
    return store_of(teller, path, embedder)


async def search(
    store: Store,
    text: str,
    *,
    owner: str = OWNER,
    by: By = "both",
    filters: Filters = ALL,
    limit: int = 10,
    offset: int = 0,
) -> list[Found]:
    return await store.search(owner, text, by=by, filters=filters, limit=limit, offset=offset)


async def texts(store: Store, text: str, **options: object) -> list[str]:
    return [found.text for found in await search(store, text, **options)]  # type: ignore[arg-type]
