"""`treadle export` and `import`: a conversation as a file of JSON lines."""

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from treadle.actors.thread_export import MAX_LINE, lines_of
from treadle.cli.database import (
    Database,
    database_of,
    database_option,
    is_missing,
    require_folder,
)
from treadle.cli.failure import debug_option
from treadle.cli.target import AnyRuntime, json_option, url_option, with_target
from treadle.errors import JournalError
from treadle.journal.sqlite import SqliteJournal
from treadle.journal.sqlite_file import file_error


@click.command()
@click.argument("thread_id", metavar="ID")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@json_option
@url_option
@database_option
@debug_option
def export(
    thread_id: str, file: Path | None, as_json: bool, url: str | None, database: Database | None
) -> int:
    """Print the conversation ID with its files as JSON lines, or write them to the new FILE."""

    async def work(runtime: AnyRuntime) -> int:
        lines.extend(await (await runtime.connect(thread_id)).export())
        return 0

    lines: list[bytes] = []
    asyncio.run(with_target(url, database, work))
    _write(lines, file)
    if file is not None:
        done = {"thread_id": thread_id, "file": str(file), "lines": len(lines)}
        words = f"Wrote {len(lines):,} lines to {file}."
        click.echo(msgspec.json.encode(done) if as_json else words)
    return 0


@click.command("import")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path))
@click.option("--owner", default="", help="The owner of the conversation.")
@click.option("--keep-id", is_flag=True, help="Keep the id, which must be free.")
@json_option
@url_option
@database_option
@debug_option
def import_(
    file: Path, owner: str, keep_id: bool, as_json: bool, url: str | None, database: Database | None
) -> int:
    """Add the conversation in FILE, which treadle export wrote; - is standard input."""

    async def work(runtime: AnyRuntime) -> int:
        thread = await runtime.import_thread(lines, owner=owner, keep_id=keep_id)
        words = f"Imported the conversation {thread.id}."
        click.echo(msgspec.json.encode({"thread_id": thread.id}) if as_json else words)
        return 0

    # Before there is an event loop: a thread of it that waits for standard input cannot be ended.
    lines = _read(file)
    place = database_of(database, os.environ)
    if url is None and isinstance(place, Path) and is_missing(place):
        require_folder(place)
        asyncio.run(_create(place))
    return asyncio.run(with_target(url, database, work))


async def _create(database: Path) -> None:
    journal = SqliteJournal(database)
    await journal.open()
    await journal.close()


def _write(lines: Sequence[bytes], file: Path | None) -> None:
    """Writes lines to a new file or to standard output."""
    if file is None:
        for line in lines:
            sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
        return
    try:
        with open(file, "xb", opener=_private) as out:
            for line in lines:
                out.write(line + b"\n")
    except FileExistsError as error:
        raise JournalError(f"{file.name} already exists; name a new file.") from error
    except OSError as error:
        raise file_error(error, file.name) from error


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)


def _read(file: Path) -> Sequence[bytes]:
    if str(file) == "-":
        return _lines(sys.stdin.buffer)
    try:
        with file.open("rb") as source:
            return _lines(source)
    except FileNotFoundError as error:
        raise JournalError(f"{file.name} does not exist.") from error
    except OSError as error:
        raise file_error(error, file.name) from error


def _lines(source: BinaryIO) -> Sequence[bytes]:
    # A line that is too long is not read to its end.
    return list(lines_of(iter(lambda: source.readline(MAX_LINE + 1), b"")))
