"""`treadle delete`: removes a conversation."""

import asyncio
import sys

import click
import msgspec

from treadle.cli.database import (
    Database,
    database_option,
    find_thread,
    last_option,
    shown,
    stored_database,
    url_of,
)
from treadle.cli.failure import debug_option
from treadle.cli.plain_text import clean, one_line
from treadle.cli.stored import require_named
from treadle.cli.target import AnyRuntime, json_option, url_option, with_target
from treadle.errors import ConfigurationError, JournalLocked
from treadle.journal.base import ThreadInfo
from treadle.runtime.runtime import open_idle


@click.command()
@click.argument("thread_id", metavar="ID", required=False)
@last_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@url_option
@json_option
@database_option
@debug_option
def delete(
    thread_id: str | None,
    last: bool,
    yes: bool,
    url: str | None,
    as_json: bool,
    database: Database | None,
) -> int:
    """Delete the conversation ID, or with --last the most recent one, and all that belongs to it.

    Its run is interrupted. Asks before it deletes.
    """
    named = require_named(thread_id, last)
    if not yes and not sys.stdin.isatty():
        raise ConfigurationError("Standard input is not a terminal to ask on; add --yes.")
    info = _find(url, database, named)
    if not yes:
        title = clean(one_line(info.title))
        what = f"{info.id} ({title})" if title else info.id
        if not click.confirm(f"Delete {what}? This cannot be undone.", err=True):
            click.echo("Nothing was deleted.", err=True)
            return 1
    if url is None:
        asyncio.run(_delete_stored(stored_database(database), info.id))
    else:
        asyncio.run(with_target(url, database, lambda server: _delete(server, info.id)))
    done = {"thread_id": info.id, "deleted": True}
    click.echo(msgspec.json.encode(done) if as_json else f"Deleted the conversation {info.id}.")
    return 0


def _find(url: str | None, database: Database | None, named: str | None) -> ThreadInfo:
    """Returns what lists show of the conversation; before there is a question, which blocks."""
    found: list[ThreadInfo] = []

    async def work(runtime: AnyRuntime) -> int:
        found.append(await (await find_thread(runtime, named)).info())
        return 0

    asyncio.run(with_target(url, database, work))
    return found[0]


async def _delete(runtime: AnyRuntime, thread_id: str) -> int:
    await (await runtime.connect(thread_id)).delete()
    return 0


async def _delete_stored(database: Database, thread_id: str) -> None:
    """Deletes a thread of a database, whose agents may not be known here.

    Raises `JournalLocked` while another process drives a database file.
    """
    runtime = open_idle(url_of(database))
    try:
        await runtime.start()
    except JournalLocked as error:
        raise JournalLocked(
            f"{shown(database)} is driven by another process. End that process and try again; if "
            "it is treadle serve, use --url instead."
        ) from error
    try:
        await _delete(runtime, thread_id)
    finally:
        await runtime.shutdown()
