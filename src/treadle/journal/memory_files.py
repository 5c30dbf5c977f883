"""The files of a journal in memory."""

from collections.abc import Callable, Mapping, Sequence

from treadle.domain.entries import Entry
from treadle.domain.events import RecordedEvent
from treadle.domain.mentions import mentioned
from treadle.journal.base import not_found
from treadle.journal.files import FileInfo, NewFile, preferred, unknown_file

Thread = tuple[int, str]
"""The number of a thread, and its owner."""


class MemoryFiles:
    """Fulfils `FileStore`; `thread` finds a thread by its id, and raises `ThreadNotFound`."""

    def __init__(self, thread: Callable[[str], Thread], require_open: Callable[[], None]) -> None:
        self._thread = thread
        self._require_open = require_open
        self._contents: dict[str, bytes] = {}
        # By id, owner and thread; 0 is the owner itself.
        self._uses: dict[tuple[str, str, int], FileInfo] = {}

    async def put(
        self, file: FileInfo, content: bytes, *, owner: str | None = None, thread_id: str = ""
    ) -> None:
        """Stores a content, and notes who uses it."""
        self._require_open()
        number, user = self._user(thread_id, owner) if thread_id else (0, owner or "")
        self._contents.setdefault(file.id, content)
        self._uses.setdefault((file.id, user, number), file)

    async def use(self, ids: Sequence[str], thread_id: str) -> Mapping[str, FileInfo]:
        """Notes that a thread uses files."""
        self._require_open()
        number, owner = self._thread(thread_id)
        found = {id: info for id in ids if (info := self._found(id, owner, None)) is not None}
        for id, info in found.items():
            self._uses.setdefault((id, owner, number), info)
        return found

    async def info(
        self, id: str, *, owner: str | None = None, thread_id: str = ""
    ) -> FileInfo | None:
        """Returns a file."""
        self._require_open()
        number = self._user(thread_id, owner)[0] if thread_id else None
        return self._found(id, owner, number)

    async def content(
        self, id: str, *, owner: str | None = None, thread_id: str = ""
    ) -> bytes | None:
        """Returns the content of a file."""
        info = await self.info(id, owner=owner, thread_id=thread_id)
        return None if info is None else self._contents[id]

    async def drop(self, id: str, *, owner: str) -> bool:
        """Ends the use of an owner."""
        self._require_open()
        return self._end([(id, owner, 0)])

    async def drop_owner(self, owner: str) -> None:
        """Ends all uses of an owner, except those of threads."""
        self._require_open()
        self._end([use for use in self._uses if use[1:] == (owner, 0)])

    # What the journal does with the files of a thread

    def require(self, files: Sequence[NewFile]) -> None:
        """Raises `UnknownFile` for one that is not stored and has no content."""
        for file in files:
            if file.content is None and file.info.id not in self._contents:
                raise unknown_file(file.info.id)

    def begin(self, files: Sequence[NewFile], number: int, owner: str) -> None:
        """Notes what a new thread uses, and stores what is new."""
        for file in files:
            if file.content is not None:
                self._contents.setdefault(file.info.id, file.content)
            self._uses.setdefault((file.info.id, owner, number), file.info)

    def fork(self, source: int, target: int, owner: str) -> None:
        """Notes that a fork uses the files of its source."""
        for (id, _, number), info in list(self._uses.items()):
            if number == source:
                self._uses[id, owner, target] = info

    def delete(self, number: int) -> None:
        """Ends the uses of a thread."""
        self._end([use for use in self._uses if use[2] == number])

    def release(
        self,
        number: int,
        ids: Sequence[str],
        events: Sequence[RecordedEvent],
        entries: Sequence[Entry],
    ) -> None:
        """Ends the uses of files that neither the events of a thread nor its inbox mention."""
        kept = mentioned(events) | mentioned(entries)
        self._end([use for use in self._uses if use[2] == number and use[0] in set(ids) - kept])

    def _user(self, thread_id: str, owner: str | None) -> Thread:
        number, user = self._thread(thread_id)
        if owner not in {None, user}:
            raise not_found(thread_id)
        return number, user

    def _found(self, id: str, owner: str | None, number: int | None) -> FileInfo | None:
        return preferred(
            info
            for (one, user, thread), info in self._uses.items()
            if one == id and owner in {None, user} and number in {None, thread}
        )

    def _end(self, uses: Sequence[tuple[str, str, int]]) -> bool:
        ended = [self._uses.pop(use, None) for use in uses]
        used = {id for id, _, _ in self._uses}
        for id, _, _ in uses:
            if id not in used:
                self._contents.pop(id, None)
        return any(ended)
