"""What a command works on: the database of this machine, or a server."""

import os
from collections.abc import Awaitable, Callable, Coroutine

import click

from treadle.cli.database import Database, database_of, is_missing, open_for_reading
from treadle.client.client import Client
from treadle.client.remote_run import RemoteRun
from treadle.client.remote_thread import RemoteThread
from treadle.errors import ConfigurationError
from treadle.runtime.runtime import Runtime
from treadle.runtime.thread import Thread
from treadle.runtime.thread_run import ThreadRun

AnyRuntime = Runtime | Client
AnyThread = Thread | RemoteThread
AnyRun = ThreadRun | RemoteRun

RETRY_SECONDS = 60.0

url_option = click.option(
    "--url", help="Use the server at this URL; its key is the variable TREADLE_KEY."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one value a line.")


def open_target(url: str | None, database: Database | None) -> AnyRuntime:
    """Returns the threads of a server, or those of a database that another process may drive."""
    if url is None:
        return open_for_reading(database)
    if database is not None:
        raise ConfigurationError("Use only one of --url and --database.")
    return Client(url, retry_seconds=RETRY_SECONDS)


def is_empty(url: str | None, database: Database | None) -> bool:
    """Whether the commands that list have nothing to read: no database was created yet."""
    return url is None and is_missing(database_of(database, os.environ))


def with_target(
    url: str | None, database: Database | None, work: Callable[[AnyRuntime], Awaitable[int]]
) -> Coroutine[None, None, int]:
    """Opens the threads of a server or a database for `work`; returns its exit code."""
    # Before there is an event loop, because looking for the file blocks.
    return _work_on(open_target(url, database), work)


async def _work_on(target: AnyRuntime, work: Callable[[AnyRuntime], Awaitable[int]]) -> int:
    async with target as runtime:
        return await work(runtime)
