"""How fast the benchmark's server is: what a client sees that only counts bytes.

A check of the method: a delta must cost the server much less than it costs any party, or a party
would wait for the server, read smaller pieces and look dearer than it is.
"""

import http.client
import time
from urllib.parse import urlsplit

from benchmarks.bench import Bench
from benchmarks.plan import Plan
from benchmarks.row import Row

PLAN = Plan(deltas=20_000, batch=50)
PIECE = 1 << 16
TIMES = 5


def rows(bench: Bench) -> list[Row]:
    """Measures wall time per delta of a burst; the fastest of several."""
    fastest = min(_read(bench.url) for _ in range(1 + TIMES))
    figures = {"server": fastest / PLAN.deltas * 1e6}
    return [Row("provider_capacity", "µs/delta", figures, "wall, bytes only")]


def _read(url: str) -> float:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port)
    start = time.perf_counter()
    connection.request("POST", f"{parts.path}/responses", f'{{"model":"{PLAN.model}"}}')
    response = connection.getresponse()
    while response.read1(PIECE):
        pass
    connection.close()
    return time.perf_counter() - start
