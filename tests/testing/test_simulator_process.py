import asyncio
import os
import signal
import sys

import aiohttp
import pytest

from treadle.testing.simulator import SimulatorNotStarted, SimulatorProcess

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]


async def start(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        sys.executable, *arguments, stdin=pipe, stdout=pipe, stderr=pipe
    )


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def test_serves_and_exits_with_an_open_stream():
    async with aiohttp.ClientSession() as session:
        async with SimulatorProcess() as simulator:
            body = {"model": "sim:deltas=2", "input": "hi"}
            async with session.post(f"{simulator.base_url}/responses", json=body) as answer:
                assert (await answer.json())["status"] == "completed"
            body = {"model": "sim:fault=stall@100", "input": "hi"}
            stalled = await session.post(f"{simulator.base_url}/responses", json=body)
            pid = simulator.pid
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        with pytest.raises(aiohttp.ClientPayloadError):
            await stalled.read()
        stalled.close()
    with pytest.raises(RuntimeError, match="async with"):
        _ = simulator.base_url


async def test_ends_quietly_when_its_input_ends():
    process = await start("-m", "treadle.testing.simulator")
    assert process.stdin is not None
    assert process.stdout is not None
    assert b"http://127.0.0.1:" in await process.stdout.readline()
    output, errors = await process.communicate(b"")
    assert (process.returncode, output, errors) == (0, b"", b"")


PARENT = """
import asyncio, sys
from treadle.testing.simulator import SimulatorProcess

async def main():
    async with SimulatorProcess() as simulator:
        print(simulator.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_does_not_outlive_a_parent_that_is_killed():
    parent = await start("-c", PARENT)
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    os.kill(pid, 0)
    # The simulator holds the parent's stderr, so its end shows that both are gone.
    parent.send_signal(signal.SIGKILL)
    assert parent.stderr is not None
    async with asyncio.timeout(20):
        assert await parent.stderr.read() == b""
    await parent.wait()


async def test_a_process_that_cannot_start_is_an_error(unused_tcp_port_taken):
    with pytest.raises(SimulatorNotStarted):
        async with SimulatorProcess(port=unused_tcp_port_taken):
            pass


@pytest.fixture
async def unused_tcp_port_taken():
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
