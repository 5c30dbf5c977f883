"""A client over the end of its server: kill -9 in mid-text, and a restart."""

import asyncio
import signal
from pathlib import Path

import pytest
from tests.server.test_process import TEXT, started

from treadle import TextDelta
from treadle.client import Client, RemoteRun

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def deltas_of(run: RemoteRun, begun: asyncio.Event) -> str:
    """Returns the text of the response that was not interrupted, made of its deltas."""
    text = ""
    async for event in run.events():
        if type(event) is TextDelta:
            text += event.delta
            begun.set()
        elif event.type == "step.interrupted":
            text = ""
    return text


async def test_kill_in_mid_text_and_a_restart(tmp_path: Path) -> None:
    async with started(tmp_path, "--no-auth") as process:
        url = f"http://127.0.0.1:{process.port}"
        async with Client(url, key="") as client:
            runs, begun = list[RemoteRun](), [asyncio.Event() for _ in range(5)]
            for _ in range(5):
                runs.append(await (await client.create_thread("slow")).send("Hi."))
            reading = [
                asyncio.ensure_future(deltas_of(run, event))
                for run, event in zip(runs, begun, strict=True)
            ]
            results = [asyncio.ensure_future(run.text()) for run in runs]
            for event in begun:
                await event.wait()
            process.process.send_signal(signal.SIGKILL)
            await process.process.wait()
            late = asyncio.ensure_future(client.create_thread("slow", key="late"))
            await asyncio.sleep(0.5)
            async with started(tmp_path, "--no-auth", port=process.port):
                assert await asyncio.gather(*reading) == [TEXT] * 5
                assert await asyncio.gather(*results) == [TEXT] * 5
                for run in runs:
                    assert len(await client._thread(run.thread_id).runs()) == 1
                assert (await (await late).send("Hi.")).id
