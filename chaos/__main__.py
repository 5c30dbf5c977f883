"""python -m chaos [KILLS] [--seed N]: kills, and says whether anything was lost or doubled."""

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

from chaos.campaign import WorkerFailed, campaign
from chaos.points import POINTS
from chaos.verdict import Verdict

SHOWN = 20


def main() -> int:
    """Runs a campaign; returns 1 if it found anything."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    parser.add_argument("--keep", type=Path, help="a new folder for databases and logs")
    parser.add_argument("--database", help="the URL of a PostgreSQL server; files without it")
    options = parser.parse_args()
    if options.database:
        os.environ["CHAOS_DATABASE"] = options.database  # for the workers as well
    started = time.monotonic()
    verdict: Verdict | None = None
    print(f"seed {options.seed}, {options.kills} kills", flush=True)
    if options.keep is not None:
        options.keep.mkdir()
    kept = None if options.keep is None else nullcontext(str(options.keep))
    with kept or tempfile.TemporaryDirectory(prefix="treadle-chaos-") as folder:
        try:
            verdict = asyncio.run(campaign(options.kills, options.seed, Path(folder)))
        except* WorkerFailed as group:
            print(*group.exceptions, sep="\n")
    if verdict is None:
        return 1
    _print(verdict, time.monotonic() - started)
    return 0 if verdict.is_clean else 1


def _print(verdict: Verdict, seconds: float) -> None:
    for name in ("kills", "threads"):
        print(f"{name:26}{getattr(verdict, name):>8}")
    for name, count in sorted(verdict.counts.items()):
        print(f"{name:26}{count:>8}")
    print(f"{'kills at commit points':26}{verdict.points.total():>8}")
    print(f"{'commit points':26}{len(verdict.points):>8} of {len(POINTS)}")
    for name in ("losses", "duplicates", "wrong"):
        found: list[str] = getattr(verdict, name)
        print(f"{name:26}{len(found):>8}")
        for finding in found[:SHOWN]:
            print(f"  {finding}")
    print(f"{seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
