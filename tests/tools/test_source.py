"""Sources of tools, together with the tools of an agent."""

import asyncio
import re
from collections.abc import Sequence
from typing import Any

import pytest

import treadle
from treadle import Agent, ModelSettings, NamedTool, RunContext, Tool, ToolRules, tool, tool_source
from treadle.domain.items import FunctionCallOutput
from treadle.domain.schema import ToolSchema
from treadle.errors import ConfigurationError, ToolSourceFailed
from treadle.loop.hook_context import HookContext
from treadle.loop.hooks import ChangedArguments, Hooks, ToolCall
from treadle.testing import Call, ScriptedModel
from treadle.tools.parameters import CONTEXT, GivenParameters
from treadle.tools.source import ToolSource, ToolSources
from treadle.tools.toolset import Toolset

pytestmark = pytest.mark.anyio


def named(name: str) -> Tool[..., object]:
    @tool(name=name)
    async def say() -> str:
        """Says what it is called."""
        return name

    return say


class Listed:
    """A source with the tools it was given, or the exception."""

    is_local = True

    def __init__(self, name: str, given: Sequence[Tool[..., object]] | Exception) -> None:
        self.name = name
        self.given = given

    async def tools(self) -> Sequence[Tool[..., object]]:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given

    async def aclose(self) -> None: ...


async def test_joined() -> None:
    one, two = Listed("one", [named("a")]), Listed("two", [named("b"), named("c")])
    sources = ToolSources([one, two])
    assert list(sources) == [one, two]
    known = Toolset([named("x")])
    first = await sources.joined_to(known, None)
    assert first.names == ("x", "a", "b", "c")
    assert await sources.joined_to(known, None) is first
    one.given = []
    assert (await sources.joined_to(known, None)).names == ("x", "b", "c")
    assert (await sources.joined_to(Toolset(), None)).names == ("b", "c")


async def test_the_first_of_one_name_counts(caplog: pytest.LogCaptureFixture) -> None:
    mine = named("a")
    sources = ToolSources([Listed("one", [named("a"), named("b")])])
    tools = await sources.joined_to(Toolset([mine]), None)
    assert tools.names == ("a", "b")
    assert tools.get("a") is mine
    assert "The tool a of one is left out" in caplog.text


async def test_a_source_that_fails_has_no_tools(caplog: pytest.LogCaptureFixture) -> None:
    down = Listed("one", ToolSourceFailed("The server is down."))
    sources = ToolSources([down, Listed("two", [named("b")])])
    known = Toolset()
    tools = await sources.joined_to(known, None)
    assert await sources.joined_to(known, None) is tools
    assert tools.names == ("b",)
    assert tools.missing == ("The server is down.",)
    assert caplog.text.count("The tools of one are missing: The server is down.") == 1
    down.given = ValueError("oh")
    assert (await sources.joined_to(known, None)).missing == ("ValueError: oh",)


async def test_an_agent_asks_before_each_step() -> None:
    source = Listed("one", [])
    model = ScriptedModel([Call("a", "{}"), Call("a", "{}"), "done"])

    @tool(name="grow")
    async def a() -> str:
        """Is replaced."""
        return ""

    class Growing(Listed):
        async def tools(self) -> Sequence[Tool[..., object]]:
            self.given = [named("a")] if len(model.requests) else []
            return await super().tools()

    source = Growing("one", [])
    assert isinstance(source, ToolSource)
    result = await Agent(model, tools=[a, source]).run("go")
    missing, found = (i for i in result.items if isinstance(i, FunctionCallOutput))
    assert missing.text == "There is no tool 'a'. Tools: grow."
    assert found.text == "a"


async def test_a_choice_that_nobody_has_is_left_out() -> None:
    settings = ModelSettings(tool_choice=NamedTool("b"))
    model = ScriptedModel(["done"])
    await Agent(model, tools=[Listed("one", [named("a")])], settings=settings).run("go")
    assert model.requests[0].settings.tool_choice is None


async def test_a_source_that_is_not_local_needs_a_thread() -> None:
    source = Listed("one", [])
    source.is_local = False
    with pytest.raises(ConfigurationError, match="Tools of one are answered or approved"):
        await Agent(ScriptedModel(["done"]), tools=[source]).run("go")


async def test_given_parameters() -> None:
    async def call(**arguments: object) -> object:
        assert arguments.pop(CONTEXT)
        return arguments

    schema = {"$schema": "x", "properties": {"a": {}}, "anyOf": []}
    given = GivenParameters(schema)
    assert given.parameters == {"type": "object", "properties": {"a": {}}, "anyOf": []}
    assert not given.takes_nothing
    assert GivenParameters({"type": "object"}).takes_nothing
    far = Tool(
        function=call,
        schema=ToolSchema("far", "", given.parameters, strict=False),
        signature=given,
        is_async=True,
    )
    model = ScriptedModel([Call("far", '{"a": [1], "b": null}'), Call("far", "[1]"), "done"])
    result = await Agent(model, tools=[Listed("one", [far])]).run("go")
    right, wrong = (i for i in result.items if isinstance(i, FunctionCallOutput))
    assert right.text == '{"a":[1],"b":null}'
    assert wrong.is_error


