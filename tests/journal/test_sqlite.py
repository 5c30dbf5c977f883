"""The parts that only the SQLite journal has: files, locks, disks, versions."""

import asyncio
import contextlib
import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from tests.descriptors import none_left
from tests.journal.story import Driver, conversation, make, numbered, thread

from treadle.domain.entries import CancelEntry
from treadle.domain.envelope import Envelope
from treadle.domain.events import MessageAdded
from treadle.domain.items import user_message
from treadle.errors import (
    JournalClosed,
    JournalCorrupt,
    JournalError,
    JournalFull,
    JournalLocked,
    JournalReadOnly,
    JournalTooNew,
    StaleWriter,
    ThreadDamaged,
)
from treadle.journal import driver_lock, sqlite_file
from treadle.journal.base import Batch, ThreadQuery
from treadle.journal.sqlite import SqliteJournal
from treadle.journal.sqlite_connection import MOST_ROWS, size_of

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]


@contextlib.asynccontextmanager
async def opened(path: Path, *, drive: bool = True) -> AsyncIterator[SqliteJournal]:
    journal = SqliteJournal(path, drive=drive)
    await journal.open()
    try:
        yield journal
    finally:
        await journal.close()


@contextlib.contextmanager
def raw(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None, timeout=0)
    try:
        yield connection
    finally:
        connection.close()


async def test_what_was_kept_is_there_in_another_process(path: Path) -> None:
    async with opened(path) as journal:
        driver = await make(journal)
        events = await driver.append(conversation())
        await journal.snapshot(driver.claim, driver.state)
    async with opened(path) as journal:
        assert await journal.read("thread_1", after=0) == events
        assert await journal.load("thread_1") == driver.state


async def test_every_size_of_a_group_is_written(path: Path) -> None:
    async with opened(path) as journal:
        driver = await make(journal)
        message = MessageAdded(run_id="r", item=user_message("hi"), origin="user")
        seq = 0
        for count in (1, 2, 31, 32, 33, 63, 64, 65, 255, 256, 257, 700):
            entries = [
                Envelope(event, event.seq) for event in numbered([message] * count, after=seq)
            ]
            await journal.append(Batch(driver.claim, entries))
            seq += count
        assert len(await journal.read("thread_1", after=0, limit=10_000)) == seq


def test_statements_have_few_sizes() -> None:
    assert len({size_of(rows) for rows in range(1, 5000)}) <= 36
    assert max(size_of(rows) for rows in range(1, 5000)) == MOST_ROWS


async def test_a_write_that_fails_reaches_only_its_caller(path: Path) -> None:
    async with opened(path) as journal:
        one, two = await make(journal), await make(journal, "thread_2")
        results = await asyncio.gather(
            one.append(conversation()),
            journal.create(thread("thread_1")),
            two.append(conversation()),
            return_exceptions=True,
        )
        assert [isinstance(result, JournalError) for result in results] == [False, True, False]
        for id in ("thread_1", "thread_2"):
            assert len(await journal.read(id, after=0)) == 7


async def test_a_thread_deleted_right_behind_its_append_leaves_no_row(path: Path) -> None:
    async with opened(path) as journal:
        driver = await make(journal)
        await asyncio.gather(driver.append(conversation()), journal.delete("thread_1"))
    with raw(path) as connection:
        tables = [row[0] for row in connection.execute(_TABLES)]
        assert len(tables) > 5
        for table in tables:
            if table != "change":  # for desks: bare numbers, and that the thread was deleted
                assert connection.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


_TABLES = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"


async def test_only_one_drives(path: Path) -> None:
    async with opened(path) as journal:
        with pytest.raises(JournalLocked, match="drive=False"):
            async with opened(path):
                raise AssertionError
        await make(journal)
        async with opened(path, drive=False) as reading:
            assert (await reading.info("thread_1")).agent == "a"
    async with opened(path):
        pass


async def test_it_is_driven_as_long_as_a_driver_has_it_open(path: Path) -> None:
    async with opened(path):
        pass
    async with opened(path, drive=False) as reading:
        assert not await reading.is_driven()
        async with opened(path):
            assert await reading.is_driven()
        assert not await reading.is_driven()


