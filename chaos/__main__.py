"""python -m chaos [KILLS] [--seed N]: kills, and says whether anything was lost or doubled."""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from chaos.campaign import WorkerFailed, campaign
from chaos.verdict import Verdict

SHOWN = 20


def main() -> int:
    """Runs a campaign; returns 1 if it found anything."""
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("kills", type=int, nargs="?", default=50)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    started = time.monotonic()
    verdict: Verdict | None = None
    print(f"seed {options.seed}, {options.kills} kills", flush=True)
    with tempfile.TemporaryDirectory(prefix="weft-chaos-") as folder:
        try:
            verdict = asyncio.run(campaign(options.kills, options.seed, Path(folder)))
        except* WorkerFailed as group:
            print(*group.exceptions, sep="\n")
    if verdict is None:
        return 1
    _print(verdict, time.monotonic() - started)
    return 0 if verdict.is_clean else 1


def _print(verdict: Verdict, seconds: float) -> None:
    for name in ("kills", "threads", "runs", "messages", "tool_calls", "events"):
        print(f"{name.replace('_', ' '):12}{getattr(verdict, name):>8}")
    for name in ("losses", "duplicates", "wrong"):
        found: list[str] = getattr(verdict, name)
        print(f"{name:12}{len(found):>8}")
        for finding in found[:SHOWN]:
            print(f"  {finding}")
    print(f"{seconds:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
