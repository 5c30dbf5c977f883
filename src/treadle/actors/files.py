"""The contents of files: they leave items before these are journaled, and return for requests.

So an event, a snapshot and an entry in an inbox stay small, and a content that is sent again, or to
a fork, is stored once.
"""

import asyncio
import base64
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, cast

from msgspec.structs import replace

from treadle.clock import now
from treadle.domain.entries import AddEntry, Entry, OutputEntry, ScheduleEntry, SendEntry
from treadle.domain.files import InputFile, Media, data_of, described, filled
from treadle.domain.items import ContentPart, FunctionCallOutput, Item, Message, OutputPart
from treadle.domain.media import base64_size, is_data_url, read_data_url
from treadle.errors import InvalidInput, JournalError
from treadle.journal.files import FileInfo, FileStore, NewFile, file_id, unknown_file
from treadle.ports import Kept

T = TypeVar("T")
Part = TypeVar("Part", ContentPart, OutputPart)

INLINE_BYTES = 4096
"""The most bytes of a content that stays in its item."""
CACHED_CHARS = 64 * 1024 * 1024
"""The most base64 that a process keeps in memory for the requests of its runs."""
_SMALL = 256 * 1024  # bytes: to encode and hash them takes less than a millisecond


class Contents:
    """The contents that were requested last, in base64, by file id."""

    def __init__(self, most: int = CACHED_CHARS) -> None:
        self._most = most
        self._chars = 0
        self._kept: OrderedDict[str, str] = OrderedDict()

    def get(self, id: str) -> str | None:
        """Returns a content, or None."""
        data = self._kept.get(id)
        if data is not None:
            self._kept.move_to_end(id)
        return data

    def add(self, id: str, data: str) -> None:
        """Keeps a content; those that were not used for longest leave."""
        if id in self._kept or len(data) > self._most:
            return
        self._kept[id] = data
        self._chars += len(data)
        while self._chars > self._most:
            _, left = self._kept.popitem(last=False)
            self._chars -= len(left)


class ThreadFiles:
    """Fulfils `RunFiles` for one thread."""

    def __init__(self, store: FileStore, thread_id: str, contents: Contents) -> None:
        self._store = store
        self._thread_id = thread_id
        self._contents = contents

    async def keep(self, item: Kept) -> Kept:
        """Returns an item whose large contents are stored apart.

        A content that cannot be stored stays in the item, because what a tool did must be recorded.
        """
        parts = media_parts(item)
        if not parts:
            return item
        try:
            return with_parts(item, await self._kept(parts, is_strict=False))
        except (InvalidInput, JournalError):
            return item

    async def accepted(self, entry: Entry) -> Entry:
        """Returns an entry whose large contents are stored apart.

        Raises `UnknownFile` for a file that the owner of the thread has not, `InvalidInput` for one
        of another kind, and `JournalError`.
        """
        match entry:
            case SendEntry(item=Message() as item) if parts := _media_of(
                (*entry.before, item, *entry.so_far)
            ):
                kept = await self._kept(parts, is_strict=True)
                before = tuple(with_parts(one, kept) for one in entry.before)
                so_far = tuple(_with_parts(one, kept) for one in entry.so_far)
                item = with_parts(item, kept)
                return replace(entry, item=item, before=before, so_far=so_far)
            case AddEntry() if parts := _media_of(entry.items):
                kept = await self._kept(parts, is_strict=True)
                return replace(entry, items=tuple(_with_parts(one, kept) for one in entry.items))
            case ScheduleEntry() if parts := media_parts(entry.schedule.item):
                kept = await self._kept(parts, is_strict=True)
                item = with_parts(entry.schedule.item, kept)
                return replace(entry, schedule=replace(entry.schedule, item=item))
            case OutputEntry() if parts := _media(entry.output):
                kept = await self._kept(parts, is_strict=True)
                return replace(entry, output=_replaced(entry.output, kept))
            case _:
                return entry

    async def load(self, items: Sequence[Item]) -> Sequence[Item]:
        """Returns items with the contents of their files."""
        referring = [
            (index, [part for part in parts if part.file_id])
            for index, item in enumerate(items)
            if (parts := media_parts(item))
        ]
        loaded: list[Item] | None = None
        for index, parts in referring:
            found = {part: await self._loaded(part) for part in parts}
            if found:
                loaded = list(items) if loaded is None else loaded
                loaded[index] = with_parts(items[index], found)
        return items if loaded is None else loaded

    async def _loaded(self, part: Media) -> Media:
        data = self._contents.get(part.file_id)
        if data is None:
            content = await self._store.content(part.file_id, thread_id=self._thread_id)
            if content is None:
                return part
            data = await _worked(len(content), lambda: base64.b64encode(content).decode())
            self._contents.add(part.file_id, data)
        return filled(part, data)

    async def _kept(self, parts: Sequence[Media], *, is_strict: bool) -> Mapping[Media, Media]:
        """Returns what stands in place of parts whose content is stored apart."""
        used = [part for part in parts if part.file_id]
        known: Mapping[str, FileInfo] = {}
        if used:
            known = await self._use([part.file_id for part in used])
        found: dict[Media, Media] = {}
        for part in used:
            info = known.get(part.file_id)
            if info is not None:
                found[part] = described(part, info.id, info.media_type, info.size, info.name)
            elif is_strict:
                raise unknown_file(part.file_id)
        for part in parts:
            if part not in found and _size(part) > INLINE_BYTES:
                found[part] = await self._stored(part)
        return found

    async def _stored(self, part: Media) -> Media:
        read = await _worked(_size(part), lambda: _content_of(part))
        if read is None:
            return part  # its data is not what it claims to be; requests leave it out
        info, content = read
        await self._put(info, content)
        return described(part, info.id, info.media_type, info.size)

    async def _use(self, ids: Sequence[str]) -> Mapping[str, FileInfo]:
        """Notes that the thread uses files; returns those that its owner may read."""
        return await self._store.use(ids, self._thread_id)

    async def _put(self, info: FileInfo, content: bytes) -> None:
        """Stores a content that the thread uses."""
        await self._store.put(info, content, thread_id=self._thread_id)


