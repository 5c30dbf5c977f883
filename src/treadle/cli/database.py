"""Where the command stores its conversations."""

import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from treadle.client.client import Client
from treadle.client.remote_thread import RemoteThread
from treadle.domain.urls import masked_database
from treadle.errors import ConfigurationError, JournalError
from treadle.runtime.runtime import Runtime, is_postgres, postgres_journal
from treadle.runtime.runtime import open as open_runtime
from treadle.runtime.thread import Thread

T = TypeVar("T")

Database = Path | str
"""A database file, or the URL of a PostgreSQL database."""


class _DatabaseType(click.Path):
    """The parameter of `--database`."""

    name = "database"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Database:
        return value if is_postgres(value) else Path(str(super().convert(value, param, ctx)))


database_option = click.option(
    "--database",
    type=_DatabaseType(dir_okay=False, path_type=Path),
    help="The database: a file, or the URL of a PostgreSQL database. Default: TREADLE_DATABASE, or "
    "treadle.db in the user's data folder.",
)
last_option = click.option("--last", is_flag=True, help="Use the most recent conversation.")


def database_of(option: Database | None, environ: Mapping[str, str]) -> Database:
    """Returns that of the option or the environment, else a file in the user's data folder."""
    if option:
        return named_database(option)
    if named := environ.get("TREADLE_DATABASE", "").strip():
        return named_database(named)
    return _data_folder(environ) / "treadle" / "treadle.db"


def named_database(name: Database) -> Database:
    """Returns the database that a text names."""
    return name if is_postgres(str(name)) else Path(name)


def file_of(database: Database | None) -> Path | None:
    """Returns the file of a database, if it has one."""
    return database if isinstance(database, Path) else None


def url_of(database: Database) -> str:
    """Returns the URL with which a database is opened."""
    return f"sqlite:///{database}" if isinstance(database, Path) else database


def shown(database: Database) -> str:
    """Returns a database as it is printed, without a password."""
    if isinstance(database, Path):
        return str(database)
    return masked_database(database)


async def with_access(url: str, work: Callable[[Any], Awaitable[T]], *, drive: bool = True) -> T:
    """Calls `work` with the `AccessRows` of a PostgreSQL database.

    With `drive`, the tables are made if there are none.
    """
    journal = postgres_journal(url, drive=drive)
    await journal.open()
    try:
        return await work(journal.access)
    finally:
        await journal.close()


def database_file(option: Database | None, instead: str) -> Path:
    """Returns the file of a database; raises `ConfigurationError` for PostgreSQL.

    `instead` says what to do there.
    """
    database = database_of(option, os.environ)
    if isinstance(database, str):
        raise ConfigurationError(
            f"This command is for a database file, and not for {shown(database)}; {instead}."
        )
    return database


def require_folder(path: Path) -> None:
    """Creates the folder of a database file; raises `JournalError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise JournalError(f"The folder {path.parent} cannot be created: {error.strerror}.") from (
            error
        )


def _data_folder(environ: Mapping[str, str]) -> Path:
    """The folder for a user's data: https://specifications.freedesktop.org/basedir-spec/latest/."""
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or Path.home())
    if named := environ.get("XDG_DATA_HOME", "").strip():
        return Path(named)
    return Path.home() / ".local" / "share"


def stored_database(option: Database | None) -> Database:
    """Returns the database; raises `JournalError` if its file does not exist."""
    database = database_of(option, os.environ)
    if is_missing(database):
        raise JournalError(
            f"There are no conversations yet in {database}; start one with treadle chat."
        )
    return database


def is_missing(database: Database) -> bool:
    """Returns whether the file of a database was not created yet."""
    return isinstance(database, Path) and not database.exists()


def open_for_reading(option: Database | None) -> Runtime:
    """Returns a runtime that reads and watches the stored conversations."""
    return open_runtime(url_of(stored_database(option)), drive=False)


async def find_thread(runtime: Runtime | Client, thread_id: str | None) -> Thread | RemoteThread:
    """Returns the thread of that id, or the most recent one; raises `ThreadNotFound`."""
    if thread_id is not None:
        return await runtime.connect(thread_id)
    threads = await runtime.threads(limit=1)
    if not threads:
        raise JournalError("There are no conversations yet; start one with treadle chat.")
    return await runtime.connect(threads[0].id)
