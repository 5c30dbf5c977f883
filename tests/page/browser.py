"""A server process and a headless Chromium, for tests of what a person sees."""

import asyncio
import os
import re
import shutil
import signal
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any, Self

from playwright.async_api import Browser, Page, async_playwright
from tests.families import chromium

_OWNERS = count(1)
ADDRESS = re.compile(r"Page: (http://127\.0\.0\.1:(\d+))")  # the last line of a start


class Served:
    """A process that serves the agent of `stage.py` on a database of its own.

    `command` are the arguments of the interpreter; without them it is `treadle serve`.
    """

    def __init__(self, folder: Path, *options: str, command: Sequence[str] = ()) -> None:
        self._folder = folder
        self._options = options
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._port = 0
        self.lines: list[str] = []
        self.url = ""

    async def start(self) -> Self:
        """Starts the process, on the same port as before, and waits until it listens."""
        shutil.copy(Path(__file__).with_name("stage.py"), self._folder / "stage.py")
        serve = ["serve", "stage:agent", "--database", "treadle.db", "--port", str(self._port)]
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, *(self._command or ("-m", "treadle", *serve, *self._options))),
            cwd=self._folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        started = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(started))
        await started
        return self

    async def _read(self, started: asyncio.Future[None]) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.lines.append(line.decode())
            found = ADDRESS.search(self.lines[-1])
            if found and not started.done():
                self.url, self._port = found[1], int(found[2])
                started.set_result(None)
        if not started.done():
            started.set_exception(AssertionError("".join(self.lines)))

    async def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends the process with a signal, and waits for it."""
        process, reading = self._process, self._reading
        assert process is not None
        assert reading is not None
        if process.returncode is None:
            process.send_signal(number)
        await process.wait()
        await reading


@asynccontextmanager
async def served(folder: Path, *options: str) -> AsyncGenerator[Served]:
    """Serves the agent of `stage.py`, without keys unless `options` say otherwise."""
    server = Served(folder, *(options or ("--no-auth",)))
    try:
        await server.start()
        yield server
    finally:
        await server.end()


@asynccontextmanager
async def shared_stage(folder: Path) -> AsyncGenerator[Served]:
    """Serves the agent of `stage.py` to contexts of `opened`: each is an owner of its own."""
    server = Served(folder, command=[str(Path(__file__).with_name("owned_stage.py"))])
    try:
        await server.start()
        yield server
    finally:
        await server.end()


@asynccontextmanager
async def opened(browser: Browser, server: Served, **options: Any) -> AsyncGenerator[Page]:
    """Opens the page in a context of its own; asserts at the end that it did not complain."""
    context = await browser.new_context(**{"viewport": {"width": 1300, "height": 860}, **options})
    owner = f"owner_{next(_OWNERS)}"
    await context.add_cookies([{"name": "owner", "value": owner, "url": server.url}])
    try:
        page = await context.new_page()
        watch = Watch(page)
        await page.goto(server.url)
        yield page
    finally:
        await context.close()
    assert watch.complaints == []


@asynccontextmanager
async def browser() -> AsyncGenerator[Browser]:
    """Starts Chromium."""
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        try:
            yield opened
        finally:
            await opened.close()


class Watch:
    """What a page complained about: errors of scripts, of its policy, and on the console."""

    def __init__(self, page: Page) -> None:
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("console", lambda message: self._note(message.type, message.text))

    def _note(self, kind: str, text: str) -> None:
        # Chromium reports each connection that fails while the server is away.
        if kind in {"error", "warning"} and "ERR_" not in text:
            self.complaints.append(f"{kind}: {text}")
