"""The archive of a PostgreSQL journal: several nodes, deletions, and what may go wrong."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from secrets import token_urlsafe

import psycopg
import pytest
from tests.memory.archive.story import OWNER, Teller, search, store_of, texts
from tests.postgres import server, vector_server

from treadle.domain.events import EventRemoved, ItemRemoved
from treadle.domain.passages import NewPassage
from treadle.errors import EmbeddingFailed, EmbeddingInvalid
from treadle.journal.postgres import PostgresJournal
from treadle.journal.postgres_connection import PostgresConnection
from treadle.memory.archive import (
    postgres_archive,
    postgres_finder,
    postgres_index,
    postgres_vectors,
)
from treadle.memory.archive.copying import copy_vectors
from treadle.memory.archive.embedders import CallableEmbedder, HashingEmbedder, Vectors
from treadle.memory.archive.postgres_archive import PostgresArchive
from treadle.memory.archive.postgres_index import PostgresIndex
from treadle.memory.archive.postgres_vectors import PostgresVectors, vector_type

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock, pytest.mark.needs("postgres")]

TABLES = ("owner", "thread", "passage", "vector", "upto", "gone")


class Counting:
    """Counts how often it embeds each text; waits while it is held."""

    def __init__(self, name: str = "counting", size: int = 2) -> None:
        self.name = name
        self.dimensions = size
        self.asked: list[str] = []
        self.called = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked += [text for text in texts if text != "query"]
        self.called.set()
        await self.go_on.wait()
        return [[1.0, *[0.5] * (self.dimensions - 1)] for _ in texts]


class Nodes:
    """Nodes of one database, each with its journal and its archive."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._opened: list[tuple[PostgresJournal, PostgresArchive]] = []

    async def node(self, embedder: object = None) -> PostgresArchive:
        journal = PostgresJournal(self.url)
        await journal.open()
        archive = PostgresArchive(journal, embedder)  # type: ignore[arg-type]
        self._opened.append((journal, archive))
        return archive

    async def teller(self) -> Teller:
        journal = PostgresJournal(self.url)
        await journal.open()
        self._opened.append((journal, PostgresArchive(journal, None)))
        teller = Teller(journal)
        for id in ("t1", "t2"):
            await teller.thread(id)
        return teller

    async def rows(self, sql: str) -> list[tuple]:
        journal = self._opened[0][0]
        return await journal.apart(lambda connection: connection.execute(sql).fetchall())

    async def counts(self) -> dict[str, int]:
        return {
            table: (await self.rows(f"SELECT count(*) FROM archive_{table}"))[0][0]
            for table in TABLES
        }

    async def until(self, condition: str) -> None:
        """Waits until a condition is true of a vector."""
        while not await self.rows(f"SELECT 1 FROM archive_vector WHERE {condition}"):  # noqa: ASYNC110 - another process has no event
            await asyncio.sleep(0.01)

    async def change(self, sql: str) -> None:
        await self._opened[0][0].apart(lambda connection: connection.raw.execute(sql))  # type: ignore[call-overload]

    async def close(self) -> None:
        for journal, archive in self._opened:
            await archive.close()
            await journal.close()


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    made = Nodes(server().url())
    yield made
    await made.close()


async def test_each_text_is_embedded_once_by_all_nodes(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_archive, "BATCH", 4)
    teller, embedder = await nodes.teller(), Counting()
    for n in range(40):
        await teller.note("t1", f"note {n}")
        await teller.note("t2", f"note {n}")  # as in a fork
    archives = [await nodes.node(embedder) for _ in range(3)]
    found = await asyncio.gather(
        *(search(one, "query", by="vector", limit=100) for one in archives)
    )
    assert [len(one) for one in found] == [80, 80, 80]  # their ids differ
    assert sorted(embedder.asked) == sorted(f"note {n}" for n in range(40))


