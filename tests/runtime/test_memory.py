"""Memory blocks of threads: what the model reads, who edits them, what is kept."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import treadle
from treadle import Agent, Block, MemoryUpdated, RunContext, Runtime, tool
from treadle.domain.blocks import AppendText, CreateBlock, DeleteBlock, RewriteBlock
from treadle.domain.items import FunctionCallOutput
from treadle.errors import (
    BlockChanged,
    BlockReadOnly,
    BlockTooLong,
    ChangeNotUndoable,
    ConfigurationError,
    InvalidInput,
    TextNotUnique,
    ThreadNotFound,
    UnknownBlock,
)
from treadle.memory import block_tools
from treadle.testing import Call, ScriptedModel

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]

HUMAN = Block("human", "Name: Ada", "What you know about the user.", 200)
TEAM = Block("team", "We say thou.", "How we write.", shared="style")


@tool(idempotent=True)
async def note(ctx: RunContext, label: str, text: str) -> str:
    """Notes something."""
    block = await ctx.memory.edit(AppendText(label, text), key=ctx.call_id)
    assert block is not None
    return block.value


def noting(label: str, text: str, call_id: str = "") -> Call:
    return Call("note", json.dumps({"label": label, "text": text}), call_id or None)


def read_by(model: ScriptedModel) -> list[str]:
    return [request.instructions for request in model.requests]


async def changes(thread: treadle.Thread) -> list[MemoryUpdated]:
    return [event for event in await thread.events() if isinstance(event, MemoryUpdated)]


async def test_an_edit_in_one_step_is_read_in_the_next(open_runtime: Open) -> None:
    model = ScriptedModel([noting("human", "Likes tea.", "c1"), "noted"])
    agent = Agent(model, instructions="Be kind.", tools=[note], blocks=[HUMAN])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("I like tea")
        await run.result()
        first, second = read_by(model)
        assert first.startswith("Be kind.\n\n")
        assert "Name: Ada" in first
        assert "Likes tea." not in first
        assert "Name: Ada\nLikes tea." in second
        made, grown = await changes(thread)
        assert (made.operation, made.author, made.run_id) == ("create", "agent", "")
        assert (grown.operation, grown.author, grown.run_id) == ("append", "model", run.id)
        assert "+Likes tea." in grown.diff
        assert grown.key == "c1"
    model = ScriptedModel(["hi"])
    agent = Agent(model, instructions="Be kind.", tools=[note], blocks=[HUMAN])
    async with open_runtime(agent) as runtime:
        again = await runtime.connect(thread.id)
        await (await again.send("hi")).result()
        assert read_by(model) == [second]


async def test_people_edit_and_undo(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([]), blocks=[HUMAN])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        memory = thread.memory
        assert await memory.blocks() == (HUMAN,)
        await memory.append("human", "From London")
        await memory.replace("human", "Ada", "Ada Lovelace")
        await memory.insert("human", "Born 1815", 1)
        assert (await value_of(memory)) == "Name: Ada Lovelace\nBorn 1815\nFrom London"
        await memory.undo("human")
        await memory.undo("human")
        assert (await value_of(memory)) == "Name: Ada\nFrom London"
        first = (await memory.changes("human"))[1]
        assert first.operation == "append"
        await memory.undo("human", first.seq)
        assert (await value_of(memory)) == "Name: Ada"
        await memory.create("style", "brief", limit=10)
        await memory.rewrite("style", "long")
        await memory.delete("style")
        await memory.undo("style")
        assert (await value_of(memory, "style")) == "long"
        assert [c.operation for c in await memory.changes("style")] == [
            "create",
            "rewrite",
            "delete",
            "undo",
        ]
        assert len(await memory.changes()) == 11


async def test_an_undo_goes_past_what_was_undone_before(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([]), blocks=[HUMAN])
    async with open_runtime(agent) as runtime:
        memory = (await runtime.create_thread(agent)).memory
        for text in ("one", "two", "three", "four"):
            await memory.append("human", text)
        for two_or_three in (await memory.changes("human"))[2:4]:
            await memory.undo("human", two_or_three.seq)
        assert (await value_of(memory)) == "Name: Ada\none\nfour"
        await memory.undo("human")
        await memory.undo("human")
        assert (await value_of(memory)) == "Name: Ada"
        await memory.undo("human", (await memory.changes("human"))[-1].seq)
        assert (await value_of(memory)) == "Name: Ada\none"
        await memory.undo("human")
        await memory.undo("human")
        assert await memory.get("human") is None
        with pytest.raises(ChangeNotUndoable, match="no change to undo"):
            await memory.undo("human")


async def value_of(memory: treadle.Memory, label: str = "human") -> str:
    block = await memory.get(label)
    assert block is not None
    return block.value


async def test_what_is_refused_changes_nothing(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([]), blocks=[HUMAN])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        memory = thread.memory
        seq = (await thread.state()).seq
        with pytest.raises(BlockTooLong):
            await memory.rewrite("human", "x" * 201)
        with pytest.raises(UnknownBlock, match="human"):
            await memory.append("humann", "x")
        with pytest.raises(TextNotUnique):
            await memory.replace("human", "a", "b")
        with pytest.raises(ChangeNotUndoable):
            await memory.undo("human", 77)
        with pytest.raises(ChangeNotUndoable):
            await memory.undo("nobody")
        with pytest.raises(InvalidInput):
            await memory.create("no label", "x")
        assert (await thread.state()).seq == seq


async def test_a_key_changes_once(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([]), blocks=[HUMAN])
    async with open_runtime(agent) as runtime:
        memory = (await runtime.create_thread(agent)).memory
        for _ in range(3):
            await memory.append("human", "once", key="k")
        assert (await value_of(memory)) == "Name: Ada\nonce"


async def test_a_model_reads_why_it_may_not(open_runtime: Open) -> None:
    model = ScriptedModel([noting("rules", "be bad"), "well"])
    agent = Agent(model, tools=[note], blocks=[Block("rules", "be good", read_only=True)])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("go")).result()
        (output,) = [i for i in await thread.history() if isinstance(i, FunctionCallOutput)]
        assert output.is_error
        assert "read" in output.text
        await thread.memory.append("rules", "people may")
        with pytest.raises(BlockReadOnly):
            raise BlockReadOnly("as a model")


async def test_an_agent_that_declares_otherwise_changes_the_rules_and_no_text(
    open_runtime: Open,
) -> None:
    agent = Agent(ScriptedModel(["a"]), blocks=[HUMAN, Block("mood", "calm")])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await thread.memory.append("human", "Likes tea.")
        await thread.memory.delete("mood")
    other = Block("human", "Name: nobody", "Who they are.", 500)
    model = ScriptedModel(["a"])
    agent = Agent(model, blocks=[other, Block("mood", "calm"), Block("goal", "none")])
    async with open_runtime(agent) as runtime:
        thread = await runtime.connect(thread.id)
        await (await thread.send("hi")).result()
        human, goal = await thread.memory.blocks()
        assert human == Block("human", "Name: Ada\nLikes tea.", "Who they are.", 500)
        assert goal.label == "goal"
        assert "calm" not in read_by(model)[0]


async def test_blocks_are_read_in_the_order_of_the_agent(open_runtime: Open) -> None:
    model = ScriptedModel(["a", "b"])
    agent = Agent(model, blocks=[HUMAN, Block("mood", "calm")])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("hi")).result()
        await thread.memory.delete("human")
        await thread.memory.undo("human")
        assert [block.label for block in await thread.memory.blocks()] == ["mood", "human"]
        await (await thread.send("hi")).result()
        first, second = read_by(model)
        assert first == second


async def test_threads_of_one_owner_share_a_block(open_runtime: Open) -> None:
    model = ScriptedModel([noting("team", "No jokes.", "c1"), "noted", "yes", "other", "fine"])
    agent = Agent(model, tools=[note], blocks=[HUMAN, TEAM])
    async with open_runtime(agent, deps=lambda _: None) as runtime:
        mine = await runtime.create_thread(agent, owner="acme")
        mate = await runtime.create_thread(agent, owner="acme")
        rival = await runtime.create_thread(agent, owner="rival")
        run = await mine.send("no jokes please")
        await run.result()
        await (await mate.send("hi")).result()
        await (await rival.send("hi")).result()
        read = read_by(model)
        assert read[0].index("Name: Ada") < read[0].index("We say thou.")
        assert "No jokes." not in read[0]
        assert "We say thou.\nNo jokes." in read[1]
        assert read[2] == read[1]
        assert "No jokes." not in read[3]
        shared = await runtime.memory("style", owner="acme")
        assert [block.label for block in await shared.blocks()] == ["team"]
        made, grown = await shared.changes()
        assert (grown.thread_id, grown.run_id, grown.key) == (mine.id, "", f"{mine.id}/c1")
        told = (await changes(mine))[-1]
        assert (told.memory, told.run_id, told.added) == (shared.thread_id, run.id, grown.added)
        assert made.author == "agent"
        assert {info.id for info in await runtime.threads()} == {mine.id, mate.id, rival.id}
        await shared.rewrite("team", "Anything goes.")
        await (await mate.send("and now?")).result()
        assert "Anything goes." in read_by(model)[-1]
        assert "No jokes." not in read_by(model)[-1]


async def test_agents_that_share_a_block_each_read_it_as_they_declare_it(
    open_runtime: Open,
) -> None:
    writes = ScriptedModel([noting("team", "No jokes."), "noted", "well"])
    reads = ScriptedModel([noting("team", "Jokes!"), "sorry"])
    writer = Agent(writes, name="writer", tools=[note], blocks=[TEAM])
    closed = Block("team", "other", limit=9, read_only=True, shared="style")
    reader = Agent(reads, name="reader", tools=[note], blocks=[closed])
    async with open_runtime(writer, reader) as runtime:
        there = await runtime.create_thread(reader)
        here = await runtime.create_thread(writer)
        await (await here.send("no jokes")).result()
        await (await there.send("jokes")).result()
        (output,) = [i for i in await there.history() if isinstance(i, FunctionCallOutput)]
        assert output.is_error
        await (await here.send("and now?")).result()
        shared = await runtime.memory("style")
        assert await shared.get("team") == Block("team", "We say thou.\nNo jokes.", "How we write.")
        assert [change.operation for change in await shared.changes()] == ["create", "append"]
        assert 'read_only="true"' in read_by(reads)[0]
        assert "How we write." in read_by(reads)[0]
        await shared.configure("team", limit=100, description="Tone")
        assert await shared.get("team") == Block("team", "We say thou.\nNo jokes.", "Tone", 100)
        await shared.configure("team", limit=100)
        with pytest.raises(InvalidInput):
            await shared.configure("team", limit=0)
        with pytest.raises(UnknownBlock):
            await shared.configure("nobody", limit=10)
        await shared.undo("team")
        assert [change.operation for change in await shared.changes()][2:] == ["configure", "undo"]


async def test_a_shared_memory_is_there_after_a_restart(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["a"]), blocks=[TEAM])
    async with open_runtime(agent) as runtime:
        shared = await runtime.memory("style")
        assert await shared.blocks() == ()
        await shared.create("team", "made by hand")
    model = ScriptedModel(["a"])
    agent = Agent(model, blocks=[TEAM])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("hi")).result()
        assert "made by hand" in read_by(model)[0]
        shared = await runtime.memory("style")
        assert (await value_of(shared, "team")) == "made by hand"
        await (await runtime.connect(shared.thread_id)).delete()
        with pytest.raises(ThreadNotFound):
            await shared.blocks()
        with pytest.raises(InvalidInput, match="name"):
            await runtime.memory("no name")


async def test_an_owner_that_no_journal_can_keep_is_refused(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel([]))
    async with open_runtime(agent) as runtime:
        with pytest.raises(InvalidInput, match="owner"):
            await runtime.create_thread(agent, owner="\ud800")
        with pytest.raises(InvalidInput, match="owner"):
            await runtime.memory("style", owner="\ud800")


async def test_many_that_edit_at_once_lose_nothing(open_runtime: Open) -> None:
    notes = [noting("team", f"line {n}", f"c{n}") for n in range(8)]
    model = ScriptedModel([*notes, *["ok"] * 8])
    agent = Agent(model, tools=[note], blocks=[Block("team", shared="style")])
    async with open_runtime(agent) as runtime:
        threads = [await runtime.create_thread(agent) for _ in range(8)]
        runs = [await thread.send("go") for thread in threads]
        await asyncio.gather(*(run.result() for run in runs))
        shared = await runtime.memory("style")
        lines = (await value_of(shared, "team")).splitlines()
        assert sorted(lines) == [f"line {n}" for n in range(8)]


async def test_a_model_rewrites_only_what_it_has_read(open_runtime: Open) -> None:
    @tool(serial=True)
    async def meanwhile() -> str:
        """Someone else edits both blocks while the model writes."""
        await thread.memory.append("human", "Left-handed.")
        await (await runtime.memory("style")).append("team", "No jokes.")
        return "done"

    def rewriting(label: str, value: str) -> Call:
        return Call("memory_rewrite", json.dumps({"label": label, "value": value}))

    @tool(serial=True)
    async def both(ctx: RunContext) -> str:
        """Rewrites as the model does that called it."""
        for label in ("human", "team"):
            with pytest.raises(BlockChanged):
                await ctx.memory.edit(RewriteBlock(label, "x"), key=label, as_read=True)
        await ctx.memory.edit(AppendText("human", "Sings."), key="a")
        with pytest.raises(BlockChanged):
            await ctx.memory.edit(DeleteBlock("human"), key="d", as_read=True)
        return "refused"

    model = ScriptedModel(
        [
            [Call("meanwhile", "{}"), Call("both", "{}")],
            [noting("human", "Drinks tea."), rewriting("human", "Ada")],
            rewriting("team", "Thou. No jokes."),
            "done",
        ]
    )
    tools = [meanwhile, both, note, *block_tools("memory_rewrite")]
    agent = Agent(model, tools=tools, blocks=[HUMAN, TEAM])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("go")).result()
        outputs = [i for i in await thread.history() if isinstance(i, FunctionCallOutput)]
        assert [output.is_error for output in outputs] == [False] * 5
        assert (await value_of(thread.memory)) == "Ada"
        assert (await value_of(await runtime.memory("style"), "team")) == "Thou. No jokes."


async def test_a_block_that_the_model_made_is_read_too(open_runtime: Open) -> None:
    @tool
    async def make(ctx: RunContext) -> str:
        """Makes one and removes another."""
        await ctx.memory.edit(CreateBlock(Block("plan", "step one")), key=ctx.call_id)
        assert await ctx.memory.edit(DeleteBlock("human"), key=ctx.call_id + "d") is None
        return str([block.label for block in await ctx.memory.blocks()])

    model = ScriptedModel([Call("make", "{}"), "done"])
    agent = Agent(model, tools=[make], blocks=[HUMAN])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("go")).result()
        assert "step one" in read_by(model)[1]
        assert "Name: Ada" not in read_by(model)[1]
        fork = await thread.fork()
        assert [block.label for block in await fork.memory.blocks()] == ["plan"]


async def test_a_foreground_run_has_blocks_of_its_own() -> None:
    model = ScriptedModel([noting("human", "Likes tea."), "noted"])
    agent = Agent(model, tools=[note], blocks=[HUMAN])
    await agent.run("I like tea")
    assert "Name: Ada\nLikes tea." in read_by(model)[1]
    with pytest.raises(ConfigurationError, match="shared"):
        await Agent(ScriptedModel([]), blocks=[TEAM]).run("hi")


@pytest.mark.real_clock
async def test_another_process_edits_through_the_inbox(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'treadle.db'}"
    agent = Agent(ScriptedModel([]), blocks=[HUMAN])
    async with treadle.open(url, agents=[agent]) as driving:
        thread = await driving.create_thread(agent)
        await thread.memory.append("human", "one")
        async with treadle.open(url, drive=False) as outside:
            there = await outside.connect(thread.id)
            assert (await value_of(there.memory)) == "Name: Ada\none"
            with pytest.raises(UnknownBlock):
                await there.memory.append("nobody", "x")
            with pytest.raises(ChangeNotUndoable):
                await there.memory.undo("nobody")
            shared = await outside.memory("style")
            await shared.create("team", "from outside")
            await there.memory.undo("human")
            await there.memory.append("human", "two", key="k")
            await there.memory.append("human", "two", key="k")
            async with there.subscribe() as events:
                async for event in events:
                    if isinstance(event, MemoryUpdated) and event.key == "k":
                        break
        assert (await value_of(thread.memory)) == "Name: Ada\ntwo"
        known = await driving.memory("style")
        async with asyncio.timeout(10):
            while await known.get("team") is None:  # noqa: ASYNC110 - the inbox is polled
                await asyncio.sleep(0.02)
        assert known.thread_id == shared.thread_id


@pytest.mark.parametrize(
    ("blocks", "why"),
    [
        ([HUMAN, HUMAN], "Two memory blocks"),
        ([Block("no label")], "no label"),
        ([Block("b", "long", limit=2)], "2"),
        ([Block("b", limit=0)], "limit"),
        ([Block("b", shared="no name")], "no name"),
    ],
)
def test_blocks_that_cannot_be(blocks: list[Block], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        Agent(ScriptedModel([]), blocks=blocks)
