"""The journals under test; those in SQL need real time, because they have threads of their own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.postgres import pooler, server

from treadle.journal.base import Journal
from treadle.journal.memory import MemoryJournal
from treadle.journal.postgres import PostgresJournal
from treadle.journal.sqlite import SqliteJournal

POSTGRES = pytest.param("postgres", marks=pytest.mark.needs("postgres"))
POOLED = pytest.param("pooled", marks=pytest.mark.needs("pgbouncer"))
"""PostgreSQL through a pooler, except for the connection that writes."""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "treadle.db"


def make_journal(kind: str, path: Path) -> Journal:
    """Makes a journal on a new database; `path` is that of SQLite."""
    match kind:
        case "memory":
            return MemoryJournal()
        case "postgres":
            return PostgresJournal(server().url())
        case "pooled":
            return PostgresJournal(server().url(), pooler=pooler().url())
        case "process" | "power":
            return SqliteJournal(path, durability=kind)
        case _:
            raise ValueError(kind)


@pytest.fixture(params=["memory", "process", "power", POSTGRES, POOLED])
async def journal(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Journal]:
    made = make_journal(request.param, path)
    await made.open()
    yield made
    await made.close()
