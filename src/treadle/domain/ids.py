"""Identifiers: a prefix for the kind, then 26 characters that sort by time of creation.

If several processes must find the same identifier independently, it is made of names.

The layout is that of a ULID (48 bits of Unix milliseconds, 80 random bits, Crockford base 32):
https://github.com/ulid/spec
"""

import hashlib
import os
import time
from typing import Literal

Kind = Literal[
    "thread",
    "run",
    "msg",
    "rs",
    "fc",
    "fco",
    "call",
    "evt",
    "job",
    "memory",
    "passage",
    "schedule",
]

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [a + b for a in _ALPHABET for b in _ALPHABET]


def new_id(kind: Kind) -> str:
    """Returns a new identifier such as `run_01jd…`; reads the clock and random bytes."""
    return _id(kind, (time.time_ns() // 1_000_000 << 80) | int.from_bytes(os.urandom(10), "big"))


def id_of(kind: Kind, *names: str) -> str:
    """Returns the identifier for `names`, which is the same in every process.

    It contains no time: 130 bits of SHA-256 of the names.
    """
    digest = hashlib.sha256("\0".join(names).encode()).digest()
    return _id(kind, int.from_bytes(digest[:17], "big") >> 6)


def run_id_of_key(thread_id: str, key: str) -> str:
    """Returns the id of the run whose message is sent to a thread with a key."""
    return id_of("run", thread_id, key)


def _id(kind: Kind, value: int) -> str:
    pairs = [_PAIRS[value >> shift & 1023] for shift in range(120, -10, -10)]
    return f"{kind}_{''.join(pairs)}"
