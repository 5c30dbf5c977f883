"""The archive of runtimes and threads: what is put in, who finds it, and when it is gone."""

import asyncio
import contextlib
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.postgres import server

import treadle
from treadle import Agent, Runtime
from treadle.actors.shared_memory import shared_id
from treadle.domain.events import PassageAdded, PassageRemoved
from treadle.errors import (
    ConfigurationError,
    EmbeddingFailed,
    EmbeddingInvalid,
    InvalidInput,
    JournalClosed,
    JournalLocked,
    StaleWriter,
    ThreadNotFound,
    UnknownPassage,
)
from treadle.memory import HashingEmbedder
from treadle.memory.archive.embedders import Vectors
from treadle.testing import ScriptedModel

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

Open = Callable[..., Runtime]


@pytest.fixture
def anyio_backend() -> str:
    """The index works in threads of its own."""
    return "asyncio"


def agent_saying(*answers: str) -> Agent:
    return Agent(ScriptedModel(list(answers)), name="helper")


async def say(thread: treadle.Thread, text: str) -> None:
    await (await thread.send(text)).result()


async def test_what_is_put_in_is_an_event_and_is_found(open_runtime: Open) -> None:
    async with open_runtime(embedder=HashingEmbedder(64)) as runtime:
        archive = runtime.archive(owner="ann")
        id = await archive.insert(
            "The dentist moved to Elm Street", tags=["health", "town"], created_at="2026-01-05"
        )
        (found, *_) = await archive.search("where is my dentist?")
        assert (found.passage.id, found.passage.tags) == (id, ("health", "town"))
        assert found.passage.created_at == 1767571200.0
        assert found.passage.thread_id == shared_id("ann", "archive")
        assert await archive.get(id) == found.passage
        (event,) = await runtime.journal.read(found.passage.thread_id, after=0)
        assert isinstance(event, PassageAdded)
        assert (event.passage_id, event.author) == (id, "user")
        assert await runtime.threads() == []
        await archive.remove(id)
        assert await archive.search("dentist") == []
        (_, event) = await runtime.journal.read(found.passage.thread_id, after=0)
        assert isinstance(event, PassageRemoved)
        for again in (archive.get(id), archive.remove(id)):
            with pytest.raises(UnknownPassage):
                await again


async def test_it_is_found_after_the_runtime_was_opened_again(open_runtime: Open) -> None:
    agent = agent_saying("Hello Ada")
    async with open_runtime(agent, embedder=HashingEmbedder(64)) as runtime:
        thread = await runtime.create_thread(agent, owner="ann")
        await say(thread, "I am Ada")
        await runtime.archive(owner="ann").insert("Ada likes tea")
    async with open_runtime(agent, embedder=HashingEmbedder(64)) as runtime:
        assert [one.text for one in await runtime.archive(owner="ann").search("tea")] == [
            "Ada likes tea"
        ]
        found = await runtime.search("ada", owner="ann", by="text")
        assert {(one.text, one.passage.role) for one in found} == {
            ("I am Ada", "user"), ("Hello Ada", "assistant")
        }  # fmt: skip


async def test_a_conversation_is_searched_by_itself_and_with_the_others(
    open_runtime: Open,
) -> None:
    agent = agent_saying("Noted, blue.", "Blue it is.")
    async with open_runtime(agent) as runtime:
        one, two = [await runtime.create_thread(agent, owner="ann") for _ in range(2)]
        await say(one, "I like blue")
        await say(two, "Paint it blue")
        assert {found.text for found in await one.search("blue")} == {"I like blue", "Noted, blue."}
        assert len(await runtime.search("blue", owner="ann")) == 4
        (found,) = await runtime.search(
            "blue", owner="ann", thread_id=two.id, roles=["assistant"], since="2020-01-01"
        )
        assert found.text == "Blue it is."
        (found,) = await one.search("blue", roles=["user"])
        assert (found.passage.thread_id, found.passage.seq) == (one.id, 1)
        assert await one.search("blue", until="2020-01-01") == []
        assert await runtime.search("blue") == []


