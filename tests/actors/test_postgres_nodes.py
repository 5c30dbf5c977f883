"""Runtimes that drive the threads of one PostgreSQL database side by side, and what ends them.

Two nodes of one process share nothing but the database; `make chaos-cluster` has processes.
"""

import asyncio
import json
import logging
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, cast

import psycopg
import pytest
from tests.postgres import new_server, server

import treadle
from treadle import Agent, Block, MemoryUpdated, RunContext, Runtime, tool
from treadle.actors import postgres_engine, threads
from treadle.actors.intake import Intake
from treadle.actors.postgres_engine import PostgresEngine
from treadle.domain.blocks import AppendText
from treadle.domain.events import StepInterrupted, TerminalEvent, TextDelta
from treadle.domain.items import FunctionCallOutput, Message, OutputText
from treadle.domain.usage import Usage
from treadle.errors import JournalTooNew, ThreadNotFound, VerdictUnknown
from treadle.journal import postgres_database, postgres_nodes
from treadle.journal.base import Batch
from treadle.journal.postgres import PostgresJournal
from treadle.journal.postgres_nodes import Look
from treadle.journal.postgres_nodes import Nodes as NodesOfJournal
from treadle.models.base import ModelRequest
from treadle.repeating import repeat
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent
from treadle.testing import Call, ScriptedModel, Text, Turn

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock, pytest.mark.needs("postgres")]

