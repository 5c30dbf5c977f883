"""CPU per text delta, from the provider's bytes to the consumer, in three rhythms.

`burst`: 20,000 deltas at full speed, 50 in an HTTP chunk. `chunked`: 20,000 at full speed, each in
a chunk of its own. `paced`: 1,000, each a write of its own, 1 ms after the one before, so that
each costs its own turn of the event loop, system calls and all, as from a real provider.
Each repeat is a fresh process; the second response it reads is measured. Where a party joins
deltas, the CPU is divided by those it handed over, not by those sent.
"""

import time

from benchmarks.bench import CORE, Bench, figures_of
from benchmarks.party import Party
from benchmarks.plan import Plan
from benchmarks.row import Row, Target, ratio
from benchmarks.work import Figures, Options

REPEATS = 5
FLOOR_LIMIT = 2.0
SDK_LIMIT = 1 / 6


async def work(party: Party, options: Options) -> Figures:
    """Returns µs of CPU per delta, and how many deltas the consumer was handed."""
    model = Plan(**options).model
    await party.read(model)
    start = time.process_time()
    deltas = await party.read(model)
    seconds = time.process_time() - start
    _require_all(deltas, options)
    return {"cpu": seconds / len(deltas) * 1e6, "handed": float(len(deltas))}


def _require_all(deltas: list[str], options: Options) -> None:
    length, sent = sum(map(len, deltas)), options["deltas"] * Plan().size
    if length != sent:
        raise RuntimeError(f"{length} characters came of {sent}")


def rows(bench: Bench) -> list[Row]:
    """Measures and judges each rhythm."""
    return [
        _row(bench, "text_delta_cpu.burst", deltas=20_000, batch=50),
        _row(bench, "text_delta_cpu.chunked", deltas=20_000, batch=1),
        _row(bench, "text_delta_cpu.paced", deltas=1_000, every=1),
    ]


def _row(bench: Bench, name: str, **options: int) -> Row:
    taken = bench.interleave("text_delta_cpu", CORE, REPEATS, peers=True, **options)
    cpu = figures_of(taken, "cpu")
    handed, sent = taken["treadle"]["handed"], options["deltas"]
    joined = f", {handed:.0f} of {sent} handed over" if handed < sent else ""
    return Row(
        name,
        "µs/delta",
        cpu,
        ratio(cpu, "floor", "openai_sdk") + joined,
        (
            Target("<= 2 x floor", cpu["treadle"] / cpu["floor"], FLOOR_LIMIT),
            Target("<= 1/6 openai_sdk", cpu["treadle"] / cpu["openai_sdk"], SDK_LIMIT),
        ),
    )
