"""Where the command stores its conversations."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from treadle.client.client import Client
from treadle.client.remote_thread import RemoteThread
from treadle.errors import JournalError
from treadle.runtime.runtime import Runtime
from treadle.runtime.runtime import open as open_runtime
from treadle.runtime.thread import Thread

database_option = click.option(
    "--database",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The database file. Default: TREADLE_DATABASE, or treadle.db in the user's data folder.",
)
last_option = click.option("--last", is_flag=True, help="Use the most recent conversation.")


def database_path(option: Path | None, environ: Mapping[str, str]) -> Path:
    """Returns the file of the option, else of the environment, else in the user's data folder."""
    if option is not None:
        return option
    if named := environ.get("TREADLE_DATABASE", "").strip():
        return Path(named)
    return _data_folder(environ) / "treadle" / "treadle.db"


def _data_folder(environ: Mapping[str, str]) -> Path:
    """The folder for a user's data: https://specifications.freedesktop.org/basedir-spec/latest/."""
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or Path.home())
    if named := environ.get("XDG_DATA_HOME", "").strip():
        return Path(named)
    return Path.home() / ".local" / "share"


def stored_database(option: Path | None) -> Path:
    """Returns the database file; raises `JournalError` if it does not exist."""
    path = database_path(option, os.environ)
    if not path.exists():
        raise JournalError(
            f"There are no conversations yet in {path}; start one with treadle chat."
        )
    return path


def open_for_reading(option: Path | None) -> Runtime:
    """Returns a runtime that reads and watches the stored conversations."""
    return open_runtime(f"sqlite:///{stored_database(option)}", drive=False)


async def find_thread(runtime: Runtime | Client, thread_id: str | None) -> Thread | RemoteThread:
    """Returns the thread of that id, or the most recent one; raises `ThreadNotFound`."""
    if thread_id is not None:
        return await runtime.connect(thread_id)
    threads = await runtime.threads(limit=1)
    if not threads:
        raise JournalError("There are no conversations yet; start one with treadle chat.")
    return await runtime.connect(threads[0].id)
