"""Agents with the tools of real MCP servers."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from tests.mcp.running import COMMAND, await_end, free_port, http_servers

import treadle
from treadle import Agent, RunContext, RunResult, tool
from treadle.domain.events import ToolProgress
from treadle.domain.items import FunctionCallOutput, InputImage
from treadle.errors import ConfigurationError
from treadle.mcp import MCPTools
from treadle.mcp.restart import RestartPolicy
from treadle.models.base import ModelRequest
from treadle.testing import Call, ScriptedModel

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

AT_ONCE = RestartPolicy(first_delay=0.0)


@tool
def local() -> str:
    """Is a function of this process."""
    return "here"


def calling(name: str, arguments: Mapping[str, object] | None = None) -> Call:
    return Call(name, json.dumps(arguments or {}))


def outputs(result: RunResult[str]) -> dict[str, FunctionCallOutput]:
    names = {i.call_id: i.name for i in result.items if isinstance(i, treadle.FunctionCall)}
    return {names[i.call_id]: i for i in result.items if isinstance(i, FunctionCallOutput)}


def names(request: ModelRequest) -> list[str]:
    return [schema.name for schema in request.tools]


async def test_calls(tools: MCPTools) -> None:
    calls = [
        calling("add", {"a": 1, "b": 2}),
        calling("place", {"city": "Paris"}),
        calling("picture"),
        calling("fail"),
        calling("odd_name_1"),
        calling("steps"),
        Call("add", '{"a": "x", "b": 2}'),
        calling("nothing"),
        calling("local"),
    ]
    model = ScriptedModel([calls, "done"])
    async with Agent(model, tools=[local, tools]).stream("go") as run:
        progress = [e.message async for e in run if isinstance(e, ToolProgress)]
        result = await run.result()
    assert progress == ["half (1/2)", "2"]
    answers = [i for i in result.items if isinstance(i, FunctionCallOutput)]
    add, place, picture, fail, odd, steps, wrong, nothing, here = answers
    assert (add.text, odd.text, steps.text, here.text) == ("3", "odd", "done", "here")
    assert place.text == '{"city":"Paris","degrees":18}'
    assert [type(part) for part in picture.output] == [InputImage]
    assert fail.is_error
    assert fail.text == "fail failed: RemoteToolFailed: Error executing tool fail: the disk is full"
    assert wrong.is_error
    assert "valid integer" in wrong.text
    assert nothing.text.startswith("There is no tool 'nothing'. Tools: local, add, place")
    schema = next(schema for schema in model.requests[0].tools if schema.name == "add")
    assert schema.description == "Adds two numbers."
    assert schema.parameters["required"] == ["a", "b"]
    assert not schema.strict


async def test_a_list_that_changes(tools: MCPTools) -> None:
    new = f"new_{os.urandom(4).hex()}"
    model = ScriptedModel([calling("grow", {"name": new}), calling("local"), calling(new), "done"])

    @tool(name="local")
    async def until_it_is_told() -> str:
        """Leaves time for the notification, which may come after the output."""
        while new not in [made.name for made in await tools.tools()]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return ""

    before = await tools.tools()
    assert await tools.tools() is before
    result = await Agent(model, tools=[tools, until_it_is_told]).run("go")
    assert outputs(result)[new].text == f"I am {new}"
    assert new not in names(model.requests[0])
    assert new in names(model.requests[2])


async def test_cancellation_reaches_the_server(tools: MCPTools) -> None:
    mark = os.urandom(4).hex()
    model = ScriptedModel([calling("wait", {"mark": mark})])
    async with Agent(model, tools=[tools]).stream("go") as run:
        async for event in run:
            if isinstance(event, ToolProgress):
                await run.cancel()
        assert (await run.result(raise_on_incomplete=False)).status == "cancelled"
    script = ScriptedModel([calling("was_cancelled", {"mark": mark}), "done"])
    result = await Agent(script, tools=[tools]).run("go")
    assert outputs(result)["was_cancelled"].text == "true"


async def test_a_time_out_reaches_the_server(url: str) -> None:
    mark = os.urandom(4).hex()
    script = ScriptedModel(
        [calling("wait", {"mark": mark}), calling("was_cancelled", {"mark": mark}), "done"]
    )
    result = await Agent(script, tools=[MCPTools(url, timeout=1.5)]).run("go")
    assert outputs(result)["wait"].text == "wait timed out after 1.5 s."
    assert outputs(result)["was_cancelled"].text == "true"


async def test_only_what_is_allowed(url: str, caplog: pytest.LogCaptureFixture) -> None:
    async with MCPTools(url, allow=["add", "odd.name/1", "none"]) as tools:
        assert [made.name for made in await tools.tools()] == ["add", "odd_name_1"]
    assert "has no tool none; check allow=" in caplog.text


async def test_a_huge_output_is_cut(url: str) -> None:
    script = ScriptedModel([calling("words", {"count": 500_000}), "done"])
    result = await Agent(script, tools=[MCPTools(url, max_output_chars=100)]).run("go")
    text = outputs(result)["words"].text
    assert text.startswith("word word")
    assert text.endswith("… [2499900 more characters were cut]")


async def test_a_tool_of_the_agent_is_not_replaced(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    @tool
    def add(a: int, b: int) -> str:
        """Is not the server's."""
        return "mine"

    script = ScriptedModel([calling("add", {"a": 1, "b": 2}), "done"])
    result = await Agent(script, tools=[MCPTools(url), add, MCPTools(url, prefix="x_")]).run("go")
    assert outputs(result)["add"].text == "mine"
    assert "The tool add of 127.0.0.1" in caplog.text
    assert "x_add" in names(script.requests[0])


