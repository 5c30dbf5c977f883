"""What one node streams, watched on another one: of the same PostgreSQL database."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, cast

import pytest
from tests.postgres import server

import treadle
from treadle import Agent, tool
from treadle.actors import postgres_engine
from treadle.bus import network, node_link
from treadle.domain.events import (
    Event,
    MessageAdded,
    StepInterrupted,
    TerminalEvent,
    TextDelta,
)
from treadle.domain.items import FunctionCallOutput, Message, OutputText
from treadle.domain.state import ThreadState
from treadle.domain.usage import Usage
from treadle.errors import JournalError, ThreadNotFound
from treadle.models.base import ModelRequest
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent
from treadle.testing import Call, ScriptedModel, Text, Turn

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock, pytest.mark.needs("postgres")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def url() -> str:
    return server().url()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_engine, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(postgres_engine, "CONFIRM_SECONDS", 0.1)
    monkeypatch.setattr(network, "LOOK_SECONDS", 0.2)


class Writer:
    """A model that writes 40 pieces and waits before the last until it may end."""

    name = provider = "writer"

    def __init__(self, *, pause: float = 0.005) -> None:
        self.may_end = asyncio.Event()
        self.pause = pause
        self.requests = 0

    def piece(self, number: int) -> str:
        return f"{self.requests}:{number}😀 "

    async def stream(self, _: ModelRequest) -> AsyncIterator[StreamEvent]:
        self.requests += 1
        item_id = f"msg_{id(self)}_{self.requests}"
        for number in range(40):
            yield TextDelta(item_id, self.piece(number))
            await asyncio.sleep(self.pause)
        await self.may_end.wait()
        text = "".join(map(self.piece, range(40)))
        yield ItemFinished(0, Message("assistant", (OutputText(text),), item_id))
        yield ResponseFinished("r", "stop", Usage(1, 1, requests=1))


class Reader:
    """What a client accumulates, who leaves and comes back at any node."""

    def __init__(self) -> None:
        self.position: str | int = 0
        self.texts: dict[str, str] = {}
        self.deltas = 0
        self.is_ended = False

    def see(self, event: Event) -> None:
        match event:
            case TextDelta(item_id, delta):
                self.deltas += 1
                self.texts[item_id] = self.texts.get(item_id, "") + delta
            case StepInterrupted():
                self.texts.clear()
            case MessageAdded(origin="model", item=item):
                assert self.texts[item.id] == item.text
            case _:
                self.is_ended = self.is_ended or isinstance(event, TerminalEvent)

    async def read(self, thread: treadle.Thread, *, pieces: int | None = None) -> None:
        """Reads to the end of the run, or so many pieces of text."""
        begun = self.deltas
        async with asyncio.timeout(20):
            async with thread.subscribe(self.position) as subscription:
                async for event in subscription:
                    self.position = subscription.position
                    self.see(event)
                    if self.is_ended or (pieces is not None and self.deltas >= begun + pieces):
                        return


@tool
async def look() -> str:
    """Looks."""
    return "Seen."


@pytest.mark.parametrize("drives", [True, False])
async def test_a_text_is_seen_as_it_is_written_elsewhere(url: str, *, drives: bool) -> None:
    model = Writer()
    agent = Agent(model, name="a")
    async with (
        treadle.open(url, agents=[agent]) as one,
        treadle.open(url, agents=[agent], drive=drives) as two,
    ):
        thread = await one.create_thread(agent)
        run = await thread.send("go")
        reader = Reader()
        other = await two.connect(thread.id)
        await reader.read(other, pieces=10)  # before the item is durable
        model.may_end.set()
        await reader.read(other)
        result = await (await other.run(run.id)).result()
        assert list(reader.texts.values()) == [result.text]


async def test_a_thread_that_is_watched_before_any_node_drives_it(url: str) -> None:
    model = Writer()
    agent = Agent(model, name="a")
    async with (
        treadle.open(url, agents=[agent]) as one,
        treadle.open(url, drive=False) as two,
        treadle.open(url, agents=[agent]) as three,
    ):
        thread = await one.create_thread(agent)
        readers = [Reader(), Reader()]
        reading = [
            asyncio.create_task(reader.read(await runtime.connect(thread.id), pieces=10))
            for reader, runtime in zip(readers, (two, three), strict=True)
        ]
        await asyncio.sleep(0.5)
        await (await one.connect(thread.id)).send("go")
        await asyncio.gather(*reading)
        model.may_end.set()
        for reader, runtime in zip(readers, (two, three), strict=True):
            await reader.read(await runtime.connect(thread.id))
            assert reader.texts


async def test_readers_that_leave_and_return_at_any_node(url: str) -> None:
    model = Writer()
    agent = Agent(model, name="a")
    async with AsyncExitStack() as stack:
        nodes = [
            await stack.enter_async_context(treadle.open(url, agents=[agent])) for _ in range(3)
        ]
        thread = await nodes[0].create_thread(agent)
        await thread.send("go")

        async def read(seed: int) -> str:
            chance, reader = random.Random(seed), Reader()
            while not reader.is_ended:
                node = chance.choice(nodes)
                await reader.read(await node.connect(thread.id), pieces=chance.randrange(1, 9))
                await asyncio.sleep(chance.random() / 50)
                if reader.deltas > 20:
                    model.may_end.set()
            (text,) = reader.texts.values()
            return text

        texts = await asyncio.gather(*(read(seed) for seed in range(12)))
        assert len(set(texts)) == 1


async def test_readers_elsewhere_survive_the_end_of_the_node(url: str) -> None:
    models = [Writer(), Writer()]
    agents = [Agent(model, name="a") for model in models]
    models[1].may_end.set()
    async with (
        treadle.open(url, agents=[agents[1]]) as two,
        treadle.open(url, drive=False) as three,
    ):
        async with treadle.open(url, agents=[agents[0]]) as one:
            thread = await one.create_thread(agents[0])
            await thread.send("go")
            readers = [Reader(), Reader()]
            watched = [await runtime.connect(thread.id) for runtime in (two, three)]
            for reader, other in zip(readers, watched, strict=True):
                await reader.read(other, pieces=1)
            reading = [
                asyncio.create_task(reader.read(other))
                for reader, other in zip(readers, watched, strict=True)
            ]
            await asyncio.sleep(0.1)
        await asyncio.gather(*reading)
        for reader in readers:
            (text,) = reader.texts.values()
            assert text == "".join(map(models[1].piece, range(40)))


async def test_a_thread_that_is_deleted_ends_for_readers_elsewhere(url: str) -> None:
    agent = Agent(ScriptedModel(["Hi."]), name="a")
    async with treadle.open(url, agents=[agent]) as one, treadle.open(url, drive=False) as two:
        thread = await one.create_thread(agent)
        other = await two.connect(thread.id)
        subscription = other.subscribe()
        waiting = asyncio.ensure_future(anext(subscription))
        await asyncio.sleep(0.3)
        await thread.delete()
        with pytest.raises(ThreadNotFound):
            async with asyncio.timeout(10):
                await waiting


async def test_a_node_that_cannot_be_reached_is_watched_in_the_journal(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent(ScriptedModel(["Hi."]), name="a")
    async with treadle.open(url, agents=[]) as two:
        async with treadle.open(url, agents=[agent]) as one:
            thread = await one.create_thread(agent)
            other = await two.connect(thread.id)
            reader = Reader()
            reading = asyncio.create_task(reader.read(other))
            await asyncio.sleep(0.3)

            async def away(*_: object) -> bool:
                return False

            monkeypatch.setattr(node_link.NodeLink, "connect", away)
            bus = cast("Any", two)._threads._bus
            for _, link in list(bus._links.values()):
                link._writer.transport.abort()
            await (await thread.send("hi")).result()
        await reading  # even if the node is gone when it is looked for
        assert "".join(reader.texts.values()) == "Hi."


async def test_a_watched_thread_is_not_polled(url: str) -> None:
    agent = Agent(ScriptedModel(["Hi."]), name="a")
    async with treadle.open(url, agents=[agent]) as one, treadle.open(url, drive=False) as two:
        thread = await one.create_thread(agent)
        other = await two.connect(thread.id)
        reader = Reader()
        reading = asyncio.create_task(reader.read(other))
        await asyncio.sleep(0.3)
        journal, reads = cast("Any", two).journal, 0
        read = journal.read

        async def counted(*arguments: object, **options: object) -> object:
            nonlocal reads
            reads += 1
            return await read(*arguments, **options)

        journal.read = counted
        await asyncio.sleep(1)
        assert reads == 0
        await thread.send("hi")
        await reading
        assert "".join(reader.texts.values()) == "Hi."


async def test_readers_anywhere_survive_a_drain_in_the_middle_of_a_run(url: str) -> None:
    """The run continues at the next node, and a reader gets each text once and exactly."""
    texts = [f"{word} " * 20 for word in ("one", "two", "three")]

    def agent() -> Agent:
        def say(request: ModelRequest) -> Turn:
            step = sum(isinstance(item, FunctionCallOutput) for item in request.items)
            calls = [Call("look", "{}")] if step < 2 else []
            return Turn((Text(texts[step], 20), *calls), every=0.01)

        return Agent(ScriptedModel([say] * 9), name="a", tools=[look])

    async with (
        treadle.open(url, agents=[agent()]) as one,
        treadle.open(url, drive=False) as third,
    ):
        thread = await one.create_thread("a")
        await thread.send("go")
        async with treadle.open(url, agents=[agent()]) as two:
            readers = [Reader(), Reader(), Reader()]
            reading = [
                asyncio.create_task(reader.read(await runtime.connect(thread.id)))
                for reader, runtime in zip(readers, (one, two, third), strict=True)
            ]
            await asyncio.sleep(0.1)
            await one.drain(10)
            await asyncio.gather(*reading)
            for reader in readers:
                assert list(reader.texts.values()) == texts
                assert reader.deltas > 6
            events = await thread.events()
            assert not any(isinstance(event, StepInterrupted) for event in events)


async def test_a_reader_outlives_an_actor_that_failed_before_another_node_took_its_thread(
    url: str,
) -> None:
    agents = [Agent(ScriptedModel([f"{node} {n}." for n in range(9)]), name="a") for node in "ab"]

    async def say(runtime: treadle.Runtime, text: str) -> str:
        run = await (await runtime.connect(thread.id)).send(text)
        return (await run.result()).text

    async with (
        treadle.open(url, agents=[agents[0]]) as one,
        treadle.open(url, agents=[agents[1]]) as two,
    ):
        thread = await one.create_thread(agents[0])
        here, there = (cast("Any", runtime)._threads._driver for runtime in (one, two))
        heard: dict[str, str] = {}
        said: list[str] = []

        async def read() -> None:
            async for event in thread.subscribe():
                if isinstance(event, TextDelta):
                    heard[event.item_id] = heard.get(event.item_id, "") + event.delta
                elif isinstance(event, MessageAdded) and event.origin == "model":
                    assert heard.get(event.item.id) == event.item.text
                    said.append(event.item.text)
                    if len(said) == 5:
                        return

        reading = asyncio.create_task(read())
        expected = [await say(one, "first")]
        for taker, holder, runtime in ((there, here, two), (here, there, one)):
            # The holder cannot write, and is not told that the thread is taken from it.
            actor = holder.known(thread.id)
            await taker.journal._write_with_node(
                lambda c, id=thread.id: c.execute(
                    "UPDATE thread SET node = ? WHERE id = ?", (c.node, id)
                )
            )
            taker._engine._has_taken(thread.id)
            actor._thread.fail(JournalError("The server is away."))
            expected += [await say(runtime, "next"), await say(runtime, "and next")]
        async with asyncio.timeout(20):
            await reading
        assert said == expected


async def test_a_reader_outlives_an_actor_whose_thread_was_taken_while_it_was_loaded(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent(ScriptedModel(["One."]), name="a")
    async with (
        treadle.open(url, agents=[agent]) as one,
        treadle.open(url, agents=[agent]) as two,
    ):
        here, there = (cast("Any", runtime)._threads._driver for runtime in (one, two))
        thread = await one.create_thread(agent)
        here._drop(thread.id)
        load, loads, may_load = one.journal.load, asyncio.Event(), asyncio.Event()

        async def slowly(thread_id: str, *, at: int | None = None) -> ThreadState:
            state = await load(thread_id, at=at)
            loads.set()
            await may_load.wait()
            return state

        monkeypatch.setattr(one.journal, "load", slowly)
        loading = asyncio.create_task(here.reach(thread.id))
        reader = Reader()
        async with asyncio.timeout(20):
            await loads.wait()
            await there._engine.seize(thread.id)
            while thread.id in here._engine._taken:  # noqa: ASYNC110 - by a notification
                await asyncio.sleep(0.01)
            may_load.set()
            assert await loading is not None
            reading = asyncio.create_task(reader.read(await one.connect(thread.id)))
            await (await (await two.connect(thread.id)).send("go")).result()
            await reading
        assert list(reader.texts.values()) == ["One."]
