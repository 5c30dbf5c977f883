"""CPU per text delta, from the provider's bytes to the consumer, in two rhythms.

`burst`: 20,000 deltas at full speed, 50 in a chunk. `paced`: each delta is a write of its own, 1 ms
after the one before, so every delta costs its own turn of the event loop, as from a real provider.
Each repeat is a fresh process that reads a short response first.
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
    """Returns µs of CPU per delta sent, and how many deltas the consumer was handed."""
    await party.read(Plan(deltas=500, batch=50).model)
    model = Plan(**options).model
    start = time.process_time()
    deltas = await party.read(model)
    seconds = time.process_time() - start
    _require_all(deltas, options)
    return {"cpu": seconds / options["deltas"] * 1e6, "handed": float(len(deltas))}


def _require_all(deltas: list[str], options: Options) -> None:
    length, sent = sum(map(len, deltas)), options["deltas"] * Plan().size
    if length != sent:
        raise RuntimeError(f"{length} characters came of {sent}")


def rows(bench: Bench) -> list[Row]:
    """Measures both rhythms."""
    return [
        _row(bench, "text_delta_cpu.burst", deltas=20_000, batch=50),
        _row(bench, "text_delta_cpu.chunked", deltas=20_000, batch=1),
        _row(bench, "text_delta_cpu.paced", deltas=2_000, every=1),
    ]


def _row(bench: Bench, name: str, **options: int) -> Row:
    taken = bench.interleave("text_delta_cpu", CORE, REPEATS, peers=True, **options)
    cpu = figures_of(taken, "cpu")
    return Row(
        name,
        "µs/delta",
        cpu,
        ratio(cpu, "floor", "openai_sdk"),
        (
            Target("<= 2 x floor", cpu["weft"] / cpu["floor"], FLOOR_LIMIT),
            Target("<= 1/6 openai_sdk", cpu["weft"] / cpu["openai_sdk"], SDK_LIMIT),
        ),
    )
