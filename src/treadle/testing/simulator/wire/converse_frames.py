"""Messages of an AWS event stream.

https://smithy.io/2.0/aws/amazon-eventstream.html
"""

import struct
from zlib import crc32

from treadle.testing.simulator.frames import OddFrames

_STRING = 7


def message(name: str, payload: bytes, kind: str = "event") -> bytes:
    """Returns a message; `kind` is `event` or `exception`, and `name` its type."""
    headers = b"".join(
        _header(header, value)
        for header, value in (
            (f":{kind}-type", name),
            (":content-type", "application/json"),
            (":message-type", kind),
        )
    )
    prelude = struct.pack(">II", len(headers) + len(payload) + 16, len(headers))
    checked = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return checked + struct.pack(">I", crc32(checked))


def _header(name: str, value: str) -> bytes:
    encoded = value.encode()
    return struct.pack(">B", len(name)) + name.encode() + _size(encoded) + encoded


def _size(value: bytes) -> bytes:
    return struct.pack(">BH", _STRING, len(value))


_UNKNOWN = message("treadleUnknown", b"{}")
ODD = OddFrames(
    garbage=message("contentBlockDelta", b'{"delta":{"te'),
    unknown=_UNKNOWN,
    damaged=_UNKNOWN[:-1] + bytes([_UNKNOWN[-1] ^ 1]),
)
"""What faults insert between the messages."""