async def test_owners_never_meet(open_runtime: Open) -> None:
    agent = agent_saying("ok", "ok")
    async with open_runtime(agent, embedder=HashingEmbedder(16)) as runtime:
        ann, eve = runtime.archive(owner="ann"), runtime.archive(owner="eve")
        id = await ann.insert("the secret", tags=["x"], key="k")
        assert await eve.insert("the secret", key="k") != id
        thread = await runtime.create_thread(agent, owner="eve")
        await say(thread, "a secret word")
        for by in ("text", "vector", "both"):
            assert [found.passage.id for found in await ann.search("secret", by=by)] == [id]
            assert id not in [found.passage.id for found in await eve.search("secret", by=by)]
        assert await eve.search(any_tags=["x"]) == []
        assert await runtime.search("secret", owner="ann", thread_id=thread.id) == []
        for stranger in (eve.get(id), eve.remove(id), thread.archive.get(id)):
            with pytest.raises(UnknownPassage):
                await stranger
        assert (await ann.statistics()).passages == 1


async def test_what_belongs_to_a_thread_is_deleted_with_it(open_runtime: Open) -> None:
    agent = agent_saying("fine")
    async with open_runtime(agent, embedder=HashingEmbedder(16)) as runtime:
        thread = await runtime.create_thread(agent, owner="ann")
        other = await runtime.create_thread(agent, owner="ann")
        await say(thread, "the sea is blue")
        await thread.archive.insert("blue note of the thread")
        await other.archive.insert("blue note of the other")
        await runtime.archive(owner="ann").insert("blue note of nobody")
        assert len(await thread.archive.search("blue")) == 3
        assert [found.text for found in await thread.archive.search("blue", this_thread=True)] == [
            "blue note of the thread"
        ]
        await thread.delete()
        left = await runtime.archive(owner="ann").search("blue", limit=50)
        assert {found.text for found in left} == {"blue note of the other", "blue note of nobody"}
        assert await runtime.search("sea", owner="ann") == []
        assert (await other.archive.statistics()).messages == 0
        with pytest.raises(ThreadNotFound):
            await thread.archive.insert("too late")


async def test_a_deletion_reaches_an_index_that_is_not_open(
    open_runtime: Open, tmp_path: Path
) -> None:
    agent = agent_saying("fine")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await say(thread, "xylophone")
        assert await thread.search("xylophone")
    async with open_runtime(agent) as runtime:
        await (await runtime.connect(thread.id)).delete()
    for file in tmp_path.glob("treadle.db-archive*"):
        assert b"xylophone" not in file.read_bytes()


async def test_an_owner_is_deleted_with_all_that_is_remembered(open_runtime: Open) -> None:
    agent = agent_saying("fine", "fine")
    async with open_runtime(agent, embedder=HashingEmbedder(16)) as runtime:
        for owner in ("ann", "eve"):
            await say(await runtime.create_thread(agent, owner=owner), "the sea is blue")
            await runtime.archive(owner=owner).insert("blue shoes")
            await (await runtime.memory("team", owner=owner)).create("style", value="kind")
        await runtime.delete_owner("ann")
        assert {mark.owner for mark in await runtime.journal.marks(owner=None)} == {"eve"}
        assert await runtime.archive(owner="ann").search("blue") == []
        assert await runtime.search("blue", owner="ann") == []
        assert len(await runtime.archive(owner="eve").search("blue")) == 1
        assert (await (await runtime.memory("team", owner="eve")).blocks())[0].value == "kind"
        await runtime.delete_owner("ann")
        with pytest.raises(InvalidInput, match="name the owner"):
            await runtime.delete_owner("")


async def test_the_same_key_puts_a_text_in_once(open_runtime: Open) -> None:
    async with open_runtime() as runtime:
        archive = runtime.archive()
        ids = {await archive.insert("blue shoes", key="k") for _ in range(3)}
        assert len(ids) == 1
        assert len(await archive.search("shoes")) == 1


