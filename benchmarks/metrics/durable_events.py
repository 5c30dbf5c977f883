"""µs per durable event, and what an append costs on a long thread.

*throughput*: 50 threads append batches of four events of 300 bytes at the same time, each waiting
until its batch is durable. *append*: CPU of a batch on a thread of 100,000 events, and on one of
100, in turn.
"""

import asyncio
import tempfile
import time
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench
from benchmarks.row import Row, Target
from treadle.domain.envelope import Envelope
from treadle.domain.events import MessageAdded
from treadle.domain.items import Message, OutputText
from treadle.journal.base import Batch, Claim, ThreadInfo
from treadle.journal.sqlite import SqliteJournal

THREADS = 50
EVENTS = 2_000
BATCH = 4
LONG, SHORT = 100_000, 100
ROUNDS = 7
APPENDS = 300
MOST_US = 1e6 / 30_000
FLAT = 1.2

_MESSAGE = Message(
    "assistant", (OutputText("what was said " * 12),), "msg_01jd0000000000000000000000"
)


def rows(bench: Bench) -> list[Row]:
    """Measures both in this process."""
    with tempfile.TemporaryDirectory(prefix="treadle-bench-") as folder:
        each, long, short = asyncio.run(_measure(Path(folder)))
    fast = Target(">= 30,000 events/s", each, MOST_US)
    flat = Target("long <= 1.2 x short", long / short, FLAT)
    return [
        Row(
            "durable_events.throughput",
            "µs/event",
            {"treadle": each},
            f"{1e6 / each:,.0f}/s",
            (fast,),
        ),
        Row(
            "durable_events.append",
            "µs CPU/append",
            {"long": long, "short": short},
            f"{long / short:.2f} x",
            (flat,),
        ),
    ]


async def _measure(folder: Path) -> tuple[float, float, float]:
    journal = SqliteJournal(folder / "treadle.db")
    await journal.open()
    try:
        writers = [Writer(journal, await _claim(journal, n)) for n in range(THREADS)]
        start = time.perf_counter()
        await asyncio.gather(*(writer.append(EVENTS // BATCH) for writer in writers))
        each = (time.perf_counter() - start) / (THREADS * EVENTS) * 1e6
        long, short = [Writer(journal, await _claim(journal, THREADS + n)) for n in range(2)]
        await long.append(LONG // 200, 200)
        await short.append(SHORT // BATCH)
        pairs = [(await _cpu(long), await _cpu(short)) for _ in range(ROUNDS)]
    finally:
        await journal.close()
    return each, median(a for a, _ in pairs), median(b for _, b in pairs)


async def _claim(journal: SqliteJournal, number: int) -> Claim:
    return await journal.create(
        ThreadInfo(id=f"thread_{number}", agent="a", created_at=0.0, updated_at=0.0)
    )


async def _cpu(writer: "Writer") -> float:
    start = time.process_time()
    await writer.append(APPENDS)
    return (time.process_time() - start) / APPENDS * 1e6


class Writer:
    """Appends to one thread."""

    def __init__(self, journal: SqliteJournal, claim: Claim) -> None:
        self._journal = journal
        self._claim = claim
        self._seq = 0

    async def append(self, times: int, batch: int = BATCH) -> None:
        """Appends `times` batches, one after the other."""
        for _ in range(times):
            first = self._seq + 1
            self._seq += batch
            entries = [
                Envelope(
                    MessageAdded(seq=seq, at=1.0, run_id="run_1", item=_MESSAGE, origin="model"),
                    seq,
                )
                for seq in range(first, first + batch)
            ]
            await self._journal.append(Batch(self._claim, entries))
