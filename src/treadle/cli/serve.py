"""`treadle serve`: agents over HTTP."""

import asyncio
import os
from importlib import import_module
from pathlib import Path

import click

from treadle.cli.database import Database, database_of, require_folder
from treadle.cli.failure import debug_option
from treadle.cli.target import json_option
from treadle.errors import ConfigurationError
from treadle.server.settings import ServerSettings, load_settings

DEMO = "demo"
"""The target that is the demo agent."""

config_option = click.option(
    "--config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A TOML file with a table [server].",
)
keys_option = click.option("--keys", help="The file of the keys. Default: next to the database.")


@click.command()
@click.argument("target", default=DEMO)
@click.option("--host", help="The address to listen on. Default: 127.0.0.1.")
@click.option("--port", type=int, help="The port; 0 is any free one. Default: 8000.")
@click.option("--database", help="A file, or postgresql://… Default: as for treadle chat.")
@click.option("--memory", is_flag=True, help="Do not store the conversations.")
@click.option("--auth/--no-auth", default=None, help="Whether requests need a key. Default: yes.")
@keys_option
@click.option("--restate", help="The URL of a Restate ingress, which asks servers to drive.")
@config_option
@click.option("--model", help="The model of the demo agent.")
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=".",
    help="The folder that the demo agent may read. Default: the current folder.",
)
@json_option
@debug_option
def serve(
    target: str,
    host: str | None,
    port: int | None,
    database: str | None,
    memory: bool,
    auth: bool | None,
    keys: str | None,
    restate: str | None,
    config: Path | None,
    model: str | None,
    folder: Path,
    as_json: bool,
) -> int:
    """Serve agents over HTTP: TARGET is demo, MODULE:NAME, or a folder of modules.

    Without configured keys (treadle keys create), a key is made for this start. Every option can be
    set by a variable such as TREADLE_PORT, or in a file.
    """
    options = {"host": host, "port": port, "database": database, "keys": keys, "auth": auth}
    options["restate_ingress"] = restate
    settings = load_settings(options, os.environ, config)
    if memory and database:
        raise ConfigurationError("Use only one of --memory and --database.")
    place = None if memory else _place(settings)
    # The server is imported when it is needed: the other commands start without it.
    serving = import_module("treadle.cli.serving")
    return asyncio.run(serving.serve(target, settings, place, model, folder, as_json=as_json))


def _place(settings: ServerSettings) -> Database:
    database = database_of(settings.database, os.environ)
    if isinstance(database, Path):
        require_folder(database)
    return database


def keys_path(settings: ServerSettings, database: Database | None) -> Path | None:
    """Returns the file of the keys: the configured one, or the one next to the database file."""
    if settings.keys:
        return Path(settings.keys)
    return (
        None if not isinstance(database, Path) else database.with_name(f"{database.name}-keys.json")
    )
