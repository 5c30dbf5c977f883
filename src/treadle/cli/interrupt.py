"""Ctrl-C while an answer is written: it cancels the run instead of ending the program."""

import asyncio
import signal
from contextlib import suppress
from types import TracebackType
from typing import Self

from treadle.cli.target import AnyRun


class InterruptCancels:
    """While open, makes Ctrl-C cancel the watched run, even if it is set after the Ctrl-C.

    Without signal handlers (on other platforms, in other threads), Ctrl-C ends the program.
    """

    def __init__(self) -> None:
        self._run: AnyRun | None = None
        self._interrupted = False
        self._cancelling: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._before = signal.getsignal(signal.SIGINT)
        self.arm()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)
            signal.signal(signal.SIGINT, self._before)
        if self._cancelling:
            await asyncio.wait(self._cancelling)

    def arm(self) -> None:
        """Installs the handler of Ctrl-C; call it again after a prompt, which replaces it."""
        with suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, self._interrupt)

    def watch(self, run: AnyRun) -> None:
        """Sets the run to cancel, and cancels it if Ctrl-C was already pressed."""
        self._run = run
        if self._interrupted:
            self._cancel(run)

    def _interrupt(self) -> None:
        self._interrupted = True
        if self._run is not None:
            self._cancel(self._run)

    def _cancel(self, run: AnyRun) -> None:
        self._cancelling.add(asyncio.get_running_loop().create_task(run.cancel()))
