"""Conversations that are kept: listed, printed, followed."""

from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from weft.cli.plain_text import clean
from weft.cli.transcript import Transcript
from weft.errors import ThreadNotFound
from weft.journal.base import ThreadInfo
from weft.runtime.runtime import Runtime
from weft.runtime.thread import Thread
from weft.thread_tree import ThreadTree

PAGE = 500


async def list_threads(runtime: Runtime, limit: int, write: Callable[[str], None]) -> None:
    """Writes a line for each conversation: id, when it was used last, status, title."""
    infos = await runtime.threads(limit=limit)
    for info in infos:
        write(f"{_line(info)}\n")
    if not infos:
        write("There are no conversations yet; start one with weft chat.\n")


def _line(info: ThreadInfo) -> str:
    used = datetime.fromtimestamp(info.updated_at).astimezone()
    status = (info.status or "empty").replace("_", " ")
    return f"{info.id}  {used:%Y-%m-%d %H:%M}  {status:15}  {clean(info.title)}".rstrip()


async def show_thread(thread: Thread, transcript: Transcript, last: int | None = None) -> int:
    """Shows what has happened on a thread so far, or the last so many events of it.

    A run that has not ended is left out where only the last are shown: it is about to be followed.
    Returns the number of the last event that was to be shown.
    """
    state = await thread.state()
    after, until = 0, state.seq
    if last is not None:
        active = state.active_run
        if active is not None:
            runs = {run.id: run for run in await thread.runs()}
            until = max(runs[active.id].first_seq - 2, 0)
        after = max(0, until - last)
    while after < until and (events := await thread.events(after=after, limit=PAGE)):
        for event in events:
            if event.seq <= until:
                transcript.show(event)
        after = events[-1].seq
    return until


async def watch_thread(thread: Thread, transcript: Transcript) -> None:
    """Shows what has happened on a thread, and goes on with what happens."""
    async with thread.subscribe() as events:
        async for event in events:
            transcript.show(event)


async def show_tree(runtime: Runtime, thread: Thread, write: Callable[[str], None]) -> None:
    """Writes the runs, jobs and agents of a thread as a tree, a line for each."""
    tree = ThreadTree()
    rest = [(thread, tree)]
    while rest:
        known, told = rest.pop()
        after = 0
        while events := await known.events(after=after, limit=PAGE):
            for event in events:
                told.apply(event)
            after = events[-1].seq
        for agent in told.agents():
            assert agent.tree is not None
            with suppress(ThreadNotFound):  # it was deleted, or never kept
                rest.append((await runtime.connect(agent.id), agent.tree))
    for line in tree.lines():
        write(f"{clean(line)}\n")
    if not tree.roots:
        write("Nothing has run on this thread yet.\n")
