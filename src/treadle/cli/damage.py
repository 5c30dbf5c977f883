"""`treadle backup` and `repair`: conversations as the database contains them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import click
import msgspec

from treadle.actors.repairing import Repaired, repair_thread
from treadle.cli.database import (
    Database,
    database_file,
    database_option,
    stored_database,
)
from treadle.cli.failure import debug_option
from treadle.cli.target import json_option
from treadle.journal.backup import backup as write_backup
from treadle.journal.sqlite import SqliteJournal
from treadle.runtime.runtime import postgres_journal


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
@database_option
@debug_option
def backup(file: Path, as_json: bool, database: Database | None) -> int:
    """Copy the database to the new FILE; it may be in use meanwhile."""
    size = write_backup(
        database_file(database, "use the tools of PostgreSQL, such as pg_dump"), file
    )
    done = {"file": str(file), "bytes": size}
    click.echo(msgspec.json.encode(done) if as_json else f"Wrote {size / 1e6:.1f} MB to {file}.")
    return 0


@click.command()
@click.argument("thread_id", metavar="ID")
@json_option
@database_option
@debug_option
def repair(thread_id: str, as_json: bool, database: Database | None) -> int:
    """Remove what cannot be read of the conversation ID, so that it can continue."""
    removed = asyncio.run(_repair(thread_id, database))
    if as_json:
        done = {"thread_id": thread_id, "events": removed.events, "entries": removed.entries}
        click.echo(msgspec.json.encode(done))
        return 0
    numbers = ", ".join(map(str, removed.events))
    if removed.events:
        click.echo(f"Removed {_several(len(removed.events), 'damaged event')}: {numbers}.")
    if removed.entries:
        entries = _several(removed.entries, "damaged entry", "damaged entries")
        click.echo(f"Removed {entries} from its inbox.")
    if not removed.events and not removed.entries:
        click.echo("Nothing is damaged.")
    return 0


async def _repair(thread_id: str, database: Database | None) -> Repaired:
    """Removes what is damaged of a thread; raises `JournalLocked` while a process drives its file.

    Nothing is resumed here: the agents of the conversations may not be known.
    """
    place = stored_database(database)
    journal = SqliteJournal(place) if isinstance(place, Path) else postgres_journal(place)
    await journal.open()
    try:
        await journal.info(thread_id)
        async with _alone_with(journal, thread_id):
            return await repair_thread(journal, thread_id)
    finally:
        await journal.close()


@asynccontextmanager
async def _alone_with(journal: Any, thread_id: str) -> AsyncGenerator[None]:
    """Takes a thread from the node that has it; afterwards any node can take it again."""
    if not journal.has_nodes:
        yield
        return
    await journal.nodes.join(())
    try:
        await journal.nodes.seize(thread_id)
        yield
    finally:
        await journal.nodes.leave()


def _several(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"
