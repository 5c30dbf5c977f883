"""ms for the ten best of 100,000 passages with vectors of 384 numbers, and µs to put one in.

Through the public API, on a journal on disk: passages of 25 words, drawn as words are in texts (the
commonest in every tenth place), with random vectors, put in 256 at a time. *insert* waits until
each can be found, by words and by its vector. *cold* are the first searches of a process: the very
first reads what filters need to know of all passages, and the second the file of the vectors as
the system kept it. The others are medians of warm searches, one after the other; *tags* and *dates*
leave a fifth and two fifths of the passages, *common* asks for the commonest words only. The target
is that of all warm searches.
"""

import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import treadle
from benchmarks.bench import Bench
from benchmarks.row import Row, Target
from treadle.memory import CallableEmbedder

PASSAGES = 100_000
DIMENSIONS = 384
WORDS = 20_000
LENGTH = 25
PARTS = 10
SEARCHES = 30
LIMIT_MS = 20.0
MOST_US = 1e6 / 2_000
OWNER = "bench"
FILTERS: dict[str, dict[str, Any]] = {
    "": {},
    ".tags": {"any_tags": ["part3", "part4"]},
    ".dates": {"since": "2026-01-03", "until": "2026-01-06"},
}


def rows(bench: Bench) -> list[Row]:
    """Measures in this process."""
    with tempfile.TemporaryDirectory(prefix="treadle-bench-") as folder:
        url = f"sqlite:///{Path(folder) / 'treadle.db'}"
        insert, alone = asyncio.run(_insert(url))
        searches = asyncio.run(_search(url))
    fast = Target(">= 2,000/s", insert, MOST_US)
    return [
        Row("archive_insert.many", "µs", {"treadle": insert}, f"{1e6 / insert:,.0f}/s", (fast,)),
        Row("archive_insert.alone", "µs", {"treadle": alone}, f"{1e6 / alone:,.0f}/s"),
        *(_row(name, value) for name, value in searches.items()),
    ]


def _row(name: str, value: float) -> Row:
    quick = Target(f"<= {LIMIT_MS:g} ms", value, LIMIT_MS)
    targets = () if name.startswith("cold") else (quick,)
    return Row(f"archive_search.{name}", "ms", {"treadle": value}, "", targets)


def _runtime(url: str) -> treadle.Runtime:
    chance = np.random.default_rng(1)

    def embed(texts: list[str]) -> Any:
        return chance.standard_normal((len(texts), DIMENSIONS), dtype=np.float32)

    return treadle.open(url, embedder=CallableEmbedder(embed, name="random", dimensions=DIMENSIONS))


def _writer() -> Callable[[], str]:
    chance = random.Random(1)
    weights = list(itertools.accumulate(1 / (rank + 1) for rank in range(WORDS)))
    names = [f"w{rank}" for rank in range(WORDS)]
    return lambda: " ".join(chance.choices(names, cum_weights=weights, k=LENGTH))


async def _insert(url: str) -> tuple[float, float]:
    """Returns µs for each of many, and for one after the other."""
    write = _writer()
    parts = [[write() for _ in range(PASSAGES // PARTS)] for _ in range(PARTS)]
    async with _runtime(url) as runtime:
        archive = runtime.archive(owner=OWNER)
        start = time.perf_counter()
        for number, texts in enumerate(parts):
            day = f"2026-01-{number + 1:02}"
            await archive.insert_many(texts, tags=[f"part{number}"], created_at=day)
        await archive.follow()
        each = (time.perf_counter() - start) / PASSAGES * 1e6
        start = time.perf_counter()
        for _ in range(SEARCHES * 10):
            await archive.insert(write())
        alone = (time.perf_counter() - start) / (SEARCHES * 10) * 1e6
        await archive.follow()
    return each, alone


async def _search(url: str) -> dict[str, float]:
    chance = random.Random(2)

    def query() -> str:
        """Five words of a text: some of them common, some rare."""
        return " ".join(f"w{int(WORDS ** chance.random())}" for _ in range(5))

    taken: dict[str, float] = {}
    async with _runtime(url) as runtime:
        archive = runtime.archive(owner=OWNER)

        async def timed(text: str, **options: Any) -> float:
            start = time.perf_counter()
            found = await archive.search(text, **options)
            if len(found) != 10:  # an assertion would cost as much in the figures
                raise RuntimeError(f"{len(found)} passages were found for {text!r}")
            return (time.perf_counter() - start) * 1e3

        taken["cold.first"] = await timed(query(), by="vector")
        taken["cold.second"] = await timed(query(), by="vector")
        for way in ("text", "vector", "both"):
            for name, options in FILTERS.items():
                times = [await timed(query(), by=way, **options) for _ in range(SEARCHES)]
                taken[f"{way}{name}"] = median(times)
            taken[f"{way}.common"] = median(
                [await timed("w0 w1 w2", by=way) for _ in range(SEARCHES)]
            )
    return taken
