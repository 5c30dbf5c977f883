"""`treadle migrate`: from a database file to PostgreSQL."""

import asyncio
from importlib import import_module
from pathlib import Path

import click
import msgspec

from treadle.cli.database import Database, database_file, database_option, shown
from treadle.cli.failure import debug_option
from treadle.cli.target import json_option
from treadle.domain.urls import masked_url
from treadle.errors import ConfigurationError, JournalError
from treadle.runtime.runtime import is_postgres


@click.command()
@click.argument("url", metavar="URL")
@json_option
@database_option
@debug_option
def migrate(url: str, as_json: bool, database: Database | None) -> int:
    """Copy a database file to the empty PostgreSQL database at URL, and compare both.

    No other program may use either of them meanwhile. The file stays as it is.
    """
    if not is_postgres(url):
        raise ConfigurationError(
            f"{masked_url(url)[:200]!r} is not the URL of a PostgreSQL database; it has the form "
            "postgresql://user:password@host:5432/name."
        )
    source = database_file(database, "use the tools of PostgreSQL, such as pg_dump")
    if not source.exists():
        raise JournalError(f"The database {source} does not exist.")
    try:
        copying = import_module("treadle.journal.copying")
    except ImportError as error:
        raise ConfigurationError(
            f"A PostgreSQL database needs the extra: pip install 'treadle[postgres]' ({error})."
        ) from error
    count: int = asyncio.run(copying.copy_journal(source, url))
    index = source.with_name(f"{source.name}-archive")
    vectors: int = asyncio.run(_vectors(index, url)) if index.exists() else 0
    done = {"database": shown(url), "threads": count, "vectors": vectors}
    what = "conversation" if count == 1 else "conversations"
    words = f"Copied {count:,} {what} to {shown(url)}; each is the same there."
    if vectors:
        words += f"\nCopied the vectors of {vectors:,} texts of the archive."
    click.echo(msgspec.json.encode(done) if as_json else words)
    return 0


async def _vectors(index: Path, url: str) -> int:
    return await import_module("treadle.memory.archive.copying").copy_vectors(index, url)
