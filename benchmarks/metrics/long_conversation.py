"""A turn of a conversation that is kept, at a length of 10, 100 and 1,000 messages.

CPU of the turn, and what it writes to files: `wchar` of /proc/self/io, which counts the bytes given
to write calls, those to sockets left out, because they are sent by other calls. A turn is one
request and a short text; the request carries the whole conversation.
"""

import time
from pathlib import Path
from typing import Any, cast

from benchmarks.bench import Bench, WorkerFailed
from benchmarks.party import Party
from benchmarks.plan import Plan
from benchmarks.row import Row
from benchmarks.work import Figures, Options

LENGTHS = (10, 100, 1_000)
TURNS = 10
PEERS = {"openai_agents": "openai_agents_sqlite", "langgraph": "langgraph_sqlite"}


async def work(party: Party, options: Options) -> Figures:
    """Returns ms of CPU and KB written per turn, at each length."""
    talk = cast("Any", party)
    model = Plan().model
    figures: Figures = {}
    messages = 0
    for length in LENGTHS:
        while messages < length:
            await talk.turn(model)
            messages += 2
        written, start = _written(), time.process_time()
        for _ in range(TURNS):
            await talk.turn(model)
        figures[f"cpu.{length}"] = (time.process_time() - start) / TURNS * 1e3
        figures[f"written.{length}"] = (_written() - written) / TURNS / 1024
        messages += 2 * TURNS
    return figures


def _written() -> int:
    for line in Path("/proc/self/io").read_text(encoding="ascii").splitlines():
        if line.startswith("wchar:"):
            return int(line.split()[1])
    raise RuntimeError("The system does not say what was written.")


def rows(bench: Bench) -> list[Row]:
    """Measures treadle, and the peers that are installed, each once."""
    taken = {
        "treadle": bench.interleave("long_conversation", ("treadle_sqlite",), 1, peers=False)[
            "treadle_sqlite"
        ]
    }
    for name, party in PEERS.items():
        if name in bench.peers:
            try:
                taken[name] = bench.run(party, "long_conversation", bench.peers[name])
            except WorkerFailed as error:
                print(error)
    return [
        Row(
            f"long_conversation.{kind}.{length}",
            unit,
            {party: figures[f"{kind}.{length}"] for party, figures in taken.items()},
        )
        for kind, unit in (("cpu", "ms/turn"), ("written", "KB/turn"))
        for length in LENGTHS
    ]
