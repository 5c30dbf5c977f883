"""Times of requests: Unix seconds, as the API writes them."""

from datetime import UTC, datetime

from treadle.errors import InvalidInput


def moment(name: str, seconds: float | None) -> datetime | None:
    """Returns the time that the field `name` has; raises `InvalidInput` for one out of range."""
    if seconds is None:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidInput(f"{name}={seconds:g} is not a time in Unix seconds.") from error