async def test_many_texts(open_runtime: Open) -> None:
    async with open_runtime(embedder=HashingEmbedder(16)) as runtime:
        archive = runtime.archive()
        ids = await archive.insert_many((f"note {n}" for n in range(600)), tags=["n"])
        assert len(set(ids)) == 600
        statistics = await archive.statistics()
        assert (statistics.passages, statistics.without_vector) == (600, 0)
        assert (await archive.get(ids[599])).text == "note 599"
        (best, *_) = await archive.search("note 417", any_tags=["n"])
        assert best.text == "note 417"
        assert await archive.insert_many([]) == []


async def test_what_is_refused_changes_nothing(open_runtime: Open) -> None:
    good = True

    async def embed(some: Sequence[str]) -> Vectors:
        if not good:
            raise RuntimeError("the endpoint is down")
        return [[1.0, 2.0]] * (len(some) if "short" not in some[0] else 5)

    async with open_runtime(embedder=embed) as runtime:
        archive = runtime.archive()
        await archive.insert("first")
        for refused in ("", "x" * 100_001):
            with pytest.raises(InvalidInput):
                await archive.insert(refused)
        with pytest.raises(InvalidInput):
            await archive.insert("x", created_at="soon")
        with pytest.raises(EmbeddingInvalid):
            await archive.insert("short")
        good = False
        with pytest.raises(EmbeddingFailed):
            await archive.insert("second")
        with pytest.raises(EmbeddingFailed):
            await archive.search("first")
        assert [found.text for found in await archive.search("first second", by="text")] == [
            "first"
        ]
        assert len(await runtime.journal.read(shared_id("", "archive"), after=0)) == 1
        with pytest.raises(InvalidInput):
            await archive.search("first", since="soon")
        with pytest.raises(InvalidInput):
            await archive.search("first", by="words")  # type: ignore[arg-type]
        with pytest.raises(InvalidInput):
            await runtime.search("first", roles=["tool"])  # type: ignore[list-item]
        with pytest.raises(InvalidInput, match="goes to insert"):
            await archive.insert_many("first")
        with pytest.raises(UnknownPassage):
            await archive.get("\ud800")
        with pytest.raises(ThreadNotFound):
            await treadle.Thread(
                "thread_x",
                runtime._threads,
                runtime.journal,
                runtime.agent_of,
                runtime.catalog,
            ).search("")


async def test_a_function_that_changes_its_size_is_refused(open_runtime: Open) -> None:
    size = 2

    def embed(texts: Sequence[str]) -> Vectors:
        return [[1.0] * size for _ in texts]

    async with open_runtime(embedder=embed) as runtime:
        archive = runtime.archive(owner="ann")
        await archive.insert("blue shoes")
        await archive.insert("blue socks")
        size = 3
        for _ in range(2):
            with pytest.raises(EmbeddingInvalid, match=r"of the size 3, and before of 2"):
                await archive.insert("blue eyes")
        size = 2
        assert len(await archive.search("blue")) == 2
        events = await runtime.journal.read(shared_id("ann", "archive"), after=0)
        assert len(events) == 2
    is_kept = runtime.journal.is_shared
    async with open_runtime(embedder=embed) as runtime:
        archive = runtime.archive(owner="ann")
        size = 3
        if is_kept:  # the index tells, also before it was searched
            with pytest.raises(EmbeddingInvalid, match=r"of the size 3, and before of 2"):
                await archive.insert("blue eyes")
        size = 2
        await archive.insert("blue eyes")
        assert len(await archive.search("blue")) == 3


async def test_what_could_not_be_kept_leaves_no_vector(open_runtime: Open) -> None:
    async with open_runtime(embedder=HashingEmbedder(16)) as runtime:
        await runtime.archive().insert("first")
        thread_id = shared_id("", "archive")
        await runtime.journal.claim(thread_id)  # another process took the thread over
        with pytest.raises(StaleWriter):
            await runtime.archive().insert("second")
        assert [found.text for found in await runtime.archive().search("")] == ["first"]
        await runtime.archive().insert("third")
        assert (await runtime.archive().statistics()).without_vector == 0


async def test_an_embedder_is_checked_where_it_is_given() -> None:
    with pytest.raises(ConfigurationError, match="cannot embed"):
        treadle.open(embedder=17)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="is not an embedding model; use PROVIDER:NAME"):
        treadle.open(embedder="text-embedding")


