"""Servers that do not do as they should."""

import asyncio
import sys
import time
from typing import Any

import pytest
from tests.mcp.running import ODD

from treadle import Agent
from treadle.domain.items import FunctionCallOutput
from treadle.errors import ToolSourceFailed
from treadle.mcp import MCPTools
from treadle.mcp.restart import RestartPolicy
from treadle.testing import Call, ScriptedModel

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

NO_RESTART = RestartPolicy(first_delay=3600.0, max_delay=3600.0)


def odd(oddity: str, **options: Any) -> MCPTools:
    command = [*ODD[:-1], oddity]
    return MCPTools(command, name="odd", **options)


async def names(tools: MCPTools) -> list[str]:
    return [tool.name for tool in await tools.tools()]


async def outputs(tools: MCPTools, *calls: Call) -> list[FunctionCallOutput]:
    result = await Agent(ScriptedModel([*calls, "done"]), tools=[tools]).run("go")
    return [i for i in result.items if isinstance(i, FunctionCallOutput)]


async def test_a_list_in_pages() -> None:
    async with odd("pages") as tools:
        assert await names(tools) == ["tool0", "everywhere", "tool1", "tool2"]


async def test_a_list_without_an_end() -> None:
    async with odd("endless pages") as tools:
        assert len(await names(tools)) == 100


async def test_a_server_without_tools() -> None:
    async with odd("no tools") as tools:
        assert await names(tools) == []


@pytest.mark.parametrize(
    ("oddity", "problem"),
    [
        ("no list", "does not list its tools: the list is lost"),
        ("invalid list", "does not list its tools: "),
        ("silent", "does not list its tools: no answer in time"),
    ],
)
async def test_a_server_without_a_list(oddity: str, problem: str) -> None:
    async with odd(oddity, start_timeout=0.5) as tools:
        with pytest.raises(ToolSourceFailed, match=f"(?s)The MCP server odd {problem}"):
            await tools.tools()


async def test_a_list_is_asked_for_again() -> None:
    async with odd("no list at first") as tools:
        with pytest.raises(ToolSourceFailed, match="not yet"):
            await tools.tools()
        assert await names(tools) == ["pid", "typed"]


async def test_an_impatient_caller_leaves_the_list_to_the_next() -> None:
    async with odd("none") as tools:
        impatient = asyncio.create_task(tools.tools())
        await asyncio.sleep(0)
        impatient.cancel()
        assert await names(tools) == ["pid", "typed"]


async def test_a_result_that_is_not_what_the_tool_promised() -> None:
    (output,) = await outputs(odd("none"), Call("typed", "{}"))
    assert not output.is_error
    assert output.text == '{"n":"no number"}'


async def test_one_odd_tool_hides_no_other(caplog: pytest.LogCaptureFixture) -> None:
    async with odd("odd tools") as tools:
        found = {tool.name: tool.schema.parameters for tool in await tools.tools()}
        assert list(found) == ["bare", "untyped", "texts", "listed", "props"]
        assert all(schema == {"type": "object", "properties": {}} for schema in found.values())
        assert caplog.text.count("lists a tool without a name") == 2
        read = await outputs(tools, *(Call(name, "{}", name) for name in found))
    assert not any(output.is_error for output in read)
    assert [output.text for output in read] == [
        "",
        '{"n":4}',
        "four",
        "four",
        'one\n{"type":"odd","n":2}\n3',
    ]


async def test_a_call_waits_until_the_server_may_be_started_again() -> None:
    pause = RestartPolicy(first_delay=0.4, max_delay=0.4)
    start = time.monotonic()
    died, alive = await outputs(
        odd("mortal", restart=pause), Call("pid", "{}"), Call("pid", '{"a": 1}')
    )
    assert died.is_error
    assert not alive.is_error
    assert time.monotonic() - start < 10


async def test_the_tools_of_a_server_that_is_away_stay() -> None:
    async with odd("mortal", restart=NO_RESTART) as tools:
        before = await tools.tools()
        (died,) = await outputs(tools, Call("pid", "{}"))
        assert died.is_error
        assert await tools.tools() is before
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await outputs(tools, Call("pid", '{"a": 1}'))


async def test_a_step_waits_only_once_for_a_server_that_does_not_start() -> None:
    code = "import sys; sys.stdin.read()"
    at_once = RestartPolicy(first_delay=0.0)
    tools = MCPTools([sys.executable, "-c", code], start_timeout=1, restart=at_once)
    with pytest.raises(ToolSourceFailed, match=r"within 1 s"):
        await tools.tools()
    start = time.monotonic()
    for _ in range(10):
        with pytest.raises(ToolSourceFailed, match=r"within 1 s"):
            await tools.tools()
    assert time.monotonic() - start < 1
    await tools.aclose()
