"""Stored conversations and schedules: listing, printing and following them."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import datetime

import click
import msgspec

from treadle.cli.plain_text import clean, one_line
from treadle.cli.target import AnyRuntime, AnyThread
from treadle.cli.transcript import Transcript
from treadle.domain.blocks import Block
from treadle.domain.envelope import Envelope
from treadle.domain.events import AgentEvent, RecordedEvent
from treadle.domain.schedules import Schedule
from treadle.domain.thread_tree import ThreadTree, TreeNode
from treadle.errors import JournalTooNew, ThreadDamaged, ThreadNotFound
from treadle.journal.base import ThreadInfo

PAGE = 500
NONE_YET = "There are no conversations yet; start one with treadle chat."


def list_threads(
    infos: Sequence[ThreadInfo], write: Callable[[str], None], *, as_json: bool = False
) -> None:
    """Writes a line for each conversation: id, time of last use, status, title; or its JSON."""
    for info in infos:
        write(f"{msgspec.json.encode(info).decode() if as_json else _line(info)}\n")
    if not infos and not as_json:
        write(f"{NONE_YET}\n")


def list_schedules(
    found: Sequence[Schedule], write: Callable[[str], None], *, as_json: bool = False
) -> None:
    """Writes a line for each schedule: thread, id, next time, cron, text; or its JSON."""
    for one in found:
        write(f"{msgspec.json.encode(one).decode() if as_json else _schedule_line(one)}\n")
    if not found and not as_json:
        write("No message is sent later.\n")


def _schedule_line(schedule: Schedule) -> str:
    due = datetime.fromtimestamp(schedule.due_at).astimezone()
    again = f"  ({schedule.cron} {schedule.tz})" if schedule.cron else ""
    head = f"{schedule.thread_id}  {schedule.id}  {due:%Y-%m-%d %H:%M}{again}"
    return clean(f"{head}  {one_line(schedule.text)}")


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
            else:
                print_event(envelope)


def print_event(envelope: Envelope) -> None:
    """Prints an event with its position as a line of JSON."""
    line = {"position": envelope.position, "event": msgspec.Raw(envelope.json)}
    click.echo(msgspec.json.encode(line))


async def print_events(thread: AnyThread) -> None:
    """Prints the stored events of a thread as lines of JSON."""
    async for event in _all_of(thread):
        print_event(Envelope(event, event.seq))


async def show_tree(
    runtime: AnyRuntime,
    thread: AnyThread,
    write: Callable[[str], None],
    width: int | None = None,
    *,
    as_json: bool = False,
) -> None:
    """Writes the runs, calls, jobs and agents of a thread as a tree, one per line.

    Lines are cut to `width` columns. As JSON, it is one line with the list of the roots.
    """
    tree = ThreadTree(calls=True)
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
    if as_json:
        write(f"{msgspec.json.encode([_as_json(root) for root in tree.roots]).decode()}\n")
        return
    for line in tree.lines():
        if width is not None and len(line) >= width:
            line = f"{line[: width - 2]}…"
        write(f"{clean(line)}\n")
    if not tree.roots:
        write("Nothing has run on this thread yet.\n")


def _as_json(node: TreeNode) -> dict[str, object]:
    fields = {name: getattr(node, name) for name in node.__struct_fields__}
    tree = fields.pop("tree")
    below = [*node.children, *(tree.roots if tree is not None else ())]
    return {**fields, "children": [_as_json(child) for child in below]}


async def show_blocks(
    thread: AnyThread, write: Callable[[str], None], *, as_json: bool = False
) -> None:
    """Writes the memory blocks of a thread: a heading for each, then its text; or their JSON."""
    blocks = await thread.memory.blocks()
    if as_json:
        for block in blocks:
            write(f"{msgspec.json.encode(block).decode()}\n")
        return
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
