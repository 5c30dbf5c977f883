"""`treadle threads`, `show`, `watch` and `schedules`: what is stored."""

import asyncio
import sys
from typing import get_args

import click
import msgspec

from treadle.cli.conversation import (
    list_schedules,
    list_threads,
    print_events,
    show_blocks,
    show_thread,
    show_tree,
    watch_thread,
)
from treadle.cli.database import Database, database_option, find_thread, last_option
from treadle.cli.failure import debug_option
from treadle.cli.output import width, write
from treadle.cli.target import AnyRuntime, is_empty, json_option, url_option, with_target
from treadle.cli.transcript import Transcript
from treadle.domain.page import MAX_PAGE
from treadle.domain.schedules import Schedule
from treadle.domain.state import RunStatus
from treadle.errors import ConfigurationError


@click.command()
@click.option("--limit", default=20, show_default=True, help="How many to list.")
@click.option(
    "--status",
    type=click.Choice(get_args(RunStatus)),
    help="Only those whose newest run has this status.",
)
@click.option("--agent", default="", metavar="NAME", help="Only those of this agent.")
@click.option("--owner", help="Only those of this owner.")
@url_option
@json_option
@database_option
@debug_option
def threads(
    limit: int,
    status: RunStatus | None,
    agent: str,
    owner: str | None,
    url: str | None,
    as_json: bool,
    database: Database | None,
) -> int:
    """List the conversations, the most recent first."""
    if is_empty(url, database):
        list_threads([], write, as_json=as_json)
        return 0

    async def work(runtime: AnyRuntime) -> int:
        infos = await runtime.threads(limit=limit, status=status or (), agent=agent, owner=owner)
        list_threads(infos, write, as_json=as_json)
        return 0

    return asyncio.run(with_target(url, database, work))


@click.command()
@click.argument("thread_id", metavar="ID", required=False)
@last_option
@click.option("--tree", is_flag=True, help="Print its runs, calls, jobs and agents as a tree.")
@click.option("--blocks", is_flag=True, help="Print its memory blocks.")
@url_option
@json_option
@database_option
@debug_option
def show(
    thread_id: str | None,
    last: bool,
    tree: bool,
    blocks: bool,
    url: str | None,
    as_json: bool,
    database: Database | None,
) -> int:
    """Print the conversation ID, or with --last the most recent one.

    With --json, each line is an event with its position, or a memory block; a tree is one line.
    """
    named = require_named(thread_id, last)
    if tree and blocks:
        raise ConfigurationError("Use only one of --tree and --blocks.")

    async def work(runtime: AnyRuntime) -> int:
        thread = await find_thread(runtime, named)
        if tree:
            columns = width() if sys.stdout.isatty() else None
            await show_tree(runtime, thread, write, columns, as_json=as_json)
        elif blocks:
            await show_blocks(thread, write, as_json=as_json)
        elif as_json:
            await print_events(thread)
        else:
            await show_thread(
                thread, Transcript(write, width(), echo=True, rich=sys.stdout.isatty())
            )
        return 0

    return asyncio.run(with_target(url, database, work))


@click.command()
@click.argument("thread_id", metavar="ID", required=False)
@last_option
@click.option("--after", default="0", metavar="POSITION", help="Begin after this position.")
@url_option
@json_option
@database_option
@debug_option
def watch(
    thread_id: str | None,
    last: bool,
    after: str,
    url: str | None,
    as_json: bool,
    database: Database | None,
) -> int:
    """Print a conversation as treadle show does, and follow it live until Ctrl-C.

    With --json, each line is an event with its position.
    """
    named = require_named(thread_id, last)

    async def work(runtime: AnyRuntime) -> int:
        thread = await find_thread(runtime, named)
        transcript = None if as_json else _transcript()
        await watch_thread(thread, transcript, after)
        return 0

    return asyncio.run(with_target(url, database, work))


@click.command()
@click.argument("thread_id", metavar="ID", required=False)
@click.option("--cancel", "cancelled", metavar="SCHEDULE", help="Cancel this schedule of ID.")
@url_option
@json_option
@database_option
@debug_option
def schedules(
    thread_id: str | None,
    cancelled: str | None,
    url: str | None,
    as_json: bool,
    database: Database | None,
) -> int:
    """List the messages that are sent later, of all conversations or of the conversation ID."""
    if cancelled is not None and thread_id is None:
        raise ConfigurationError("Name the conversation too: treadle schedules ID --cancel …")
    if cancelled is None and is_empty(url, database):
        list_schedules([], write, as_json=as_json)
        return 0

    async def work(runtime: AnyRuntime) -> int:
        if thread_id is None:
            list_schedules(await _all_schedules(runtime), write, as_json=as_json)
            return 0
        thread = await runtime.connect(thread_id)
        found = await thread.schedules()
        if cancelled is None:
            list_schedules(found, write, as_json=as_json)
            return 0
        if cancelled not in {one.id for one in found}:
            raise ConfigurationError(
                f"The conversation has no schedule {cancelled[:100]!r}; see treadle schedules "
                f"{thread_id}."
            )
        await thread.cancel_schedule(cancelled)
        done = {"thread_id": thread_id, "schedule_id": cancelled, "cancelled": True}
        click.echo(msgspec.json.encode(done) if as_json else f"Cancelled {cancelled}.")
        return 0

    return asyncio.run(with_target(url, database, work))


async def _all_schedules(runtime: AnyRuntime) -> list[Schedule]:
    page = await runtime.schedules(limit=MAX_PAGE)
    found = list(page)
    while page.next:
        page = await runtime.schedules(limit=MAX_PAGE, after=page.next)
        found += page
    return found


def require_named(thread_id: str | None, last: bool) -> str | None:
    """Returns the given id; None means the most recent conversation."""
    if (thread_id is None) != last:
        raise ConfigurationError("Give the ID of a conversation (see treadle threads), or --last.")
    return thread_id


def _transcript() -> Transcript:
    return Transcript(write, width(), echo=True, rich=sys.stdout.isatty())
