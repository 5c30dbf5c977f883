"""The simulator in a process of its own, so that it does not slow down the measured one."""

import asyncio
import signal
import sys
from asyncio.subprocess import PIPE, Process
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct

from treadle.errors import TestingError

MAX_LINE = 4096


class Listening(Struct, frozen=True):
    """The line that the process prints once it listens."""

    url: str
    pid: int


class SimulatorNotStarted(TestingError):
    """The process of the simulator ended, or stayed silent, before it listened."""

    code = "simulator_not_started"


class SimulatorProcess:
    """Runs `python -m treadle.testing.simulator` while the context is open.

    The process ends by itself when its standard input ends, so it never outlives this one.
    `port` 0 means any free one; `timeout` bounds the start and the exit, in seconds (default 20).
    Raises `SimulatorNotStarted`.
    """

    def __init__(self, *, port: int = 0, timeout: float = 20.0) -> None:
        self._arguments = ("-m", "treadle.testing.simulator", "--port", str(port))
        self._timeout = timeout
        self._process: Process | None = None
        self._listening: Listening | None = None

    @property
    def base_url(self) -> str:
        """The base URL for clients, with the `/v1`; known once the process listens."""
        return self._started().url

    @property
    def pid(self) -> int:
        """The process id."""
        return self._started().pid

    def _started(self) -> Listening:
        if self._listening is None:
            raise RuntimeError("The simulator does not run; enter it with `async with` first.")
        return self._listening

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *self._arguments,
            stdin=PIPE,
            stdout=PIPE,
            limit=MAX_LINE,
            # Ctrl-C in the terminal is meant for the program that started it.
            start_new_session=True,
        )
        try:
            self._listening = await self._first_line(self._process)
        except BaseException:
            await self._stop(self._process)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._listening = None
        if self._process is not None:
            await self._stop(self._process)

    async def _first_line(self, process: Process) -> Listening:
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._timeout):
                line = await process.stdout.readline()
            return msgspec.json.decode(line, type=Listening)
        except (TimeoutError, ValueError) as error:
            raise SimulatorNotStarted("The simulator's process did not report its URL.") from error

    async def _stop(self, process: Process) -> None:
        assert process.stdin is not None
        process.stdin.close()
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._timeout):
                await process.communicate()
        except TimeoutError:
            process.kill()
            await process.communicate()
