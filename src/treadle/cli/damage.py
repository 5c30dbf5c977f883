"""Stored conversations as the database contains them: exporting and repairing them."""

import os
import sys
from pathlib import Path

import click

from treadle.actors.repairing import Repaired, repair_thread
from treadle.cli.database import open_for_reading, stored_database
from treadle.errors import JournalError
from treadle.journal.sqlite import SqliteJournal
from treadle.journal.sqlite_file import file_error


async def stored_events(thread_id: str, database: Path | None) -> list[bytes]:
    """Returns the events of a thread as they are stored."""
    async with open_for_reading(database) as runtime:
        return await (await runtime.connect(thread_id)).export()


def write_events(stored: list[bytes], file: Path | None) -> None:
    """Writes events to a new file or to standard output, one per line."""
    body = b"".join(line + b"\n" for line in stored)
    if file is None:
        sys.stdout.buffer.write(body)
        sys.stdout.buffer.flush()
        return
    try:
        with open(file, "xb", opener=_private) as out:
            out.write(body)
    except FileExistsError as error:
        raise JournalError(f"{file.name} already exists; name a new file.") from error
    except OSError as error:
        raise file_error(error, file.name) from error
    click.echo(f"Wrote {len(stored):,} events to {file}.")


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


async def repair(thread_id: str, database: Path | None) -> Repaired:
    """Removes what is damaged of a thread; raises `JournalLocked` while a process drives it.

    Nothing is resumed: the agents of the conversations may not be known here.
    """
    journal = SqliteJournal(stored_database(database))
    await journal.open()
    try:
        await journal.info(thread_id)
        return await repair_thread(journal, thread_id)
    finally:
        await journal.close()
