"""Options of one run on threads: stored with the run, and true wherever it is driven."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel

from treadle import (
    Agent,
    AllowedTools,
    ExternalTool,
    FunctionCallOutput,
    Limits,
    ModelSettings,
    Price,
    RunOptions,
    RunQueued,
    RunRequiresAction,
    RunStarted,
    Runtime,
    tool,
    user_message,
)
from treadle.domain.entries import SendEntry
from treadle.errors import (
    ConfigurationError,
    Conflict,
    InvalidInput,
    MissingKey,
    RunError,
    UnknownOption,
)
from treadle.journal.memory import MemoryJournal
from treadle.testing import Call, Pause, ScriptedModel, Text

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]


class City(BaseModel):
    name: str


@tool
async def lookup(word: str) -> str:
    """Looks a word up."""
    return f"{word}!"


OUTSIDE = ExternalTool(
    "choose",
    "Asks the person to choose.",
    {"type": "object", "properties": {"of": {"type": "integer"}}, "required": ["of"]},
)


async def test_a_tool_of_the_caller_is_answered_by_the_caller(open_runtime: Open) -> None:
    model = ScriptedModel([Call("choose", '{"of": "x"}'), Call("choose", '{"of": 3}'), "Two it is"])
    agent = Agent(model)
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("Let me choose", tools=[OUTSIDE], metadata={"ticket": 7})
        async for event in run.events():
            if isinstance(event, RunRequiresAction):
                break
        pending = await thread.pending_calls()
        assert [(one.call.arguments, one.awaits) for one in pending] == [('{"of": 3}', "output")]
        await thread.submit_tool_output(pending[0].call.call_id, "2")
        assert await run.text() == "Two it is"
        # What does not fit the schema goes back to the model, and not to the caller.
        outputs = [o for o in await thread.history() if isinstance(o, FunctionCallOutput)]
        assert [one.text for one in outputs] == [
            "The arguments of choose are not valid: of must be of the type integer, not 'x'.",
            "2",
        ]
        state = await thread.state()
        assert state.run is not None
        assert state.run.options == RunOptions(tools=(OUTSIDE,), metadata={"ticket": 7})
        # They are those of one run.
        model._script.append("Hi")
        await (await thread.send("Hello")).result()
        assert model.requests[-1].tools == ()
        assert (await thread.state()).run.options is None  # type: ignore[union-attr]


async def test_a_run_that_waits_keeps_its_options(open_runtime: Open) -> None:
    model, other = ScriptedModel([[Pause(1), Text("One")]]), ScriptedModel(['{"name": "Rome"}'])
    agent = Agent(model)
    async with open_runtime(agent, models={"other": other}) as runtime:
        thread = await runtime.create_thread(agent)
        first = await thread.send("One")
        second = await thread.send("Two", model="other", output=City, instructions="Be brief.")
        queued = (await thread.state()).queue
        assert [one.options for one in queued] == [
            RunOptions(model="other", output="City", instructions="Be brief.")
        ]
        assert (await first.result()).output == "One"
        assert (await second.result()).output == City(name="Rome")
        assert other.requests[0].instructions == "Be brief."
        events = await thread.events()
        options = [e.options for e in events if isinstance(e, RunQueued | RunStarted)]
        assert options[0] is None
        assert options[1] == options[2] is not None


async def test_urgent_messages_have_options_and_those_that_steer_have_none(
    open_runtime: Open,
) -> None:
    model = ScriptedModel([[Pause(5), Text("One")], "Two"])
    agent = Agent(model)
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        with pytest.raises(InvalidInput, match="steer"):
            await thread.send("One", on_busy="steer", instructions="Other.")
        assert await thread.events() == []
        await thread.send("One")
        with pytest.raises(InvalidInput, match="steer"):
            await thread.send("One", on_busy="steer", instructions="Other.")
        await asyncio.sleep(0.1)
        run = await thread.send("Two", on_busy="cancel", instructions="Other.")
        assert await run.text() == "Two"
        assert model.requests[-1].instructions == "Other."


async def test_a_key_stands_for_a_message_and_its_options(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["One"]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        metadata = {"a": 1, "b": 2}
        run = await thread.send("One", key="k", metadata=metadata)
        same = await thread.send("One", key="k", metadata={"b": 2, "a": 1})
        assert same.id == run.id
        with pytest.raises(Conflict):
            await thread.send("One", key="k", metadata={"a": 1})
        with pytest.raises(Conflict):
            await thread.send("One", key="k")
        await run.result()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"limits": Limits(max_cost=1)}, ConfigurationError),
        ({"tool_choice": AllowedTools(("lookup",))}, ConfigurationError),
        ({"model": "fast"}, UnknownOption),
        ({"model": "openai:gpt-5"}, MissingKey),
        ({"tools": ["lookup"]}, UnknownOption),
        ({"output": "City"}, UnknownOption),
        ({"settings": ModelSettings(extra_headers={"x-key": "secret"})}, InvalidInput),
        ({"model": "chat:x@http://me:secret@127.0.0.1"}, InvalidInput),
        ({"model": "chat:x@http://127.0.0.1?key=secret"}, InvalidInput),
    ],
)
@pytest.mark.parametrize("is_busy", [False, True])
async def test_what_cannot_work_is_refused_where_it_is_sent(
    open_runtime: Open,
    options: dict[str, Any],
    error: type[Exception],
    is_busy: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    agent = Agent(ScriptedModel([[Pause(1), Text("One")]]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        if is_busy:
            await thread.send("One")
        before = len(await thread.events())
        with pytest.raises(error) as caught:
            await thread.send("Two", **options)
        assert "secret" not in str(caught.value)
        assert len(await thread.events()) == before


async def test_options_reach_the_driver_through_the_inbox() -> None:
    other = ScriptedModel([Call("lookup", '{"word": "a"}'), '{"name": "Rome"}'])
    journal = MemoryJournal()
    agent = Agent(ScriptedModel([]))
    async with (
        Runtime(
            journal, agents=[agent], models={"fast": other}, tools=[lookup], outputs=[City]
        ) as driving,
        Runtime(journal, agents=[agent], drive=False) as sending,
    ):
        thread = await sending.connect((await driving.create_thread(agent)).id)
        run = await thread.send(
            "Hello", model="fast", tools=[lookup], output=City, extra_instructions="Be brief."
        )
        result = await run.result()
    assert result.output == City(name="Rome")
    assert other.requests[0].instructions == "Be brief."


async def test_a_run_whose_options_cannot_work_fails_where_they_are_found_out() -> None:
    journal = MemoryJournal()
    agent = Agent(ScriptedModel(["Hi"]))
    async with (
        Runtime(journal, agents=[agent]) as driving,
        Runtime(journal, agents=[agent], drive=False) as sending,
    ):
        thread = await sending.connect((await driving.create_thread(agent)).id)
        run = await thread.send("Hello", limits=Limits(max_cost=1))
        with pytest.raises((ConfigurationError, RunError), match="price of 'scripted'"):
            await run.result()
        assert (await (await thread.send("Again")).result()).output == "Hi"


async def test_a_run_whose_options_are_not_known_here_waits_for_another_process() -> None:
    journal = MemoryJournal()
    agent = Agent(ScriptedModel(["Next"]))
    async with Runtime(journal, agents=[agent]) as first:
        thread = await first.create_thread(agent)
        async with Runtime(journal, agents=[agent], drive=False) as sending:
            waiting = await (await sending.connect(thread.id)).send("One", model="fast")
            cancelled = await (await sending.connect(thread.id)).send("Two", tools=["lookup"])
        await asyncio.sleep(5)
        assert (await thread.info()).status in {"queued", "in_progress"}
    fast = ScriptedModel(["Hi"])
    async with Runtime(journal, agents=[agent], models={"fast": fast}) as second:
        again = await second.connect(thread.id)
        assert (await (await again.run(waiting.id)).result()).text == "Hi"
        await (await again.run(cancelled.id)).cancel()
        result = await (await again.run(cancelled.id)).result(raise_on_incomplete=False)
        assert result.status == "cancelled"
        assert await (await again.send("Three")).text() == "Next"


async def test_objects_that_a_caller_gives_become_known_by_their_names(open_runtime: Open) -> None:
    other = ScriptedModel(["Hi", "Hi"], name="other")
    agent = Agent(ScriptedModel([]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("Hello", model=other, tools=[lookup])
        await run.result()
        run = await thread.send("Hello", model="scripted/other", tools=["lookup"])
        await run.result()
        assert [[one.name for one in request.tools] for request in other.requests] == [
            ["lookup"],
            ["lookup"],
        ]
        with pytest.raises(ConfigurationError, match="Another model"):
            await thread.send("Hello", model=ScriptedModel([], name="other"))

        @tool(name="lookup")
        async def another() -> str:
            """Is another."""
            return ""

        with pytest.raises(ConfigurationError, match="Another tool"):
            await thread.send("Hello", tools=[another])

        class City2(BaseModel):
            name: str

        City2.__name__ = "City"
        agent.model._script.append('{"name": "Rome"}')  # type: ignore[attr-defined]
        await (await thread.send("Hello", output=City)).result()
        with pytest.raises(ConfigurationError, match="Another output type"):
            await thread.send("Hello", output=City2)


async def test_a_run_of_another_process_has_its_result_where_the_type_is_known() -> None:
    journal = MemoryJournal()
    agent = Agent(ScriptedModel(['{"name": "Rome"}']))
    async with Runtime(journal, agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("Hello", output=City, model=agent.model)
        assert (await run.result()).output == City(name="Rome")
    async with Runtime(journal, agents=[agent], drive=False) as reading:
        again = await (await reading.connect(thread.id)).run(run.id)
        with pytest.raises(UnknownOption, match="City"):
            await again.result()
    async with Runtime(journal, agents=[agent], outputs=[City], drive=False) as reading:
        again = await (await reading.connect(thread.id)).run(run.id)
        assert (await again.result()).output == City(name="Rome")


async def test_a_copy_of_a_thread_keeps_the_options_of_its_runs(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["Hi"]))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("Hello", metadata={"ticket": 7})).result()
        copy = await thread.fork()
        state = await copy.state()
        assert state.run is not None
        assert state.run.options == RunOptions(metadata={"ticket": 7})


async def test_the_cost_of_a_run_is_that_of_its_model(open_runtime: Open) -> None:
    other = ScriptedModel(["Hi there"], name="other")
    agent = Agent(ScriptedModel([]), limits=Limits(price=Price(1, 1)))
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        limits = Limits(prices={"other": Price(1e6, 1e6)})
        result = await (await thread.send("Hello", model=other, limits=limits)).result()
        assert result.cost == result.usage.total_tokens


def test_an_entry_without_options_is_stored_as_before() -> None:
    entry = SendEntry("run_1", user_message("Hello"))
    assert b"options" not in msgspec.json.encode(entry)
    item = msgspec.json.encode(entry.item)
    old = b'{"type":"send","run_id":"r","item":%s,"on_busy":"queue","agent":"","key":""}' % item
    assert msgspec.json.decode(old, type=SendEntry).options is None
