"""`treadle doctor`: whether a server could start with these settings."""

import asyncio
import os
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import click
import msgspec

from treadle.cli.database import Database, database_of, is_missing, shown, url_of, with_access
from treadle.cli.failure import debug_option, in_one_line
from treadle.cli.serve import DEMO, config_option, keys_option, keys_path
from treadle.cli.target import json_option
from treadle.errors import ConfigurationError, TreadleError
from treadle.runtime.runtime import open as open_runtime
from treadle.server.keys import stored_keys, stored_rows
from treadle.server.origins import is_loopback
from treadle.server.settings import ServerSettings, load_settings


@click.command()
@click.argument("target", default=DEMO)
@click.option("--host", help="The address to listen on.")
@click.option("--port", type=int, help="The port.")
@click.option("--database", help="The database file.")
@click.option("--auth/--no-auth", default=None, help="Whether requests need a key.")
@keys_option
@config_option
@json_option
@debug_option
def doctor(
    target: str,
    host: str | None,
    port: int | None,
    database: str | None,
    auth: bool | None,
    keys: str | None,
    config: Path | None,
    as_json: bool,
) -> int:
    """Check whether treadle serve could start: settings, agents, database, keys, address.

    Nothing is changed. The exit code is 1 if something is wrong.
    """
    options = {"host": host, "port": port, "database": database, "keys": keys, "auth": auth}
    settings = load_settings(options, os.environ, config)

    def report(name: str, words: str, *, is_ok: bool = True) -> None:
        done = {"check": name, "ok": is_ok, "detail": words}
        click.echo(msgspec.json.encode(done) if as_json else f"{name}: {words}")

    report("settings", "ok")
    place = database_of(settings.database, os.environ)
    checks: dict[str, Callable[[], str]] = {
        "agents": lambda: _agents(target),
        "database": lambda: _database(place, settings.pooler),
        "keys": lambda: _keys(settings, place),
        "address": lambda: _address(settings),
    }
    failed = 0
    for name, check in checks.items():
        try:
            report(name, check())
        except TreadleError as error:
            failed = 1
            report(name, in_one_line(error), is_ok=False)
    return failed


def _agents(target: str) -> str:
    if target == DEMO:
        return "ok (the demo agent)"
    agents = import_module("treadle.server.agents").load_agents(target)
    return f"ok ({', '.join(agent.name for agent in agents)})"


def _database(place: Database, pooler: str) -> str:
    if is_missing(place) and not pooler:
        return f"ok ({place} will be created)"
    asyncio.run(_read(place, pooler))
    return f"ok ({shown(place)}{f' behind {shown(pooler)}' if pooler else ''})"


async def _read(place: Database, pooler: str) -> None:
    async with open_runtime(url_of(place), drive=False, pooler=pooler or None) as runtime:
        await runtime.threads(limit=1)


_NO_KEYS = "none yet; one is made for each start"


def _keys(settings: ServerSettings, place: Database) -> str:
    path = keys_path(settings, place)
    if not settings.auth:
        if not is_loopback(settings.host):
            raise ConfigurationError("an address on the network needs keys; leave --no-auth out.")
        return "none needed"
    if path is None:
        rows = asyncio.run(with_access(str(place), stored_rows, drive=False))
        return f"ok ({len(rows)} in {shown(place)})" if rows else _NO_KEYS
    if not (count := len(stored_keys(path))):
        return _NO_KEYS
    if path.stat().st_mode & 0o077:
        raise ConfigurationError(f"{path} can be read by other users; run chmod 600 {path}.")
    return f"ok ({count} in {path})"


def _address(settings: ServerSettings) -> str:
    listen = import_module("treadle.server.server").listen
    with listen(settings.host, settings.port):
        return f"ok ({settings.host}:{settings.port})"
