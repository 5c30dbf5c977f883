"""CPU of finding threads among 100,000: lists of one owner, filters, and what is unfinished.

One in a hundred threads belongs to the owner asked for, one in a thousand has not ended, each has a
ticket of its own, and a third have a field in common.
"""

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.row import Row, Target
from treadle.journal.base import ThreadQuery
from treadle.journal.labels import labels_of
from treadle.journal.sqlite import SqliteJournal

THREADS = 100_000
OWNERS = 100
UNFINISHED = 1_000
TIMES = 50
MOST_MS = 1.0

QUERIES: dict[str, ThreadQuery] = {
    "owner": ThreadQuery(owner="owner_7"),
    "stranger": ThreadQuery(owner="nobody"),
    "created": ThreadQuery(owner="owner_7", order="-created"),
    "status": ThreadQuery(status=["requires_action"]),
    "failed": ThreadQuery(owner="owner_7", status=["failed"]),
    "ticket": ThreadQuery(metadata={"ticket": 4711}),
    "common": ThreadQuery(owner="owner_7", metadata={"common": True}),
}


def rows(bench: Bench) -> list[Row]:
    """Measures all in this process."""
    with tempfile.TemporaryDirectory(prefix="treadle-bench-") as folder:
        figures = asyncio.run(_measure(Path(folder) / "treadle.db"))
    return [
        Row(
            f"find_threads.{name}",
            "ms CPU",
            {"treadle": figure},
            f"of {THREADS:,} threads",
            (Target("< 1 ms", figure, MOST_MS),),
        )
        for name, figure in figures.items()
    ]


async def _measure(path: Path) -> dict[str, float]:
    journal = SqliteJournal(path)
    await journal.open()
    try:
        await asyncio.to_thread(fill, path, THREADS)
        figures: dict[str, float] = {}
        for name, query in QUERIES.items():
            figures[name] = await _cpu(lambda query=query: journal.threads(query))
        figures["search"] = await _cpu(lambda: journal.marks(owner="nobody"))
        figures["unfinished"] = await _cpu(journal.unfinished)
    finally:
        await journal.close()
    return figures


def fill(path: Path, threads: int) -> None:
    """Adds threads to the tables, as an owner's conversations would."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    numbers = range(1, threads + 1)
    fields = [{"ticket": n, "common": n % 3 == 0} for n in numbers]
    connection.executemany(
        "INSERT INTO thread (n, id, agent, owner, metadata, created_at, forked_from, epoch)"
        " VALUES (?, ?, 'a', ?, ?, ?, '', 1)",
        [(n, f"thread_{n}", f"owner_{n % OWNERS}", b"{}", float(n)) for n in numbers],
    )
    connection.executemany(
        "INSERT INTO activity (n, status, updated_at, title, owner, listed)"
        " VALUES (?, ?, ?, 'a title', ?, 1)",
        [(n, _status(n), float(n * 7919 % threads), f"owner_{n % OWNERS}") for n in numbers],
    )
    connection.executemany(
        "INSERT INTO label VALUES (?, ?, ?)",
        [(*one, n) for n in numbers for one in labels_of("a", fields[n - 1])],
    )
    connection.execute("COMMIT")
    connection.close()


def _status(n: int) -> str:
    if n % UNFINISHED == 0:
        return "requires_action"
    return "failed" if n % 97 == 0 else "completed"


async def _cpu(call: Callable[[], Awaitable[object]]) -> float:
    await call()
    start = time.process_time()
    for _ in range(TIMES):
        await call()
    return (time.process_time() - start) / TIMES * 1e3
