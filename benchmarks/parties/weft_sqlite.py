"""weft on threads that are kept in SQLite, in a folder of its own."""

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks.parties.weft_threads import WeftThreads, threads


@asynccontextmanager
async def connect(url: str) -> AsyncIterator[WeftThreads]:
    """Opens a runtime on a fresh database."""
    with tempfile.TemporaryDirectory(prefix="weft-bench-") as folder:
        async with threads(url, f"sqlite:///{Path(folder, 'weft.db')}") as party:
            yield party
