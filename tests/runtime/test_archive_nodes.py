"""The archive of runtimes that share a PostgreSQL database."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import cast

import pytest
from tests.postgres import server

import treadle
from treadle import Agent, InputFile, Runtime
from treadle.domain.events import MessageAdded
from treadle.domain.media import MAX_CONTENT
from treadle.errors import InvalidInput, UnknownPassage
from treadle.journal.postgres import PostgresJournal
from treadle.testing import ScriptedModel

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock, pytest.mark.needs("postgres")]

agent = Agent(ScriptedModel(["Understood."] * 20), name="helper")
asked: list[str] = []


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def embed(texts: list[str]) -> list[list[float]]:
    asked.extend(texts)
    return [[1.0, len(text) / 100] for text in texts]


@pytest.fixture
async def nodes() -> AsyncIterator[list[Runtime]]:
    """Two nodes, and a process that drives nothing."""
    url = server().url()
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                treadle.open(url, agents=[agent], drive=drive, embedder=embed)
            )
            for drive in (True, True, False)
        ]


async def rows(runtime: Runtime) -> int:
    """Returns how many rows the index has."""
    tables = ("owner", "thread", "passage", "vector", "upto", "gone")
    sql = " UNION ALL ".join(f"SELECT 1 FROM archive_{table}" for table in tables)
    journal = cast("PostgresJournal", runtime.journal)
    return await journal.apart(lambda connection: len(connection.execute(sql).fetchall()))


async def test_what_one_puts_in_all_find_and_one_pays(nodes: list[Runtime]) -> None:
    asked.clear()
    for n, node in enumerate(nodes):
        await node.archive(owner="ann").insert(f"The dentist number {n} has moved")
        thread = await node.create_thread(agent, owner="ann")
        await (await thread.send(f"My cat is called Minka {n}")).result()
    for node in nodes:
        found = await node.archive(owner="ann").search("dentists", by="text")
        assert len(found) == 3
        assert len(await node.archive(owner="ann").search("where", by="vector")) == 3
        said = await node.search("cats", owner="ann", roles=["user"])
        assert len(said) == 3
        assert await node.archive(owner="eve").search("dentists") == []
        assert await node.search("cats", owner="eve") == []
    texts = [text for text in asked if "number" in text or "Minka" in text or "Under" in text]
    assert len(texts) == len(set(texts))  # and the three answers, which are equal, once


async def test_what_one_removes_is_gone_everywhere(nodes: list[Runtime]) -> None:
    first, second, watcher = nodes
    archive = first.archive(owner="ann")
    id = await archive.insert("The code is 1234")
    thread = await second.create_thread(agent, owner="ann")
    await (await thread.send("My secret is a cake")).result()
    for node in nodes:
        assert len(await node.archive(owner="ann").search("code")) == 1
        assert len(await node.search("secret", owner="ann")) == 2
    await second.archive(owner="ann").remove(id)
    (seq,) = [
        event.seq
        for event in await thread.events()
        if isinstance(event, MessageAdded) and "cake" in event.item.text
    ]
    await (await first.connect(thread.id)).remove_event(seq)
    for node in nodes:
        assert await node.archive(owner="ann").search("code") == []
        assert await node.search("secret", owner="ann", roles=["user"]) == []
        with pytest.raises(UnknownPassage):
            await node.archive(owner="ann").get(id)
    await first.delete_owner("ann")
    assert await rows(watcher) == 0


async def test_files_up_to_the_limit_are_in_the_database(nodes: list[Runtime]) -> None:
    first, second, _ = nodes
    largest = b"%PDF-1.7\n" + bytes(MAX_CONTENT - 9)
    info = await first.files.put(largest, name="a.pdf", owner="ann")
    assert await second.for_owner("ann").files.get(info.id) == largest
    with pytest.raises(InvalidInput, match="larger than 50 MiB"):
        await first.files.put(largest + b"x", owner="ann")
    thread = await first.create_thread(agent, owner="ann")
    part = InputFile.from_bytes(largest[: MAX_CONTENT // 2 + 1], "b.pdf")
    with pytest.raises(InvalidInput, match="together"):
        await thread.send([part, part])
    assert not list(await thread.history())
    assert [one.id for one in await second.threads(owner="ann")] == [thread.id]
