"""Stored conversations: listing, printing and following them."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import datetime

import click
import msgspec

from treadle.cli.plain_text import clean, one_line
from treadle.cli.target import AnyRuntime, AnyThread
from treadle.cli.transcript import Transcript
from treadle.domain.blocks import Block
from treadle.domain.events import AgentEvent, RecordedEvent
from treadle.domain.thread_tree import ThreadTree
from treadle.errors import JournalTooNew, ThreadDamaged, ThreadNotFound
from treadle.journal.base import ThreadInfo

PAGE = 500


def list_threads(
    infos: Sequence[ThreadInfo], write: Callable[[str], None], *, as_json: bool = False
) -> None:
    """Writes a line for each conversation: id, time of last use, status, title; or its JSON."""
    for info in infos:
        write(f"{msgspec.json.encode(info).decode() if as_json else _line(info)}\n")
    if not infos and not as_json:
        write("There are no conversations yet; start one with treadle chat.\n")


def _line(info: ThreadInfo) -> str:
    used = datetime.fromtimestamp(info.updated_at).astimezone()
    status = (info.status or "empty").replace("_", " ")
    return f"{info.id}  {used:%Y-%m-%d %H:%M}  {status:15}  {clean(info.title)}".rstrip()


async def show_thread(thread: AnyThread, transcript: Transcript, last: int | None = None) -> int:
    """Shows the events of a thread so far, or the `last` ones; returns the number of the last.

    With `last`, an unfinished run is left out, because the caller is about to follow it.
    """
    try:
        state = await thread.state()
    except (ThreadDamaged, JournalTooNew) as error:
        return await _show_readable(thread, transcript, error)
    after, until = 0, state.seq
    if last is not None:
        active = state.active_run
        if active is not None:
            run = await thread.run(active.id)
            until = max((await run.info()).first_seq - 2, 0)
        after = max(0, until - last)
    while after < until and (events := await thread.events(after=after, limit=PAGE)):
        for event in events:
            if event.seq <= until:
                transcript.show(event)
        after = events[-1].seq
    return until


async def _show_readable(
    thread: AnyThread, transcript: Transcript, error: ThreadDamaged | JournalTooNew
) -> int:
    """Shows the events that can be read, a line for each that cannot, and the reason at the end."""
    after = 0
    while True:
        try:
            events = await thread.events(after=after, limit=PAGE)
        except ThreadDamaged as found:
            most = found.seq - after - 1
            events = await thread.events(after=after, limit=most) if most else []
            for event in events:
                transcript.show(event)
            transcript.notice(f"(Event {found.seq} cannot be read.)")
            after = found.seq
            continue
        for event in events:
            transcript.show(event)
        if not events:
            transcript.notice(f"({one_line(error.message)})")
            return after
        after = events[-1].seq


async def watch_thread(thread: AnyThread, transcript: Transcript | None, after: str = "0") -> None:
    """Shows the events of a thread, and continues with new ones as they happen.

    Without a transcript it prints each as a line of JSON with its position.
    """
    async with thread.subscribe(after) as events:
        async for envelope in events.envelopes():
            if transcript is not None:
                transcript.show(envelope.event)
                continue
            line = {"position": envelope.position, "event": msgspec.Raw(envelope.json)}
            click.echo(msgspec.json.encode(line))


async def show_tree(
    runtime: AnyRuntime, thread: AnyThread, write: Callable[[str], None], width: int | None = None
) -> None:
    """Writes the runs, jobs and agents of a thread as a tree, one per line.

    Lines are cut to `width` columns.
    """
    tree = ThreadTree()
    async for event in _all_of(thread):
        tree.apply(event)
    rest = [tree]
    while rest:
        told = rest.pop()
        for agent in list(told.agents()):
            with suppress(ThreadNotFound):  # deleted, or never stored
                async for event in _all_of(await runtime.connect(agent.id)):
                    told.apply(AgentEvent("", agent.name, agent.id, event))
            assert agent.tree is not None
            rest.append(agent.tree)
    for line in tree.lines():
        if width is not None and len(line) >= width:
            line = f"{line[: width - 2]}…"
        write(f"{clean(line)}\n")
    if not tree.roots:
        write("Nothing has run on this thread yet.\n")


async def show_blocks(thread: AnyThread, write: Callable[[str], None]) -> None:
    """Writes the memory blocks of a thread: a heading for each, then its text."""
    blocks = await thread.memory.blocks()
    for block in blocks:
        write(f"{clean(_head(block))}\n")
        for line in clean(block.value).splitlines():
            write(f"  {line}".rstrip() + "\n")
    if not blocks:
        write("This thread has no memory blocks.\n")


def _head(block: Block) -> str:
    read_only = ", read-only" if block.read_only else ""
    size = f"({len(block.value):,} of {block.limit:,} characters{read_only})"
    return f"{block.label} {size}  {one_line(block.description)}".rstrip()


async def _all_of(thread: AnyThread) -> AsyncIterator[RecordedEvent]:
    after = 0
    while events := await thread.events(after=after, limit=PAGE):
        for event in events:
            yield event
        after = events[-1].seq
