"""python -m chaos.inside [ROUNDS] [--seed N]: rounds of attacks inside one process."""

import argparse
import random
import sys
import time

from chaos.findings import Findings
from chaos.inside.round import play
from treadle.testing.clock import run

SHOWN = 20


def main() -> int:
    """Plays rounds; returns 1 if one found anything."""
    parser = argparse.ArgumentParser(prog="chaos.inside", description=__doc__)
    parser.add_argument("rounds", type=int, nargs="?", default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32))
    options = parser.parse_args()
    started, total = time.monotonic(), Findings()
    print(f"seed {options.seed}, {options.rounds} rounds", flush=True)
    for number in range(options.rounds):
        seed = options.seed + number
        found = run(play(seed))
        total.counts += found.counts
        for name in ("losses", "duplicates", "wrong"):
            texts = [f"--seed {seed}: {text}" for text in getattr(found, name)]
            getattr(total, name).extend(texts)
    for name, count in sorted(total.counts.items()):
        print(f"{name:26}{count:>8}")
    for name in ("losses", "duplicates", "wrong"):
        texts = getattr(total, name)
        print(f"{name:26}{len(texts):>8}")
        for text in texts[:SHOWN]:
            print(f"  {text}")
    print(f"{time.monotonic() - started:.0f} s")
    return 0 if total.is_clean else 1


if __name__ == "__main__":
    sys.exit(main())
