"""The demo of a crash: a reader, and the processes that answer, of which the first is killed."""

import asyncio
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable
from contextlib import aclosing, suppress
from pathlib import Path

from msgspec import Struct

from treadle.cli.output import width
from treadle.cli.transcript import Transcript, duration
from treadle.demo.crash_agent import QUESTION
from treadle.domain.events import (
    Event,
    MessageAdded,
    StepInterrupted,
    TerminalEvent,
    TextDelta,
)
from treadle.domain.items import Message
from treadle.errors import JournalError, RunInterrupted
from treadle.runtime.runtime import open as open_runtime
from treadle.runtime.thread import Thread

KILLED_AFTER = 300
"""Characters of the answer after which the process is killed: in the middle of the text."""

LONGEST_SECONDS = 60.0


class Outcome(Struct, frozen=True):
    """What the reader has, compared with the database."""

    is_exact: bool
    characters: int
    tool_runs: int
    killed_after: int
    seconds: float


async def show(folder: Path, write: Callable[[str], None] | None, is_rich: bool) -> Outcome:
    """Runs the demo in `folder`; without `write` it shows nothing.

    Raises `RunInterrupted` if a process that answers ends on its own, and `TimeoutError`.
    """
    began = time.monotonic()
    screen = Transcript(write or _nothing, width(), echo=True, rich=is_rich)
    async with asyncio.timeout(LONGEST_SECONDS):
        process, thread_id = await _start(folder)
        screen.notice(f"Process {process.pid} answers. This process, the reader, only watches.")
        try:
            database = f"sqlite:///{folder / 'treadle.db'}"
            async with open_runtime(database, drive=False) as runtime:
                thread = await runtime.connect(thread_id)
                await thread.send(QUESTION)
                reader = _Reader(screen)
                process = await _read(thread, reader, process, folder)
                stored = [
                    item.text
                    for item in await thread.history()
                    if isinstance(item, Message) and item.role == "assistant"
                ]
        finally:
            await _end(process)
    outcome = Outcome(
        reader.texts == stored,
        sum(map(len, reader.texts)),
        len((folder / "tool-runs").read_text().splitlines()),
        reader.killed_after,
        round(time.monotonic() - began, 1),
    )
    _conclude(screen, outcome)
    return outcome


class _Reader:
    """What a program does with the events: it appends deltas, and voids what was interrupted."""

    def __init__(self, screen: Transcript) -> None:
        self.texts: list[str] = []
        self.killed_after = 0
        self._open: dict[str, str] = {}
        self._screen = screen

    @property
    def unfinished(self) -> int:
        """Characters of texts that are not complete."""
        return sum(map(len, self._open.values()))

    def read(self, event: Event) -> None:
        """Takes the next event, and shows it."""
        match event:
            case TextDelta():
                self._open[event.item_id] = self._open.get(event.item_id, "") + event.delta
            case StepInterrupted():
                self._open.clear()
            case MessageAdded(origin="model"):
                # Only deltas count here: that the message repeats the text is not used.
                self.texts.append(self._open.pop(event.item.id, ""))
            case _:
                pass
        self._screen.show(event)

    def note(self, text: str) -> None:
        """Shows a line between the events."""
        self._screen.notice(text)


async def _read(thread: Thread, reader: _Reader, process: Process, folder: Path) -> Process:
    """Reads to the end of the run, and kills the process once; returns the one that is running."""
    async with thread.subscribe() as events, aclosing(aiter(events)) as each:
        while True:
            reading = asyncio.ensure_future(anext(each))
            ending = asyncio.ensure_future(process.wait())
            try:
                await asyncio.wait([reading, ending], return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    raise RunInterrupted("The process that answers has ended on its own.")
                event = reading.result()
            finally:
                for task in (reading, ending):
                    task.cancel()
            reader.read(event)
            if isinstance(event, TerminalEvent):
                return process
            if not reader.killed_after and reader.unfinished >= KILLED_AFTER:
                reader.killed_after = reader.unfinished
                process = await _replace(process, reader, folder)


async def _replace(process: Process, reader: _Reader, folder: Path) -> Process:
    await _end(process)
    reader.note(f"✗ Process {process.pid} was killed with SIGKILL in mid-text.")
    process, _ = await _start(folder)
    reader.note(
        f"✓ Process {process.pid} was started. It asks for the unfinished text again, which the "
        "reader drops, and does not repeat the tool."
    )
    return process


async def _start(folder: Path) -> tuple[Process, str]:
    """Starts a process that answers; returns it with the id of the conversation."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "treadle.demo.crash_agent", str(folder), stdout=PIPE
    )
    assert process.stdout is not None
    thread_id = (await process.stdout.readline()).decode().strip()
    if not thread_id:
        await _end(process)
        raise JournalError("The process that answers could not start.")
    return process, thread_id


async def _end(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    await process.wait()


def _conclude(screen: Transcript, outcome: Outcome) -> None:
    mark = "✓" if outcome.is_exact else "✗"
    is_same = "are exactly" if outcome.is_exact else "are not"
    times = "once" if outcome.tool_runs == 1 else f"{outcome.tool_runs} times"
    screen.notice("")
    screen.notice(
        f"{mark} The {outcome.characters:,} characters that the reader added up {is_same} those in "
        f"the database.\n"
        f"{'✓' if outcome.tool_runs == 1 else '✗'} The tool ran {times}.\n"
        f"It took {duration(outcome.seconds)}."
    )


def _nothing(_: str) -> None:
    """Shows nothing."""
