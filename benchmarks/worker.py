"""A worker: one party does one measure in a fresh process and prints a line of JSON.

`python -m benchmarks.worker PARTY METRIC URL OPTIONS`, with the interpreter of that party's venv.
It imports that party and that metric only, so that no party disturbs another.
"""

import asyncio
import json
import sys
from importlib import import_module
from typing import cast

from benchmarks.cores import WORKER, pin
from benchmarks.party import Connect
from benchmarks.work import Figures, Options, Work


def main() -> None:
    """Measures and prints."""
    party, metric, url, options = sys.argv[1:5]
    pin(WORKER)
    connect = cast("Connect", import_module(f"benchmarks.parties.{party}").connect)
    work = cast("Work", import_module(f"benchmarks.metrics.{metric}").work)
    print(json.dumps(asyncio.run(_measure(connect, work, url, json.loads(options)))))


async def _measure(connect: Connect, work: Work, url: str, options: Options) -> Figures:
    async with connect(url) as party:
        return await work(party, options)


if __name__ == "__main__":
    main()
