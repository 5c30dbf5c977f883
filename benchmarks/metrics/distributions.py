"""How many distributions a plain install brings, treadle among them.

The closure of the requirements in the installed metadata, without extras, on this platform.
"""

from importlib.metadata import requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.bench import Bench
from benchmarks.row import Row, Target

LIMIT = 28


def closure(root: str) -> set[str]:
    """Returns the names of `root` and of everything it needs."""
    needed: set[tuple[str, str]] = set()
    waiting = [(canonicalize_name(root), "")]
    while waiting:
        entry = waiting.pop()
        if entry in needed:
            continue
        needed.add(entry)
        name, extra = entry
        for line in requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                extras = ("", *requirement.extras)
                waiting += [(canonicalize_name(requirement.name), each) for each in extras]
    return {name for name, _ in needed}


def rows(bench: Bench) -> list[Row]:
    """Counts those of treadle, and of the openai SDK beside."""
    counts = {
        "treadle": float(len(closure("treadle"))),
        "openai_sdk": float(len(closure("openai"))),
    }
    target = Target(f"<= {LIMIT}", counts["treadle"], LIMIT)
    return [Row("distributions", "", counts, "", (target,))]