PIECES = [f"piece {n}, " for n in range(8)]
TEXT = "".join(PIECES)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def url() -> str:
    return server().url()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes look at each other more often than they do elsewhere."""
    monkeypatch.setattr(postgres_engine, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(postgres_engine, "CONFIRM_SECONDS", 0.1)
    monkeypatch.setattr(postgres_engine, "SWEEP_SECONDS", 3600)  # what ends tells the others


class SlowModel:
    """Answers with one text, a piece each time that it may continue."""

    name = provider = "slow"

    def __init__(self, seconds: float = 0.05) -> None:
        self.requests = 0
        self.seconds = seconds

    async def stream(self, _: ModelRequest) -> AsyncIterator[StreamEvent]:
        self.requests += 1
        item_id = f"msg_{id(self)}_{self.requests}"
        for piece in PIECES:
            await asyncio.sleep(self.seconds)
            yield TextDelta(item_id, piece)
        yield ItemFinished(0, Message("assistant", (OutputText(TEXT),), item_id))
        yield ResponseFinished("r", "stop", Usage(1, 1, requests=1))


def slow(seconds: float = 0.05) -> tuple[Agent, SlowModel]:
    model = SlowModel(seconds)
    return Agent(model, name="a"), model


def engine_of(runtime: Runtime) -> PostgresEngine:
    return cast("Any", runtime)._threads._driver._engine


def journal_of(runtime: Runtime) -> PostgresJournal:
    return cast("Any", runtime).journal


def execute(url: str, sql: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(cast("Any", sql), values)
        return cursor.fetchall() if cursor.description else []


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - of another process, or of the database
            await asyncio.sleep(0.01)


async def text_seen(thread: treadle.Thread) -> str:
    """Returns the text as a subscriber has it at the end, without what was taken back."""
    pieces: list[str] = []
    async for event in thread.subscribe():
        if isinstance(event, TextDelta):
            pieces.append(event.delta)
        elif isinstance(event, StepInterrupted):
            pieces.clear()
        elif isinstance(event, TerminalEvent):
            break
    return "".join(pieces)


async def test_two_runtimes_drive_side_by_side(url: str) -> None:
    one_agent = Agent(ScriptedModel(["One."] * 4), name="a")
    two_agent = Agent(ScriptedModel(["Two."] * 4), name="a")
    async with (
        treadle.open(url, agents=[one_agent]) as one,
        treadle.open(url, agents=[two_agent]) as two,
    ):
        first = await one.create_thread(one_agent)
        second = await two.create_thread(two_agent)
        assert (await (await first.send("hi")).result()).text == "One."
        assert (await (await second.send("hi")).result()).text == "Two."
        # Each is driven where it is, whichever node is asked.
        other = await two.connect(first.id)
        run = await other.send("again", key="k")
        assert (await asyncio.wait_for(run.result(), 10)).text == "One."
        assert (await first.send("again", key="k")).id == run.id


async def test_a_node_that_ends_is_replaced_at_once(url: str) -> None:
    (agent, _), (other_agent, model) = slow(0.2), slow()
    async with treadle.open(url, agents=[other_agent]) as two:
        async with treadle.open(url, agents=[agent]) as one:
            thread = await one.create_thread(agent)
            run = await thread.send("go")
            other = await two.connect(thread.id)
            seen = asyncio.create_task(text_seen(other))
            ended = asyncio.create_task((await other.run(run.id)).result())
            await asyncio.sleep(0.5)
        assert (await asyncio.wait_for(ended, 10)).text == TEXT
        assert await seen == TEXT
        assert model.requests == 1


async def test_each_thread_of_a_node_that_ends_is_tried_by_one_of_the_others(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_engine, "LEFT_SECONDS", 60)
    tried: Counter[str] = Counter()
    take = NodesOfJournal.take

    async def counted(nodes: NodesOfJournal, thread_id: str) -> bool | None:
        tried[thread_id] += 1
        return await take(nodes, thread_id)

    (agent, _), (other_agent, _) = slow(0.3), slow(0.01)
    async with (
        treadle.open(url, agents=[other_agent]) as two,
        treadle.open(url, agents=[other_agent]) as three,
    ):
        async with treadle.open(url, agents=[agent]) as one:
            threads = [await one.create_thread(agent) for _ in range(12)]
            runs = [await thread.send("go") for thread in threads]
            await until(lambda: all(len(engine_of(n)._others) == 2 for n in (one, two, three)))
            monkeypatch.setattr(NodesOfJournal, "take", counted)
        async with asyncio.timeout(20):
            for run in runs:
                thread = await two.connect(run.thread_id)
                assert (await (await thread.run(run.id)).result()).text == TEXT
    assert tried == dict.fromkeys((thread.id for thread in threads), 1)


async def test_a_node_that_stands_still_is_replaced_and_fenced(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_nodes, "STALE_SECONDS", 0.5)
    monkeypatch.setattr(postgres_engine, "BEAT_SECONDS", 0.1)
    (agent, model), (other_agent, other_model) = slow(0.4), slow()
    async with (
        treadle.open(url, agents=[agent]) as one,
        treadle.open(url, agents=[other_agent]) as two,
    ):
        thread = await one.create_thread(agent)
        run = await thread.send("go")
        seen = asyncio.create_task(text_seen(thread))
        ended = asyncio.create_task(run.result())
        await until(lambda: model.requests == 1)
        before = journal_of(one).nodes.id
        engine = engine_of(one)
        watching = cast("Any", engine)._watching
        watching.cancel()  # its heart stops, while its run continues
        await until(lambda: other_model.requests == 1)
        # What it still writes is refused; its caller and its reader get what the other node does.
        assert (await asyncio.wait_for(ended, 10)).text == TEXT
        assert await seen == TEXT
        assert model.requests == other_model.requests == 1
        assert [item.text for item in await thread.history() if isinstance(item, Message)] == [
            "go",
            TEXT,
        ]
        engine._watching = asyncio.create_task(
            repeat(cast("Any", engine)._watch, logging.getLogger(), "")
        )
        await until(lambda: journal_of(one).nodes.id != before)
        other = await two.create_thread(other_agent)
        assert (await asyncio.wait_for((await other.send("hi")).result(), 10)).text == TEXT
        third = await one.create_thread(agent)
        assert (await asyncio.wait_for((await third.send("hi")).result(), 10)).text == TEXT
        assert model.requests == 2


async def test_a_node_that_stood_still_keeps_what_no_other_has_taken(url: str) -> None:
    agent, model = slow(0.1)
    async with treadle.open(url, agents=[agent]) as one:
        thread = await one.create_thread(agent)
        run = await thread.send("go")
        await until(lambda: model.requests == 1)
        before = journal_of(one).nodes.id
        await asyncio.to_thread(execute, url, "DELETE FROM node")
        assert (await asyncio.wait_for(run.result(), 10)).text == TEXT
        await until(lambda: journal_of(one).nodes.id != before)
        assert model.requests == 1


@pytest.mark.parametrize(
    "kinds", [["writing"], ["listening"], ["reading"], ["writing", "listening"]]
)
async def test_a_lost_connection_takes_nothing_over(url: str, kinds: list[str]) -> None:
    (agent, model), (other_agent, other_model) = slow(), slow()
    async with (
        treadle.open(url, agents=[agent]) as one,
        treadle.open(url, agents=[other_agent]) as two,
    ):
        thread = await one.create_thread(agent)
        run = await thread.send("go")
        await until(
            lambda: all(cast("Any", engine_of(node))._listener is not None for node in (one, two))
        )
        for runtime in (one, two):
            journal = cast("Any", journal_of(runtime))
            listening = cast("Any", engine_of(runtime))._listener._connection
            sessions = {
                "writing": [journal._writing],
                "listening": [listening],
                "reading": [one for one in journal._reading if one is not listening],
            }
            for connection in [one for kind in kinds for one in sessions[kind]]:
                pid = connection.raw.info.backend_pid
                await asyncio.to_thread(execute, url, "SELECT pg_terminate_backend(%s)", pid)
                await asyncio.sleep(0.1)
        assert (await asyncio.wait_for(run.result(), 10)).text == TEXT
        assert (model.requests, other_model.requests) == (1, 0)
        # The nodes are told of entries again.
        other = await two.connect(thread.id)
        assert (await asyncio.wait_for((await other.send("more")).result(), 10)).text == TEXT
        assert (model.requests, other_model.requests) == (2, 0)


async def test_a_restart_of_the_server_takes_nothing_over() -> None:
    own = await asyncio.to_thread(new_server)
    try:
        (agent, model), (other_agent, other_model) = slow(0.3), slow(0.3)
        url = own.url()
        async with (
            treadle.open(url, agents=[agent]) as one,
            treadle.open(url, agents=[other_agent]) as two,
        ):
            runs = [await (await one.create_thread(agent)).send("go") for _ in range(5)]
            runs += [await (await two.create_thread(other_agent)).send("go") for _ in range(5)]
            await until(lambda: model.requests == other_model.requests == 5)
            await asyncio.to_thread(own.stop)
            await asyncio.sleep(0.5)
            await asyncio.to_thread(own.start)
            texts = [(await asyncio.wait_for(run.result(), 20)).text for run in runs]
            assert texts == [TEXT] * 10
            assert (model.requests, other_model.requests) == (5, 5)
    finally:
        await asyncio.to_thread(own.remove)


async def test_a_node_leaves_threads_to_those_that_have_their_agent(url: str) -> None:
    mine, yours = Agent(ScriptedModel(["Mine."]), name="mine"), Agent(ScriptedModel([]), name="b")
    async with (
        treadle.open(url, agents=[mine], idle_seconds=0.1) as one,
        treadle.open(url, agents=[yours]) as two,
    ):
        thread = await one.create_thread(mine)
        node = journal_of(one).nodes
        await until_free(url, thread.id)
        other = await two.connect(thread.id)
        run = await thread.run((await other.send("hi")).id)
        assert (await asyncio.wait_for(run.result(), 10)).text == "Mine."
        assert (await node.nodes_of([thread.id])).get(thread.id, node.id) == node.id


async def until_free(url: str, thread_id: str) -> None:
    sql = "SELECT node FROM thread WHERE id = %s"
    async with asyncio.timeout(10):
        while await asyncio.to_thread(execute, url, sql, thread_id) != [(None,)]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)


async def test_two_that_both_believe_to_have_a_thread(url: str) -> None:
    (agent, model), (other_agent, other_model) = slow(0.2), slow()
    async with (
        treadle.open(url, agents=[agent]) as one,
        treadle.open(url, agents=[other_agent]) as two,
    ):
        thread = await one.create_thread(agent)
        run = await thread.send("go")
        await until(lambda: model.requests == 1)
        await asyncio.to_thread(
            execute, url, "UPDATE thread SET node = %s", journal_of(two).nodes.id
        )
        engine_of(two).wake(thread.id)
        assert (await asyncio.wait_for(run.result(), 10)).text == TEXT
        assert (model.requests, other_model.requests) == (1, 1)
        # The one that lost it cannot take it back.
        assert (await asyncio.wait_for((await thread.send("more")).result(), 10)).text == TEXT
        assert other_model.requests == 2


async def test_a_message_that_was_kept_as_its_thread_was_lost_is_not_sent_again(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, _ = slow(0.01)
    async with (
        treadle.open(url, agents=[agent]) as one,
        treadle.open(url, agents=[agent]),
    ):
        thread = await one.create_thread(agent)
        await (await thread.send("hi")).result()
        writer = cast("Any", journal_of(one))._writer
        sent, is_kept, late = writer._sent, asyncio.Event(), list[Any]()

        def hold(group: Any, *outcomes: Any) -> None:
            if any(isinstance(write, Batch) for write, _ in group):
                late.append((group, *outcomes))
                is_kept.set()
            else:
                sent(group, *outcomes)

        monkeypatch.setattr(writer, "_sent", hold)
        sending = asyncio.create_task(thread.send("once"))
        await is_kept.wait()
        await asyncio.to_thread(execute, url, "UPDATE thread SET node = NULL")
        cast("Any", engine_of(one))._lose(thread.id)
        tell = "SELECT pg_notify('treadle_' || 'inbox'::regclass::oid, '')"
        await asyncio.to_thread(execute, url, tell)
        monkeypatch.undo()
        sent(*late.pop())
        run = await asyncio.wait_for(sending, 10)
        assert (await asyncio.wait_for(run.result(), 10)).text == TEXT
        assert [item.text for item in await thread.history() if isinstance(item, Message)] == [
            "hi",
            TEXT,
            "once",
            TEXT,
        ]
        assert len(await thread.runs()) == 2


async def test_callers_that_leave_while_a_thread_is_taken_keep_nothing(url: str) -> None:
    agent, _ = slow()
    async with (
        treadle.open(url, agents=[agent], idle_seconds=0.05) as one,
        treadle.open(url, agents=[agent]) as two,
    ):
        thread = await one.create_thread(agent)
        await until_free(url, thread.id)
        other = await two.connect(thread.id)
        for turns in range(6):
            sending = asyncio.create_task(other.send("hi", key=f"{turns}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            sending.cancel()
            with suppress(asyncio.CancelledError):
                await sending
        run = await thread.send("hi", key="last")
        assert (await asyncio.wait_for(run.result(), 10)).text == TEXT


async def test_a_node_that_drains_hands_over_what_it_has_between_two_requests(url: str) -> None:
    def agent_of(texts: list[str]) -> Agent:
        def step(request: ModelRequest) -> object:
            texts.append(f"{len(request.items)}")
            done = sum(isinstance(item, FunctionCallOutput) for item in request.items)
            return Turn((Call("look", "{}"),) if done < 6 else (Text("Done."),), first=0.2)

        @tool
        async def look() -> str:
            return "seen"

        return Agent(ScriptedModel(cast("Any", [step] * 99)), name="a", tools=[look])

    asked: tuple[list[str], list[str]] = ([], [])
    mine, yours = agent_of(asked[0]), agent_of(asked[1])
    async with treadle.open(url, agents=[yours]) as two:
        async with treadle.open(url, agents=[mine]) as one:
            threads = [await one.create_thread(mine) for _ in range(3)]
            runs = [await thread.send("go") for thread in threads]
            ended = [asyncio.create_task(run.result()) for run in runs]
            await until(lambda: len(asked[0]) >= 4)
            await one.drain(10)
            # A message that comes now goes to the other node, and this one follows it.
            late = await threads[0].send("and then")
            for result in ended:
                assert (await asyncio.wait_for(result, 20)).text == "Done."
            assert (await asyncio.wait_for(late.result(), 20)).text == "Done."
        assert len(asked[0]) < 3 * 7
        assert await two.threads() != []
    # Seven requests for each run, one for the late message, whose outputs are counted before it.
    assert len(asked[0]) + len(asked[1]) == 3 * 7 + 1


async def test_an_agent_that_works_for_another_is_driven_where_that_is(url: str) -> None:
    def team(seconds: float, *steps: object) -> tuple[Agent, SlowModel]:
        model = SlowModel(seconds)
        helper = Agent(model, name="helper")
        boss = ScriptedModel(cast("Any", steps))
        return Agent(boss, name="boss", tools=[helper.as_tool()]), model

    first, working = team(0.3, [Call("helper", '{"message": "help"}')])
    others = [team(0.05, "Done.") for _ in range(2)]
    async with (
        treadle.open(url, agents=[others[0][0]]) as two,
        treadle.open(url, agents=[others[1][0]]),
    ):
        async with treadle.open(url, agents=[first]) as one:
            thread = await one.create_thread(first)
            run = await thread.send("go", key="k")
            await until(lambda: working.requests == 1)
        resumed = await (await two.connect(thread.id)).run(run.id)
        assert (await asyncio.wait_for(resumed.result(), 20)).text == "Done."
        sql = "SELECT p.id, p.node = c.node FROM thread p JOIN thread c ON c.parent = p.id"
        assert await asyncio.to_thread(execute, url, sql) == [(thread.id, True)]
        assert sum(model.requests for _, model in others) == 1


BOARD = Block("board", "first", shared="office")


@tool(idempotent=True)
async def note(ctx: RunContext, text: str) -> str:
    """Notes something on the board."""
    block = await ctx.memory.edit(AppendText("board", text), key=ctx.call_id)
    assert block is not None
    return block.value


def noting(name: str) -> Agent:
    steps: list[object] = []
    for n in range(5):
        steps += [[Call("note", json.dumps({"text": f"{name} {n}"}))], "Noted."]
    return Agent(ScriptedModel(cast("Any", steps)), name="noter", tools=[note], blocks=[BOARD])


async def test_agents_on_two_nodes_edit_one_shared_memory(url: str) -> None:
    (mine, yours) = noting("mine"), noting("yours")
    async with (
        treadle.open(url, agents=[mine]) as one,
        treadle.open(url, agents=[yours]) as two,
    ):

        async def work(runtime: Runtime, agent: Agent) -> treadle.Thread:
            thread = await runtime.create_thread(agent)
            for _ in range(5):
                assert (await (await thread.send("go")).result()).text == "Noted."
            return thread

        done = await asyncio.wait_for(asyncio.gather(work(one, mine), work(two, yours)), 60)
        memory = await two.memory("office")
        block = await memory.get("board")
        assert block is not None
        first, *lines = block.value.splitlines()
        assert first == "first"
        assert sorted(lines) == sorted(f"{who} {n}" for who in ("mine", "yours") for n in range(5))
        for thread in done:  # each run reports its changes
            told = [e for e in await thread.events() if isinstance(e, MemoryUpdated)]
            assert len(told) == 5


async def test_a_thread_is_deleted_from_any_node(url: str) -> None:
    agent, model = slow(0.5)
    async with (
        treadle.open(url, agents=[agent]) as one,
        treadle.open(url, agents=[agent]) as two,
    ):
        thread = await one.create_thread(agent)
        run = await thread.send("go")
        ended = asyncio.create_task(run.result())
        seen = asyncio.create_task(text_seen(thread))
        await until(lambda: model.requests == 1)
        await (await two.connect(thread.id)).delete()
        for waiting in (ended, seen):
            with pytest.raises(ThreadNotFound):
                await asyncio.wait_for(waiting, 5)
        with pytest.raises(ThreadNotFound):
            await one.connect(thread.id)


@pytest.mark.parametrize("most", [None, 5])
async def test_a_thread_that_no_drive_ends_is_not_searched_with_each_look(
    url: str, monkeypatch: pytest.MonkeyPatch, most: int | None
) -> None:
    sweeps: list[bool] = []
    found: list[str] = []
    look = NodesOfJournal.look

    async def noted(*args: Any, **options: Any) -> Look:
        sweeps.append(options["sweeps"])
        seen = await look(*args, **options)
        found.extend(seen.threads)
        return seen

    monkeypatch.setattr(NodesOfJournal, "look", noted)
    agent = Agent(ScriptedModel(["One."]), name="a")
    async with treadle.open(url, agents=[agent], max_runs_per_node=most) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("hi")).result()
        tell = "SELECT pg_notify('treadle_' || 'inbox'::regclass::oid, '')"
        free = "UPDATE thread SET node = NULL"
        unfinished = "UPDATE activity SET status = 'in_progress'"
        for sql in (free, unfinished, tell):
            await asyncio.to_thread(execute, url, sql)
        await until(lambda: bool(found))
        sweeps.clear()
        await until(lambda: len(sweeps) >= 6)
        assert sum(sweeps) <= 1


async def test_a_verdict_that_takes_too_long_is_unknown(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = Agent(ScriptedModel(["One.", "Two."]), name="a")
    async with (
        treadle.open(url, agents=[agent]) as one,
        treadle.open(url, agents=[agent]) as two,
    ):
        thread = await one.create_thread(agent)
        await (await thread.send("hi")).result()
        other = await two.connect(thread.id)
        seq = (await other.state()).said
        with monkeypatch.context() as patched:
            patched.setattr(threads, "VERDICT_SECONDS", 0.3)
            patched.setattr(Intake, "take_inbox", _hang)
            with pytest.raises(VerdictUnknown, match="key='k'"):
                await other.send("more", expect=seq, key="k")
        run = await other.send("more", expect=seq, key="k")
        assert (await asyncio.wait_for(run.result(), 10)).text == "Two."


async def _hang(_: Intake) -> None:
    await asyncio.sleep(0.5)


SCRIPT = """
import asyncio, sys
import treadle
from treadle import Agent, tool
from treadle.testing import Call, ScriptedModel