def only_paris(arguments: Mapping[str, object]) -> bool:
    return arguments["city"] == "Paris"


async def only_paris_and_adding(
    context: RunContext[object], arguments: Mapping[str, object]
) -> bool:
    return context.tool_name == "s_add" or arguments == {"city": "Paris"}


@pytest.mark.parametrize(
    ("rule", "asked"),
    [
        (True, {"s_add", "s_place"}),
        (only_paris, {"s_place", "s_add"}),  # it fails on what has no city: so it must be asked
        (only_paris_and_adding, {"s_place", "s_add"}),
        (lambda context, _: context.tool_name == "s_add", {"s_add"}),
    ],
)
async def test_approval(url: str, rule: bool | Callable[..., bool], asked: set[str]) -> None:
    calls = [calling("s_add", {"a": 1, "b": 2}), calling("s_place", {"city": "Paris"})]
    tools = MCPTools(url, prefix="s_", needs_approval=rule)
    agent = Agent(ScriptedModel([calls, "done"]), tools=[tools])
    async with treadle.open(agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent)
        run = await thread.send("go")
        async for event in thread.subscribe():
            if isinstance(event, treadle.RunRequiresAction):
                break
        pending = await thread.pending_calls()
        assert {call.name for call, awaits in pending if awaits == "approval"} == asked
        for call, _ in pending:
            if call.name == "s_add":
                await thread.deny(call.call_id)
            else:
                await thread.approve(call.call_id)
        result = await run.result()
    assert outputs(result)["s_place"].text == '{"city":"Paris","degrees":18}'
    assert outputs(result)["s_add"].is_error


async def test_approval_needs_a_thread(url: str) -> None:
    agent = Agent(ScriptedModel(["done"]), tools=[MCPTools(url, needs_approval=True)])
    with pytest.raises(ConfigurationError, match=r"Tools of 127\.0\.0\.1:\d+ are answered"):
        await agent.run("go")


