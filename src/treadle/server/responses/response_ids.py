"""Ids of responses: that of their run, and a number for each part after the first."""

from treadle.errors import RunNotFound

MAX_PARTS = 6  # digits


def response_id(run_id: str, part: int) -> str:
    """Returns the id of a part of a run, counted from 1: parts end where the client must answer."""
    return run_id if part == 1 else f"{run_id}.{part}"


def run_and_part(id: str) -> tuple[str, int]:
    """Returns the run and the part of a response; raises `RunNotFound` for what is not an id."""
    run_id, dot, part = id.partition(".")
    if not dot:
        return run_id, 1
    if part.isascii() and part.isdigit() and len(part) <= MAX_PARTS and int(part) > 1:
        return run_id, int(part)
    raise RunNotFound(f"There is no response {id[:100]!r}.")
