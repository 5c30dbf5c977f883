"""The delay of what a call says to the user, from its bytes in the decoder to the subscriber.

The call has other arguments before it, which come in deltas of 400 characters, one each
millisecond. Beside it, without a target, stands the delay from the server's write, with what the
network and the machine add: the first delta is the server's `time.monotonic_ns` in the instant of
its write, and on one machine that clock is the same in every process.
"""

import time
from collections.abc import Iterable
from statistics import median

import treadle
from benchmarks.bench import Bench
from benchmarks.party import QUESTION, Party, note
from benchmarks.plan import STAMP_WIDTH, Plan, stamp_of
from benchmarks.quantile import quantile
from benchmarks.row import Row, Target
from benchmarks.work import Figures, Options
from treadle import Agent, ToUserDelta
from treadle.models.base import ModelRequest
from treadle.models.http import HttpModel
from treadle.models.wire.base import Decoder
from treadle.models.wire.responses import ResponsesWire
from treadle.streaming.demux import StreamEvent

REPEATS = 3
LIMIT_MS = 1.0
ROUNDS = 60
WARM_UP = 5
BEFORE = {"1KB": 1_000, "100KB": 100_000}


class _Noting:
    """A decoder that notes when the bytes came that begin what is said to the user."""

    def __init__(self, decoder: Decoder, arrivals: list[int]) -> None:
        self._decoder = decoder
        self._arrivals = arrivals
        self._mark = b" Let me note that."

    @property
    def finished(self) -> bool:
        return self._decoder.finished

    @property
    def stopped(self) -> bool:
        return self._decoder.stopped

    @property
    def progressed(self) -> bool:
        return self._decoder.progressed

    def feed(self, chunk: bytes) -> Iterable[StreamEvent]:
        if self._mark and self._mark in chunk:
            self._mark = b""
            self._arrivals.append(time.monotonic_ns())
        return self._decoder.feed(chunk)

    def end(self) -> Iterable[StreamEvent]:
        return self._decoder.end()


class _NotingWire(ResponsesWire):
    def __init__(self) -> None:
        self.arrivals: list[int] = []

    def decoder(self, request: ModelRequest) -> Decoder:
        return _Noting(super().decoder(request), self.arrivals)  # type: ignore[return-value]


async def work(party: Party, options: Options) -> Figures:
    """Returns the delays in ms: from the server's write, and from the bytes in the decoder."""
    plan = Plan(calls=1, rounds=1, stamped=1, deltas=2, every=1, before=options["before"])
    wire = _NotingWire()
    url = f"http://127.0.0.1:{options['port']}/v1"
    model = HttpModel(plan.model, wire, base_url=url, api_key="")
    agent = Agent(model, tools=[note], to_user=True)
    seen: list[tuple[str, int]] = []
    async with treadle.open(None, agents=[agent]) as runtime:
        for _ in range(WARM_UP + ROUNDS):
            thread = await runtime.create_thread(agent)
            seen.append(await _first_said(thread))
    if len(wire.arrivals) != len(seen):
        raise RuntimeError("The bytes were not seen to come.")
    kept = list(zip(seen, wire.arrivals, strict=True))[WARM_UP:]
    from_write = [(at - stamp_of(text)) / 1e6 for (text, at), _ in kept]
    from_bytes = [(at - arrival) / 1e6 for (_, at), arrival in kept]
    return {
        "p50": median(from_write),
        "p99": quantile(from_write, 0.99),
        "bytes_p50": median(from_bytes),
        "bytes_p99": quantile(from_bytes, 0.99),
    }


async def _first_said(thread: treadle.Thread) -> tuple[str, int]:
    """Runs a conversation to its end; returns the first delta to the user, and when it came."""
    first: tuple[str, int] | None = None
    async for event in await thread.send(QUESTION):
        if isinstance(event, ToUserDelta) and first is None:
            first = event.delta, time.monotonic_ns()
    assert first is not None
    assert len(first[0]) >= STAMP_WIDTH
    return first


def rows(bench: Bench) -> list[Row]:
    """Measures it behind 1 KB and behind 100 KB of other arguments."""
    return [_row(bench, name, before) for name, before in BEFORE.items()]


def _row(bench: Bench, name: str, before: int) -> Row:
    port = int(bench.url.rpartition(":")[2].partition("/")[0])
    taken = bench.interleave(
        "to_user_delay", ("treadle",), REPEATS, peers=False, port=port, before=before
    )["treadle"]
    text = (
        f"median {taken['bytes_p50']:.3f}; from the server's write: median {taken['p50']:.3f}, "
        f"p99 {taken['p99']:.3f}"
    )
    target = Target("<= 1 ms", taken["bytes_p99"], LIMIT_MS)
    return Row(f"to_user_delay.{name}", "ms p99", {"treadle": taken["bytes_p99"]}, text, (target,))