@pytest.mark.parametrize(
    ("name", "dimensions", "says"),
    [
        (None, 2, "name of the embedder is None"),
        ("", 2, "name of the embedder is ''"),
        ("\ud800", 2, "name of the embedder"),
        ("e", "2", "dimensions of the embedder e are '2'"),
        ("e", 0, "dimensions of the embedder e are 0"),
    ],
)
async def test_an_embedder_has_a_name_and_a_size(
    name: object, dimensions: object, says: str
) -> None:
    class Wrong:
        async def embed(self, texts: Sequence[str]) -> Vectors:
            return [[1.0, 2.0] for _ in texts]

    wrong = Wrong()
    with pytest.raises(ConfigurationError, match="name of the embedder is None"):
        treadle.open(embedder=wrong)  # type: ignore[arg-type]
    wrong.name, wrong.dimensions = name, dimensions  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match=says):
        treadle.open(embedder=wrong)  # type: ignore[arg-type]


async def test_after_the_end_nothing_is_searched(open_runtime: Open) -> None:
    async with open_runtime() as runtime:
        archive = runtime.archive()
        await archive.insert("blue")
        await archive.search("blue")
    with pytest.raises(JournalClosed):
        await archive.search("blue")
    with pytest.raises(JournalClosed):
        runtime.archive()


async def test_forks_are_shown_once_and_removed_together(open_runtime: Open) -> None:
    agent = agent_saying("The sky is blue")
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await say(thread, "hello")
        id = await thread.archive.insert("blue shoes")
        fork = await thread.fork()
        assert len(await runtime.search("sky")) == 1
        assert len(await fork.archive.search("shoes")) == 1
        assert len(await fork.search("sky")) == 1
        await fork.archive.remove(id)
        assert await thread.archive.search("shoes") == []


async def test_another_process_searches_and_puts_in(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'treadle.db'}"
    agent = agent_saying("The sky is blue")
    embedder = HashingEmbedder(16)
    async with treadle.open(url, agents=[agent], embedder=embedder) as runtime:
        thread = await runtime.create_thread(agent, owner="ann")
        await say(thread, "hello")
        await thread.archive.insert("blue shoes")
        async with treadle.open(url, drive=False, embedder=embedder) as onlooker:
            for way in ("text", "vector", "both"):
                assert (await onlooker.search("sky", owner="ann", by=way))[0].text == (
                    "The sky is blue"
                )
            archive = onlooker.archive(owner="ann")
            id = await archive.insert("red hats")
            (hats,) = await archive.search("hats", by="text")  # put in over there
            assert hats.text == "red hats"
            assert (await runtime.archive(owner="ann").get(id)).text == "red hats"
            await (await onlooker.connect(thread.id)).archive.remove(id)
            assert await archive.search("hats", by="text") == []
            with pytest.raises(JournalLocked):
                await onlooker.delete_owner("ann")


@pytest.mark.needs("postgres")
async def test_a_node_finds_what_it_has_put_in_where_another_one_drives() -> None:
    url = server().url()
    async with treadle.open(url) as first, treadle.open(url) as second:
        await first.archive().insert("blue shoes")
        id = await second.archive().insert("red hats")
        assert (await second.archive().get(id)).text == "red hats"
        assert [one.text for one in await second.archive().search("hats")] == ["red hats"]
        await second.archive().remove(id)
        assert await first.archive().search("hats") == []


def test_programs_without_an_archive_load_nothing_of_it(tmp_path: Path) -> None:
    program = f"""
import asyncio, sys, treadle
from treadle.testing import ScriptedModel

async def main():
    agent = treadle.Agent(ScriptedModel(["fine"]))
    async with treadle.open("sqlite:///{tmp_path / "treadle.db"}", agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("hello")).result()
        await thread.delete()

heavy = {{"numpy", "sqlite3", "treadle.memory.archive.store", "aiohttp"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
asyncio.run(main())
assert "numpy" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=50)
    assert not list(tmp_path.glob("*archive*"))


KILLED = """
import asyncio, sys, treadle
from treadle.memory import HashingEmbedder

