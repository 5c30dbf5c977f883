"""`treadle keys`: who may use the server."""

import asyncio
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from treadle.cli.database import database_of, shown, with_access
from treadle.cli.failure import debug_option
from treadle.cli.plain_text import one_line
from treadle.cli.serve import config_option, keys_option, keys_path
from treadle.cli.target import json_option
from treadle.errors import ConfigurationError
from treadle.server.keys import (
    StoredKey,
    add_key,
    add_row,
    new_key,
    revoke_key,
    stored_keys,
    stored_rows,
)
from treadle.server.settings import load_settings

DAY = 24 * 3600

database_name = click.option(
    "--database",
    help="The database file, next to which the keys are, or the URL of the PostgreSQL "
    "database in which they are.",
)


@click.group()
def keys() -> None:
    """Create, list and revoke the keys of the server."""


@keys.command()
@click.option("--name", default="", help="What the key is for.")
@click.option("--owner", help="Whose threads it may use. Default: those of all owners.")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    help="read, write, approve or admin; repeat it. Default: admin.",
)
@click.option("--days", type=click.FloatRange(min=0, min_open=True), help="After how many it ends.")
@json_option
@database_name
@keys_option
@config_option
@debug_option
def create(
    name: str,
    owner: str | None,
    scopes: tuple[str, ...],
    days: float | None,
    as_json: bool,
    database: str | None,
    keys: str | None,
    config: Path | None,
) -> int:
    """Create a key and print it; it cannot be shown again."""
    key, stored = new_key(
        name=name,
        owner=owner,
        scopes=scopes or ("admin",),
        expires_at=None if days is None else time.time() + days * DAY,
    )
    place = _place(database, keys, config)
    if isinstance(place, Path):
        add_key(place, stored)
    else:
        asyncio.run(with_access(place, lambda rows: add_row(rows, stored)))
    click.echo(msgspec.json.encode({"key": key, **_as_json(stored)}) if as_json else key)
    return 0


@keys.command(name="list")
@json_option
@database_name
@keys_option
@config_option
@debug_option
def list_keys(as_json: bool, database: str | None, keys: str | None, config: Path | None) -> int:
    """List the keys: id, owner, scopes, end, name."""
    place = _place(database, keys, config)
    found = (
        stored_keys(place)
        if isinstance(place, Path)
        else asyncio.run(with_access(place, stored_rows))
    )
    for key in found:
        click.echo(msgspec.json.encode(_as_json(key)) if as_json else _line(key))
    if not found and not as_json:
        click.echo("There are no keys yet; make one with treadle keys create.")
    return 0


@keys.command()
@click.argument("key_id", metavar="ID")
@json_option
@database_name
@keys_option
@config_option
@debug_option
def revoke(
    key_id: str, as_json: bool, database: str | None, keys: str | None, config: Path | None
) -> int:
    """Revoke the key ID: a running server refuses it within a second."""
    place = _place(database, keys, config)
    if isinstance(place, Path):
        is_known = revoke_key(place, key_id)
    else:
        is_known = asyncio.run(with_access(place, lambda rows: rows.remove_key(key_id)))
    if not is_known:
        raise ConfigurationError(
            f"{shown(place)} has no key {key_id[:100]!r}; see treadle keys list."
        )
    done = {"id": key_id, "revoked": True}
    click.echo(msgspec.json.encode(done) if as_json else f"Revoked {key_id}.")
    return 0


def _place(database: str | None, keys: str | None, config: Path | None) -> Path | str:
    """Returns the file of the keys, or the URL of the database in which they are."""
    settings = load_settings({"database": database, "keys": keys}, os.environ, config)
    place = database_of(settings.database, os.environ)
    return keys_path(settings, place) or str(place)


def _as_json(key: StoredKey) -> dict[str, object]:
    fields = msgspec.to_builtins(key)
    del fields["sha256"]
    return {"owner": None, **fields}


def _line(key: StoredKey) -> str:
    owner = "all owners" if key.owner is None else key.owner or "(no owner)"
    end = "never ends" if key.expires_at is None else f"ends {_day(key.expires_at)}"
    if not key.is_valid(time.time()):
        end = "ended"
    return one_line(f"{key.id}  {owner}  {','.join(key.scopes)}  {end}  {key.name}".rstrip())


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M} UTC"