async def test_a_search_waits_for_what_another_node_embeds(nodes: Nodes) -> None:
    teller, slow = await nodes.teller(), Counting()
    first, second = await nodes.node(slow), await nodes.node(Counting())
    assert await texts(first, "query", by="vector") == []
    slow.go_on.clear()
    await teller.note("t1", "blue")
    indexing = asyncio.create_task(first.follow_whole(OWNER))
    await slow.called.wait()
    await nodes.until("is_claimed")
    waiting = asyncio.create_task(search(second, "query", by="vector"))
    assert await texts(second, "blue", by="text") == ["blue"]
    await asyncio.sleep(0.2)
    assert not waiting.done()
    slow.go_on.set()
    await indexing
    assert [one.text for one in await waiting] == ["blue"]
    assert slow.asked == ["blue"]


async def test_the_claim_of_an_embedder_that_ended_ends(nodes: Nodes) -> None:
    teller, embedder = await nodes.teller(), Counting()
    await teller.note("t1", "blue")
    archive = await nodes.node(embedder)
    await archive._follow(OWNER)
    dead = PostgresVectors(embedder.name, embedder.dimensions)
    journal = teller.journal
    assert isinstance(journal, PostgresJournal)
    (claimed,) = await journal.apart(lambda c: dead.claim(c, OWNER, 10))
    assert claimed.text == "blue"
    waiting = asyncio.create_task(search(archive, "query", by="vector"))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await nodes.change("UPDATE archive_vector SET until = now()")  # 30 seconds later
    assert [one.text for one in await waiting] == ["blue"]


async def test_a_claim_is_kept_while_its_embedder_works(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_archive, "CLAIM_SECONDS", 0.1)
    teller, embedder = await nodes.teller(), Counting()
    await teller.note("t1", "blue")
    archive = await nodes.node(embedder)
    embedder.go_on.clear()
    working = asyncio.create_task(archive.follow_whole(OWNER))
    await embedder.called.wait()
    await nodes.change("UPDATE archive_vector SET until = now()")
    await nodes.until("until > now()")
    embedder.go_on.set()
    await working
    assert embedder.asked == ["blue"]


async def test_a_cancelled_or_failed_embedder_gives_its_texts_back(nodes: Nodes) -> None:
    teller, embedder = await nodes.teller(), Counting()
    await teller.note("t1", "blue")
    archive = await nodes.node(embedder)
    embedder.go_on.clear()
    working = asyncio.create_task(archive.follow_whole(OWNER))
    await embedder.called.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    assert await nodes.rows("SELECT tries, is_claimed FROM archive_vector") == [(0, False)]

    async def fail(_: Sequence[str]) -> Vectors:
        raise OSError

    failing = await nodes.node(CallableEmbedder(fail, name="counting", dimensions=2))
    for _ in range(7):  # it is down, so this is not the fault of the text
        with pytest.raises(EmbeddingFailed):
            await failing.follow_whole(OWNER)
    assert await nodes.rows("SELECT tries, is_claimed FROM archive_vector") == [(0, False)]
    embedder.go_on.set()
    assert await texts(await nodes.node(embedder), "query", by="vector") == ["blue"]


async def test_an_archive_that_is_closed_while_it_embeds_gives_its_texts_back(
    nodes: Nodes, caplog: pytest.LogCaptureFixture
) -> None:
    teller, embedder = await nodes.teller(), Counting()
    await teller.note("t1", "blue")
    embedder.go_on.clear()
    for _ in range(postgres_vectors.TRIES + 1):  # a deployment after the other
        archive = await nodes.node(embedder)
        embedder.called.clear()
        await archive._follow(OWNER)
        archive._in_background(OWNER, archive._embed_logged)
        (working,) = archive._background.values()
        await embedder.called.wait()
        await archive.close()
        assert working.cancelled()
    assert await nodes.rows("SELECT tries, is_claimed FROM archive_vector") == [(0, False)]
    assert caplog.text == ""


