"""A validation error in words that a model can act upon."""

from pydantic import ValidationError

_MAX_PROBLEMS = 10
_MAX_CHARS = 300


def explain_validation(error: ValidationError) -> str:
    """Returns where each problem is and what it is, in at most ten parts."""
    problems = [
        f"{_place(problem['loc'])}{problem['msg'][:_MAX_CHARS]}"
        for problem in error.errors(include_url=False, include_context=False)
    ]
    more = len(problems) - _MAX_PROBLEMS
    rest = [f"and {more} more problems"] if more > 0 else []
    return "; ".join(problems[:_MAX_PROBLEMS] + rest)


def _place(location: tuple[int | str, ...]) -> str:
    path = ".".join(str(part)[:_MAX_CHARS] for part in location)
    return f"{path}: " if path else ""
