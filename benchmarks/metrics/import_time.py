"""Wall time of the imports of a program in a fresh process, less that of an idle interpreter.

`import treadle` alone loads next to nothing, so the names that a program uses are imported.
"""

import subprocess
import sys
import time
from statistics import median

from benchmarks.bench import Bench
from benchmarks.row import Row, Target

REPEATS = 11
LIMIT_MS = 150.0
NAMES = "from treadle import Agent, Runtime, tool"
PARTIES = {"treadle": NAMES, "openai_sdk": "import openai", "bare": "pass"}


def rows(bench: Bench) -> list[Row]:
    """Measures treadle and the openai SDK in turn; the first round fills the file cache."""
    taken: dict[str, list[float]] = {name: [] for name in PARTIES}
    for _ in range(1 + REPEATS):
        for name, code in PARTIES.items():
            taken[name].append(_milliseconds(code))
    medians = {name: median(times[1:]) for name, times in taken.items()}
    bare = medians.pop("bare")
    spent = {name: value - bare for name, value in medians.items()}
    target = Target("<= 150 ms", spent["treadle"], LIMIT_MS)
    return [Row("import_time", "ms", spent, f"bare interpreter {bare:.0f} ms", (target,))]


def _milliseconds(code: str) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return (time.perf_counter() - start) * 1e3
