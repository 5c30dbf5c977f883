"""CPU of a tool round: a response that calls one trivial async tool, and the next request.

20 conversations of 10 rounds, one after the other on one connection. The floor does the same 11
HTTP exchanges with the same bodies, and calls the same function.
"""

import time

from benchmarks.bench import CORE, Bench, figures_of
from benchmarks.party import Party
from benchmarks.plan import Plan
from benchmarks.row import Row, Target, ratio
from benchmarks.work import Figures, Options

REPEATS = 5
LIMIT_MS = 0.5
ROUNDS = 10
CONVERSATIONS = 20


async def work(party: Party, options: Options) -> Figures:
    """Returns ms of CPU per round."""
    model = Plan(calls=1, rounds=options["rounds"]).model
    for _ in range(2):
        await party.converse(model)
    start = time.process_time()
    for _ in range(CONVERSATIONS):
        await party.converse(model)
    seconds = time.process_time() - start
    return {"cpu": seconds / (CONVERSATIONS * options["rounds"]) * 1e3}


def rows(bench: Bench) -> list[Row]:
    """Measures treadle's CPU per round beyond the floor's."""
    cpu = figures_of(
        bench.interleave("tool_round_trip", CORE, REPEATS, peers=True, rounds=ROUNDS), "cpu"
    )
    added = cpu["treadle"] - cpu["floor"]
    target = Target("<= floor + 0.5 ms", added, LIMIT_MS)
    text = f"{added:+.3f} ms, {ratio(cpu, 'floor', 'openai_sdk')}"
    return [Row("tool_round_trip", "ms/round", cpu, text, (target,))]
