"""Conversations that are kept: listed, printed, followed."""

from collections.abc import Callable
from datetime import datetime

from weft.cli.plain_text import clean
from weft.cli.transcript import Transcript
from weft.journal.base import ThreadInfo
from weft.runtime.runtime import Runtime
from weft.runtime.thread import Thread

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


async def show_thread(thread: Thread, transcript: Transcript) -> None:
    """Shows what has happened on a thread so far."""
    after = 0
    while events := await thread.events(after=after, limit=PAGE):
        for event in events:
            transcript.show(event)
        after = events[-1].seq


async def watch_thread(thread: Thread, transcript: Transcript) -> None:
    """Shows what has happened on a thread, and goes on with what happens."""
    async with thread.subscribe() as events:
        async for event in events:
            transcript.show(event)
