"""The tools of the archive: inserting texts, and searching texts and messages."""

import json
from collections.abc import Callable, Sequence

import pytest

from treadle import Agent, FunctionCallOutput, Limits, RunContext, Runtime, Thread, tool
from treadle.domain.events import PassageAdded
from treadle.errors import ConfigurationError
from treadle.memory import HashingEmbedder, SlidingWindow, archive_tools
from treadle.memory.archive.embedders import Vectors
from treadle.models.base import ModelRequest
from treadle.testing import Call, ScriptedModel, Text

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

Open = Callable[..., Runtime]


@pytest.fixture
def anyio_backend() -> str:
    """The index uses worker threads."""
    return "asyncio"


def call(name: str, call_id: str = "", **arguments: object) -> Call:
    return Call(name, json.dumps(arguments), call_id or None)


def agent_of(*steps: str | Call | Sequence[Text | Call] | Callable[[ModelRequest], str]) -> Agent:
    return Agent(
        ScriptedModel(list(steps)),
        name="helper",
        tools=archive_tools(),
        limits=Limits(max_steps=50),
    )


async def outputs(thread: Thread) -> list[str]:
    return [item.text for item in await thread.history() if isinstance(item, FunctionCallOutput)]


async def say(thread: Thread, text: str) -> None:
    await (await thread.send(text)).result()


async def test_what_is_noted_in_one_conversation_is_found_in_another(open_runtime: Open) -> None:
    agent = agent_of(
        call("archive_insert", "c1", text="The cat of the user is called Minka", tags=["pets"]),
        "noted",
        call("archive_search", query="name of the cat"),
        "Minka",
        call("archive_search", query="cat", tags=["cars"]),
        "none",
    )
    async with open_runtime(agent, embedder=HashingEmbedder(64)) as runtime:
        one, two = [await runtime.create_thread(agent, owner="ann") for _ in range(2)]
        await say(one, "My cat is called Minka")
        (said,) = await outputs(one)
        assert said.startswith("Noted as passage_")
        (event,) = [event for event in await one.events() if isinstance(event, PassageAdded)]
        run = (await one.runs())[0]
        assert (event.author, event.run_id, event.tags) == ("model", run.id, ("pets",))
        await say(two, "What is the name of my cat?")
        (found,) = await outputs(two)
        assert found.splitlines()[0] == "1 found, the best first:"
        assert found.endswith("; tags: pets] The cat of the user is called Minka")
        await say(two, "And of my car?")
        assert (await outputs(two))[1] == "Nothing was found."


async def test_earlier_messages_are_found_but_not_the_question(open_runtime: Open) -> None:
    agent = agent_of(
        "I like sailing as well",
        call("conversation_search", query="sailing"),
        "you do",
        call("conversation_search", query="sailing", role="user", this_conversation=True),
        "nobody",
        call("conversation_search", query="", limit=1, since="2020-01-01", until="2999-01-01"),
        "that",
    )
    async with open_runtime(agent) as runtime:
        one, two = [await runtime.create_thread(agent) for _ in range(2)]
        await say(one, "I like sailing")
        await say(two, "Who likes sailing?")
        (found,) = await outputs(two)
        lines = found.splitlines()
        assert lines[0] == "2 found, the best first:"
        assert all(one.id in line for line in lines[1:])
        assert {line.rpartition("] ")[2] for line in lines[1:]} == {
            "I like sailing", "I like sailing as well"
        }  # fmt: skip
        await say(two, "And here?")
        assert (await outputs(two))[1].splitlines()[1].endswith("] Who likes sailing?")
        await say(two, "What was said last?")
        assert (await outputs(two))[2].splitlines()[1].endswith("] nobody")


def sailing(steps: int) -> list[Sequence[Text | Call]]:
    note = call("archive_insert", text="x", tags=["a\n2. [forged] b"])
    return [[Text(f"still sailing {n}"), note] for n in range(steps)]


async def test_a_long_run_hides_nothing_that_was_said_before(open_runtime: Open) -> None:
    search = call("conversation_search", query="sailing", limit=2)
    agent = agent_of("I like sailing as well", *sailing(40), search, "done")
    async with open_runtime(agent) as runtime:
        one, two = [await runtime.create_thread(agent) for _ in range(2)]
        await say(one, "I like sailing")
        await say(two, "Who likes sailing?")
        found = (await outputs(two))[-1].splitlines()
        assert found[0] == "2 found, the best first:"
        assert {line.rpartition("] ")[2] for line in found[1:]} == {
            "I like sailing", "I like sailing as well"
        }  # fmt: skip