async def test_rules_and_hooks_hold_for_tools_of_a_source() -> None:
    async def far(**arguments: object) -> object:
        del arguments[CONTEXT]
        return arguments

    given = GivenParameters({"type": "object", "properties": {"a": {}}})
    schema = ToolSchema("far", "", given.parameters, strict=False)
    source = Listed(
        "one", [Tool(function=far, schema=schema, signature=given, is_async=True), named("b")]
    )
    seen: list[object] = []

    def double(_: HookContext[None], call: ToolCall) -> ChangedArguments:
        seen.append(call.arguments)
        return ChangedArguments({"a": 2})

    model = ScriptedModel([[Call("b", "{}"), Call("far", '{"a": 1}')]])
    agent = Agent(
        model,
        tools=[source],
        rules=ToolRules(first="far", terminal=["far"]),
        hooks=Hooks(before_tool=double),
    )
    result = await agent.run("go")
    assert model.requests[0].settings.tool_choice == NamedTool("far")
    assert seen == [{"a": 1}]
    outputs = [i.text for i in result.items if isinstance(i, FunctionCallOutput)]
    assert outputs == ["Call far first; b was not called.", '{"a":2}']
    assert result.stop_reason == "terminal_tool"


async def test_a_function_gives_the_tools_of_each_step() -> None:
    seen: list[tuple[str, int]] = []

    @tool_source
    def grown(context: RunContext[str]) -> list[Tool[..., object]]:
        seen.append((context.deps, context.step))
        return [named("a")] if context.step == 0 else [named("a"), named("b")]

    @tool_source(name="other")
    async def later() -> list[Tool[..., object]]:
        return [c]

    c = named("c")
    model = ScriptedModel([Call("a", "{}"), Call("b", "{}"), "done"])
    agent = Agent[str](model, tools=[grown, later])
    result = await agent.run("go", deps="ada")
    offered = [[one.name for one in request.tools] for request in model.requests]
    assert offered == [["a", "c"], ["a", "b", "c"], ["a", "b", "c"]]
    assert seen == [("ada", 0), ("ada", 1), ("ada", 2)]
    assert [i.text for i in result.items if isinstance(i, FunctionCallOutput)] == ["a", "b"]


async def test_two_runs_at_a_time_have_their_own_tools() -> None:
    @tool_source
    async def own(context: RunContext[str]) -> list[Tool[..., object]]:
        await asyncio.sleep(1)
        return [named(context.deps)]

    model = ScriptedModel(["done", "done"])
    agent = Agent[str](model, tools=[own])
    await asyncio.gather(agent.run("go", deps="a"), agent.run("go", deps="b"))
    assert [[one.name for one in request.tools] for request in model.requests] == [["a"], ["b"]]


async def test_what_a_function_gives_is_read_anew() -> None:
    """Also if it is the same list as before, with other tools in it."""
    given: list[Tool[..., object]] = []
    source = tool_source(lambda: given)
    sources, known = ToolSources([source]), Toolset()
    assert (await sources.joined_to(known, None)).names == ()
    given.append(named("a"))
    assert (await sources.joined_to(known, None)).names == ("a",)


@tool(external=True)
async def ask() -> None:
    """Asks."""


def raises() -> list[Tool[..., object]]:
    raise ValueError("no plan")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (raises, "ValueError: no plan"),
        (lambda: None, "return a list of tools"),
        (lambda: "a", "return a list of tools"),
        (lambda: [7], "7 is not a function"),
        (lambda: [len], "positional-only"),
        (lambda: [ask], r"tool_source\(is_local=False\)"),
    ],
)
async def test_a_function_that_fails(function: Any, reason: str) -> None:
    sources = ToolSources([tool_source(function), Listed("two", [named("b")])])
    tools = await sources.joined_to(Toolset(), None)
    assert tools.names == ("b",)
    assert len(tools.missing) == 1
    assert re.search(reason, tools.missing[0])


async def test_a_function_of_another_form_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"f\(context: RunContext\)"):
        Agent(ScriptedModel([]), tools=[tool_source(lambda a, b: [])])  # type: ignore[misc, arg-type]


async def test_a_function_whose_tools_are_answered_outside() -> None:
    source = tool_source(is_local=False)(lambda: [ask])
    agent = Agent(ScriptedModel([Call("ask", "{}", call_id="c1"), "done"]), tools=[source])
    with pytest.raises(ConfigurationError, match="needs a thread"):
        await agent.run("go")
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        async for event in run:
            if event.type == "run.requires_action":
                await thread.submit_tool_output("c1", "yes")
        assert (await run.result()).text == "done"


async def test_a_cancel_while_a_function_is_asked() -> None:
    @tool_source
    async def hangs() -> list[Tool[..., object]]:
        await asyncio.sleep(9_999)
        return []

    agent = Agent(ScriptedModel([]), tools=[hangs])
    async with treadle.open(agents=[agent]) as runtime:
        run = await (await runtime.create_thread(agent)).send("go")
        await asyncio.sleep(1)
        await run.cancel()
        assert (await run.result(raise_on_incomplete=False)).status == "cancelled"
