"""Servers that cannot be started or reached, and what is left when a program ends."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
from tests.mcp.running import COMMAND, ODD, await_end, free_port

from treadle import Agent
from treadle.domain.items import FunctionCallOutput
from treadle.errors import ToolSourceFailed
from treadle.mcp import MCPTools
from treadle.mcp.restart import RestartPolicy
from treadle.testing import Call, ScriptedModel

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

NEVER_AGAIN = RestartPolicy(first_delay=3600.0, max_delay=3600.0)


async def answer(tools: MCPTools) -> str:
    """Returns what a model reads that calls a tool of a server that is not there."""
    script = ScriptedModel([Call("add", "{}"), Call("add", "{}"), "done"])
    result = await Agent(script, tools=[tools]).run("go")
    assert result.text == "done"
    assert all(not request.tools for request in script.requests)
    first, _ = (i.text for i in result.items if isinstance(i, FunctionCallOutput))
    return first


async def test_a_command_that_does_not_exist(caplog: pytest.LogCaptureFixture) -> None:
    text = await answer(MCPTools("no-such-command --token hidden"))
    assert text == (
        "There is no tool 'add'. Tools: none. The MCP server no-such-command is not "
        "available: no-such-command was not found; check its spelling, and PATH."
    )
    assert "The tools of no-such-command are missing: The MCP server" in caplog.text


async def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    text = await answer(MCPTools(COMMAND, folder=tmp_path / "none"))
    assert "/none was not found" in text


async def test_a_command_that_may_not_be_executed(tmp_path: Path) -> None:
    file = tmp_path / "server"
    file.write_text("")
    assert "may not be executed" in await answer(MCPTools([str(file)]))


async def test_a_command_that_ends_at_once_is_started_with_pauses(tmp_path: Path) -> None:
    log = tmp_path / "starts"
    code = f"open({str(log)!r}, 'a').write('x'); import sys; sys.exit('TOKEN is secret-123')"
    tools = MCPTools(
        [sys.executable, "-c", code], env={"KEY": "secret-123"}, restart=NEVER_AGAIN, name="mine"
    )
    text = await answer(tools)
    assert "The MCP server mine is not available: it ended before it answered" in text
    assert "(its last output: TOKEN is ***)" in text
    assert log.read_text() == "x"


def patient_for(seconds: float, code: str) -> MCPTools:
    command = [sys.executable, "-c", code]
    return MCPTools(command, start_timeout=seconds, restart=NEVER_AGAIN)


async def test_a_command_that_says_nothing() -> None:
    code = "import sys; sys.stdin.read()"
    text = await answer(patient_for(0.2, code))
    assert "it did not answer within 0.2 s" in text


async def test_a_command_that_speaks_no_mcp() -> None:
    code = "print('hello'); import sys; sys.stdin.read()"
    text = await answer(patient_for(0.3, code))
    assert "it did not answer within 0.3 s" in text


async def test_a_port_nobody_listens_on() -> None:
    text = await answer(MCPTools(f"http://127.0.0.1:{free_port()}/mcp?key=hidden"))
    assert "no connection was possible" in text
    assert "hidden" not in text


async def test_a_path_that_leads_nowhere(url: str) -> None:
    assert "Not Found (HTTP status 404)" in await answer(MCPTools(url + "/nowhere"))


async def test_the_standard_error_of_a_server_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    code = "import sys; print('one\\n\\ntwo', end='', file=sys.stderr)"
    with caplog.at_level(logging.DEBUG, "treadle.mcp"):
        await answer(MCPTools([sys.executable, "-c", code], name="mine", restart=NEVER_AGAIN))
    lines = [record.message for record in caplog.records if record.levelno == logging.DEBUG]
    assert lines == ["mine: one", "mine: two"]


async def test_entering_tells_that_there_is_no_server() -> None:
    with pytest.raises(ToolSourceFailed, match="no-such-command was not found"):
        async with MCPTools("no-such-command"):
            raise AssertionError


LEFT_OPEN = """
import asyncio, sys, time
from treadle import Agent
from treadle.mcp import MCPTools
from treadle.testing import Call, ScriptedModel
tools = MCPTools(sys.argv[1:])
model = ScriptedModel([Call("pid", "{}"), "done"])
agent = Agent(model, tools=[tools])
result = agent.run_sync("go")
print(result.items[2].text)
"""


def test_nothing_is_left_when_a_program_ends_without_closing() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-X", "dev", "-c", LEFT_OPEN, *ODD],
        capture_output=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr == b""
    await_end(int(done.stdout))


LOOP_NOT_SHUT_DOWN = """
import asyncio, os, sys
from treadle.mcp import MCPTools
loop = asyncio.new_event_loop()
print(len(loop.run_until_complete(MCPTools(sys.argv[1:]).tools())))
"""


def test_a_loop_that_is_never_shut_down_does_not_hang_the_exit() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOOP_NOT_SHUT_DOWN, *ODD],
        capture_output=True,
        timeout=10,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()


WITHOUT_THE_EXTRA = """
import sys
sys.modules["mcp"] = None
import treadle
try:
    import treadle.mcp
except treadle.TreadleError as error:
    print(error.code, error)
"""


def test_the_extra_is_named_where_it_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_THE_EXTRA], capture_output=True, check=True, timeout=20
    )
    assert done.stdout.decode().startswith("missing_extra treadle.mcp needs the package mcp")
    assert "treadle[mcp]" in done.stdout.decode()
