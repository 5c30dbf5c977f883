"""The journals under test; SQLite needs real time, because it has threads of its own."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from treadle.journal.base import Journal
from treadle.journal.memory import MemoryJournal
from treadle.journal.sqlite import SqliteJournal


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "treadle.db"


@pytest.fixture(params=["memory", "process", "power"])
async def journal(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[Journal]:
    made: Journal
    made = (
        MemoryJournal()
        if request.param == "memory"
        else SqliteJournal(path, durability=request.param)
    )
    await made.open()
    yield made
    await made.close()
