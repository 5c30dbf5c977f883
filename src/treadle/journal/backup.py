"""Copies a database while it is in use, by the online backup of SQLite.

A copy of the file alone is not a backup: the newest events, and in a small database all of them,
are in the log next to it. Source: https://sqlite.org/backup.html
"""

from contextlib import closing
from pathlib import Path

from treadle.errors import JournalCorrupt, JournalError
from treadle.journal.sqlite_file import (
    connect,
    make_file,
    readable_access,
    require_ours,
    resolved,
    typed_errors,
)

PAGES = 1024
"""How many pages are copied before writers get a turn."""


def backup(source: Path, target: Path) -> int:
    """Writes a copy of the database `source` to the new file `target`; returns its size in bytes.

    The copy is one consistent state, and is checked; processes that use the database continue. It
    has no log, so that it can be read where nothing can be written. Raises `JournalError` if the
    target exists, and what opening the source raises; then no target is left.
    """
    source = resolved(source)
    if not source.exists():
        raise JournalError(f"The database {source.name} does not exist.")
    if target.exists():
        raise JournalError(f"{target.name} already exists; name a new file.")
    make_file(target)
    try:
        with typed_errors(source):
            _copy(source, target.resolve())
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    return target.stat().st_size


def _copy(source: Path, target: Path) -> None:
    with closing(connect(source, readable_access(source))) as reading:
        require_ours(reading, source.name)
        with closing(connect(target)) as writing:
            reading.backup(writing, pages=PAGES)
            # The copy says that it has a log, as the source has; a driver turns it on again.
            writing.execute("PRAGMA journal_mode = delete")
            found = writing.execute("PRAGMA quick_check(1)").fetchone()
    if found != ("ok",):
        raise JournalCorrupt(f"{source.name} is damaged: {found[0]}. Restore an older backup.")