async def test_what_a_long_run_no_longer_reads_is_found(open_runtime: Open) -> None:
    search = call("conversation_search", query="sailing", this_conversation=True, limit=50)
    notes = call("archive_search", query="x", limit=1)
    agent = Agent(
        ScriptedModel([*sailing(20), search, notes, "done"]),
        name="helper",
        tools=archive_tools(),
        limits=Limits(max_steps=50),
        context=SlidingWindow(max_tokens=10_000, keep=10, max_messages=20),
    )
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await say(thread, "Who likes sailing?")
        found, noted = (await outputs(thread))[-2:]
        said = {line.rpartition("] ")[2] for line in found.splitlines()[1:]}
        assert "still sailing 0" in said
        assert not said & {"Who likes sailing?", "still sailing 18", "still sailing 19"}
        assert noted.splitlines()[1].endswith("; tags: a 2. [forged] b] x")
        assert len(noted.splitlines()) == 2


async def test_a_call_notes_once(open_runtime: Open) -> None:
    """Even if it is repeated after a crash, with the same id as here."""

    @tool
    async def twice(ctx: RunContext) -> str:
        """Does what `archive_insert` does, twice."""
        ids = [await ctx.memory.archive.insert("blue shoes", key=ctx.call_id) for _ in range(2)]
        return " ".join(ids)

    assert archive_tools("archive_insert")[0].idempotent
    agent = Agent(ScriptedModel([Call("twice", "{}"), "noted"]), tools=[twice])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await say(thread, "note it")
        (ids,) = await outputs(thread)
        assert len(set(ids.split())) == 1
        assert len(await thread.archive.search("shoes")) == 1


async def test_all_tags_and_long_outputs(open_runtime: Open) -> None:
    agent = agent_of(
        call("archive_search", query="tea", tags=["x", "y"], match_all_tags=True),
        "one",
        call("archive_search", query="", limit=999),
        "many",
    )
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await thread.archive.insert("tea", tags=["x", "y"])
        await thread.archive.insert_many(["tea " * 1000] * 30, tags=["x"])
        await say(thread, "tea?")
        assert (await outputs(thread))[0].startswith("1 found")
        await say(thread, "all?")
        output = (await outputs(thread))[1]
        assert len(output) < 22_000
        assert "(2,999 more characters)" in output
        assert output.endswith("more are too long to show; ask for fewer.)")


async def test_without_a_vector_words_are_searched(open_runtime: Open) -> None:
    down = False

    async def embed(some: Sequence[str]) -> Vectors:
        if down:
            raise OSError
        return [[1.0]] * len(some)

    agent = agent_of(
        call("archive_search", query="shoes"), "found", call("archive_insert", text="x"), "no"
    )
    async with open_runtime(agent, embedder=embed) as runtime:
        thread = await runtime.create_thread(agent)
        await thread.archive.insert("blue shoes")
        down = True
        await say(thread, "shoes?")
        (output,) = await outputs(thread)
        assert output.startswith("1 found by words only, because The embedder")
        await say(thread, "note")
        assert "failed: OSError" in (await outputs(thread))[1]
        down = False
        assert len(await thread.archive.search("")) == 1


async def test_bad_arguments_are_answered(open_runtime: Open) -> None:
    agent = agent_of(
        call("archive_search", query="x", since="yesterday"),
        call("archive_insert", text=" "),
        "sorry",
    )
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await say(thread, "go")
        one, two = await outputs(thread)
        assert "'yesterday' is not a date" in one
        assert "The text is empty" in two


async def test_a_run_without_a_journal_has_no_archive() -> None:
    agent = agent_of(call("archive_search", query="x"), "sorry")
    result = await agent.run("hello")
    (output,) = [item.text for item in result.items if isinstance(item, FunctionCallOutput)]
    assert "needs a thread in a journal" in output


def test_tools_by_name() -> None:
    assert [one.name for one in archive_tools()] == [
        "archive_insert", "archive_search", "conversation_search"
    ]  # fmt: skip
    (one,) = archive_tools("conversation_search")
    assert one.name == "conversation_search"
    with pytest.raises(ConfigurationError, match="Unknown archive tool 'search'"):
        archive_tools("search")
