"""What every index of the archive does: SQLite in memory and in a file, and PostgreSQL.

PostgreSQL with and without pgvector, and through a pooler: `postgres` and `pooled` do not use
pgvector, even where it is installed.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.memory.archive.story import DAY, OWNER, Teller, any_store_of, search, texts
from tests.postgres import pooler, server, vector_server

from treadle.domain.items import user_message
from treadle.domain.passages import Filters, Period
from treadle.errors import (
    ArchiveFailed,
    ConfigurationError,
    EmbeddingFailed,
    EmbeddingInvalid,
    InvalidInput,
    JournalClosed,
)
from treadle.journal.base import Journal
from treadle.journal.memory import MemoryJournal
from treadle.journal.postgres import PostgresJournal
from treadle.memory.archive import (
    finder,
    postgres_archive,
    postgres_finder,
    postgres_vectors,
    store,
)
from treadle.memory.archive.access import Store
from treadle.memory.archive.embedders import CallableEmbedder, HashingEmbedder, Vectors
from treadle.memory.archive.pages import Statistics
from treadle.memory.archive.query import DEPTH

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

DATABASES = [
    pytest.param("postgres", marks=pytest.mark.needs("postgres")),
    pytest.param("pgvector", marks=pytest.mark.needs("pgvector")),
    pytest.param("pooled", marks=pytest.mark.needs("pgbouncer")),
]


@asynccontextmanager
async def journal_of(kind: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Journal]:
    if kind not in {"postgres", "pgvector", "pooled"}:
        yield MemoryJournal()
        return
    if kind != "pgvector":
        monkeypatch.setattr(postgres_vectors, "extension_schema", lambda _: "")
    behind = pooler().url() if kind == "pooled" else ""
    journal = PostgresJournal(
        (vector_server() if kind == "pgvector" else server()).url(), pooler=behind
    )
    await journal.open()
    try:
        yield journal
    finally:
        await journal.close()


@pytest.fixture(params=["memory", "file", *DATABASES])
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def path(kind: str, tmp_path: Path) -> Path | None:
    return tmp_path / "treadle.db-archive" if kind == "file" else None


@pytest.fixture
async def teller(kind: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Teller]:
    async with journal_of(kind, monkeypatch) as journal:
        teller = Teller(journal)
        for id in ("t1", "t2"):
            await teller.thread(id)
        yield teller


@pytest.fixture
async def archive(teller: Teller, path: Path | None) -> AsyncIterator[Store]:
    made = any_store_of(teller, path, HashingEmbedder())
    yield made
    await made.close()


def set_limits(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    for module in (finder, postgres_finder, store, postgres_archive):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, value)


async def test_what_was_said_and_noted_is_found_with_where_it_came_from(
    teller: Teller, archive: Store
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
    teller: Teller, archive: Store
) -> None:
    for n in range(5):
        await teller.say("t1", f"word{n}")
        assert await texts(archive, f"word{n}", by="text") == [f"word{n}"]
        assert (await texts(archive, f"word{n}", by="vector"))[0] == f"word{n}"


async def test_filters(teller: Teller, archive: Store) -> None:
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


async def test_owners_never_meet(teller: Teller, archive: Store) -> None:
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
    teller: Teller, archive: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, "MATCHES", 2)
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


async def test_without_a_query_the_newest_come_first(teller: Teller, archive: Store) -> None:
    for n in range(4):
        await teller.note("t1", f"note {n}")
    await teller.note("t1", "old", at=1.0)
    assert await texts(archive, "") == ["note 3", "note 2", "note 1", "note 0", "old"]
    assert await texts(archive, "", limit=2, offset=1) == ["note 2", "note 1"]


async def test_pages_follow_each_other(teller: Teller, archive: Store) -> None:
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


async def test_any_text_may_be_searched_for(teller: Teller, archive: Store) -> None:
    await teller.note("t1", "私は東京都に住んでいます")
    await teller.note("t1", "a party 🎉 tonight")
    assert (await texts(archive, "京都", by="text")) == ["私は東京都に住んでいます"]
    assert (await texts(archive, "🎉", by="text")) == ["a party 🎉 tonight"]
    for by in ("text", "vector", "both"):
        for text in ('" OR NEAR(', "???", "text:x*", "\x00", "\ud800", "'; DROP TABLE", "-" * 999):
            await search(archive, text, by=by)


async def test_what_is_deleted_is_gone(teller: Teller, archive: Store) -> None:
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
    assert await archive.statistics(OWNER) == Statistics(1, 1, 2, 0)
    for id in ("t1", "t2"):
        await teller.delete(id)
    await archive.sweep(OWNER)
    assert await archive.statistics(OWNER) == Statistics(0, 0, 0, 0)


async def test_a_passage_that_came_twice_is_one(teller: Teller, archive: Store) -> None:
    await teller.note("t1", "blue shoes", "p")
    await teller.note("t1", "blue socks", "p")
    assert await texts(archive, "blue") == ["blue shoes"]
    await teller.note("t1", "blue hats", "p")
    assert await texts(archive, "blue") == ["blue shoes"]
    await teller.unnote("t1", "p")
    await teller.note("t1", "blue coats", "p")
    assert await texts(archive, "blue") == ["blue coats"]


async def test_a_message_that_was_said_twice_is_two(teller: Teller, archive: Store) -> None:
    item = user_message("good morning")
    await teller.say("t1", item)
    await teller.say("t1", item)
    assert len(await search(archive, "morning")) == 2


async def test_what_agents_say_to_each_other_is_found_on_their_thread_only(
    teller: Teller, archive: Store
) -> None:
    await teller.thread("work", parent="t1")
    await teller.say("work", "blue whale")
    await teller.note("work", "blue moon")
    for by in ("text", "vector", "both"):
        assert await texts(archive, "blue", by=by) == ["blue moon"]
        own = await texts(archive, "blue", by=by, filters=Filters(thread_id="work"))
        assert set(own) == {"blue whale", "blue moon"}
    assert await texts(archive, "") == ["blue moon"]


async def test_the_copies_of_a_fork_are_shown_once(teller: Teller, archive: Store) -> None:
    for n in range(30):
        item = user_message(f"blue {n}")
        await teller.say("t1", item)
        await teller.say("t2", item)
    for by in ("text", "vector", "both"):
        found = await texts(archive, "blue", by=by, limit=50)
        assert len(found) == len(set(found)) == 30
    assert len(await texts(archive, "blue", filters=Filters(thread_id="t2"), limit=50)) == 30


async def test_words_that_are_everywhere_do_not_hide_those_that_are_not(
    teller: Teller, archive: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, "MATCHES", 20)
    for n in range(60):
        await teller.note("t1", f"common frequent item{n}")
    found = await texts(archive, "common frequent item7", by="text", limit=30)
    assert found[0] == "common frequent item7"
    assert found[1:] == [f"common frequent item{n}" for n in range(59, 39, -1)]
    found = await texts(archive, "common", by="text", limit=50)
    assert found == [f"common frequent item{n}" for n in range(59, 39, -1)]


async def test_what_is_out_of_bounds_is_refused(archive: Store) -> None:
    for limit, offset in ((0, 0), (101, 0), (10, -1), (10, DEPTH)):
        with pytest.raises(InvalidInput):
            await search(archive, "x", limit=limit, offset=offset)
    with pytest.raises(InvalidInput, match="Shorten it"):
        await search(archive, "x" * 10_001)


async def test_vectors_need_an_embedder(teller: Teller, path: Path | None) -> None:
    archive = any_store_of(teller, path)
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
    archive = any_store_of(teller, path, embedder)
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
    archive = any_store_of(teller, path, CallableEmbedder(fail))
    with pytest.raises(EmbeddingFailed) as failed:
        await search(archive, "blue")
    assert "sk-1234" not in str(failed.value)
    assert failed.value.retryable
    assert await texts(archive, "blue", by="text") == ["blue shoes"]
    await archive.close()


async def test_a_size_that_changes_is_refused(teller: Teller, path: Path | None) -> None:
    size = 3
    embedder = CallableEmbedder(lambda some: [[1.0] * size for _ in some])
    archive = any_store_of(teller, path, embedder)
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
    archive = any_store_of(teller, path, embedder)
    await teller.note("t1", "one")
    await teller.note("t1", "both")
    assert await texts(archive, "b", by="vector") == ["both"]
    assert await texts(archive, "one", by="vector") == []  # the query has none
    assert await texts(archive, "one") == ["one"]
    assert (await archive.statistics(OWNER)).without_vector == 0
    await archive.close()


async def test_many_texts_without_a_vector_get_theirs_in_the_background(
    teller: Teller, path: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, "BATCH", 4)
    set_limits(monkeypatch, "AT_ONCE", 8)
    for n in range(30):
        await teller.note("t1", f"note {n}")
    archive = any_store_of(teller, path, HashingEmbedder(16))
    found = await texts(archive, "note", by="vector", limit=50)
    assert {f"note {n}" for n in range(22, 30)} <= set(found)
    while (await archive.statistics(OWNER)).without_vector:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0)
    assert len(await texts(archive, "note", by="vector", limit=50)) == 30
    await archive.close()


async def test_follow_whole_waits_for_all_vectors(
    teller: Teller, path: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_limits(monkeypatch, "BATCH", 4)
    set_limits(monkeypatch, "AT_ONCE", 8)
    for n in range(30):
        await teller.note("t1", f"note {n}")
    archive = any_store_of(teller, path, HashingEmbedder(16))
    await archive.follow_whole(OWNER)
    assert (await archive.statistics(OWNER)).without_vector == 0
    await archive.close()


async def test_a_journal_that_is_closed(teller: Teller, path: Path | None) -> None:
    archive = any_store_of(teller, path, HashingEmbedder(8))
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


CHECKS = [
    HealthCheck.too_slow,
    HealthCheck.function_scoped_fixture,
    HealthCheck.differing_executors,
]


@settings(max_examples=40, suppress_health_check=CHECKS)
@given(steps=STEPS, on_disk=st.booleans())
async def test_it_finds_what_a_look_at_everything_finds(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple], on_disk: bool
) -> None:
    path = tmp_path_factory.mktemp("archive") / "treadle.db-archive" if on_disk else None
    await follow_steps(Teller(), path, steps)


@pytest.mark.parametrize("kind", DATABASES)
@settings(max_examples=5, suppress_health_check=CHECKS)
@given(steps=STEPS)
async def test_it_finds_that_in_a_database(
    kind: str, steps: list[tuple], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with journal_of(kind, monkeypatch) as journal:
        await follow_steps(Teller(journal), None, steps)


async def follow_steps(teller: Teller, path: Path | None, steps: list[tuple]) -> None:
    model = dict[tuple[str, int], tuple[str, str, tuple[str, ...], str]]()
    for id in ("t1", "t2", "t3"):
        await teller.thread(id)
    archive, has_vectors = any_store_of(teller, path, HashingEmbedder(32)), True
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
                has_vectors = values[0]
                archive = any_store_of(teller, path, HashingEmbedder(32) if has_vectors else None)
            case _:
                await compare(archive, model, *values, has_vectors=has_vectors)
    await archive.close()


async def compare(
    archive: Store,
    model: dict[tuple[str, int], tuple[str, str, tuple[str, ...], str]],
    words: list[str],
    kind: str | None,
    thread: str,
    tags: list[str],
    each: bool,
    *,
    has_vectors: bool,
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
    if not has_vectors:
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