async def test_a_symbolic_link_leads_to_the_lock_of_its_file(path: Path) -> None:
    link = path.parent / "current" / "other.db"
    link.parent.mkdir()
    link.symlink_to(path)
    async with opened(link) as journal:
        await make(journal)
        with pytest.raises(JournalLocked):
            async with opened(path):
                raise AssertionError
    async with opened(path) as journal:
        assert (await journal.info("thread_1")).agent == "a"
        with pytest.raises(JournalLocked):
            async with opened(link):
                raise AssertionError
    assert [file.name for file in link.parent.iterdir()] == ["other.db"]


async def test_a_loop_of_links_is_refused(path: Path) -> None:
    path.symlink_to(path)
    with pytest.raises(JournalError):
        async with opened(path):
            raise AssertionError


@pytest.mark.parametrize("drive", [True, False])
async def test_a_file_with_two_names_is_refused(path: Path, drive: bool) -> None:
    async with opened(path) as journal:
        await make(journal)
    other = path.with_name("other.db")
    other.hardlink_to(path)
    for name in (path, other):
        with pytest.raises(JournalError, match="2 names"):
            async with opened(name, drive=drive):
                raise AssertionError
    other.unlink()
    async with opened(path, drive=drive) as journal:
        assert (await journal.info("thread_1")).agent == "a"


FORKING = """
import asyncio, os, signal, sys
from pathlib import Path
from treadle.journal.sqlite import SqliteJournal

async def main():
    journal = SqliteJournal(Path(sys.argv[1]))
    await journal.open()
    child = os.fork()
    if child == 0:
        os.close(1)
        signal.pause()
    print(child, flush=True)
    if sys.argv[2] == "close":
        await journal.close()
    else:
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.mark.parametrize("end", ["close", "kill"])
async def test_a_forked_process_does_not_keep_the_lock(path: Path, end: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FORKING, path, end, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    child = int(await process.stdout.readline())
    try:
        await process.communicate()
        os.kill(child, 0)  # it lives
        async with opened(path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)


async def test_another_process_that_drives_is_refused_until_it_is_killed(path: Path) -> None:
    code = f"""
import asyncio
from pathlib import Path
from treadle.journal.sqlite import SqliteJournal
async def main():
    await SqliteJournal(Path({str(path)!r})).open()
    print("open", flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"open\n"
        with pytest.raises(JournalLocked):
            async with opened(path):
                raise AssertionError
    finally:
        process.kill()
        await process.wait()
    async with opened(path):
        pass


async def test_opening_and_closing_the_lock_does_not_free_it(path: Path) -> None:
    """A tool that reads all files of a folder does that."""
    async with opened(path):
        for file in path.parent.iterdir():
            file.read_bytes()
        code = f"""
import asyncio
from pathlib import Path
from treadle.journal.sqlite import SqliteJournal
asyncio.run(SqliteJournal(Path({str(path)!r})).open())
"""
        done = await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", code], capture_output=True, check=False
        )
        assert b"JournalLocked" in done.stderr


async def test_a_second_process_that_is_refused_leaves_the_log_of_the_driver(path: Path) -> None:
    """The last process to close the database removes the log; this one must see the other."""
    async with opened(path) as journal:
        driver = await make(journal)
        events = await driver.append(conversation())
        with pytest.raises(JournalLocked):
            async with opened(path):
                raise AssertionError
        code = f"""
import asyncio
from pathlib import Path
from treadle.journal.sqlite import SqliteJournal
async def main():
    journal = SqliteJournal(Path({str(path)!r}), drive=False)
    await journal.open()
    print(len(await journal.read("thread_1", after=0)))
    await journal.close()
asyncio.run(main())
"""
        for _ in range(2):
            assert await python(code) == f"{len(events)}\n"
            assert path.with_name("treadle.db-wal").exists()
            events += await driver.append(conversation(f"run_{len(events)}"))


