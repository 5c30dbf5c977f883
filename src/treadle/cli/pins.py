"""`treadle pin` and `unpin`: messages that stay in the model's window."""

import asyncio

import click
import msgspec

from treadle.cli.database import Database, database_option
from treadle.cli.failure import debug_option
from treadle.cli.target import AnyRuntime, json_option, url_option, with_target


@click.command()
@click.argument("thread_id", metavar="ID")
@click.argument("message_id", metavar="MESSAGE")
@url_option
@json_option
@database_option
@debug_option
def pin(
    thread_id: str, message_id: str, url: str | None, as_json: bool, database: Database | None
) -> int:
    """Keep the message MESSAGE of the conversation ID in the model's window.

    The ids of messages are in treadle show ID --json.
    """
    return _pin(thread_id, message_id, url, database, pinned=True, as_json=as_json)


@click.command()
@click.argument("thread_id", metavar="ID")
@click.argument("message_id", metavar="MESSAGE")
@url_option
@json_option
@database_option
@debug_option
def unpin(
    thread_id: str, message_id: str, url: str | None, as_json: bool, database: Database | None
) -> int:
    """Let the pinned message MESSAGE of the conversation ID leave the window like others."""
    return _pin(thread_id, message_id, url, database, pinned=False, as_json=as_json)


def _pin(
    thread_id: str,
    message_id: str,
    url: str | None,
    database: Database | None,
    *,
    pinned: bool,
    as_json: bool,
) -> int:
    """Pins a message or lets go of it, and prints that as JSON."""

    async def work(runtime: AnyRuntime) -> int:
        thread = await runtime.connect(thread_id)
        await (thread.pin(message_id) if pinned else thread.unpin(message_id))
        if as_json:
            done = {"thread_id": thread_id, "message_id": message_id, "pinned": pinned}
            click.echo(msgspec.json.encode(done))
        return 0

    return asyncio.run(with_target(url, database, work))