async def test_a_text_whose_processes_were_killed_is_tried_again_later(nodes: Nodes) -> None:
    teller, embedder = await nodes.teller(), Counting()
    await teller.note("t1", "blue")
    archive = await nodes.node(embedder)
    await archive._follow(OWNER)
    for _ in range(postgres_vectors.TRIES):
        assert len(await archive._run(lambda c: archive._made.claim(c, OWNER, 9))) == 1
        await nodes.change("UPDATE archive_vector SET until = now()")
    assert await texts(archive, "query", by="vector") == []

    async def fail(_: Sequence[str]) -> Vectors:
        raise OSError

    await nodes.change("UPDATE archive_vector SET until = now() - interval '2 hours'")
    with pytest.raises(EmbeddingFailed):
        await (
            await nodes.node(CallableEmbedder(fail, name="counting", dimensions=2))
        ).follow_whole(OWNER)
    assert await texts(archive, "query", by="vector") == ["blue"]


async def test_words_are_stemmed_in_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_index, "_STEMS", 5)
    index, inner = PostgresIndex(), 0

    class Slow:
        """Stems other words, as another thread does, while it is asked."""

        def execute(self, _: str, values: tuple[list[str]]) -> "Slow":
            nonlocal inner
            self.words = values[0]
            if inner < 20:
                inner += 1
                index.stemmed(Slow(), [f"w{inner}"])  # type: ignore[arg-type]
            return self

        def fetchall(self) -> list[tuple[str, str | None]]:
            return [(word, None) for word in self.words]

    for n in range(50):
        words = {f"w{n + m}" for m in range(4)}
        assert index.stemmed(Slow(), words) == {word: word for word in words}  # type: ignore[arg-type]


async def test_a_refused_text_is_tried_again_a_few_times(nodes: Nodes) -> None:
    teller, asked = await nodes.teller(), list[str]()

    def embed(some: list[str]) -> Vectors:
        asked.extend(some)
        if "poison" in some:
            raise ValueError
        return [[1.0, 2.0] for _ in some]

    await teller.note("t1", "flower")
    await teller.note("t1", "poison")
    for _ in range(8):
        archive = await nodes.node(CallableEmbedder(embed, name="choosy"))
        assert await texts(archive, "query", by="vector") == ["flower"]
        assert await texts(archive, "query", by="vector") == ["flower"]
        await nodes.change("UPDATE archive_vector SET until = now()")  # an hour later
    assert asked.count("poison") <= 2 * postgres_vectors.TRIES  # with others, and alone
    assert await texts(archive, "poison", by="text") == ["poison"]


async def test_what_was_embedded_before_it_was_added_is_not_embedded_again(nodes: Nodes) -> None:
    teller, embedder = await nodes.teller(), Counting()
    first, second = await nodes.node(embedder), await nodes.node(embedder)
    vectors = await first.vectors_of(["blue shoes"])
    async with first.adding(OWNER, [NewPassage("p1", "blue shoes")], vectors):
        # Another node is faster, and this one could end here.
        await teller.note("t1", "blue shoes", "p1")
        assert await texts(second, "query", by="vector") == ["blue shoes"]
    assert embedder.asked == ["blue shoes"]


async def test_vectors_of_texts_that_were_never_added_are_swept(nodes: Nodes) -> None:
    await nodes.teller()
    archive = await nodes.node(Counting())
    vectors = await archive.vectors_of(["blue shoes"])
    with pytest.raises(ZeroDivisionError):
        async with archive.adding(OWNER, [NewPassage("p1", "blue shoes")], vectors):
            raise ZeroDivisionError
    await archive.sweep(OWNER)
    assert (await nodes.counts())["vector"] == 1  # its sender may try again
    await nodes.change("UPDATE archive_gone SET due = now()")  # an hour later
    await archive.sweep(OWNER)
    assert (await nodes.counts()) == dict.fromkeys(TABLES, 0)