async def python(code: str) -> str:
    """Returns the output of a program in a process of its own, of both streams."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=Path(__file__).parent.parent.parent,
    )
    output, _ = await process.communicate()
    return output.decode()


async def test_a_disk_without_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(driver_lock, "_take", refuse)
    with pytest.raises(JournalError, match="on a disk of this machine"):
        async with opened(path):
            raise AssertionError


async def test_a_process_next_to_the_driver_reads_and_enqueues(path: Path) -> None:
    async with opened(path) as driving, opened(path, drive=False) as other:
        driver = await make(driving)
        await driver.append(conversation())
        assert await other.load("thread_1") == driver.state
        await other.enqueue("thread_1", CancelEntry("run_1"))
        assert await driving.waiting_threads() == ["thread_1"]


async def test_a_database_of_a_newer_treadle_is_refused(path: Path) -> None:
    async with opened(path):
        pass
    with raw(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    for drive in (True, False):
        with pytest.raises(JournalTooNew, match="newer treadle"):
            async with opened(path, drive=drive):
                raise AssertionError


async def test_a_database_of_another_program_is_refused(path: Path) -> None:
    with raw(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    before = path.read_bytes()
    for drive in (True, False):
        with pytest.raises(JournalCorrupt, match="another program"):
            async with opened(path, drive=drive):
                raise AssertionError
        assert path.read_bytes() == before
        assert [file.name for file in path.parent.iterdir()] == ["treadle.db"]


async def test_a_database_without_tables_must_be_driven_once(path: Path) -> None:
    with raw(path) as connection:
        connection.execute(f"PRAGMA application_id = {sqlite_file.APPLICATION_ID}")
    with pytest.raises(JournalError, match="has no tables yet"):
        async with opened(path, drive=False):
            raise AssertionError
    async with opened(path):
        pass
    async with opened(path, drive=False):
        pass


def test_a_migration_happens_whole_or_not_at_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "_migrations", lambda: ["CREATE TABLE a (x);"])
    sqlite_file.make_file(path)
    connection = sqlite_file.connect(path)
    sqlite_file.migrate(connection, "treadle.db")
    broken = ["CREATE TABLE a (x);", "CREATE TABLE b (x); CREATE TABLE a (x);"]
    monkeypatch.setattr(sqlite_file, "_migrations", lambda: broken)
    with pytest.raises(sqlite3.OperationalError, match="already exists"):
        sqlite_file.migrate(connection, "treadle.db")
    connection.close()
    with raw(path) as again:
        assert again.execute("SELECT name FROM sqlite_master").fetchall() == [("a",)]
        assert again.execute("PRAGMA user_version").fetchone() == (1,)


async def test_no_database_to_read(path: Path) -> None:
    with pytest.raises(JournalError, match="start the process that drives it first"):
        async with opened(path, drive=False):
            raise AssertionError
    assert not path.exists()
    path.touch()  # the process that drives it has not come further
    with pytest.raises(JournalError, match="has no tables yet"):
        async with opened(path, drive=False):
            raise AssertionError


async def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"treadle\.db cannot be created; create its"):
        async with opened(tmp_path / "none" / "treadle.db"):
            raise AssertionError


async def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="is a folder"):
        async with opened(tmp_path):
            raise AssertionError


READ_ONLY = """
import asyncio, os, tempfile
from pathlib import Path
from tests.journal.story import conversation, make, thread
from treadle.errors import JournalError
from treadle.journal.sqlite import SqliteJournal

async def attempt(what, path, drive):
    journal = SqliteJournal(path, drive=drive)
    try:
        await journal.open()
        print(what, drive, "read", len(await journal.read("thread_1", after=0)))
        await journal.create(thread("thread_2"))
        print(what, drive, "created")
    except JournalError as error:
        print(what, drive, type(error).__name__, "allow writing to it" in error.message)
    await journal.close()

