"""Whether every file is stored once, as it was sent, and is read back after all kills."""

import asyncio
import hashlib
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import treadle
from chaos.database import reading, url_of
from chaos.findings import Findings
from chaos.stored import StoredThread
from treadle.domain.events import MessageAdded, ToolOutputRecorded
from treadle.domain.files import InputFile
from treadle.errors import TreadleError

DRAWS = "draws"
"""The tool that returns a file."""
SIZES = (6_000, 9_000, 30_000)


def content_of(name: str) -> bytes:
    """Returns the content of the file of a message or a call: one of three."""
    number = zlib.crc32(name.encode()) % len(SIZES)
    return f"file {number}\n".encode() * (SIZES[number] // 7)


def message_of(key: str) -> treadle.Input:
    """Returns a message whose text is its key; one in three has a file."""
    if zlib.crc32(key.encode()) // 5 % 3:
        return key
    return [key, InputFile.from_bytes(content_of(key), "file.txt")]


def judge_files(findings: Findings, threads: Sequence[StoredThread], database: Path) -> None:
    """Each file is that of its message or call, outside of the event, and can be read."""
    with reading(database) as connection:
        stored = dict(connection.execute("SELECT id, content FROM file").fetchall())
    for id, content in stored.items():
        if hashlib.sha256(content).hexdigest() not in id:
            findings.wrong.append(f"the file {id} has the content of another one")
    used = defaultdict[str, set[str]](set)
    for thread in threads:
        for name, part in _files(thread):
            findings.counts["files"] += 1
            if part.file_data:
                findings.wrong.append(f"{thread.id}: an event contains the file of {name}")
            elif stored.get(part.file_id) != content_of(name):
                findings.losses.append(f"{thread.id}: the file of {name} is gone, or another one")
            else:
                used[thread.id].add(part.file_id)
    findings.counts["files stored"] += len(stored)
    findings.losses.extend(asyncio.run(_unread(database, used)))


def _files(thread: StoredThread) -> Iterator[tuple[str, InputFile]]:
    """Yields the files of a thread, with the key or the call that each of them is made of."""
    for event in thread.events:
        match event:
            case MessageAdded(item=item):
                name, parts = item.text, item.content
            case ToolOutputRecorded(item=item) if not isinstance(item.output, str):
                name, parts = item.call_id, item.output
            case _:
                continue
        for part in parts:
            if isinstance(part, InputFile):
                yield name, part


async def _unread(database: Path, used: dict[str, set[str]]) -> list[str]:
    """Returns which files a client of the thread does not get."""
    found: list[str] = []
    async with treadle.open(url_of(database), drive=False) as runtime:
        for thread_id, ids in used.items():
            files = (await runtime.connect(thread_id)).files
            for id in ids:
                try:
                    await files.get(id)
                except TreadleError as error:
                    found.append(f"{thread_id}: the file {id} cannot be read: {error.message}")
    return found