async def test_a_deletion_leaves_nothing(nodes: Nodes) -> None:
    teller = await nodes.teller()
    await teller.thread("theirs", owner="eve")
    await teller.note("theirs", "blue moon")
    for id in ("t1", "t2"):
        await teller.note(id, "blue shoes")
        await teller.say(id, f"red hats of {id}")
    archive = await nodes.node(Counting())
    for owner in (OWNER, "eve"):
        await search(archive, "query", owner=owner)
    await teller.delete("t1")  # in its transaction, the texts
    assert await nodes.rows("SELECT text FROM archive_passage WHERE o = 1 ORDER BY n") == [
        ("blue shoes",), ("red hats of t2",)
    ]  # fmt: skip
    await archive.forget(OWNER, "t1")  # and then what only they needed
    assert (await nodes.counts())["vector"] == 3
    await teller.delete("t2")
    # The process that deleted it ends here; the next that works on an index sweeps.
    other = await nodes.node(Counting())
    assert await texts(other, "blue", owner="eve", by="text") == ["blue moon"]
    assert await nodes.rows("SELECT name, passages FROM archive_owner") == [("eve", 1)]
    assert await nodes.counts() == {
        "owner": 1, "thread": 1, "passage": 1, "vector": 1, "upto": 1, "gone": 0
    }  # fmt: skip


async def test_removed_content_leaves_the_index_in_its_transaction(nodes: Nodes) -> None:
    teller = await nodes.teller()
    await teller.note("t1", "blue shoes")
    await teller.say("t1", "blue secret")
    archive = await nodes.node(HashingEmbedder(8))
    assert len(await texts(archive, "blue")) == 2
    claim = teller._claims["t1"]
    await teller.append("t1", ItemRemoved(events=(2,), keys=("x",)))
    removed = EventRemoved(seq=2, at=1.0)
    await teller.journal.redact(claim, [removed], clears_title=False)
    assert await nodes.rows("SELECT text FROM archive_passage") == [("blue shoes",)]
    await archive.forget(OWNER, "t1", [2])
    assert (await nodes.counts())["vector"] == 1
    assert await texts(archive, "blue") == ["blue shoes"]


async def test_a_page_read_before_a_removal_is_corrected_by_the_next_search(nodes: Nodes) -> None:
    teller = await nodes.teller()
    await teller.say("t1", "blue secret")
    archive = await nodes.node()
    page = await postgres_archive.next_page(teller.journal, "t1", 0)
    await teller.append("t1", ItemRemoved(events=(1,), keys=("x",)))
    removed = EventRemoved(seq=1, at=1.0)
    await teller.journal.redact(teller._claims["t1"], [removed], clears_title=False)
    ((number,),) = await nodes.rows("SELECT n FROM thread WHERE id = 't1'")
    assert page is not None
    assert await archive._apply(number, page) == 1
    assert await texts(archive, "blue") == []
    assert await nodes.rows("SELECT text FROM archive_passage") == []


async def test_a_search_does_not_wait_for_vectors_of_deleted_texts(nodes: Nodes) -> None:
    teller = await nodes.teller()
    await teller.note("t1", "blue")
    await teller.note("t2", "red")
    archive = await nodes.node(Counting())
    await archive._follow(OWNER)
    await archive._run(lambda c: archive._made.claim(c, OWNER, 0))
    await teller.delete("t1")  # by a process that ended before it swept
    assert (await nodes.counts())["vector"] == 2
    async with asyncio.timeout(10):
        assert await texts(archive, "query", by="vector") == ["red"]


async def test_two_nodes_index_at_once(nodes: Nodes) -> None:
    teller = await nodes.teller()
    for n in range(50):
        await teller.note("t1", f"blue {n}")
        await teller.say("t2", f"red {n}")
    archives = [await nodes.node() for _ in range(4)]
    found = await asyncio.gather(*(texts(one, "blue red", limit=100) for one in archives))
    assert [len(one) for one in found] == [100] * 4
    assert await nodes.rows("SELECT passages, tokens FROM archive_owner") == [(100, 200)]


