"""The files of the archive's index, and what becomes of them; see also `test_contract`."""

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.memory.archive.story import OWNER, Teller, search, store_of, texts

from treadle.domain.passages import NewPassage
from treadle.errors import (
    ArchiveFailed,
    EmbeddingInvalid,
)
from treadle.memory.archive import store
from treadle.memory.archive.embedders import CallableEmbedder, HashingEmbedder, Vectors
from treadle.memory.archive.store import ArchiveStore

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]


@pytest.fixture
async def teller() -> Teller:
    teller = Teller()
    for id in ("t1", "t2"):
        await teller.thread(id)
    return teller


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
