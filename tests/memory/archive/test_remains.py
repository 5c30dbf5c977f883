"""Words and vectors that left the index are overwritten in its files."""

import asyncio
import contextlib
import random
import sqlite3
from pathlib import Path

import pytest
from tests.memory.archive.story import OWNER, Teller, store_of, texts

from treadle.domain.passages import Passage
from treadle.errors import ArchiveFailed
from treadle.memory.archive import index as index_module
from treadle.memory.archive import index_file, store
from treadle.memory.archive.embedders import HashingEmbedder
from treadle.memory.archive.index import Index, Source
from treadle.memory.archive.pages import Page

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

MARK = "q7mark"
WORDS = ["".join(random.Random(n).choices("abcdefghijk", k=7)) for n in range(3000)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "treadle.db-archive"


def has_mark(path: Path) -> bool:
    # The words of the index are stored without the beginning that they share with the word before.
    files = path.parent.glob(f"{path.name}*")
    return any(MARK[1:].encode() in file.read_bytes().lower() for file in files)


def keeps_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the index what it is with SQLite before 3.42."""
    monkeypatch.setattr(index_module, "DELETES_WORDS", False)
    monkeypatch.setattr(index_file, "DELETES_WORDS", False)


def fill(index: Index, number: int, thread: int, words: str = "") -> None:
    """Adds a page with passages to a thread that has none."""
    rng = random.Random(thread)
    id = f"t{thread}"
    added = tuple(
        Passage(
            id=f"{id}/{n}",
            text=" ".join([*rng.choices(WORDS, k=60), words]),
            kind="message",
            thread_id=id,
            seq=n,
            created_at=1.0,
            run_id="",
            role="user",
        )
        for n in range(1, number + 1)
    )
    index.apply(Source(id, OWNER, thread), Page(0, number, 1.0, (), added), {})


def tidy(index: Index) -> int:
    """Tidies the index to the end; returns how many calls it took."""
    for calls in range(1, 10_000):
        if index.tidy():
            return calls
    raise AssertionError("the index is never tidy")


def rows_with(index: Index, word: str) -> int:
    query = "SELECT count(*) FROM words WHERE words MATCH ?"
    return index.connection.execute(query, (word,)).fetchone()[0]


def test_words_are_merged_in_small_steps(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeps_words(monkeypatch)
    monkeypatch.setattr(index_module, "MERGED_PAGES", 4)
    index = Index(path)
    for thread in range(1, 30):
        fill(index, 40, thread, MARK if thread % 7 == 3 else "kept")
    index.drop(["t3", "t10", "t17"])
    index.drop_events("t24", [*range(1, 41)])
    assert index.untidy
    assert not index.tidy()
    # A row that is removed, and one that is added, while the merge is under way.
    fill(index, 40, 31, MARK)
    index.drop(["t31"])
    fill(index, 40, 32, "kept")
    assert tidy(index) > 5
    assert not index.untidy
    assert not has_mark(path)
    assert rows_with(index, "kept") == 40 * 26
    assert rows_with(index, MARK) == 0
    index.connection.execute("INSERT INTO words (words) VALUES ('integrity-check')")
    index.close()


def test_a_merge_that_fails_begins_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeps_words(monkeypatch)
    index = Index(path)
    for thread in (1, 2, 3):
        fill(index, 5, thread, MARK if thread == 2 else "kept")
    index.drop(["t2"])
    stop = "BEGIN SELECT RAISE(ABORT, 'stopped'); END"
    index.connection.execute(f"CREATE TRIGGER stop BEFORE DELETE ON remains {stop}")
    for _ in range(3):
        with contextlib.suppress(ArchiveFailed):  # the first step may not delete
            index.tidy()
    assert index.untidy
    index.connection.execute("DROP TRIGGER stop")
    tidy(index)
    assert not has_mark(path)
    index.close()


@pytest.mark.parametrize("old", [True, False])
def test_two_processes_tidy_one_index(
    path: Path, monkeypatch: pytest.MonkeyPatch, *, old: bool
) -> None:
    if old:
        keeps_words(monkeypatch)
    monkeypatch.setattr(index_module, "MERGED_PAGES", 4)
    one, other = Index(path), Index(path)
    for thread in range(1, 20):
        fill(one, 40, thread, MARK if thread % 5 == 3 else "kept")
    for thread in ("t3", "t8", "t13", "t18"):
        one.drop([thread])
        one.tidy()
        other.tidy()
    tidy(other)
    tidy(one)
    assert not has_mark(path)
    assert rows_with(one, "kept") == 40 * 15
    one.close()
    other.close()


@pytest.mark.parametrize("old", [True, False])
async def test_what_a_process_left_when_it_ended_is_overwritten_by_the_next(
    teller: Teller, path: Path, monkeypatch: pytest.MonkeyPatch, *, old: bool
) -> None:
    if old:
        keeps_words(monkeypatch)
    await teller.note("t1", f"blue {MARK}")
    await teller.note("t2", "blue shoes")
    archive = store_of(teller, path)
    assert len(await texts(archive, "blue")) == 2
    await archive.close()

    def is_killed_before_it_tidies() -> None:
        index = Index(path)
        index.drop(["t1"])
        index.close()

    await asyncio.to_thread(is_killed_before_it_tidies)
    assert has_mark(path) or not old
    await teller.delete("t1")
    archive = store_of(teller, path)
    assert await texts(archive, "blue") == ["blue shoes"]
    await archive.sweep(OWNER)
    assert not has_mark(path)
    await archive.close()


async def test_an_index_of_an_earlier_version_is_cleaned(
    teller: Teller, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> None:
        with monkeypatch.context() as patch:
            keeps_words(patch)
            index = Index(path)
            fill(index, 3, 1, MARK)
            fill(index, 3, 2, "kept")
            index.drop(["t1"])
            index.connection.execute("DROP TABLE remains")
            index.close()

    await asyncio.to_thread(make)
    assert has_mark(path)
    archive = store_of(teller, path)
    await teller.note("t2", "blue shoes")
    assert await texts(archive, "blue") == ["blue shoes"]
    await archive.close()
    assert not has_mark(path)


async def test_a_removed_passage_is_overwritten_after_the_next_search(
    teller: Teller, path: Path
) -> None:
    archive = store_of(teller, path, HashingEmbedder(8))
    await teller.note("t1", f"blue {MARK}", "p1")
    await teller.note("t1", "blue shoes")
    assert len(await texts(archive, "blue", by="text")) == 2
    await teller.unnote("t1", "p1")
    assert await texts(archive, "blue", by="text") == ["blue shoes"]
    await archive.close()
    assert not has_mark(path)


async def test_deletions_do_not_wait_for_each_merge_of_a_large_index(
    teller: Teller, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_QUICK_SECONDS", -1.0)  # every index is large
    monkeypatch.setattr(store, "_REST", 1e9)
    archive = store_of(teller, path)
    for thread in ("t1", "t2"):
        await teller.note(thread, f"blue {MARK}")
    await texts(archive, "blue")
    for thread in ("t1", "t2"):
        await teller.delete(thread)
        await archive.forget(OWNER, thread)
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT count(*) FROM remains").fetchone() == (1,)
    await asyncio.wait_for(archive.close(), 10)
    assert not has_mark(path)


@pytest.fixture
async def teller() -> Teller:
    teller = Teller()
    for id in ("t1", "t2"):
        await teller.thread(id)
    return teller
