"""The rule of senders: a process that drives nothing is told at once what a driving one would tell.

One program, on SQLite and on PostgreSQL, with a node that drives and one that only sends. The
thread is long, and nothing that is sent loads it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from tests.postgres import server

import treadle
from treadle import Agent, Block, Thread, ThreadRun, tool, user_message
from treadle.domain.events import (
    EventRemoved,
    MessageAdded,
    RunCompleted,
    RunRequiresAction,
    TextDelta,
)
from treadle.domain.items import FunctionCallOutput, Message
from treadle.domain.state import ThreadState
from treadle.errors import (
    Conflict,
    InvalidInput,
    RunInProgress,
    RunNotInProgress,
    TextNotFound,
    UnknownMessage,
    UnknownToolCall,
)
from treadle.testing import Call, ScriptedModel, Text, Turn

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

POSTGRES = pytest.param("postgres", marks=pytest.mark.needs("postgres"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["sqlite", POSTGRES])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'treadle.db'}"
    return server().url()


@tool(needs_approval=True)
async def pay(to: str, amount: int) -> str:
    """Pays."""
    return f"{to} got {amount}."


@tool(external=True)
async def look_up(word: str) -> str:
    """Looks up a word."""
    raise NotImplementedError


@asynccontextmanager
async def sending(url: str, *steps: Any) -> AsyncIterator[tuple[Thread, list[str]]]:
    """A long thread at a node that drives nothing, and the threads that this node has loaded."""
    agent = Agent(
        ScriptedModel(list(steps)),
        name="a",
        tools=[pay, look_up],
        blocks=[Block("notes", "Nothing.")],
    )
    async with treadle.open(url, agents=[agent]) as driving:
        history = [user_message(f"message {number}") for number in range(600)]
        thread = await driving.create_thread(agent, history=history)
        async with treadle.open(url, agents=[agent], drive=False) as sender:
            loaded: list[str] = []
            journal = cast("Any", sender).journal
            load = journal.load

            async def noted(thread_id: str, *, at: int | None = None) -> ThreadState:
                loaded.append(thread_id)
                return await load(thread_id, at=at)

            journal.load = noted
            yield await sender.connect(thread.id), loaded


async def waits(run: ThreadRun) -> None:
    """Waits until a run waits for answers."""
    async for event in run:
        if isinstance(event, RunRequiresAction):
            return


async def test_messages_that_expect_a_number_and_items(url: str) -> None:
    calls = [Call("look_up", '{"word": "x"}', "c1")]
    async with sending(url, "One.", calls) as (thread, loaded):
        seq = await thread.last_seq()
        run = await thread.send("First.", expect=seq, key="k")
        assert (await run.result()).text == "One."
        loaded.clear()  # the result
        assert (await thread.send("First.", expect=seq, key="k")).id == run.id
        with pytest.raises(Conflict):
            await thread.send("Late.", expect=seq)
        for _ in range(2):
            await thread.add([user_message("Noted.")], key="n")
        await waits(await thread.send("Look."))
        with pytest.raises(RunInProgress):
            await thread.add([user_message("Not now.")])
        with pytest.raises(RunInProgress):
            await thread.send("Not now.", on_busy="reject")
        assert loaded == []
        said = [item.text for item in await thread.history() if isinstance(item, Message)]
        assert said[-4:] == ["First.", "One.", "Noted.", "Look."]


async def test_answers(url: str) -> None:
    calls = [
        Call("pay", '{"to": "anna", "amount": 5}', "c1"),
        Call("pay", '{"to": "bob", "amount": 5}', "c2"),
        Call("look_up", '{"word": "x"}', "c3"),
    ]
    async with sending(url, calls, "Done.") as (thread, loaded):
        run = await thread.send("Pay.")
        await waits(run)
        with pytest.raises(InvalidInput, match="lacks 'amount'"):
            await thread.approve("c1", arguments={"to": "carl"})
        for _ in range(2):
            await thread.approve("c1", arguments={"to": "carl", "amount": 7})
        with pytest.raises(Conflict, match="already approved"):
            await thread.approve("c1", arguments={"to": "dora", "amount": 7})
        with pytest.raises(Conflict, match="already approved"):
            await thread.deny("c1")
        for _ in range(2):
            await thread.deny("c2", "no")
        with pytest.raises(Conflict, match="already answered"):
            await thread.approve("c2")
        await thread.submit_tool_output("c3", "a letter")
        assert loaded == []
        with pytest.raises((Conflict, RunNotInProgress)):
            await thread.submit_tool_output("c3", "a word")
        with pytest.raises((UnknownToolCall, RunNotInProgress)):
            await thread.submit_tool_output("c4", "nothing")
        assert (await run.result()).text == "Done."
        outputs = {
            item.call_id: item.text
            for item in await thread.history()
            if isinstance(item, FunctionCallOutput)
        }
        assert outputs["c1"] == "carl got 7."
        assert "no" in outputs["c2"]
        assert outputs["c3"] == "a letter"


async def test_pins_removals_edits_and_schedules(url: str) -> None:
    async with sending(url, "One.") as (thread, loaded):
        await (await thread.send("Hi.")).result()
        loaded.clear()  # the result
        said = [one for one in await thread.events(limit=1000) if isinstance(one, MessageAdded)]
        for _ in range(2):
            await thread.pin(said[-1].item.id)
        for _ in range(2):
            await thread.remove_event(said[-1].seq)
        with pytest.raises(InvalidInput, match="adds no item"):
            await thread.remove_event(await thread.last_seq())
        with pytest.raises(InvalidInput, match="The thread has the events"):
            await thread.remove_event(10_000)
        for _ in range(2):
            await thread.memory.append("notes", "More.", key="e")
        with pytest.raises(TextNotFound):
            await thread.memory.replace("notes", "absent", "x")
        later = await thread.schedule("Later.", after=3600, key="s")
        assert (await thread.schedule("Later.", after=3600, key="s")).id == later.id
        assert loaded == []
        await until(lambda: ended(thread, said[-1].seq))
        block = await thread.memory.get("notes")
        assert block is not None
        assert block.value.count("More.") == 1
        assert [one.id for one in await thread.schedules()] == [later.id]
        await thread.cancel_schedule(later.id)
        await thread.cancel_schedule(later.id)
        with pytest.raises(UnknownMessage):
            await thread.pin("msg_unknown")


async def ended(thread: Thread, removed: int) -> bool:
    """Whether the node that drives has done all that was sent."""
    (event,) = await thread.events(removed - 1, 1)
    block = await thread.memory.get("notes")
    done = isinstance(event, EventRemoved) and block is not None and "More." in block.value
    return done and bool(await thread.schedules())


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await condition():  # noqa: ASYNC110 - of the other node
            await asyncio.sleep(0.02)


LOOKS = ("find_run", "run", "runs", "last_seq", "read", "inbox")
"""How a reader looks into the journal before and while it reads."""


@pytest.mark.parametrize("at", range(7))
async def test_a_run_that_ends_while_a_reader_attaches(url: str, at: int) -> None:
    """After the look number `at` of the reader, which knows nothing of the rest, the run ends."""
    answer = Turn((Text("One, two, three, four.", 8),), every=0.01)
    async with sending(url, answer) as (thread, loaded):
        looks = 0
        run = await thread.send("Hi.")
        journal = cast("Any", thread)._journal
        look_at = journal.run

        async def has_ended() -> bool:
            record = await look_at(thread.id, run.id)
            return record is not None and bool(record.last_seq)

        def barred(method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            async def look(*arguments: Any, **named: Any) -> Any:
                nonlocal looks
                result, number, looks = await method(*arguments, **named), looks, looks + 1
                if number == at:
                    await until(has_ended)
                return result

            return look

        for name in LOOKS:
            setattr(journal, name, barred(getattr(journal, name)))
        text, last = "", None
        async with asyncio.timeout(20):
            async for event in await (await thread.run(run.id)).subscribe():
                text += event.delta if isinstance(event, TextDelta) else ""
                last = event
        assert isinstance(last, RunCompleted)
        assert text == "One, two, three, four."
        assert looks > 3
        assert loaded == []
