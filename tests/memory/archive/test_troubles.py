"""Failures of other processes, embedders, providers and disks at the worst moment."""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from tests.descriptors import none_left
from tests.memory.archive.story import OWNER, Teller, search, store_of, texts

import treadle
from treadle.domain.items import message
from treadle.errors import ArchiveFailed, EmbeddingFailed, EmbeddingInvalid, JournalError
from treadle.journal.base import ThreadMark
from treadle.journal.memory import MemoryJournal
from treadle.memory.archive.embedders import CallableEmbedder, HashingEmbedder, Vectors
from treadle.memory.archive.index import Index, Source
from treadle.memory.archive.pages import page_of
from treadle.memory.archive.store import OpenIndex

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

Between = Callable[[], Awaitable[None]]


class SlowJournal(MemoryJournal):
    """A journal that runs a function once, right after its `marks` were read."""

    def __init__(self) -> None:
        super().__init__()
        self.calls_before = 0
        self.between: Between | None = None

    async def marks(self, *, owner: str | None) -> list[ThreadMark]:
        marks = await super().marks(owner=owner)
        if self.between is not None:
            self.calls_before -= 1
            if self.calls_before < 0:
                between, self.between = self.between, None
                await between()
        return marks


@pytest.mark.parametrize("calls_before", [0, 1, 2])
async def test_threads_indexed_by_another_process_are_not_removed(
    tmp_path: Path, calls_before: int
) -> None:
    journal = SlowJournal()
    teller = Teller(journal)
    await teller.thread("t1")
    await teller.note("t1", "blue shoes")
    stores = [
        store_of(teller, tmp_path / "treadle.db-archive", HashingEmbedder(8)) for _ in range(2)
    ]
    for one in stores:
        assert await texts(one, "blue") == ["blue shoes"]
    numbers = await _numbers(tmp_path)

    async def meanwhile() -> None:
        await teller.note("t1", "blue hats")
        await teller.thread("t2")
        await teller.note("t2", "blue socks")
        assert len(await texts(stores[0], "blue")) == 3

    await teller.note("t1", "blue gloves", "gloves")
    await teller.unnote("t1", "gloves")
    journal.calls_before, journal.between = calls_before, meanwhile
    await search(stores[1], "blue")
    if journal.between is not None:
        journal.between = None
        await meanwhile()
    for one in stores:
        assert set(await texts(one, "blue")) == {"blue shoes", "blue hats", "blue socks"}
        await one.close()
    assert numbers <= await _numbers(tmp_path)  # nothing was made again


async def _numbers(folder: Path) -> set[int]:
    with contextlib.closing(sqlite3.connect(folder / "treadle.db-archive")) as file:
        return {n for (n,) in file.execute("SELECT n FROM passage")}


async def test_ids_that_a_provider_gives_twice_hide_nothing() -> None:
    teller = Teller()
    archive = store_of(teller)
    for n in range(3):
        teller = Teller(teller.journal, later=n)
        await teller.thread(f"t{n}")
        await teller.say(f"t{n}", replace(message("assistant", f"apple {n}"), id="msg_1"))
    assert await texts(archive, "apple") == ["apple 2", "apple 1", "apple 0"]
    await archive.close()


class Waiting:
    """An embedder that hangs once it is given a text with `slow` in it."""

    name = "waiting"
    dimensions = 2

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.go_on = asyncio.Event()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        if any("slow" in text for text in texts):
            self.called.set()
            await self.go_on.wait()
        return [[1.0, 2.0] for _ in texts]


async def test_only_searches_by_vectors_wait_for_an_embedder(tmp_path: Path) -> None:
    teller, embedder = Teller(), Waiting()
    for id in ("t1", "t2"):
        await teller.thread(id)
        await teller.note(id, f"a slow text of {id}")
    archive = store_of(teller, tmp_path / "treadle.db-archive", embedder)
    waiting = asyncio.create_task(search(archive, "text"))
    await embedder.called.wait()
    async with asyncio.timeout(10):
        assert len(await texts(archive, "text", by="text")) == 2
        await teller.delete("t1")
        await archive.sweep(OWNER)
        assert (await archive.statistics(OWNER)).passages == 1
    embedder.go_on.set()
    assert [found.text for found in await waiting] == ["a slow text of t2"]
    await archive.close()


