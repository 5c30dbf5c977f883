"""The text on standard input."""

import sys

from treadle.errors import InvalidInput

MAX_BYTES = 10_000_000


def read_text() -> str:
    """Returns the text on standard input; raises `InvalidInput` if it is too long or not UTF-8."""
    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InvalidInput(f"Standard input has more than {MAX_BYTES:,} bytes.")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"The text on standard input is not UTF-8 (byte {error.start}); convert it first."
        ) from error
