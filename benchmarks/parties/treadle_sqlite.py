"""treadle on threads that are kept in SQLite, in a folder of its own."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.parties.treadle_threads import TreadleThreads, threads


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[TreadleThreads]:
    """Opens a runtime on a fresh database."""
    with tempfile.TemporaryDirectory(prefix="treadle-bench-") as folder:
        async with threads(url, f"sqlite:///{Path(folder, 'treadle.db')}") as party:
            yield party