async def test_a_thread_deleted_while_it_is_indexed_is_not_found(nodes: Nodes) -> None:
    teller = await nodes.teller()
    await teller.note("t1", "blue")
    archive = await nodes.node()
    (behind,) = await archive._run(lambda c: archive._index.behind(c, OWNER))
    page = await postgres_archive.next_page(teller.journal, "t1", 0)
    assert page is not None
    await teller.delete("t1")
    assert await archive._apply(behind.number, page) is None
    assert await nodes.counts() == dict.fromkeys(TABLES, 0)


async def test_two_embedders_are_used_side_by_side(nodes: Nodes) -> None:
    """As while nodes are replaced by those of a version with another embedder."""
    teller, old, new = await nodes.teller(), Counting("old"), Counting("new", 3)
    await teller.note("t1", "blue")
    first, second = await nodes.node(old), await nodes.node(new)
    for _ in range(2):
        for one in (first, second):
            assert await texts(one, "query", by="vector") == ["blue"]
    await teller.note("t1", "red")
    for one in (first, second):
        assert len(await texts(one, "query", by="vector")) == 2
    assert sorted(old.asked) == sorted(new.asked) == ["blue", "red"]
    await nodes.change("UPDATE archive_embedder SET used_at = now() - interval '8 days'")
    assert len(await texts(second, "query", by="vector")) == 2  # notes its use
    third = await nodes.node(new)
    assert len(await texts(third, "query", by="vector")) == 2
    assert await nodes.rows("SELECT name FROM archive_embedder") == [("new",)]
    assert (await nodes.counts())["vector"] == 2
    # The old one comes back, and pays again.
    assert len(await texts(first, "query", by="vector")) == 2
    assert sorted(old.asked) == ["blue", "blue", "red", "red"]


async def test_of_two_sizes_the_first_counts(nodes: Nodes) -> None:
    teller = await nodes.teller()
    await teller.note("t1", "blue")
    made = [
        await nodes.node(CallableEmbedder(lambda some, n=n: [[1.0] * n for _ in some], name="one"))
        for n in (2, 3)
    ]
    assert await texts(made[0], "query", by="vector") == ["blue"]
    with pytest.raises(EmbeddingInvalid, match="of the size 3, and before of 2"):
        await search(made[1], "query", by="vector")
    assert await texts(made[1], "blue", by="text") == ["blue"]


