"""`treadle serve` as a process: killed, ended and started again, with real clients."""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from tests.server.serving import Frame, frames
from tests.server.test_shutdown import folded

pytestmark = [pytest.mark.anyio, pytest.mark.real_clock]

WORDS = 40
TEXT = " ".join(f"word{number}" for number in range(WORDS))
AGENT = f"""
from treadle import Agent
from treadle.testing import ScriptedModel, Text
from treadle.testing.simulator.turn import Turn

agent = Agent(ScriptedModel([Turn((Text({TEXT!r}),), every=0.05)] * 1000), name="slow")
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Process(NamedTuple):
    """A server process, a client of it, and what it wrote."""

    process: asyncio.subprocess.Process
    http: httpx2.AsyncClient
    port: int
    lines: list[str]


@asynccontextmanager
async def started(
    folder: Path, *options: str, port: int = 0, key: str = ""
) -> AsyncGenerator[Process]:
    (folder / "served.py").write_text(AGENT)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-W",
        "error",
        "-m",
        "treadle",
        "serve",
        "served:agent",
        "--database",
        "treadle.db",
        "--port",
        str(port),
        *options,
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    lines: list[str] = []
    assert process.stdout is not None
    reading = None
    try:
        while True:
            line = (await process.stdout.readline()).decode()
            assert line, lines
            lines.append(line)
            if match := re.search(r"http://127\.0\.0\.1:(\d+)/api/v1", line):
                break
        reading = asyncio.ensure_future(_collect(process.stdout, lines))
        port = int(match[1])
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{port}/api/v1",
            timeout=20,
            headers={"authorization": f"Bearer {key}"} if key else {},
            limits=httpx2.Limits(max_connections=None),
        ) as http:
            yield Process(process, http, port, lines)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        if reading is not None:
            await reading


async def _collect(stream: asyncio.StreamReader, lines: list[str]) -> None:
    while line := (await stream.readline()).decode():
        lines.append(line)


async def ask(http: httpx2.AsyncClient) -> Any:
    thread = (await http.post("/threads", json={})).json()
    return (await http.post(f"/threads/{thread['id']}/messages", json={"message": "Hi."})).json()


async def follow(process: Process, thread_id: str, read: list[Frame]) -> None:
    """Reads a thread until its run ends or the connection does, from where `read` ends."""
    headers = {"last-event-id": read[-1].id} if read else {}
    try:
        async with process.http.stream(
            "GET", f"/threads/{thread_id}/events", headers=headers
        ) as response:
            assert response.status_code == 200
            async for frame in frames(response.aiter_bytes()):
                read.append(frame)
                if frame.event == "run.completed":
                    return
    except httpx2.TransportError:
        pass


async def writing(read: list[list[Frame]]) -> None:
    """Waits until each reader has got a delta."""
    for _ in range(1000):
        if all(any(frame.event == "text.delta" for frame in one) for one in read):
            return
        await asyncio.sleep(0.02)
    raise AssertionError("A reader got no delta.")


async def test_kill_in_mid_text_and_a_restart(tmp_path: Path) -> None:
    read: dict[str, list[Frame]] = {}
    async with started(tmp_path, "--no-auth") as process:
        for _ in range(5):
            read[(await ask(process.http))["thread_id"]] = []
        following = [
            asyncio.ensure_future(follow(process, thread_id, frames))
            for thread_id, frames in read.items()
        ]
        await writing(list(read.values()))
        process.process.send_signal(signal.SIGKILL)
        await asyncio.gather(*following)
    assert not any(folded(one) for one in read.values())
    async with started(tmp_path, "--no-auth", port=process.port) as process:
        await asyncio.gather(*(follow(process, *one) for one in read.items()))
    for one in read.values():
        assert folded(one) == [TEXT]
        assert one[-1].event == "run.completed"
        seqs = [frame.data["seq"] for frame in one if "seq" in frame.data]
        assert seqs == list(range(1, len(seqs) + 1))


async def test_a_shutdown_with_200_open_streams(tmp_path: Path) -> None:
    read: list[list[Frame]] = [[] for _ in range(200)]
    config = tmp_path / "treadle.toml"
    config.write_text("[server]\ngrace_seconds = 1.0\n")
    async with started(tmp_path, "--no-auth", "--config", str(config)) as process:
        ids = [(await ask(process.http))["thread_id"] for _ in range(10)]
        following = [
            asyncio.ensure_future(follow(process, ids[number % 10], one))
            for number, one in enumerate(read)
        ]
        await writing(read)
        loop = asyncio.get_running_loop()
        began = loop.time()
        process.process.send_signal(signal.SIGTERM)
        assert await process.process.wait() == 0
        assert loop.time() - began < 10
        await asyncio.gather(*following)
    output = "".join(process.lines)
    assert "Traceback" not in output, output
    assert "ERROR" not in output, output
    assert all(one[-1].event in {"stream.ended", "run.completed"} for one in read)
    async with started(tmp_path, "--no-auth", port=process.port) as process:
        await asyncio.gather(
            *(
                follow(process, ids[number % 10], one)
                for number, one in enumerate(read)
                if one[-1].event != "run.completed"
            )
        )
    assert {tuple(folded(one)) for one in read} == {(TEXT,)}


async def test_the_key_of_a_start(tmp_path: Path) -> None:
    async with started(tmp_path) as process:
        await asyncio.sleep(0.2)
        (line,) = [line for line in process.lines if line.startswith("Key for this start:")]
        key = line.split()[-1]
        assert (await process.http.get("/threads")).status_code == 401
        headers = {"authorization": f"Bearer {key}"}
        assert (await process.http.get("/threads", headers=headers)).status_code == 200
        assert (await process.http.get(f"/threads?key={key}")).status_code == 401


async def test_keys_that_are_created_and_revoked(tmp_path: Path) -> None:
    async def command(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "treadle",
            "keys",
            *arguments,
            "--database",
            "treadle.db",
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
        )
        output, _ = await process.communicate()
        assert process.returncode == 0
        return output.decode().strip()

    key = await command("create", "--owner", "alice", "--scope", "read", "--name", "Her phone")
    stored = tmp_path / "treadle.db-keys.json"
    assert stored.stat().st_mode & 0o077 == 0
    assert key not in stored.read_text()
    listed = await command("list")
    assert "alice read never ends Her phone" in listed
    async with started(tmp_path, key=key) as process:
        assert not any("tk_" in line for line in process.lines)
        assert (await process.http.get("/me")).json()["owner"] == "alice"
        assert (await process.http.post("/threads", json={})).status_code == 403
        await command("revoke", listed.split()[0])
        await asyncio.sleep(1.2)
        assert (await process.http.get("/me")).status_code == 401
