"""Identifiers: a prefix that tells the kind, then 26 characters that sort by time of creation.

Where several processes must come to the same identifier by themselves, it is made of a name.

The layout is that of a ULID (48 bits of Unix milliseconds, 80 random bits, Crockford base 32):
https://github.com/ulid/spec
"""

import hashlib
import os
import time
from typing import Literal

Kind = Literal["thread", "run", "msg", "rs", "fc", "fco", "call", "evt", "job", "memory", "passage"]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]


def new_id(kind: Kind) -> str:
    """Returns a fresh identifier such as `run_01jd…`."""
    return _id(kind, (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10), "big"))


def id_of(kind: Kind, *names: str) -> str:
    """Returns the identifier of what is named by `names`, the same whoever asks for it.

    It does not tell the time: 130 bits of SHA-256 of the names.
    """
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return _id(kind, int.from_bytes(digest[:17], "big") >> 6)


def _id(kind: Kind, value: int) -> str:
    pairs = [_PAIRS[value >> shift & 1023] for shift in range(120, -10, -10)]
    return f"{kind}_{''.join(pairs)}"
