"""The archive follows the journal, and finds its messages and passages."""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.memory.archive.story import DAY, OWNER, Teller, search, store_of, texts

from treadle.domain.items import user_message
from treadle.domain.passages import Filters, NewPassage, Period
from treadle.errors import (
    ArchiveFailed,
    ConfigurationError,
    EmbeddingFailed,
    EmbeddingInvalid,
    InvalidInput,
    JournalClosed,
)
from treadle.memory.archive import finder, store
from treadle.memory.archive.embedders import CallableEmbedder, HashingEmbedder, Vectors
from treadle.memory.archive.store import ArchiveStore

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]


@pytest.fixture(params=["memory", "file"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "treadle.db-archive" if request.param == "file" else None


@pytest.fixture
async def teller() -> Teller:
    teller = Teller()
    for id in ("t1", "t2"):
        await teller.thread(id)
    return teller


@pytest.fixture
async def archive(teller: Teller, path: Path | None) -> AsyncIterator[ArchiveStore]:
    made = store_of(teller, path, HashingEmbedder())
    yield made
    await made.close()


async def test_what_was_said_and_noted_is_found_with_where_it_came_from(
    teller: Teller, archive: ArchiveStore
) -> None:
    await teller.say("t1", "My cat is called Minka")
    await teller.note("t2", "The dentist has moved", "p1", ["health", "town"], at=5.0)
    (found,) = await search(archive, "cats", by="text")
    assert (found.passage.kind, found.passage.thread_id, found.passage.seq) == ("message", "t1", 1)
    assert (found.passage.role, found.passage.created_at) == ("user", DAY)
    assert (found.text_rank, found.vector_rank, found.text_score) == (1, None, found.score)
    found, other = await search(archive, "the dentist")
    assert (found.passage.id, found.passage.tags, found.passage.created_at) == (
        "p1", ("health", "town"), 5.0
    )  # fmt: skip
    assert (found.text_rank, found.vector_rank) == (1, 1)
    assert found.score == pytest.approx(2 / 61)
    assert (other.text_rank, other.vector_rank) == (None, 2)
    (best, _) = await search(archive, "dentists moved", by="vector")
    assert (best.passage.id, best.text_rank, best.vector_score) == ("p1", None, best.score)


async def test_what_came_after_a_search_is_found_by_the_next(
    teller: Teller, archive: ArchiveStore
) -> None:
    for n in range(5):
        await teller.say("t1", f"word{n}")
        assert await texts(archive, f"word{n}", by="text") == [f"word{n}"]
        assert (await texts(archive, f"word{n}", by="vector"))[0] == f"word{n}"


async def test_filters(teller: Teller, archive: ArchiveStore) -> None:
    await teller.say("t1", "blue sea")
    await teller.say("t1", "blue sky", "assistant")
    await teller.say("t2", "blue eyes")
    await teller.note("t2", "blue shoes", tags=["buy", "red"])
    await teller.note("t2", "blue socks", tags=["buy"])
    expected = {
        Filters(kind="archive"): {"blue shoes", "blue socks"},
        Filters(kind="message"): {"blue sea", "blue sky", "blue eyes"},
        Filters(thread_id="t2"): {"blue eyes", "blue shoes", "blue socks"},
        Filters(thread_id="t2", kind="message"): {"blue eyes"},
        Filters(thread_id="t3"): set(),
        Filters(roles=("assistant", "system")): {"blue sky"},
        Filters(any_tags=("red", "none")): {"blue shoes"},
        Filters(any_tags=("red", "buy")): {"blue shoes", "blue socks"},
        Filters(all_tags=("red", "buy")): {"blue shoes"},
        Filters(any_tags=("none",), all_tags=("buy",)): set(),
        Filters(period=Period(2 * DAY, None)): {"blue sky", "blue shoes", "blue socks"},
        Filters(period=Period(None, DAY)): {"blue sea", "blue eyes"},
        Filters(period=Period(2 * DAY, 2 * DAY)): {"blue sky", "blue shoes"},
    }
    for filters, found in expected.items():
        for by in ("text", "vector", "both"):
            assert set(await texts(archive, "blue", by=by, filters=filters)) == found, filters
        assert set(await texts(archive, " ", filters=filters)) == found


async def test_owners_never_meet(teller: Teller, archive: ArchiveStore) -> None:
    await teller.thread("theirs", owner="eve")
    await teller.note("theirs", "secret recipe", "p", ["x"])
    await teller.say("t1", "secret plan")
    for by in ("text", "vector", "both"):
        assert await texts(archive, "secret", by=by) == ["secret plan"]
        assert await texts(archive, "secret", by=by, owner="eve") == ["secret recipe"]
        assert await texts(archive, "secret", by=by, owner="") == []
        other = Filters(thread_id="theirs")
        assert await texts(archive, "secret", by=by, filters=other) == []
    assert await texts(archive, "", filters=Filters(any_tags=("x",))) == []
    assert await archive.passages(OWNER, "p") == []
    assert [one.text for one in await archive.passages("eve", "p")] == ["secret recipe"]


async def test_a_small_owner_among_large_ones(
    teller: Teller, archive: ArchiveStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "MATCHES", 2)
    await teller.thread("theirs", owner="eve")
    for n in range(20):
        await teller.note("theirs", f"blue moon {n}", tags=["x"])
    await teller.note("t1", "blue shoes", tags=["x"])
    await teller.note("t1", "blue hats")
    await teller.say("t1", "blue eyes")
    await search(archive, "", owner="eve")
    for by in ("text", "vector", "both"):
        found = await texts(archive, "blue shoes", by=by, limit=50)
        assert found[0] == "blue shoes"
        assert set(found) <= {"blue shoes", "blue hats", "blue eyes"}
        filters = Filters(kind="archive", any_tags=("x",), period=Period(DAY, 3 * DAY))
        assert await texts(archive, "blue", by=by, filters=filters) == ["blue shoes"]
        assert len(await texts(archive, "moon", by=by, owner="eve")) in {2, 10}


async def test_without_a_query_the_newest_come_first(teller: Teller, archive: ArchiveStore) -> None:
    for n in range(4):
        await teller.note("t1", f"note {n}")
    await teller.note("t1", "old", at=1.0)
    assert await texts(archive, "") == ["note 3", "note 2", "note 1", "note 0", "old"]
    assert await texts(archive, "", limit=2, offset=1) == ["note 2", "note 1"]


async def test_pages_follow_each_other(teller: Teller, archive: ArchiveStore) -> None:
    for n in range(90):
        await teller.note("t1", f"tea number {n} {'tea ' * (n % 7)}")
    for by in ("text", "vector", "both"):
        whole = [found.passage.id for found in await search(archive, "tea", by=by, limit=90)]
        pages = [
            found.passage.id
            for offset in range(0, 100, 20)
            for found in await search(archive, "tea", by=by, limit=20, offset=offset)
        ]
        assert pages == whole
        assert len(set(whole)) == 90


async def test_any_text_may_be_searched_for(teller: Teller, archive: ArchiveStore) -> None:
    await teller.note("t1", "私は東京都に住んでいます")
    await teller.note("t1", "a party 🎉 tonight")
    assert (await texts(archive, "京都", by="text")) == ["私は東京都に住んでいます"]
    assert (await texts(archive, "🎉", by="text")) == ["a party 🎉 tonight"]
    for by in ("text", "vector", "both"):
        for text in ('" OR NEAR(', "???", "text:x*", "\x00", "\ud800", "'; DROP TABLE", "-" * 999):
            await search(archive, text, by=by)


async def test_what_is_deleted_is_gone(teller: Teller, archive: ArchiveStore) -> None:
    await teller.note("t1", "blue shoes", "p1", ["x"])
    await teller.note("t1", "blue socks", "p2", ["x"])
    await teller.say("t2", "blue eyes")
    assert len(await texts(archive, "blue")) == 3
    await teller.unnote("t1", "p1")
    for by in ("text", "vector", "both"):
        assert set(await texts(archive, "blue", by=by)) == {"blue socks", "blue eyes"}
    assert await texts(archive, "", filters=Filters(all_tags=("x",))) == ["blue socks"]
    await teller.delete("t1")
    for by in ("text", "vector", "both"):
        assert await texts(archive, "blue", by=by) == ["blue eyes"]
    await teller.thread("t1")
    await teller.note("t1", "blue hair", "p3")
    for by in ("text", "vector", "both"):
        assert set(await texts(archive, "blue", by=by)) == {"blue hair", "blue eyes"}
    assert await archive.statistics(OWNER) == store.Statistics(1, 1, 2, 0)
    for id in ("t1", "t2"):
        await teller.delete(id)
    await archive.sweep(OWNER)
    assert await archive.statistics(OWNER) == store.Statistics(0, 0, 0, 0)


async def test_a_passage_that_came_twice_is_one(teller: Teller, archive: ArchiveStore) -> None:
    await teller.note("t1", "blue shoes", "p")
    await teller.note("t1", "blue socks", "p")
    assert await texts(archive, "blue") == ["blue shoes"]
    await teller.note("t1", "blue hats", "p")
    assert await texts(archive, "blue") == ["blue shoes"]
    await teller.unnote("t1", "p")
    await teller.note("t1", "blue coats", "p")
    assert await texts(archive, "blue") == ["blue coats"]


async def test_a_message_that_was_said_twice_is_two(teller: Teller, archive: ArchiveStore) -> None:
    item = user_message("good morning")
    await teller.say("t1", item)
    await teller.say("t1", item)
    assert len(await search(archive, "morning")) == 2


async def test_what_agents_say_to_each_other_is_found_on_their_thread_only(
    teller: Teller, archive: ArchiveStore
) -> None:
    await teller.thread("work", parent="t1")
    await teller.say("work", "blue whale")
    await teller.note("work", "blue moon")
    for by in ("text", "vector", "both"):
        assert await texts(archive, "blue", by=by) == ["blue moon"]
        own = await texts(archive, "blue", by=by, filters=Filters(thread_id="work"))
        assert set(own) == {"blue whale", "blue moon"}
    assert await texts(archive, "") == ["blue moon"]


async def test_the_copies_of_a_fork_are_shown_once(teller: Teller, archive: ArchiveStore) -> None:
    for n in range(30):
        item = user_message(f"blue {n}")
        await teller.say("t1", item)
        await teller.say("t2", item)
    for by in ("text", "vector", "both"):
        found = await texts(archive, "blue", by=by, limit=50)
        assert len(found) == len(set(found)) == 30
    assert len(await texts(archive, "blue", filters=Filters(thread_id="t2"), limit=50)) == 30


async def test_words_that_are_everywhere_do_not_hide_those_that_are_not(
    teller: Teller, archive: ArchiveStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finder, "MATCHES", 20)
    for n in range(60):
        await teller.note("t1", f"common frequent item{n}")
    found = await texts(archive, "common frequent item7", by="text", limit=30)
    assert found[0] == "common frequent item7"
    assert found[1:] == [f"common frequent item{n}" for n in range(59, 39, -1)]
    found = await texts(archive, "common", by="text", limit=50)
    assert found == [f"common frequent item{n}" for n in range(59, 39, -1)]


# Bad input, and embedders that do not do as they should


async def test_what_is_out_of_bounds_is_refused(archive: ArchiveStore) -> None:
    for limit, offset in ((0, 0), (101, 0), (10, -1), (10, finder.DEPTH)):
        with pytest.raises(InvalidInput):
            await search(archive, "x", limit=limit, offset=offset)
    with pytest.raises(InvalidInput, match="Shorten it"):
        await search(archive, "x" * 10_001)


async def test_vectors_need_an_embedder(teller: Teller, path: Path | None) -> None:
    archive = store_of(teller, path)
    await teller.note("t1", "blue shoes")
    with pytest.raises(ConfigurationError, match="embedder="):
        await search(archive, "x", by="vector")
    (found,) = await search(archive, "blue", by="both")
    assert found.vector_rank is None
    assert (await archive.statistics(OWNER)).without_vector == 1
    await archive.close()
    with pytest.raises(ArchiveFailed, match="not open"):
        await search(archive, "blue")


BAD: dict[str, tuple[object, str]] = {
    "too few": ([], "0 vectors for 1 texts"),
    "uneven": ([[1.0], [1.0, 2.0]], "2 vectors for 1 texts"),
    "empty": ([[]], "the sizes 0"),
    "too long": ([[1.0] * 5], "the sizes 5; all must have the size 4"),
    "not a number": ([[1.0, 2.0, 3.0, float("nan")]], "infinite or missing"),
    "infinite": ([[1.0, 2.0, 3.0, float("inf")]], "infinite or missing"),
    "words": ([["a", "b", "c", "d"]], "did not return vectors"),
    "nothing": (None, "not return a list of vectors"),
    "flat": ([1.0], "did not return vectors"),
}


@pytest.mark.parametrize("kind", BAD)
async def test_invalid_vectors_are_refused(teller: Teller, path: Path | None, kind: str) -> None:
    bad, says = BAD[kind]
    await teller.note("t1", "blue shoes")
    returns: list[object] = [bad]
    embedder = CallableEmbedder(lambda _: returns[0], dimensions=4)  # type: ignore[arg-type,return-value]
    archive = store_of(teller, path, embedder)
    with pytest.raises(EmbeddingInvalid, match=says):
        await search(archive, "blue")
    assert await texts(archive, "blue", by="text") == ["blue shoes"]
    assert (await archive.statistics(OWNER)).without_vector == 1
    returns[0] = [[1.0, 0.0, 0.0, 0.0]]
    assert await texts(archive, "blue", by="vector") == ["blue shoes"]
    await archive.close()


async def test_a_failing_embedder_is_reported_and_full_text_works(
    teller: Teller, path: Path | None
) -> None:
    async def fail(_: Sequence[str]) -> Vectors:
        raise OSError("key sk-12345678")

    await teller.note("t1", "blue shoes")
    archive = store_of(teller, path, CallableEmbedder(fail))
    with pytest.raises(EmbeddingFailed) as failed:
        await search(archive, "blue")
    assert "sk-1234" not in str(failed.value)
    assert failed.value.retryable
    assert await texts(archive, "blue", by="text") == ["blue shoes"]
    await archive.close()


async def test_of_two_processes_with_two_sizes_the_first_counts(
    teller: Teller, tmp_path: Path
) -> None:
    path = tmp_path / "treadle.db-archive"
    sizes = {"one": 2, "two": 3}
    stores: dict[str, ArchiveStore] = {}
    for name, size in sizes.items():

        def embed(texts: Sequence[str], size: int = size) -> Vectors:
            return [[1.0] * size for _ in texts]

        made = stores[name] = store_of(teller, path, CallableEmbedder(embed, name="changed"))
        await made.follow(OWNER, with_vectors=False)
        passage = NewPassage(f"p-{name}", f"blue {name}")
        made.keep_vectors([passage], await made.vectors_of([passage.text]))
    await teller.note("t1", "blue one", "p-one")
    await stores["one"].follow(OWNER, with_vectors=False)
    await teller.note("t1", "blue two", "p-two")
    await stores["two"].follow(OWNER, with_vectors=False)
    for one in stores.values():
        assert set(await texts(one, "blue", by="text")) == {"blue one", "blue two"}
    with pytest.raises(EmbeddingInvalid, match="of the size 3, and"):
        await search(stores["two"], "blue")
    assert set(await texts(stores["one"], "blue")) == {"blue one", "blue two"}
    for one in stores.values():
        await one.close()


async def test_a_size_that_changes_is_refused(teller: Teller, path: Path | None) -> None:
    size = 3
    embedder = CallableEmbedder(lambda some: [[1.0] * size for _ in some])
    archive = store_of(teller, path, embedder)
    await teller.note("t1", "one")
    assert len(await search(archive, "x", by="vector")) == 1
    size = 5
    with pytest.raises(EmbeddingInvalid, match="before of 3"):
        await search(archive, "x", by="vector")
    await teller.note("t1", "two")
    with pytest.raises(EmbeddingInvalid, match="needs another name"):
        await search(archive, "x", by="vector")
    size = 3
    assert len(await search(archive, "x", by="vector")) == 2
    await archive.close()


async def test_a_text_without_a_direction_is_found_by_its_words(
    teller: Teller, path: Path | None
) -> None:
    embedder = CallableEmbedder(lambda some: [[0.0, 1.0 * ("b" in one)] for one in some])
    archive = store_of(teller, path, embedder)
    await teller.note("t1", "one")
    await teller.note("t1", "both")
    assert await texts(archive, "b", by="vector") == ["both"]
    assert await texts(archive, "one", by="vector") == []  # the query has none
    assert await texts(archive, "one") == ["one"]
    assert (await archive.statistics(OWNER)).without_vector == 0
    await archive.close()


async def test_another_embedder_makes_the_vectors_again(teller: Teller, tmp_path: Path) -> None:
    path = tmp_path / "treadle.db-archive"
    for n in range(3):
        await teller.note("t1", f"note {n}")
    asked: list[str] = []

    def embed(size: int) -> CallableEmbedder:
        def function(some: list[str]) -> Vectors:
            asked.extend(some)
            return [[1.0, *[0.0] * (size - 1)] for _ in some]

        return CallableEmbedder(function, name="one", dimensions=size)

    for embedder, makes in ((embed(4), 3), (embed(4), 0), (embed(6), 3), (HashingEmbedder(8), 0)):
        asked.clear()
        archive = store_of(teller, path, embedder)
        assert len(await search(archive, "note", by="vector")) == 3
        assert len([one for one in asked if one != "note"]) == makes
        await archive.close()
    assert len(list(tmp_path.glob("*.f32"))) == 1


async def test_two_embedders_at_once_are_refused(teller: Teller, tmp_path: Path) -> None:
    path = tmp_path / "treadle.db-archive"
    await teller.note("t1", "blue")
    first, second = (
        store_of(teller, path, HashingEmbedder(8)),
        store_of(teller, path, HashingEmbedder(9)),
    )
    assert await texts(first, "blue") == ["blue"]
    assert await texts(second, "blue") == ["blue"]
    with pytest.raises(ArchiveFailed, match="same embedder"):
        await search(first, "blue", by="vector")
    assert await texts(first, "blue", by="text") == ["blue"]
    await first.close()
    await second.close()


async def test_many_texts_without_a_vector_get_theirs_in_the_background(
    teller: Teller, path: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BATCH", 4)
    monkeypatch.setattr(store, "AT_ONCE", 8)
    for n in range(30):
        await teller.note("t1", f"note {n}")
    archive = store_of(teller, path, HashingEmbedder(16))
    found = await texts(archive, "note", by="vector", limit=50)
    assert {f"note {n}" for n in range(22, 30)} <= set(found)
    while (await archive.statistics(OWNER)).without_vector:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0)
    assert len(await texts(archive, "note", by="vector", limit=50)) == 30
    await archive.close()


async def test_follow_whole_waits_for_all_vectors(
    teller: Teller, path: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "BATCH", 4)
    monkeypatch.setattr(store, "AT_ONCE", 8)
    for n in range(30):
        await teller.note("t1", f"note {n}")
    archive = store_of(teller, path, HashingEmbedder(16))
    await archive.follow_whole(OWNER)
    assert (await archive.statistics(OWNER)).without_vector == 0
    await archive.close()


# What becomes of the file


async def test_a_reopened_index_continues(teller: Teller, tmp_path: Path) -> None:
    path = tmp_path / "treadle.db-archive"
    asked: list[str] = []

    def embed(some: list[str]) -> Vectors:
        asked.extend(some)
        return [[float(len(one)), 1.0] for one in some]

    for n in range(3):
        await teller.note("t1", f"note {n}")
        archive = store_of(teller, path, CallableEmbedder(embed, name="e"))
        assert len(await search(archive, "note", by="vector")) == n + 1
        await archive.close()
    assert sorted(one for one in asked if one != "note") == ["note 0", "note 1", "note 2"]


async def test_threads_deleted_while_it_was_closed_are_removed(
    teller: Teller, tmp_path: Path
) -> None:
    path = tmp_path / "treadle.db-archive"
    await teller.thread("theirs", owner="eve")
    for id in ("t1", "t2", "theirs"):
        await teller.note(id, f"blue {id}")
    archive = store_of(teller, path, HashingEmbedder(8))
    for owner in (OWNER, "eve"):
        await search(archive, "blue", owner=owner)
    await archive.close()
    for id in ("t1", "theirs"):
        await teller.delete(id)
    archive = store_of(teller, path, HashingEmbedder(8))
    assert await texts(archive, "blue") == ["blue t2"]
    await archive.close()
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT thread_id FROM source").fetchall() == [("t2",)]
        assert file.execute("SELECT text FROM passage").fetchall() == [("blue t2",)]


@pytest.mark.parametrize("damage", ["garbage", "empty", "gone", "no table", "old"])
async def test_a_damaged_index_is_set_aside_and_made_again(
    teller: Teller, tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "treadle.db-archive"
    await teller.note("t1", "blue shoes")
    archive = store_of(teller, path, HashingEmbedder(8))
    assert await texts(archive, "blue") == ["blue shoes"]
    await archive.close()
    match damage:
        case "garbage":
            path.write_bytes(b"garbage " * 1000)
        case "empty":
            path.write_bytes(b"")
        case "gone":
            path.unlink()
        case "no table":
            with contextlib.closing(sqlite3.connect(path)) as file:
                file.execute("DROP TABLE passage")
        case _:
            with contextlib.closing(sqlite3.connect(path)) as file:
                file.execute("PRAGMA user_version = 99")
    archive = store_of(teller, path, HashingEmbedder(8))
    for by in ("text", "vector", "both"):
        assert await texts(archive, "blue", by=by) == ["blue shoes"]
    kept_aside = path.with_name(f"{path.name}-damaged")
    assert kept_aside.exists() == (damage not in {"empty", "gone"})
    await archive.sweep(OWNER)
    await archive.close()


async def test_damage_while_it_is_open_is_repaired(
    teller: Teller, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "treadle.db-archive"
    for n in range(300):
        await teller.note("t1", f"blue shoes {n} " + "x" * 100)
    archive = store_of(teller, path, HashingEmbedder(8))
    await archive.follow_whole(OWNER)
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as raw:
        raw.seek(4096)
        raw.write(b"\xff" * (path.stat().st_size - 4096))
    await teller.note("t2", "blue hats")
    with caplog.at_level(logging.WARNING, "treadle.archive"):
        assert "blue hats" in await texts(archive, "hats")
    assert "made again" in caplog.text
    assert (await archive.statistics(OWNER)).passages == 301
    await archive.close()


async def test_another_journal_is_noticed(teller: Teller, tmp_path: Path) -> None:
    """For example a restored backup: the same threads, with other events.

    It is noticed where a thread has fewer events than before, and when it has more.
    """
    path = tmp_path / "treadle.db-archive"
    await teller.note("t1", "blue shoes")
    await teller.note("t1", "blue socks")
    archive = store_of(teller, path)
    assert len(await texts(archive, "blue")) == 2
    await archive.close()
    shorter, other = Teller(later=1.0), Teller(later=2.0)
    for one in (shorter, other):
        for id in ("t1", "t2"):
            await one.thread(id)
    await shorter.note("t1", "red shoes")
    for text in ("red hats", "red coats"):
        await other.note("t2", text)
    archive = store_of(shorter, path)
    assert await texts(archive, "blue red") == ["red shoes"]
    await archive.close()
    await other.note("t1", "blue coats")
    archive = store_of(other, path)
    assert set(await texts(archive, "blue red")) == {"red hats", "red coats", "red shoes"}
    await other.note("t1", "blue socks")
    found = set(await texts(archive, "blue red"))
    assert found == {"red hats", "red coats", "blue coats", "blue socks"}
    await archive.close()


async def test_vectors_that_are_gone_are_made_again(teller: Teller, tmp_path: Path) -> None:
    path = tmp_path / "treadle.db-archive"
    for n in range(6):
        await teller.note("t1", f"note {n}")

    async def opened() -> list[str]:
        archive = store_of(teller, path, HashingEmbedder(8))
        found = await texts(archive, "note", by="vector")
        await archive.close()
        return found

    whole = await opened()
    (vectors,) = tmp_path.glob("*.f32")
    rows = np.fromfile(vectors, np.float32).reshape(-1, 8)
    rows[[1, 4]] = 0  # the power failed before these were written
    rows.tofile(vectors)
    assert await opened() == whole
    with vectors.open("r+b") as file:
        file.truncate(2 * 8 * 4)  # or these
    assert await opened() == whole
    vectors.unlink()
    assert await opened() == whole


async def test_a_change_that_fails_changes_nothing(teller: Teller, tmp_path: Path) -> None:
    """A process killed between writing vectors and rows leaves vectors in free slots."""
    path = tmp_path / "treadle.db-archive"
    await teller.note("t1", "blue shoes", "p1")
    archive = store_of(teller, path, HashingEmbedder(8))
    before = await search(archive, "blue shoes", by="vector")
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute(
            "CREATE TRIGGER stop BEFORE UPDATE OF seq ON source"
            " BEGIN SELECT RAISE(ABORT, 'stopped'); END"
        )
    await teller.unnote("t1", "p1")
    await teller.note("t1", "red hats", "p2")
    vectors = await archive.vectors_of(["red hats"])
    archive.keep_vectors([NewPassage("p2", "red hats")], vectors)
    with pytest.raises(ArchiveFailed, match="stopped"):
        await search(archive, "blue shoes", by="vector")
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT id, slot FROM passage").fetchall() == [("p1", 0)]
        assert np.fromfile(next(tmp_path.glob("*.f32")), np.float32).reshape(-1, 8)[0].any()
        file.execute("DROP TRIGGER stop")
    (found,) = await search(archive, "red hats", by="vector")
    assert found.vector_score == pytest.approx(1.0, abs=1e-5)
    assert before[0].vector_score == pytest.approx(1.0, abs=1e-5)
    await archive.close()


async def test_two_processes_index_at_once(teller: Teller, tmp_path: Path) -> None:
    path = tmp_path / "treadle.db-archive"
    stores = [store_of(teller, path, HashingEmbedder(8)) for _ in range(2)]
    for n in range(20):
        await teller.note(f"t{1 + n % 2}", f"note {n}", tags=["x"])
        found = await asyncio.gather(*(search(one, "note", limit=50) for one in stores))
        assert [{one.text for one in some} for some in found] == [
            {f"note {m}" for m in range(n + 1)}
        ] * 2
    await teller.delete("t1")
    for one in stores:
        for by in ("text", "vector", "both"):
            left = await texts(one, "note", by=by, limit=50)
            assert sorted(left) == sorted(f"note {m}" for m in range(1, 20, 2))
        await one.close()


async def test_a_missing_folder_is_an_error_of_the_archive(teller: Teller, tmp_path: Path) -> None:
    archive = store_of(teller, tmp_path / "none" / "treadle.db-archive", HashingEmbedder(8))
    with pytest.raises(ArchiveFailed, match="made of the journal"):
        await search(archive, "x")
    await archive.close()


async def test_forgetting_a_thread_reads_no_other(teller: Teller, tmp_path: Path) -> None:
    path = tmp_path / "treadle.db-archive"
    archive = store_of(teller, path)
    await teller.note("t1", "blue shoes")
    await archive.forget(OWNER, "t1")  # the index does not exist
    assert not path.exists()
    assert await texts(archive, "blue") == ["blue shoes"]
    await teller.note("t2", "blue socks")
    await teller.delete("t1")
    await archive.forget(OWNER, "t1")
    await archive.forget(OWNER, "unknown")
    with contextlib.closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT thread_id FROM source").fetchall() == []
        assert file.execute("SELECT count(*) FROM passage").fetchone() == (0,)
    assert await texts(archive, "blue") == ["blue socks"]
    await archive.close()


async def test_what_cannot_be_swept_is_logged(
    teller: Teller, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "treadle.db-archive"
    await teller.note("t1", "blue shoes")
    archive = store_of(teller, path)
    await archive.sweep(OWNER)  # there is nothing to sweep
    assert not path.exists()
    await search(archive, "blue")
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute(
            "CREATE TRIGGER stop BEFORE DELETE ON source BEGIN SELECT RAISE(ABORT, 'stopped'); END"
        )
    await teller.delete("t1")
    with caplog.at_level(logging.WARNING, "treadle.archive"):
        await archive.sweep(OWNER)
    assert "still in the archive" in caplog.text
    with contextlib.closing(sqlite3.connect(path)) as file:
        file.execute("DROP TRIGGER stop")
    assert await texts(archive, "blue") == []
    await archive.close()


async def test_an_embedder_that_fails_in_the_background_is_logged(
    teller: Teller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(store, "BATCH", 2)
    monkeypatch.setattr(store, "AT_ONCE", 2)
    asked = 0

    def embed(some: list[str]) -> Vectors:
        nonlocal asked
        asked += 1
        if asked > 2:  # the query, and the texts that a search waits for
            raise OSError
        return [[1.0]] * len(some)

    for n in range(6):
        await teller.note("t1", f"note {n}")
    archive = store_of(teller, None, CallableEmbedder(embed))
    with caplog.at_level(logging.WARNING, "treadle.archive"):
        assert len(await search(archive, "note", by="vector")) == 2
        (task,) = [
            one for one in asyncio.all_tasks() if one.get_name() == "treadle archive vectors"
        ]
        await task
        await archive.close()
    assert "Vectors are missing" in caplog.text


async def test_a_journal_that_is_closed(teller: Teller, path: Path | None) -> None:
    archive = store_of(teller, path, HashingEmbedder(8))
    await teller.journal.close()
    with pytest.raises(JournalClosed):
        await search(archive, "x")
    await archive.close()
    await archive.close()


# Against a model of it

VOCABULARY = ("amber", "birch", "coral", "delta", "ember")
TAGS = ("x", "y", "z")
STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("note"),
            st.sampled_from(["t1", "t2", "t3"]),
            st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=4),
            st.lists(st.sampled_from(TAGS), max_size=2, unique=True),
        ),
        st.tuples(
            st.just("say"),
            st.sampled_from(["t1", "t2", "t3"]),
            st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=4),
            st.sampled_from(["user", "assistant"]),
        ),
        st.tuples(st.just("remove"), st.integers(0, 30)),
        st.tuples(st.just("delete"), st.sampled_from(["t1", "t2", "t3"])),
        st.tuples(st.just("reopen"), st.booleans()),
        st.tuples(
            st.just("search"),
            st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=2),
            st.sampled_from([None, "archive", "message"]),
            st.sampled_from(["", "t1", "t2"]),
            st.lists(st.sampled_from(TAGS), max_size=2, unique=True),
            st.booleans(),
        ),
    ),
    max_size=40,
)