async def test_functions_that_never_return_do_not_delay_the_close(tmp_path: Path) -> None:
    go_on, called = threading.Event(), threading.Semaphore(0)

    def hang(texts: list[str]) -> Vectors:
        called.release()
        go_on.wait(60)
        return [[1.0] for _ in texts]

    teller = Teller()
    await teller.thread("t1")
    archive = store_of(teller, tmp_path / "treadle.db-archive", CallableEmbedder(hang))
    waiting = [asyncio.create_task(archive.vectors_of([str(n)])) for n in range(4)]
    try:
        for _ in waiting:
            await asyncio.to_thread(called.acquire)
        async with asyncio.timeout(10):
            assert await texts(archive, "text", by="text") == []
            await archive.close()
    finally:
        go_on.set()
    await asyncio.gather(*waiting)


async def test_damage_found_by_many_searches_is_repaired_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, teller = tmp_path / "treadle.db-archive", Teller()
    owners = [f"owner{n}" for n in range(8)]
    archive = store_of(teller, path, HashingEmbedder(8))
    for owner in owners:
        await teller.thread(owner, owner)
        for n in range(50):
            await teller.note(owner, f"blue shoes {n} " + "x" * 100)
        await archive.follow_whole(owner)
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as raw:
        raw.seek(4096)
        raw.write(b"\xff" * (path.stat().st_size - 4096))
    aside: list[Path] = []
    monkeypatch.setattr("treadle.memory.archive.store.set_aside", _noting(aside))
    for owner in owners:
        await teller.note(owner, "blue hats")
    with caplog.at_level(logging.WARNING, "treadle.archive"):
        found = await asyncio.gather(*(texts(archive, "hats", owner=owner) for owner in owners))
    assert all("blue hats" in some for some in found)
    assert aside == [path]
    await archive.close()


def _noting(aside: list[Path]) -> Callable[[Path], None]:
    from treadle.memory.archive.index_file import set_aside

    def noted(path: Path) -> None:
        aside.append(path)
        set_aside(path)

    return noted


def test_an_index_that_cannot_be_read_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: Path) -> None:
        raise ArchiveFailed("no more open files")

    closed: list[Index] = []
    close = Index.close

    def close_noted(index: Index) -> None:
        closed.append(index)
        close(index)

    monkeypatch.setattr("treadle.memory.archive.store.reader", fail)
    monkeypatch.setattr(Index, "close", close_noted)
    with pytest.raises(ArchiveFailed, match="no more open files"):
        OpenIndex(tmp_path / "treadle.db-archive", None)
    assert len(closed) == 1


async def test_an_index_whose_opening_is_cancelled_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, released = threading.Event(), threading.Event()
    closed: list[OpenIndex] = []

    class SlowIndex(OpenIndex):
        def __init__(self, *args: Any) -> None:
            begun.set()
            assert released.wait(20)
            super().__init__(*args)

        def close(self) -> None:
            closed.append(self)
            super().close()

    monkeypatch.setattr("treadle.memory.archive.store.OpenIndex", SlowIndex)
    teller = Teller()
    store = store_of(teller, tmp_path / "treadle.db-archive")
    asked = asyncio.create_task(search(store, "blue"))
    assert await asyncio.to_thread(begun.wait, 20)
    asked.cancel()
    closing = asyncio.create_task(store.close())
    await asyncio.sleep(0)
    released.set()
    with pytest.raises(asyncio.CancelledError):
        await asked
    await closing
    assert len(closed) == 1


async def test_an_embedder_is_given_valid_texts_only() -> None:
    asked: list[str] = []

    def embed(some: list[str]) -> Vectors:
        asked.extend(some)
        return [[1.0, 2.0] for _ in some]

    archive = store_of(Teller(), None, CallableEmbedder(embed))
    assert await texts(archive, "blue \ud83d shoes") == []
    assert asked == ["blue ? shoes"]
    await archive.close()


