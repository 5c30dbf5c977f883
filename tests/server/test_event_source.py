"""An EventSource from npm and /client.js, over a kill -9 of the server in mid-text."""

import asyncio
import json
import signal
from pathlib import Path

import pytest
from tests.families import NPM, node
from tests.server.test_process import TEXT, started

from treadle.client import Client

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock, pytest.mark.needs("npm clients")]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("end", ["closes", "stays"])
async def test_kill_in_mid_text_and_a_restart(tmp_path: Path, end: str) -> None:
    async with started(tmp_path, "--no-auth") as process:
        url = f"http://127.0.0.1:{process.port}"
        reader = await asyncio.create_subprocess_exec(
            str(node()), str(NPM / "event_source.mjs"), url, end, stdout=asyncio.subprocess.PIPE
        )
        assert reader.stdout is not None
        assert await reader.stdout.readline() == b"writing\n"
        process.process.send_signal(signal.SIGKILL)
        await process.process.wait()
    async with started(tmp_path, "--no-auth", port=process.port), asyncio.timeout(40):
        printed, _ = await reader.communicate()
        seen = json.loads(printed.splitlines()[-1])
        assert seen["texts"] == [TEXT]
        assert seen["other"] == TEXT
        assert seen["terminal"] == 1
        assert seen["opens"] == 2
        async with Client(url, key="") as client:
            thread = await client.connect(seen["thread"])
            assert [run.status for run in await thread.runs()] == ["completed"]
