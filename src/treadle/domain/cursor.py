"""Cursors: where a page of a list ended, as a text that only this module reads."""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import TypeVar

import msgspec

from treadle.errors import InvalidInput

T = TypeVar("T")

MAX_CURSOR = 2000
"""Characters of the longest cursor that is read."""


def cursor(order: str, *key: object) -> str:
    """Returns the cursor of the entry with this sort key, in a list with this order."""
    return urlsafe_b64encode(msgspec.json.encode((order, *key))).decode().rstrip("=")


def key_at(text: str, order: str, kind: type[T]) -> T:
    """Returns the sort key, a tuple type `kind`, that a cursor contains.

    Raises `InvalidInput` for a text that is not a cursor, and for one of a list with another order.
    """
    try:
        if len(text) > MAX_CURSOR:
            raise ValueError
        padded = text + "=" * (-len(text) % 4)
        first, *key = msgspec.json.decode(
            urlsafe_b64decode(padded.encode("ascii")), type=list[object]
        )
        if first == order:
            return msgspec.convert(key, kind)
    except (ValueError, binascii.Error, msgspec.MsgspecError, RecursionError):
        pass
    raise InvalidInput(
        f"after={text[:40]!r} is not a cursor of this list; pass the Page.next of a page in the "
        "same order, or nothing for the first page."
    )