class NewThreadFiles(ThreadFiles):
    """The files of a thread of `owner` that does not exist yet; `new` is stored with it."""

    def __init__(self, store: FileStore, owner: str) -> None:
        super().__init__(store, "", Contents())
        self.new: list[NewFile] = []
        self._owner = owner

    async def without_contents(self, items: Sequence[Item]) -> Sequence[Item]:
        """Returns items whose large contents are in `new`; raises as `accepted` does."""
        parts = _media_of(items)
        if not parts:
            return items
        kept = await self._kept(parts, is_strict=True)
        return [_with_parts(one, kept) for one in items]

    async def _use(self, ids: Sequence[str]) -> Mapping[str, FileInfo]:
        found: dict[str, FileInfo] = {}
        for id in ids:
            info = await self._store.info(id, owner=self._owner)
            if info is not None:
                found[id] = info
        self.new += map(NewFile, found.values())
        return found

    async def _put(self, info: FileInfo, content: bytes) -> None:
        self.new.append(NewFile(info, content))


def _media_of(items: Sequence[Item]) -> Sequence[Media]:
    return [part for item in items for part in media_parts(item)]


def _with_parts(item: Item, parts: Mapping[Media, Media]) -> Item:
    return with_parts(item, parts) if media_parts(item) else item


def media_parts(item: Item) -> Sequence[Media]:
    """Returns the files, images and audio in an item."""
    if isinstance(item, Message):
        return _media(item.content)
    return _media(item.output) if isinstance(item, FunctionCallOutput) else ()


def with_parts(item: Kept, parts: Mapping[Media, Media]) -> Kept:
    """Returns an item with other parts in place of some of its own."""
    if not parts:
        return item
    if isinstance(item, Message):
        return cast("Kept", replace(item, content=_replaced(item.content, parts)))
    assert isinstance(item, FunctionCallOutput)
    return cast("Kept", replace(item, output=_replaced(item.output, parts)))


def _media(content: str | Sequence[ContentPart]) -> Sequence[Media]:
    if isinstance(content, str):
        return ()
    return [part for part in content if isinstance(part, Media)]


def _replaced(content: T, parts: Mapping[Media, Media]) -> T:
    if isinstance(content, str):
        return content
    given = cast("Sequence[ContentPart]", content)
    other = tuple(parts.get(part, part) if isinstance(part, Media) else part for part in given)
    return cast("T", other)


def _size(part: Media) -> int:
    url = data_of(part)
    return part.size or base64_size(url) if is_data_url(url) else 0


def _content_of(part: Media) -> tuple[FileInfo, bytes] | None:
    name = part.filename if isinstance(part, InputFile) else ""
    read = read_data_url(data_of(part), name)
    if isinstance(read, str):
        return None
    content = read.decoded()
    return FileInfo(file_id(content), read.media_type, len(content), name, now()), content


async def _worked(size: int, work: Callable[[], T]) -> T:
    """Returns what `work` returns; for large contents it works outside of the event loop."""
    return work() if size <= _SMALL else await asyncio.to_thread(work)