class Choosy:
    """An embedder that refuses texts with `poison` in them: it raises, or returns no numbers."""

    name = "choosy"
    dimensions = 2

    def __init__(self, *, raises: bool) -> None:
        self.calls = 0
        self.works = True
        self._raises = raises

    async def embed(self, texts: Sequence[str]) -> Vectors:
        self.calls += 1
        refused = [not self.works or "poison" in text for text in texts]
        if self._raises and any(refused):
            raise ValueError("no")
        return [[float("nan") if no else 1.0, 2.0] for no in refused]


@pytest.mark.parametrize("raises", [True, False])
async def test_a_text_that_an_embedder_refuses_hides_no_other(
    raises: bool, caplog: pytest.LogCaptureFixture
) -> None:
    teller, embedder = Teller(), Choosy(raises=raises)
    await teller.thread("t1")
    for n in range(9):
        await teller.note("t1", f"poison {n}" if n in {2, 7, 8} else f"flower {n}")
    archive = store_of(teller, None, embedder)
    with caplog.at_level(logging.WARNING, "treadle.archive"):
        found = await texts(archive, "flower", by="vector")
    assert sorted(found) == [f"flower {n}" for n in (0, 1, 3, 4, 5, 6)]
    assert "refuses 3 texts" in caplog.text
    await teller.note("t1", "poison 9")
    await archive.follow_whole(OWNER)
    embedder.calls = 0
    assert len(await texts(archive, "flower", by="vector")) == 6
    assert embedder.calls == 1  # for the query
    assert (await archive.statistics(OWNER)).without_vector == 4
    assert "poison 2" in await texts(archive, "poison", by="text")
    await archive.close()


@pytest.mark.parametrize("raises", [True, False])
async def test_an_embedder_that_refuses_everything_is_reported(raises: bool) -> None:
    teller, embedder = Teller(), Choosy(raises=raises)
    await teller.thread("t1")
    for n in range(9):
        await teller.note("t1", f"flower {n}")
    archive = store_of(teller, None, embedder)
    embedder.works = False
    with pytest.raises(EmbeddingFailed if raises else EmbeddingInvalid):
        await archive.follow_whole(OWNER)
    assert embedder.calls == 2
    embedder.works = True
    assert len(await texts(archive, "flower", by="vector")) == 9
    await archive.close()