async def test_without_pgvector_the_newest_are_compared(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(postgres_finder, "COMPARED", 3)
    monkeypatch.setattr(postgres_vectors, "extension_schema", lambda _: "")
    teller = await nodes.teller()
    for n in range(5):
        await teller.note("t1", f"blue {n}", tags=["odd"] if n % 2 else [])
    with caplog.at_level(logging.INFO, "treadle.archive"):
        archive = await nodes.node(Counting())
        found = await texts(archive, "query", by="vector")
    assert set(found) == {"blue 2", "blue 3", "blue 4"}
    assert "pgvector" in caplog.text


@pytest.mark.needs("pgvector")
async def test_vectors_are_converted_once_pgvector_can_be_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes, embedder = Nodes(vector_server().url()), HashingEmbedder(8)
    teller = await nodes.teller()
    for n in range(3):
        await teller.note("t1", f"blue {'moon ' * n}")
    with monkeypatch.context() as patch:
        patch.setattr(postgres_vectors, "extension_schema", lambda _: "")
        before = await nodes.node(embedder)
        expected = await search(before, "moon", by="vector")
    journal = teller.journal
    assert isinstance(journal, PostgresJournal)
    assert await journal.apart(vector_type) == ""
    archives = await asyncio.gather(*(nodes.node(embedder) for _ in range(3)))
    for one in archives:
        found = await search(one, "moon", by="vector")
        assert [hit.passage for hit in found] == [hit.passage for hit in expected]
        assert [hit.score for hit in found] == pytest.approx([hit.score for hit in expected])
    assert await journal.apart(vector_type) == "public.vector"
    await teller.note("t1", "blue moon again")
    assert len(await search(before, "moon", by="vector")) == 4  # a node that began before
    assert (await before.statistics(OWNER)).without_vector == 0
    await nodes.close()


async def test_long_and_strange_texts_are_indexed(nodes: Nodes) -> None:
    teller = await nodes.teller()
    words = [f"w{n:x}" + "x" * (n % 90) for n in range(60_000)]
    odd = "a\0b \1 'quoted' \\ back ' : & | ! <-> (x) \u0130stanbul na\u00efve"
    await teller.say("t1", " ".join(words))
    await teller.say("t1", odd)
    await teller.say("t1", "same " * 50_000)
    archive = await nodes.node(Counting())
    assert [one[:3] for one in await texts(archive, words[10], by="text")] == ["w0 "]
    for query in ("naive", "istanbul", "b", "quoted"):
        assert await texts(archive, query, by="text") == [odd]
    assert len(await texts(archive, "same", by="text")) == 1
    assert len(await texts(archive, "query", by="vector")) == 3
    await archive.passages(OWNER, "no\0ne")


async def test_a_text_with_a_long_id_is_indexed(nodes: Nodes) -> None:
    """As an export can contain it."""
    teller, archive = await nodes.teller(), await nodes.node()
    id = token_urlsafe(20_000)
    await teller.note("t1", "blue", id)
    await teller.note("t2", "red")
    assert set(await texts(archive, "blue red")) == {"blue", "red"}
    assert [one.id for one in await archive.passages(OWNER, id)] == [id]


async def test_it_ranks_as_sqlite_does(nodes: Nodes) -> None:
    """The same words, and the same BM25, but for rounding and the length of the rows."""
    teller, sqlite = await nodes.teller(), Teller()
    await sqlite.thread("t1")
    corpus = [
        "The quick brown fox jumps over the lazy dog",
        "A quick answer is better than a slow one; quickly now",
        "Foxes and dogs are running in the park, the dogs first",
        "Caf\u00e9s in Zürich serve na\u00efve art and coffee",
        "日本語の文章は空白なしで書かれる",
        "running runs ran runner",
        *(f"filler text number {n} about nothing at all" for n in range(60)),
    ]
    for text in corpus:
        await teller.say("t1", text)
        await sqlite.say("t1", text)
    ours, theirs = await nodes.node(), store_of(sqlite)
    queries = (
        "quick fox", "dogs running", "cafe zurich", "日本語", "runs", "the lazy", "number 7 text",
        "naïve COFFEE quickly", "nothing",
    )  # fmt: skip
    for query in queries:
        here = await search(ours, query, by="text", limit=100)
        there = await search(theirs, query, by="text", limit=100)
        assert {one.text for one in here} == {one.text for one in there}, query
        assert here[0].text == there[0].text
        scores = {one.text: one.score for one in there}
        for one in here:
            assert one.score == pytest.approx(scores[one.text], rel=0.25), query
    await theirs.close()


@pytest.mark.parametrize(
    "kind", ["postgres", pytest.param("pgvector", marks=pytest.mark.needs("pgvector"))]
)
async def test_the_vectors_of_sqlite_are_copied(tmp_path: Path, kind: str) -> None:
    index, embedder = tmp_path / "treadle.db-archive", Counting(size=4)
    old = Teller()
    for id, owner in (("t1", OWNER), ("t2", OWNER), ("t3", "eve")):
        await old.thread(id, owner)
        await old.note(id, f"blue {id}")
        await old.say(id, "red hats")
    before = store_of(old, index, embedder)
    for owner in (OWNER, "eve"):
        await before.follow_whole(owner)
    await before.close()
    nodes = Nodes((server() if kind == "postgres" else vector_server()).url())
    teller = await nodes.teller()
    await nodes.close()
    assert await copy_vectors(index, nodes.url) == 6
    embedder.asked.clear()
    nodes = Nodes(nodes.url)
    archive = await nodes.node(embedder)
    teller = Teller(archive._journal)
    for id, owner in (("t4", OWNER), ("t3", "eve")):
        await teller.thread(id, owner)
        for n in (1, 2, 3):
            await teller.note(id, f"blue t{n}")
        await teller.say(id, "red hats")
    assert len(await search(archive, "query", by="vector")) == 4
    assert embedder.asked == ["blue t3"]  # that is of another owner
    await nodes.close()


async def test_vectors_that_cannot_be_read_are_not_copied(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    index, url = tmp_path / "treadle.db-archive", server().url()
    index.write_bytes(b"SQLite format 3\0" + b"\xff" * 4096)
    with caplog.at_level(logging.WARNING, "treadle.archive"):
        assert await copy_vectors(index, url) == 0
    assert "are not copied" in caplog.text


async def test_a_connection_that_is_lost_is_replaced(nodes: Nodes) -> None:
    teller = await nodes.teller()
    archive = await nodes.node(Counting())
    await teller.note("t1", "blue")
    assert await texts(archive, "query", by="vector") == ["blue"]

    def end(connection: PostgresConnection) -> None:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid != pg_backend_pid() AND query LIKE '%archive%'"
        ).fetchall()

    journal = teller.journal
    assert isinstance(journal, PostgresJournal)
    await journal.apart(end)
    await teller.note("t1", "red")
    assert len(await texts(archive, "query", by="vector")) == 2


async def test_the_index_can_be_made_again_without_paying_twice(nodes: Nodes) -> None:
    teller, embedder = await nodes.teller(), Counting()
    for n in range(3):
        await teller.note("t1", f"blue {n}")
    archive = await nodes.node(embedder)
    before = await search(archive, "blue query")
    await nodes.change("TRUNCATE archive_thread CASCADE")
    await nodes.change("UPDATE archive_owner SET passages = 0, tokens = 0")
    assert await search(archive, "blue query") == before
    assert sorted(embedder.asked) == ["blue 0", "blue 1", "blue 2", "blue query", "blue query"]


@pytest.mark.needs("pgvector")
async def test_a_role_that_may_not_create_the_extension() -> None:
    url, name = vector_server().url("app"), "without_rights"
    with psycopg.connect(vector_server().url("public"), autocommit=True) as admin:
        admin.execute(f"CREATE ROLE app_{name} LOGIN")
        admin.execute(f"CREATE DATABASE {name}")
        inside = vector_server().url("public").replace("/postgres?", f"/{name}?")
        with psycopg.connect(inside, autocommit=True) as owner:
            owner.execute(f"CREATE SCHEMA app AUTHORIZATION app_{name}")
            nodes = Nodes(
                url.replace("/postgres?", f"/{name}?").replace("treadle@", f"app_{name}@")
            )
            teller = await nodes.teller()
            await teller.note("t1", "blue")
            before, embedder = await nodes.node(Counting()), Counting()
            assert await texts(before, "query", by="vector") == ["blue"]
            journal = teller.journal
            assert isinstance(journal, PostgresJournal)
            assert await journal.apart(vector_type) == ""
            owner.execute("CREATE SCHEMA extensions")
            owner.execute(f"GRANT USAGE ON SCHEMA extensions TO app_{name}")
            owner.execute("CREATE EXTENSION vector SCHEMA extensions")
            after = await nodes.node(embedder)
            for one in (after, before):
                assert await texts(one, "query", by="vector") == ["blue"]
            assert await journal.apart(vector_type) == "extensions.vector"
            assert embedder.asked == []
            await nodes.close()