@settings(
    max_examples=40,
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.function_scoped_fixture,
        HealthCheck.differing_executors,
    ],
)
@given(steps=STEPS, on_disk=st.booleans())
async def test_it_finds_what_a_look_at_everything_finds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple], on_disk: bool
) -> None:
    path = tmp_path_factory.mktemp("archive") / "treadle.db-archive" if on_disk else None
    teller, model = Teller(), dict[tuple[str, int], tuple[str, str, tuple[str, ...], str]]()
    for id in ("t1", "t2", "t3"):
        await teller.thread(id)
    archive = store_of(teller, path, HashingEmbedder(32))
    for what, *values in steps:
        match what:
            case "note":
                thread, words, tags = values
                text = " ".join(words)
                id = await teller.note(thread, text, f"p{len(model)}-{thread}", tags)
                model[thread, teller.seq(thread)] = (text, "archive", tuple(tags), id)
            case "say":
                thread, words, role = values
                await teller.say(thread, " ".join(words), role)
                model[thread, teller.seq(thread)] = (" ".join(words), "message", (), role)
            case "remove":
                notes = [key for key, value in model.items() if value[1] == "archive"]
                if notes:
                    thread, seq = notes[values[0] % len(notes)]
                    await teller.unnote(thread, model[thread, seq][3])
                    gone = model[thread, seq][3]
                    model = {
                        key: value
                        for key, value in model.items()
                        if not (key[0] == thread and value[3] == gone)
                    }
            case "delete":
                await teller.delete(values[0])
                await teller.thread(values[0])
                model = {key: value for key, value in model.items() if key[0] != values[0]}
            case "reopen":
                await archive.close()
                archive = store_of(teller, path, HashingEmbedder(32) if values[0] else None)
            case _:
                await compare(archive, model, *values)
    await archive.close()