async def main(url):
    async with treadle.open(url, embedder=HashingEmbedder(16)) as runtime:
        archive = runtime.archive()
        for n in range(10**6):
            id = await archive.insert(f"note {n} of many", tags=[f"t{n % 3}"])
            print(id, flush=True)
            if n % 7 == 0:
                await archive.search("note")
            if n % 5 == 4:
                await archive.remove(id)
                print("-", id, flush=True)

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize(
    ("kind", "lines"),
    [
        *(("sqlite", lines) for lines in (3, 20, 61)),
        pytest.param("postgres", 5, marks=pytest.mark.needs("postgres")),
    ],
)
async def test_a_process_that_is_killed_loses_nothing(
    tmp_path: Path, kind: str, lines: int
) -> None:
    url = server().url() if kind == "postgres" else f"sqlite:///{tmp_path / 'treadle.db'}"
    kept: set[str] = set()
    for _ in range(3):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", KILLED, url, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(lines):
            said = (await process.stdout.readline()).decode().split()
            kept = kept - {said[1]} if said[0] == "-" else kept | {said[0]}
        process.kill()
        for line in (await process.stdout.read()).decode().splitlines():
            kept = kept - {line.split()[1]} if line.startswith("-") else kept | {line}
        await process.wait()
    async with treadle.open(url, embedder=HashingEmbedder(16)) as runtime:
        archive = runtime.archive()
        await archive.follow()
        statistics = await archive.statistics()
        assert statistics.without_vector == 0
        # What was durable and not yet said is there as well: one text, or its removal.
        assert abs(statistics.passages - len(kept)) <= 3
        missing = 0
        for id in kept:
            try:
                passage = await archive.get(id)
            except UnknownPassage:
                missing += 1
                continue
            (best, *_) = await archive.search(passage.text, by="vector", limit=1)
            assert best.vector_score == pytest.approx(1.0, abs=1e-5)
        assert missing <= 3


async def test_a_key_that_is_used_for_another_text_changes_nothing(open_runtime: Open) -> None:
    async with open_runtime(embedder=HashingEmbedder(64)) as runtime:
        archive = runtime.archive(owner="ann")
        await asyncio.gather(
            archive.insert("alpha beta", key="k"), archive.insert("gamma delta", key="k")
        )
        (kept,) = await archive.search()
        assert kept.text in {"alpha beta", "gamma delta"}  # whichever came first
        (found,) = await archive.search(kept.text, by="vector")
        assert found.vector_score == pytest.approx(1.0)


async def test_nothing_of_what_was_deleted_is_left_in_the_files(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'treadle.db'}"
    agent = agent_saying("ok", "ok")

    async with treadle.open(url, agents=[agent], embedder=HashingEmbedder(64)) as runtime:
        thread = await runtime.create_thread(agent, owner="bob")
        await say(thread, "grault")
        await runtime.archive(owner="bob").insert("garply")
        await runtime.archive(owner="ann").insert("waldo")
        removed = await runtime.archive(owner="ann").insert("plugh")
        for owner in ("ann", "bob"):
            await runtime.archive(owner=owner).follow()
        await runtime.archive(owner="ann").remove(removed)
        await runtime.delete_owner("bob")
        await runtime.archive(owner="ann").follow()
        (index,) = tmp_path.glob("treadle.db-archive")
        with contextlib.closing(sqlite3.connect(index)) as file:
            file.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for word in ("grault", "garply"):
            assert word.encode() not in index.read_bytes()
    (vectors,) = tmp_path.glob("*.f32")
    rows = np.fromfile(vectors, np.float32).reshape(-1, 64)
    assert len(rows) == 5
    assert np.flatnonzero(rows.any(axis=1)).size == 1
    assert b"waldo" in index.read_bytes()
    assert b"plugh" not in index.read_bytes()
    journal = (tmp_path / "treadle.db").read_bytes()
    assert b"plugh" in journal  # its thread tells that it was there, until it is deleted
    assert b"grault" not in journal
    assert b"garply" not in journal
