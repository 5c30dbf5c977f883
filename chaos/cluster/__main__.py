"""python -m chaos.cluster [ATTACKS] [--seed N]: attacks nodes, and says what was lost."""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from tests import restate_server
from tests.postgres import new_server

from chaos.cluster.campaign import Campaign, NotAtRest

KINDS = ("kill", "freeze", "end", "cut", "restart")
SHOWN = 20


def main() -> int:
    """Runs a campaign; returns 1 if it found anything."""
    parser = argparse.ArgumentParser(prog="chaos.cluster", description=__doc__)
    parser.add_argument("attacks", type=int, nargs="?", default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--threads", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=0.05, help="between two deltas")
    parser.add_argument("--kinds", default=",".join(KINDS), help="which attacks; deploy, too")
    parser.add_argument(
        "--real-heartbeat",
        action="store_true",
        help="replace a node that stands still after 15 s; it is frozen for 60 s",
    )
    parser.add_argument("--engine", choices=("postgres", "restate"), default="postgres")
    parser.add_argument("--keep", type=Path, help="a folder for the logs of the nodes")
    options = parser.parse_args()
    kept: Path | None = options.keep
    if kept is not None and kept.exists() and (not kept.is_dir() or any(kept.iterdir())):
        parser.error(f"{kept} is not an empty folder: what is there would be judged as well")
    started = time.monotonic()
    print(f"seed {options.seed}, {options.attacks} attacks", flush=True)
    server = new_server()
    restate = restate_server.server() if options.engine == "restate" else None
    try:
        with tempfile.TemporaryDirectory(prefix="treadle-cluster-") as folder:
            kept = kept or Path(folder)
            kept.mkdir(exist_ok=True)
            kinds = options.kinds.split(",")
            campaign = Campaign(
                *(server, kept, options.seed, kinds, restate),
                has_real_heartbeat=options.real_heartbeat,
            )
            try:
                asyncio.run(campaign.run(options.attacks, options.threads, options.seconds))
            except NotAtRest as error:
                print(error)
                return 1
    finally:
        server.remove()
    findings = campaign.findings
    for name, count in sorted(findings.counts.items()):
        print(f"{name:26}{count:>8}")
    for name, seconds in campaign.takeovers.lines():
        print(f"{name:26}{seconds}")
    for name in ("losses", "duplicates", "wrong"):
        found: list[str] = getattr(findings, name)
        print(f"{name:26}{len(found):>8}")
        for finding in found[:SHOWN]:
            print(f"  {finding}")
    print(f"{time.monotonic() - started:.0f} s")
    return 0 if findings.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
