"""The standard error of a server: logged; its last line becomes part of errors."""

import asyncio
import os
from collections.abc import Callable
from types import TracebackType
from typing import Self, TextIO

from treadle.logging import logger_of

_LOGGER = logger_of("treadle.mcp")
_MAX_LINE = 2000


class ErrorOutput(asyncio.Protocol):
    """A pipe for the standard error of a child process, read by the event loop.

    `clean` removes secrets from a line. Lines are logged by `treadle.mcp` at the level DEBUG.
    """

    def __init__(self, name: str, clean: Callable[[str], str]) -> None:
        self._name = name
        self._clean = clean
        self._rest = b""
        self._transport: asyncio.BaseTransport | None = None
        self._child_end: TextIO | None = None
        self.last_line = ""

    async def __aenter__(self) -> Self:
        ours, theirs = os.pipe()
        self._child_end = os.fdopen(theirs, "w")
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.connect_read_pipe(lambda: self, os.fdopen(ours, "rb", 0))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.inherited()
        if self._transport is not None:
            self._transport.close()

    @property
    def child_end(self) -> TextIO:
        """The end of the pipe for the child process."""
        assert self._child_end is not None
        return self._child_end

    def inherited(self) -> None:
        """Closes this copy of the child's end, so that the pipe ends with the child."""
        if self._child_end is not None:
            self._child_end.close()

    def data_received(self, data: bytes) -> None:
        """Logs the lines that are complete."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-_MAX_LINE:]  # bounds the memory for a line without end
        for line in lines:
            self._line(line)

    def connection_lost(self, exc: Exception | None) -> None:
        """Logs the last line if it has no line end."""
        self._line(self._rest)

    def _line(self, line: bytes) -> None:
        text = line.decode("utf-8", "replace").strip()[:_MAX_LINE]
        if text:
            self.last_line = self._clean(text)
            _LOGGER.debug("%s: %s", self._name, self.last_line)
