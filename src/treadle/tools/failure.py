"""Describes an exception for a model: its type and message, never a traceback."""

from treadle.tools.output import truncated

MAX_FAILURE = 2000


def explain_failure(error: BaseException) -> str:
    """Returns `TypeOfError: message`, at most 2,000 characters and encodable as UTF-8."""
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - a broken __str__ must not hide the failure it describes
        message = "(its message cannot be shown)"
    kind = type(error).__name__
    return truncated(f"{kind}: {message}" if message else kind, MAX_FAILURE)