async def test_a_server_that_ended_is_started_again() -> None:
    tools = MCPTools(COMMAND, name="mine", restart=AT_ONCE)

    async def pid() -> int:
        script = ScriptedModel([calling("pid"), "done"])
        return int(outputs(await Agent(script, tools=[tools]).run("go"))["pid"].text)

    impatient = asyncio.create_task(tools.tools())
    await asyncio.sleep(0.01)
    impatient.cancel()  # of what the others wait for
    (first,) = set(await asyncio.gather(*(pid() for _ in range(10))))
    os.kill(first, signal.SIGKILL)  # between two calls
    await asyncio.to_thread(await_end, first)
    while "treadle mcp mine" in {task.get_name() for task in asyncio.all_tasks()}:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    script = ScriptedModel([calling("pid"), calling("die"), calling("pid"), "done"])
    result = await Agent(script, tools=[tools]).run("go")
    second, died, third = (i for i in result.items if isinstance(i, FunctionCallOutput))
    assert len({first, int(second.text), int(third.text)}) == 3
    assert died.is_error
    assert "The connection to the MCP server mine ended during the call (it ended)" in died.text
    assert "whether the call took effect is unknown" in died.text
    await tools.aclose()
    await tools.aclose()


@pytest.mark.parametrize("legacy", [False, True])
async def test_a_server_behind_http_that_ended_and_is_back(legacy: bool) -> None:
    port = free_port()
    kinds = [port] if legacy else []
    script = ScriptedModel(
        [calling("pid"), calling("die"), calling("pid"), "done", calling("pid"), "done"]
    )
    agent = Agent(script, tools=[MCPTools(f"http://127.0.0.1:{port}/mcp", restart=AT_ONCE)])
    with http_servers(port, legacy=kinds):
        result = await agent.run("go")
    first, died, away = (i for i in result.items if isinstance(i, FunctionCallOutput))
    assert "ended during the call" in died.text
    assert "not available" in away.text
    with http_servers(port, legacy=kinds):
        second = outputs(await agent.run("go"))["pid"]
    assert not second.is_error
    assert first.text != second.text


async def test_a_session_that_the_server_forgot() -> None:
    port = free_port()
    script = ScriptedModel([calling("pid"), "done"] * 2)
    agent = Agent(script, tools=[MCPTools(f"http://127.0.0.1:{port}/mcp", restart=AT_ONCE)])
    with http_servers(port, legacy=[port]):
        first = outputs(await agent.run("go"))["pid"]
    with http_servers(port, legacy=[port]):
        second = outputs(await agent.run("go"))["pid"]
    assert not second.is_error
    assert first.text != second.text


async def test_a_run_can_be_cancelled_while_a_server_starts() -> None:
    code = "import sys; sys.stdin.read()"
    tools = MCPTools([sys.executable, "-c", code])
    async with Agent(ScriptedModel([]), tools=[tools]).stream("go") as run:
        await asyncio.sleep(0.1)
        await run.cancel()
        assert (await run.result(raise_on_incomplete=False)).status == "cancelled"
    await tools.aclose()


async def test_an_approved_call_is_made_after_a_restart(url: str, tmp_path: Path) -> None:
    database = f"sqlite:///{tmp_path / 'treadle.db'}"
    calls = [calling("add", {"a": 1, "b": 2}), "done"]

    def agent() -> Agent[None, str]:
        return Agent(ScriptedModel(calls), tools=[MCPTools(url, needs_approval=True)])

    async with treadle.open(database, agents=[agent()]) as runtime:
        thread = await runtime.create_thread("agent")
        run = await thread.send("go")
        async for event in run:
            if isinstance(event, treadle.RunRequiresAction):
                break
    calls = calls[1:]
    async with treadle.open(database, agents=[agent()]) as runtime:
        thread = await runtime.connect(thread.id)
        ((call, _),) = await thread.pending_calls()
        await thread.approve(call.call_id)
        result = await (await thread.run(run.id)).result()
    assert outputs(result)["add"].text == "3"


@pytest.mark.parametrize("tools", ["stdio"], indirect=True)
async def test_a_secret_is_in_no_output(tools: MCPTools) -> None:
    script = ScriptedModel([calling("secret"), "done"])
    result = await Agent(script, tools=[tools]).run("go")
    assert outputs(result)["secret"].text.endswith("cannot log in with ***")
    assert "my-own-token" not in repr(tools)