async def compare(
    archive: ArchiveStore,
    model: dict[tuple[str, int], tuple[str, str, tuple[str, ...], str]],
    words: list[str],
    kind: str | None,
    thread: str,
    tags: list[str],
    each: bool,
) -> None:
    filters = Filters(
        kind=kind,  # type: ignore[arg-type]
        thread_id=thread,
        any_tags=() if each else tuple(tags),
        all_tags=tuple(tags) if each else (),
    )
    chosen = {
        key: text
        for key, (text, its_kind, its_tags, _) in model.items()
        if kind in {None, its_kind}
        and thread in {"", key[0]}
        and (not tags or (set(tags) <= set(its_tags) if each else set(tags) & set(its_tags)))
    }
    query = " ".join(words)
    by_text = await search(archive, query, by="text", filters=filters, limit=100)
    assert {(found.passage.thread_id, found.passage.seq) for found in by_text} == {
        key for key, text in chosen.items() if set(words) & set(text.split())
    }
    assert [found.score for found in by_text] == sorted(
        (found.score for found in by_text), reverse=True
    )
    if archive.embedder is None:
        return
    by_vector = await search(archive, query, by="vector", filters=filters, limit=100)
    vectors = np.array(await HashingEmbedder(32).embed([query, *chosen.values()]))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = dict(zip(chosen, vectors[1:] @ vectors[0], strict=True))
    assert {(found.passage.thread_id, found.passage.seq) for found in by_vector} == set(chosen)
    scores = [found.vector_score for found in by_vector]
    assert scores == sorted(scores, reverse=True)  # type: ignore[type-var]
    for found in by_vector:
        expected = cosines[found.passage.thread_id, found.passage.seq]
        assert found.vector_score == pytest.approx(expected, abs=1e-5)
    both = await search(archive, query, filters=filters, limit=100)
    assert {(found.passage.thread_id, found.passage.seq) for found in both} == set(chosen)
