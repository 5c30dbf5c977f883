"""An error as one line for the person who ran the command."""

from weft.cli.plain_text import clean, one_line
from weft.errors import WeftError


def in_one_line(error: BaseException) -> str:
    """Returns what went wrong; an error that is not weft's own is named by its type."""
    if isinstance(error, WeftError):
        return clean(one_line(error.message))
    return clean(one_line(f"{type(error).__name__}: {error}".rstrip(": ")))