@pytest.mark.parametrize("ends", [[""], ["-wal", "-shm"], ["", "-wal", "-shm"]])
async def test_files_that_are_removed_while_they_are_open_are_made_again(
    tmp_path: Path, ends: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    path, teller = tmp_path / "treadle.db-archive", Teller()
    await teller.thread("t1")
    archive = store_of(teller, path, HashingEmbedder(8))
    for n in range(50):
        await teller.note("t1", f"blue shoes {n} " + "x" * 1000)
    await archive.follow_whole(OWNER)
    for end in ends:
        path.with_name(path.name + end).unlink()
    with caplog.at_level(logging.WARNING, "treadle.archive"):
        for n in range(3):
            await teller.note("t1", f"blue hat {n}")
            assert f"blue hat {n}" in await texts(archive, "hat")
    assert "opened again" in caplog.text
    assert (await archive.statistics(OWNER)).passages == 53
    await archive.close()
    archive = store_of(teller, path, HashingEmbedder(8))
    assert len(await texts(archive, "hat", limit=100, by="vector")) == 53
    await archive.close()


class FailingJournal(MemoryJournal):
    """A journal that cannot be read for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.fails = False
        self.failed = asyncio.Event()

    async def marks(self, *, owner: str | None) -> list[ThreadMark]:
        if self.fails:
            self.failed.set()
            raise JournalError("The disk is gone.")
        return await super().marks(owner=owner)


async def test_a_journal_that_fails_for_a_while_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = FailingJournal()
    teller = Teller(journal)
    await teller.thread("t1")
    await teller.note("t1", "blue shoes")
    archive = store_of(teller, tmp_path / "treadle.db-archive")
    assert await texts(archive, "blue") == ["blue shoes"]
    journal.fails = True
    with caplog.at_level(logging.WARNING, "treadle.archive"):
        async with archive.adding(OWNER, [], []):
            pass
        await journal.failed.wait()
        assert "could not follow: The disk is gone." in caplog.text
        await teller.delete("t1")
        await archive.sweep(OWNER)  # the thread is deleted, whatever becomes of the index
    assert "still in the archive: The disk is gone." in caplog.text
    with pytest.raises(JournalError):
        await texts(archive, "blue")
    journal.fails = False
    assert await texts(archive, "blue") == []
    await archive.close()


@pytest.mark.parametrize("harm", [False, True])
async def test_the_database_of_another_program_is_left_as_it_is(tmp_path: Path, harm: bool) -> None:
    """For example a journal that a user has given the name of another one."""
    path, teller = tmp_path / "treadle.db-archive", Teller()
    await teller.thread("t1")
    await teller.note("t1", "blue shoes")
    async with treadle.open(f"sqlite:///{path}") as runtime:
        await runtime.archive().insert("theirs")
        await runtime.archive().search("theirs")
    if harm:
        with path.open("r+b") as file:
            file.seek(200)
            file.write(b"\xff" * 3000)
    before = path.read_bytes()
    archive = store_of(teller, path, HashingEmbedder(8))
    for _ in range(2):
        with pytest.raises(ArchiveFailed, match="another program"):
            await texts(archive, "blue")
        await archive.sweep(OWNER)
    await archive.close()
    assert path.read_bytes() == before
    assert not path.with_name(f"{path.name}-damaged").exists()


@pytest.mark.parametrize("embedder", [HashingEmbedder(8), None])
async def test_vectors_of_others_are_left_as_they_are(
    tmp_path: Path, embedder: HashingEmbedder | None
) -> None:
    path, teller = tmp_path / "treadle.db-archive", Teller()
    await teller.thread("t1")
    await teller.note("t1", "blue shoes")
    others = tmp_path / "treadle.db-archive-two-archive-0123456789ab.f32"
    old = tmp_path / "treadle.db-archive-0123456789ab.f32"
    for file in (others, old):
        file.write_bytes(b"")
    archive = store_of(teller, path, embedder)
    assert await texts(archive, "blue") == ["blue shoes"]
    await archive.close()
    assert others.exists()
    assert not old.exists()


@pytest.mark.parametrize("again", [True, False])
async def test_a_deleted_thread_that_another_process_indexes_late_is_not_found(
    tmp_path: Path, again: bool
) -> None:
    """The other process has read a thread that is deleted before it writes."""
    path, journal = tmp_path / "treadle.db-archive", SlowJournal()
    teller = Teller(journal)
    await teller.thread("t1")
    await teller.note("t1", "blue shoes")
    driver, other = [store_of(teller, path, HashingEmbedder(8)) for _ in range(2)]
    assert await texts(driver, "blue") == ["blue shoes"]
    source = Source("t1", OWNER, (await journal.marks(owner=OWNER))[0].number)
    page = page_of("t1", await journal.read("t1", after=0))
    assert page is not None
    await teller.delete("t1")
    if again:
        await teller.thread("t2")
    await driver.sweep(OWNER)
    assert await texts(driver, "blue") == []
    await other._write(lambda index: index.apply(source, page, {}))
    assert await texts(driver, "blue") == []
    assert (await driver.statistics(OWNER)).passages == 0
    for one in (driver, other):
        await one.close()


@pytest.mark.parametrize("left", range(10))
@pytest.mark.parametrize("embedder", [None, HashingEmbedder(8)])
async def test_a_search_without_file_descriptors(
    tmp_path: Path, left: int, embedder: HashingEmbedder | None
) -> None:
    url = f"sqlite:///{tmp_path / 'treadle.db'}"
    async with treadle.open(url, embedder=embedder) as runtime:
        await runtime.archive().insert("blue shoes")
        problems: list[str] = []
        with none_left(left):
            try:
                await runtime.archive().search("blue")
            except (ArchiveFailed, JournalError) as error:
                problems.append(error.message.lower())
        assert all("too many" in problem for problem in problems)
        (found,) = await runtime.archive().search("blue")
        assert found.passage.text == "blue shoes"