@tool(idempotent=False)
async def pay() -> str:
    print("paid", flush=True)
    await asyncio.sleep(60)
    return "paid"

async def main():
    agent = Agent(ScriptedModel([[Call("pay", "{}")]] * 9), name="a", tools=[pay])
    async with treadle.open(sys.argv[1], agents=[agent]) as runtime:
        for _ in range(5):
            thread = await runtime.create_thread(agent)
            run = await thread.send("go", key="k")
            print(thread.id, run.id, flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_killed_node_is_replaced_and_its_tools_are_not_run_again(url: str) -> None:
    @tool(idempotent=False)
    async def pay() -> str:
        raise AssertionError("it may have been paid")

    agent = Agent(ScriptedModel(["Done."] * 5), name="a", tools=[pay])
    async with treadle.open(url, agents=[agent]) as runtime:
        process = await asyncio.to_thread(
            subprocess.Popen, [sys.executable, "-c", SCRIPT, url], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        try:
            lines = [await asyncio.to_thread(process.stdout.readline) for _ in range(10)]
        finally:
            process.send_signal(signal.SIGKILL)
            await asyncio.to_thread(process.communicate)
        assert lines.count("paid\n") == 5
        ids = [line.split() for line in lines if line != "paid\n"]
        for thread_id, run_id in ids:
            run = await (await runtime.connect(thread_id)).run(run_id)
            assert (await asyncio.wait_for(run.result(), 10)).text == "Done."


async def test_a_node_older_than_a_breaking_migration_stops_and_writes_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (agent, model), (other_agent, other_model) = slow(0.3), slow()
    async with treadle.open(url, agents=[agent]) as old:
        thread = await old.create_thread(agent)
        run = await thread.send("go")
        ended = asyncio.create_task(run.result())
        await until(lambda: model.requests == 1)
        known = await asyncio.to_thread(postgres_database._migrations)
        scripts = [*known, "CREATE TABLE newer (n int)"]
        monkeypatch.setattr(postgres_database, "_migrations", lambda: scripts)
        async with treadle.open(url, agents=[other_agent]) as new:
            assert await asyncio.to_thread(execute, url, "SELECT number FROM version") == [
                (len(scripts),)
            ]
            resumed = await (await new.connect(thread.id)).run(run.id)
            assert (await asyncio.wait_for(resumed.result(), 20)).text == TEXT
            assert (await asyncio.wait_for(ended, 10)).text == TEXT
            assert other_model.requests == 1
            steps = [e.type for e in await thread.events() if e.type.startswith("step.")]
            assert steps == ["step.started", "step.interrupted", "step.started", "step.completed"]
            with pytest.raises(JournalTooNew, match="install that version"):
                await thread.send("more")
            with pytest.raises(JournalTooNew):
                await old.create_thread(agent)
    assert "drives no more threads" in caplog.text


async def test_a_schedule_of_a_node_that_has_ended_is_fired_by_another(url: str) -> None:
    agent = Agent(ScriptedModel(["Later."]), name="a")
    async with treadle.open(url, agents=[agent]) as two:
        async with treadle.open(url, agents=[agent]) as one:
            thread = await one.create_thread(agent)
            await thread.schedule("later", after=0.5)
        other = await two.connect(thread.id)
        async with asyncio.timeout(10):
            async for event in other.subscribe():
                if isinstance(event, TerminalEvent):
                    break
        assert [item.text for item in await other.history() if isinstance(item, Message)][-1:] == [
            "Later."
        ]
