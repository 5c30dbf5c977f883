"""Any number of chats on one database: the first one drives it, the others join through it.

A chat that joins sends and reads like any other process. When the chat that drives ends, however it
ends, one of the others drives instead, next to what it does already: its reading and its runs
continue. The chat that drives notes in a file next to the database which agents it knows, because
another one can join only if its agent is among them.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from treadle.agent import Agent
from treadle.cli.database import require_folder
from treadle.errors import JournalError, JournalLocked
from treadle.runtime.runtime import Runtime
from treadle.runtime.runtime import open as open_runtime

LOOK_SECONDS = 0.2
"""How often a chat looks whether the one that drives has ended."""

STARTING_SECONDS = 2.0
"""How long a chat waits for another one that is just creating the database."""


class ChatAgent(NamedTuple):
    """An agent of a chat, and where it is from: of two chats with one `source` it is the same."""

    agent: Agent[Any, Any]
    source: str


class Shared(NamedTuple):
    """The runtime of a chat, and whether another process drives the database."""

    runtime: Runtime
    is_joined: bool


class NotShared(JournalLocked):
    """The process that drives the database does not know the agent of this chat."""


class _Card(Struct):
    """What the driving chat knows: the sources of its agents by their names."""

    pid: int
    agents: dict[str, str]


@asynccontextmanager
async def open_shared(path: Path, agents: Sequence[ChatAgent]) -> AsyncGenerator[Shared]:
    """Drives the database `path`, or joins the chat that does; creates its folder.

    The first agent is that of the chat. Raises `NotShared` if the process that drives does not know
    it, and `JournalError`.
    """
    require_folder(path)
    attempts = round(STARTING_SECONDS / LOOK_SECONDS)
    for attempt in range(attempts):
        driver = await _drive(path, agents)
        if driver is not None:
            try:
                yield Shared(driver, False)
            finally:
                _withdraw(path)
                await driver.shutdown()
            return
        card = _read_card(path)
        if card is None and attempt < attempts - 1:
            await asyncio.sleep(LOOK_SECONDS)  # it may be starting
            continue
        if card is None or card.agents.get(agents[0].agent.name) != agents[0].source:
            break
        async with _joined(path, agents) as shared:
            yield shared
        return
    raise NotShared(
        f"{path} is driven by a process that does not know the agent {agents[0].agent.name!r}; end "
        "that one, or start this chat with --database FILE or --memory."
    )


@asynccontextmanager
async def _joined(path: Path, agents: Sequence[ChatAgent]) -> AsyncGenerator[Shared]:
    reader = open_runtime(f"sqlite:///{path}", agents=[one.agent for one in agents], drive=False)
    await reader.start()
    successor = asyncio.create_task(_succeed(reader, path, agents), name="treadle successor")
    try:
        yield Shared(reader, True)
    finally:
        successor.cancel()
        await asyncio.wait([successor])
        await reader.shutdown()


async def _succeed(reader: Runtime, path: Path, agents: Sequence[ChatAgent]) -> None:
    """Drives the database as soon as no other process does, until it is cancelled."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        with contextlib.suppress(JournalError):  # the reader meets it as well, and reports it
            if await reader.journal.is_driven():
                continue
            driver = await _drive(path, agents)
            if driver is not None:
                break
    try:
        await asyncio.Event().wait()
    finally:
        _withdraw(path)
        await driver.shutdown()


async def _drive(path: Path, agents: Sequence[ChatAgent]) -> Runtime | None:
    """Returns a runtime that drives the database; None if another process does."""
    runtime = open_runtime(f"sqlite:///{path}", agents=[one.agent for one in agents])
    try:
        await runtime.start()
    except JournalLocked:
        return None
    card = _Card(os.getpid(), {one.agent.name: one.source for one in reversed(agents)})
    with contextlib.suppress(OSError):  # then no other chat can join
        _write_card(path, card)
    return runtime


# The file of the card


def _card_path(path: Path) -> Path:
    return path.with_name(f"{path.name}-chat")


def _write_card(path: Path, card: _Card) -> None:
    new = path.with_name(f"{path.name}-chat.{os.getpid()}")
    new.touch(0o600)
    new.write_bytes(msgspec.json.encode(card))
    new.replace(_card_path(path))


def _read_card(path: Path) -> _Card | None:
    """Returns the card of the chat that drives; None for another process, which has none."""
    try:
        card = msgspec.json.decode(_card_path(path).read_bytes(), type=_Card)
        if sys.platform != "win32":  # there, signal 0 is Ctrl-C
            os.kill(card.pid, 0)
    except (OSError, ValueError, OverflowError):
        return None  # it was left by a chat that was killed
    return card


def _withdraw(path: Path) -> None:
    with contextlib.suppress(OSError):
        _card_path(path).unlink()