async def main():
    for what in ("file", "folder", "new"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            path = folder / "treadle.db"
            if what != "new":
                journal = SqliteJournal(path)
                await journal.open()
                await (await make(journal)).append(conversation())
                await journal.close()
            for file in folder.iterdir():
                file.chmod(0o444 if what == "file" else 0o666)
            folder.chmod(0o777 if what == "file" else 0o555)
            if root:
                os.seteuid(65534)  # root may write anywhere
            await attempt(what, path, True)
            if what != "new":
                await attempt(what, path, False)
            if root:
                os.seteuid(0)
            folder.chmod(0o777)

root = os.geteuid() == 0
asyncio.run(main())
"""


async def test_read_only_files_raise_and_are_read_if_possible() -> None:
    """SQLite reads a database with a log only if it can create the files next to it, or is told."""
    assert (await python(READ_ONLY)).splitlines() == [
        "file True JournalReadOnly True",
        "file False read 7",
        "file False JournalReadOnly True",
        "folder True JournalReadOnly True",
        "folder False read 7",
        "folder False JournalReadOnly True",
        "new True JournalReadOnly True",
    ]


async def test_a_log_that_cannot_be_read_is_not_passed_over(path: Path) -> None:
    async with opened(path) as journal:
        await (await make(journal)).append(conversation())
        copy = path.parent / "copy"
        copy.mkdir()
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", copy / f"treadle.db{end}")
    code = f"""
import asyncio, os
from pathlib import Path
from treadle.errors import JournalReadOnly
from treadle.journal.sqlite import SqliteJournal
Path("/").as_uri()  # imports modules, which the other user may not be allowed to read
if os.geteuid() == 0:
    os.seteuid(65534)
try:
    asyncio.run(SqliteJournal(Path({str(copy / "treadle.db")!r}), drive=False).open())
except JournalReadOnly as error:
    print(error)
"""
    for file in copy.iterdir():
        file.chmod(0o444)
    copy.chmod(0o555)
    for folder in (copy.parent, *copy.parent.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    assert "The newest events are in treadle.db-wal" in await python(code)
    copy.chmod(0o755)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, JournalFull),
        (errno.EDQUOT, JournalFull),
        (errno.EROFS, JournalReadOnly),
        (errno.EMFILE, JournalError),
    ],
)
def test_errors_of_the_file_system_have_a_type(number: int, kind: type[JournalError]) -> None:
    error = sqlite_file.file_error(OSError(number, os.strerror(number)), "treadle.db")
    assert type(error) is kind
    assert "treadle.db" in error.message


async def test_a_connection_that_may_not_write(path: Path) -> None:
    async with opened(path) as journal:
        driver = await make(journal)
        journal._connections[0].execute("PRAGMA query_only = on")
        with pytest.raises(JournalReadOnly, match="read-only"):
            await driver.append(conversation())
        assert await journal.read("thread_1", after=0) == []
        journal._connections[0].execute("PRAGMA query_only = off")
        await (await again(journal, driver)).append(conversation())


@pytest.mark.parametrize(
    "content", [b"no database " * 100, b"SQLite format 3\x00" + b"\xff" * 4096]
)
async def test_a_file_that_is_not_a_database(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(JournalCorrupt, match="backup"):
        async with opened(path):
            raise AssertionError


async def test_a_damaged_page_costs_only_what_is_on_it(path: Path) -> None:
    async with opened(path) as journal:
        big = await make(journal, "thread_1")
        events = [e for n in range(40) for e in conversation(f"run_{n}", "x" * 2000)]
        await big.append(events)
        small = await make(journal, "thread_2")
        await small.append(conversation())
    with raw(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = (
            connection.execute(
                "SELECT pageno FROM dbstat WHERE name = 'event' AND pagetype = 'leaf' LIMIT 1"
            ).fetchone()
            if _has_dbstat(connection)
            else (None,)
        )
    if page is None:
        pytest.skip("this SQLite has no dbstat table")
    content = bytearray(path.read_bytes())
    start = (page - 1) * sqlite_file.PAGE_BYTES
    content[start : start + sqlite_file.PAGE_BYTES] = b"\xff" * sqlite_file.PAGE_BYTES
    path.write_bytes(content)
    async with opened(path) as journal:
        with pytest.raises(JournalCorrupt):
            await journal.load("thread_1")
        assert len(await journal.read("thread_2", after=0)) == 7
        await Driver(journal, await journal.claim("thread_2"), small.state).append(
            conversation("run_2")
        )


def _has_dbstat(connection: sqlite3.Connection) -> bool:
    try:
        connection.execute("SELECT 1 FROM dbstat LIMIT 1")
    except sqlite3.OperationalError:
        return False
    return True


async def test_an_unreadable_event(path: Path) -> None:
    async with opened(path) as journal:
        driver = await make(journal)
        await driver.append(conversation())
    with raw(path) as connection:
        connection.execute('UPDATE event SET body = \'{"type":"what"}\' WHERE position & 255 = 3')
    async with opened(path) as journal:
        with pytest.raises(JournalCorrupt, match="cannot read"):
            await journal.load("thread_1")
        assert len(await journal.read("thread_1", after=0, limit=2)) == 2


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM event WHERE position & 255 = 3",
        "UPDATE event SET body = '' WHERE position & 255 = 3",
        "UPDATE event SET body = x'ff00ff' WHERE position & 255 = 3",
        "UPDATE event SET body = '{}' WHERE position & 255 = 3",
        "UPDATE event SET body = '}' WHERE position & 255 = 3",
        "UPDATE event SET body = 7 WHERE position & 255 = 3",
        "UPDATE event SET body = replace(body, '\"seq\":3', '\"seq\":9') WHERE position & 255 = 3",
    ],
)
async def test_damaged_events_raise(path: Path, damage: str) -> None:
    async with opened(path) as journal:
        driver, other = await make(journal), await make(journal, "thread_2")
        await driver.append(conversation())
        with raw(path) as connection:
            connection.execute(damage)
        await other.append(conversation())
        with pytest.raises(ThreadDamaged) as caught:
            await journal.load("thread_1")
        assert (caught.value.thread_id, caught.value.seq) == ("thread_1", 3)
        with pytest.raises(JournalCorrupt):
            await journal.read("thread_1", after=0)
        assert "hi" not in caught.value.message.split()  # no word of the conversation
        assert len(await journal.read("thread_1", after=0, until=2)) == 2
        assert await journal.load("thread_1", at=2) is not None
        assert await journal.load("thread_2") == other.state
        assert [info.id for info in await journal.threads(ThreadQuery(limit=9))] == [
            "thread_2",
            "thread_1",
        ]


@pytest.mark.parametrize(
    ("table", "column"), [("snapshot", "head"), ("history", "items"), ("thread", "metadata")]
)
@pytest.mark.parametrize("value", ["'{broken'", "x'ff'"])
async def test_other_damaged_rows_hide_no_thread(
    path: Path, table: str, column: str, value: str
) -> None:
    async with opened(path) as journal:
        driver = await make(journal)
        await driver.append(conversation())
        await journal.snapshot(driver.claim, driver.state)
        with raw(path) as connection:
            connection.execute(f"UPDATE {table} SET {column} = {value}")
        # All of it but the metadata follows from the events.
        assert (await journal.info("thread_1")).metadata == {}
        assert (await journal.load("thread_1")) == driver.state
        assert len(await journal.read("thread_1", after=0)) == 7


@pytest.mark.parametrize("part", [0.5, 0.9])
async def test_a_truncated_file_is_damaged(path: Path, part: float) -> None:
    async with opened(path) as journal:
        driver = await make(journal)
        await driver.append([e for n in range(40) for e in conversation(f"run_{n}", "x" * 2000)])
    with path.open("r+b") as file:
        file.truncate(int(path.stat().st_size * part))
    with pytest.raises(JournalCorrupt, match="backup"):
        async with opened(path) as journal:
            await journal.load("thread_1")


async def test_a_process_that_dies_in_a_migration_leaves_the_old_tables(path: Path) -> None:
    async with opened(path) as journal:
        await (await make(journal)).append(conversation())
    code = f"""
import os
from pathlib import Path
from treadle.journal import sqlite_file
connection = sqlite_file.connect(Path({str(path)!r}))
connection.create_function("die", 0, lambda: os._exit(9))
first = sqlite_file._migrations()
sqlite_file._migrations = lambda: [*first, "CREATE TABLE b (x); DROP TABLE run; SELECT die();"]
sqlite_file.migrate(connection, "treadle.db")
print("not reached")
"""
    assert await python(code) == ""
    async with opened(path) as journal:
        assert len(await journal.runs("thread_1")) == 1
        assert len(await journal.read("thread_1", after=0)) == 7


async def test_a_full_disk_raises_and_is_survived(path: Path) -> None:
    async with opened(path) as journal:
        driver = await make(journal)
        before = await driver.append(conversation())
        with no_room(journal), pytest.raises(JournalFull, match="make room"):
            await driver.append(conversation("run_2", "x" * 100_000))
        assert await journal.read("thread_1", after=0) == before
        assert [run.id for run in await journal.runs("thread_1")] == ["run_1"]
        assert (await journal.info("thread_1")).status == "completed"
        driver = await again(journal, driver)
        await driver.append(conversation("run_2", "x" * 100_000))
        assert await journal.load("thread_1") == driver.state


async def test_what_was_appended_behind_a_failed_append_is_refused_with_it(path: Path) -> None:
    """Otherwise the thread would have a gap, and an entry could be consumed without its events."""
    async with opened(path) as journal:
        driver, other = await make(journal), await make(journal, "thread_2")
        kept = await driver.append(conversation())
        await journal.enqueue("thread_1", CancelEntry("run_1"))
        (waiting,) = await journal.inbox("thread_1")
        with no_room(journal):
            events = numbered(conversation("run_2", "x" * 100_000), after=7)
            futures = [
                journal.append(Batch(driver.claim, entries, consumed))
                for entries, consumed in (
                    ([Envelope(e, e.seq) for e in events[:3]], ()),
                    ([Envelope(e, e.seq) for e in events[3:4]], ()),
                    ([], (waiting.number,)),
                )
            ]
            await other.append(conversation())
            outcomes = await asyncio.gather(*futures, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [JournalFull, StaleWriter, StaleWriter]
        with pytest.raises(StaleWriter, match="claim the thread again"):
            await driver.append(conversation("run_3"))
        assert await journal.read("thread_1", after=0) == kept
        assert await journal.inbox("thread_1") == [waiting]
        await (await again(journal, driver)).append(conversation("run_2"), [waiting.number])
        assert len(await journal.read("thread_1", after=0)) == 14


async def test_a_stale_append_does_not_end_the_newer_claim(path: Path) -> None:
    async with opened(path) as journal:
        old = await make(journal)
        new = await again(journal, old)
        with pytest.raises(StaleWriter):
            await old.append(conversation())
        await new.append(conversation())


async def again(journal: SqliteJournal, driver: Driver) -> Driver:
    """Returns a driver that takes the thread over from `driver`."""
    return Driver(journal, await journal.claim("thread_1"), driver.state)


@contextlib.contextmanager
def no_room(journal: SqliteJournal) -> Iterator[None]:
    """The database can grow by two pages and no more."""
    connection = journal._connections[0]
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    try:
        yield
    finally:
        connection.execute("PRAGMA max_page_count = 1000000")


async def test_a_disk_that_is_really_full(tmp_path: Path) -> None:
    """A limit on file sizes replaces the full disk: writes beyond it fail in the system."""
    code = f"""
import asyncio, resource, signal
from pathlib import Path
from tests.journal.story import conversation, make
from treadle.errors import JournalError
from treadle.journal.sqlite import SqliteJournal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
async def main():
    journal = SqliteJournal(Path({str(tmp_path / "treadle.db")!r}))
    await journal.open()
    driver = await make(journal)
    kept = 0
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
    try:
        for n in range(1000):
            await driver.append(conversation(f"run_{{n}}", "x" * 5000))
            kept += 7
    except JournalError as error:
        print(type(error).__name__, kept, len(await journal.read("thread_1", after=0, limit=9999)))
asyncio.run(main())
"""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", code],
        capture_output=True,
        cwd=Path(__file__).parent.parent.parent,
        timeout=50,
        check=False,
    )
    name, kept, read = done.stdout.decode().split() or (done.stderr.decode(), 0, 0)
    assert name in {"JournalFull", "JournalError"}
    assert int(kept) == int(read) > 0


async def test_a_database_that_another_program_holds(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.05)
    async with opened(path) as journal:
        driver = await make(journal)
        with raw(path) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(JournalLocked, match="try again"):
                await driver.append(conversation())
            assert await journal.read("thread_1", after=0) == []
            other.execute("ROLLBACK")
        await (await again(journal, driver)).append(conversation())


async def test_a_failed_claim_stays_refused_if_an_older_one_fails_after_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise what the newest driver appends next would leave a gap."""
    monkeypatch.setattr(sqlite_file, "BUSY_SECONDS", 0.05)
    async with opened(path) as journal:
        old = await make(journal)
        new = await again(journal, old)
        with raw(path) as other:
            other.execute("BEGIN IMMEDIATE")
            for driver in (new, old):
                with pytest.raises(JournalLocked):
                    await driver.append(conversation()[:1])
            other.execute("ROLLBACK")
        lost = numbered(conversation(), after=1)
        with pytest.raises(StaleWriter, match="claim the thread again"):
            await journal.append(Batch(new.claim, [Envelope(e, e.seq) for e in lost]))
        await (await again(journal, new)).append(conversation())


async def test_a_claim_in_another_process_fences_the_driver(path: Path) -> None:
    code = f"""
import asyncio
from pathlib import Path
from treadle.journal.sqlite import SqliteJournal
async def main():
    journal = SqliteJournal(Path({str(path)!r}), drive=False)
    await journal.open()
    print((await journal.claim("thread_1")).epoch)
    await journal.close()
asyncio.run(main())
"""
    async with opened(path) as journal:
        driver = await make(journal)
        events = await driver.append(conversation()[:2])
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await process.communicate()
        assert int(printed) == driver.claim.epoch + 1
        with pytest.raises(StaleWriter):
            await driver.append(conversation()[2:])
        assert await journal.read("thread_1", after=0) == events


async def test_a_page_of_huge_events_is_read_in_pieces(path: Path) -> None:
    async with opened(path) as journal:
        driver = await make(journal)
        events = await driver.append(
            [e for n in range(4) for e in conversation(f"run_{n}", "x" * 300_000)]
        )
        for connection in [await journal._read(lambda c: c) for _ in range(8)]:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 700_000)
        found, after = [], 0
        while page := await journal.read("thread_1", after=after):
            assert len(page) < len(events)
            found += page
            after = page[-1].seq
        assert found == events


