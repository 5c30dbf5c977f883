"""python -m chaos.soak [RUNS] [--seed N]: wears a server, and says whether it stayed as it was."""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from chaos.soak.server_process import started_server
from chaos.soak.wear import Wear, wear
from treadle.testing import SimulatorProcess

SHOWN = 20
GROWTH_A_RUN = 200
"""How many bytes a run may leave, beyond `NOISE`."""
NOISE = 4 * 1024 * 1024
WARM = 5
"""After this tenth of the runs, caches and tables of the interpreter have their size."""
DESCRIPTORS = 10
"""How many more there may be: connections to the provider stay open for a while."""


def main() -> int:
    """Wears a server; returns 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="chaos.soak", description=__doc__)
    parser.add_argument("runs", type=int, nargs="?", default=50_000)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--at-a-time", type=int, default=20, help="conversations")
    parser.add_argument("--settle", type=float, default=3.0, help="seconds before it measures")
    options = parser.parse_args()
    print(f"seed {options.seed}, {options.runs} runs", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="treadle-soak-") as folder:
        worn = asyncio.run(_worn(Path(folder), options))
    _judge(worn)
    megabytes = ", ".join(f"{size / 2**20:.1f}" for size in worn.resident)
    print(f"{'runs':26}{worn.runs:>8}")
    print(f"{'conversations':26}{worn.conversations:>8}")
    print(f"{'cut connections':26}{worn.cuts:>8}")
    print(f"{'MB':26}{megabytes}")
    print(f"{'descriptors':26}{', '.join(map(str, worn.descriptors))}")
    print(f"{'wrong':26}{len(worn.wrong):>8}")
    for finding in worn.wrong[:SHOWN]:
        print(f"  {finding[:400]}")
    print(f"{time.monotonic() - started:.0f} s")
    return int(bool(worn.wrong))


async def _worn(folder: Path, options: argparse.Namespace) -> Wear:
    async with (
        SimulatorProcess() as simulator,
        started_server(folder, simulator.base_url) as server,
    ):
        return await wear(server, options.runs, options.seed, options.settle, options.at_a_time)


def _judge(worn: Wear) -> None:
    growth = worn.resident[-1] - worn.resident[WARM - 1]
    if growth > NOISE + GROWTH_A_RUN * worn.runs // 2:
        worn.wrong.append(f"The memory grew by {growth:,} bytes in the second half.")
    before, after = worn.descriptors[WARM - 1], worn.descriptors[-1]
    if after > before + DESCRIPTORS:
        worn.wrong.append(f"{before} descriptors became {after} in the second half.")


if __name__ == "__main__":
    sys.exit(main())
