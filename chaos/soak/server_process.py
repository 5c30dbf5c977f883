"""The server as a process, and what it uses of memory and descriptors."""

import asyncio
import os
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
STARTED = 60.0
MODEL_URL = "SOAK_MODEL_URL"
"""The variable with the address of the provider simulator."""

_ADDRESS = re.compile(rb"http://127\.0\.0\.1:\d+/api/v1")


class ServerFailed(Exception):
    """The server did not start, or ended before it was asked to."""


class ServerProcess:
    """A server that answers under `url`."""

    def __init__(self, url: str, process: Process) -> None:
        self.url = url
        self._process = process

    def resident(self) -> int:
        """Returns its resident memory in bytes."""
        pages = self._proc("statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Returns how many files and sockets it has open."""
        return len(list(self._proc("fd").iterdir()))

    def _proc(self, name: str) -> Path:
        if self._process.returncode is not None:
            raise ServerFailed(f"The server ended with {self._process.returncode}.")
        return Path(f"/proc/{self._process.pid}/{name}")


@asynccontextmanager
async def started_server(folder: Path, model_url: str) -> AsyncGenerator[ServerProcess]:
    """Runs `treadle serve` on a database in `folder`, and ends it with SIGTERM."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "treadle", "serve", "chaos.soak.served:agent", "--no-auth", "--port", "0"),
        *("--database", str(folder / "treadle.db")),
        cwd=ROOT,
        env={
            **os.environ,
            MODEL_URL: model_url,
            "TREADLE_ACCESS_LOG": "false",
            "PYTHONUNBUFFERED": "1",
        },
        stdout=PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    reading: asyncio.Task[None] | None = None
    try:
        url = await asyncio.wait_for(_address(process.stdout), STARTED)
        reading = asyncio.create_task(_drop(process.stdout))
        yield ServerProcess(url, process)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        if reading is not None:
            await reading


async def _address(lines: asyncio.StreamReader) -> str:
    printed = b""
    while line := await lines.readline():
        printed += line
        if match := _ADDRESS.search(line):
            return match[0].decode()
    raise ServerFailed(f"The server did not start:\n{printed.decode(errors='replace')}")


async def _drop(lines: asyncio.StreamReader) -> None:
    """Shows what the server complains about."""
    while line := await lines.readline():
        if b"ERROR" in line or b"Traceback" in line:
            print(line.decode(errors="replace"), end="", file=sys.stderr)