async def test_conversations_are_their_owners_alone(path: Path) -> None:
    async with opened(path) as journal:
        await make(journal)
        files = {p.name: p.stat().st_mode & 0o777 for p in path.parent.iterdir()}
    assert set(files.values()) == {0o600}, files


async def test_a_journal_that_was_never_opened(path: Path) -> None:
    journal = SqliteJournal(path)
    with pytest.raises(JournalClosed):
        await journal.claim("thread_1")
    with pytest.raises(JournalClosed):
        await journal.info("thread_1")
    await journal.close()


async def test_a_snapshot_that_lacks_items_is_not_used(path: Path) -> None:
    async with opened(path) as journal:
        driver = await make(journal)
        await driver.append(conversation())
        await journal.snapshot(driver.claim, driver.state)
        with raw(path) as connection:
            connection.execute("DELETE FROM history")
        assert await journal.load("thread_1") == driver.state


@pytest.mark.parametrize("left", range(8))
async def test_without_file_descriptors(tmp_path: Path, left: int) -> None:
    journal = SqliteJournal(tmp_path / "treadle.db")
    problems: list[str] = []
    with none_left(left):
        try:
            await journal.open()
        except JournalError as error:
            problems.append(error.message)
        else:
            await journal.close()
    assert all("too many files are open" in problem for problem in problems)
    async with opened(tmp_path / "treadle.db"):
        pass  # nothing of it was left halfway
