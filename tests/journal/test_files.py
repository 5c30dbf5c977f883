"""The contract of the files of journals; each test runs against every adapter."""

import asyncio
import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace
from tests.journal.story import conversation, make, numbered, thread

from treadle.domain.entries import SendEntry
from treadle.domain.events import EventRemoved, MessageAdded
from treadle.domain.files import InputFile
from treadle.domain.items import Message
from treadle.errors import JournalClosed, ThreadNotFound, UnknownFile
from treadle.journal.backup import backup
from treadle.journal.base import Fork, Journal
from treadle.journal.files import FileInfo, NewFile, file_id
from treadle.journal.projection import Projection
from treadle.journal.sqlite import SqliteJournal

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

CONTENT = b"%PDF-1.7\n" + bytes(5000)
OTHER = b"other" * 1000
FILE = FileInfo(file_id(CONTENT), "application/pdf", len(CONTENT), "r.pdf", 7.0)
SECOND = FileInfo(file_id(OTHER), "text/plain", len(OTHER), "o.txt", 8.0)


def mention(file: FileInfo = FILE) -> Message:
    part = InputFile(filename="r.pdf", file_id=file.id, media_type=file.media_type, size=file.size)
    return Message("user", (part,), "msg_file")


def stored_contents(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        return connection.execute("SELECT count(*) FROM file").fetchone()[0]
    finally:
        connection.close()


async def test_a_file_of_an_owner(journal: Journal) -> None:
    files = journal.files
    await files.put(FILE, CONTENT, owner="ann")
    await files.put(replace(FILE, name="again", created_at=9.0), CONTENT, owner="ann")
    assert await files.info(FILE.id, owner="ann") == FILE
    assert await files.content(FILE.id, owner="ann") == CONTENT
    for owner in ("bob", ""):
        assert await files.info(FILE.id, owner=owner) is None
        assert await files.content(FILE.id, owner=owner) is None
        assert not await files.drop(FILE.id, owner=owner)
    assert await files.content(FILE.id) == CONTENT
    assert await files.drop(FILE.id, owner="ann")
    assert await files.content(FILE.id) is None
    assert not await files.drop(FILE.id, owner="ann")


async def test_a_thread_uses_files_of_its_owner_only(journal: Journal) -> None:
    files = journal.files
    await make(journal, "a", owner="ann")
    await make(journal, "a2", owner="ann")
    await make(journal, "b", owner="bob")
    await files.put(FILE, CONTENT, owner="ann")
    await files.put(SECOND, OTHER, thread_id="a")
    assert await files.use([FILE.id, SECOND.id], "b") == {}
    assert await files.use([FILE.id, SECOND.id, "file_x"], "a2") == {
        FILE.id: FILE,
        SECOND.id: SECOND,
    }
    assert await files.content(SECOND.id, thread_id="a2") == OTHER
    assert await files.content(SECOND.id, thread_id="b") is None
    assert await files.content(SECOND.id, owner="ann") == OTHER
    with pytest.raises(ThreadNotFound):
        await files.content(SECOND.id, owner="bob", thread_id="a")
    with pytest.raises(ThreadNotFound):
        await files.info(SECOND.id, owner="bob", thread_id="a")
    with pytest.raises(ThreadNotFound):
        await files.put(SECOND, OTHER, owner="bob", thread_id="a")


async def test_a_content_is_removed_with_its_last_use(journal: Journal) -> None:
    files = journal.files
    for id in ("a", "b"):
        await make(journal, id)
        await files.put(FILE, CONTENT, thread_id=id)
    await files.put(FILE, CONTENT, owner="ann")
    await journal.delete("a")
    assert await files.content(FILE.id, thread_id="b") == CONTENT
    await journal.delete("b")
    assert await files.content(FILE.id) == CONTENT
    await files.drop_owner("bob")
    assert await files.content(FILE.id) == CONTENT
    await files.drop_owner("ann")
    assert await files.content(FILE.id) is None
    if isinstance(journal, SqliteJournal):
        await journal.close()
        assert stored_contents(journal._path) == 0


async def test_a_fork_uses_the_files_of_its_source(journal: Journal) -> None:
    driver = await make(journal, "a", owner="ann")
    await driver.append(conversation())
    await journal.files.put(FILE, CONTENT, thread_id="a")
    info = thread("f", owner="ann", forked_from="a")
    await journal.fork(Fork("a", 2, info, (), Projection(None, 1.0, "", ())))
    await journal.delete("a")
    assert await journal.files.content(FILE.id, thread_id="f") == CONTENT
    await journal.delete("f")
    assert await journal.files.content(FILE.id) is None


@pytest.mark.parametrize("elsewhere", ["nowhere", "event", "inbox", "thread"])
async def test_a_removed_message_releases_its_file(journal: Journal, elsewhere: str) -> None:
    driver = await make(journal)
    added = MessageAdded(run_id="run_1", item=mention(), origin="user")
    events = [added, *conversation()[1:]]
    if elsewhere == "event":
        events.append(replace(added, item=replace(mention(), id="msg_2")))
    events = await driver.append(numbered(events))
    await journal.files.put(FILE, CONTENT, thread_id="thread_1")
    await journal.files.put(SECOND, OTHER, thread_id="thread_1")
    if elsewhere == "inbox":
        await journal.enqueue("thread_1", SendEntry("run_2", mention()))
    if elsewhere == "thread":
        await make(journal, "thread_2")
        await journal.files.put(FILE, CONTENT, thread_id="thread_2")
    gone = EventRemoved(seq=1, at=events[0].at, run_id="run_1", event=None)
    await journal.redact(driver.claim, [gone], clears_title=True, files=[FILE.id])
    kept = await journal.files.content(FILE.id, thread_id="thread_1")
    assert kept == (CONTENT if elsewhere in {"event", "inbox"} else None)
    assert (await journal.files.content(FILE.id) is None) == (elsewhere == "nowhere")
    assert await journal.files.content(SECOND.id, thread_id="thread_1") == OTHER


async def test_a_thread_that_does_not_exist(journal: Journal) -> None:
    files = journal.files
    with pytest.raises(ThreadNotFound):
        await files.put(FILE, CONTENT, thread_id="missing")
    with pytest.raises(ThreadNotFound):
        await files.use([FILE.id], "missing")
    with pytest.raises(ThreadNotFound):
        await files.content(FILE.id, thread_id="missing")
    assert await files.content(FILE.id) is None


async def test_a_closed_journal(journal: Journal) -> None:
    await journal.close()
    with pytest.raises(JournalClosed):
        await journal.files.put(FILE, CONTENT)
    with pytest.raises(JournalClosed):
        await journal.files.info(FILE.id)


async def test_files_survive_and_a_backup_contains_them(path: Path, tmp_path: Path) -> None:
    journal = SqliteJournal(path)
    await journal.open()
    await make(journal, "a", owner="ann")
    await journal.files.put(FILE, CONTENT, thread_id="a")
    copy = tmp_path / "copy.db"
    await asyncio.to_thread(backup, path, copy)
    await journal.close()
    for one in (path, copy):
        journal = SqliteJournal(one)
        await journal.open()
        assert await journal.files.content(FILE.id, owner="ann", thread_id="a") == CONTENT
        await journal.close()


async def test_the_files_of_a_new_thread_come_with_it(journal: Journal) -> None:
    new = FileInfo(file_id(b"new"), "text/plain", 3)
    known = FileInfo(file_id(b"old"), "text/plain", 3)
    await journal.files.put(known, b"old", owner="ann")
    files = [NewFile(new, b"new"), NewFile(known)]
    await journal.create(thread(owner="ann"), files=files)
    for id, content in ((new.id, b"new"), (known.id, b"old")):
        assert await journal.files.content(id, thread_id="thread_1") == content
    gone = NewFile(FileInfo(file_id(b"gone"), "text/plain", 4))
    other = NewFile(FileInfo(file_id(b"other"), "text/plain", 5), b"other")
    with pytest.raises(UnknownFile):
        await journal.create(thread("thread_2", owner="ann"), files=[other, gone])
    with pytest.raises(ThreadNotFound):
        await journal.info("thread_2")
    assert await journal.files.info(other.info.id) is None
    await journal.delete("thread_1")
    assert await journal.files.info(new.id) is None
    assert await journal.files.content(known.id, owner="ann") == b"old"
