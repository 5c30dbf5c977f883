"""Describes a validation error so that a model can act upon it."""

from treadle.tools import deferred_pydantic as pydantic
from treadle.tools.output import truncated

_MAX_PROBLEMS = 10
_MAX_CHARS = 300
_MAX_TOTAL = 2000


def explain_validation(error: "pydantic.ValidationError") -> str:
    """Returns the place and kind of each problem, at most ten, in at most 2,000 characters."""
    problems = [
        f"{_place(problem['loc'])}{problem['msg'][:_MAX_CHARS]}"
        for problem in error.errors(include_url=False, include_context=False)
    ]
    more = len(problems) - _MAX_PROBLEMS
    rest = [f"and {more} more problems"] if more > 0 else []
    return truncated("; ".join(problems[:_MAX_PROBLEMS] + rest), _MAX_TOTAL)


def _place(location: tuple[int | str, ...]) -> str:
    path = ".".join(str(part)[:_MAX_CHARS] for part in location)
    return f"{path}: " if path else ""
