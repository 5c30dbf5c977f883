"""The file of a recording: JSON lines that can be read in a review; pure.

    {"type":"recording","version":1}
    {"type":"request","path":"/responses","model":"gpt-5","body":{…}}
    {"type":"response","status":200,"headers":{"content-type":"text/event-stream"}}
    {"type":"text","text":"event: response.created\\ndata: {…}\\n\\n"}
    {"type":"end","how":"complete"}

Each request is followed by its response, the pieces of the body as they arrived (`text`, or
`base64` if a piece is not valid UTF-8), and its end. Requests are in the order in which they were
made.
"""

import base64
import binascii
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from treadle.errors import RecordingInvalid
from treadle.testing.recording.exchange import End, Exchange

VERSION = 1


class _Head(Struct, frozen=True, tag="recording"):
    version: int


class _Request(Struct, frozen=True, tag="request"):
    path: str
    model: str
    body: object


class _Response(Struct, frozen=True, tag="response"):
    status: int
    headers: Mapping[str, str]


class _Text(Struct, frozen=True, tag="text"):
    text: str


class _Bytes(Struct, frozen=True, tag="base64"):
    base64: str


class _End(Struct, frozen=True, tag="end", omit_defaults=True):
    how: End
    reason: str = ""


_Line = _Head | _Request | _Response | _Text | _Bytes | _End
_LINES = msgspec.json.Decoder(_Line)


def encode_recording(exchanges: Iterable[Exchange]) -> bytes:
    """Returns the content of a recording's file."""
    lines: list[_Line] = [_Head(VERSION)]
    for exchange in exchanges:
        lines.append(_Request(exchange.path, exchange.model, exchange.body))
        if exchange.status is not None:
            lines.append(_Response(exchange.status, exchange.headers))
        lines += map(_piece, exchange.chunks)
        lines.append(_End(exchange.end, exchange.reason))
    return b"".join(msgspec.json.encode(line) + b"\n" for line in lines)


def decode_recording(data: bytes, name: str) -> list[Exchange]:
    """Returns the exchanges in a recording's file called `name`.

    Raises `RecordingInvalid` for a file that is damaged, cut off or of another version.
    """
    numbered = [(n, line) for n, line in enumerate(data.splitlines(), 1) if line.strip()]
    lines = [_decoded(n, line, name) for n, line in numbered]
    if not lines or not isinstance(lines[0], _Head):
        raise RecordingInvalid(f"{name} is not a recording; make one with treadle.testing.record.")
    _require_version(lines[0].version, name)
    exchanges: list[Exchange] = []
    start = 1
    for place, line in enumerate(lines[1:], 1):
        if isinstance(line, _End):
            exchanges.append(_exchange(lines[start:place], line, numbered[start][0], name))
            start = place + 1
    if start != len(lines):
        raise _damaged(name, numbered[start][0], "the exchange that begins here has no end")
    return exchanges


def _piece(chunk: bytes) -> _Text | _Bytes:
    try:
        return _Text(chunk.decode())
    except UnicodeDecodeError:
        return _Bytes(base64.b64encode(chunk).decode())


def _decoded(number: int, line: bytes, name: str) -> _Line:
    try:
        decoded = _LINES.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if number == 1:
            raise RecordingInvalid(
                f"{name} is not a recording; make one with treadle.testing.record."
            ) from error
        raise _damaged(name, number, str(error)) from error
    if number == 1 and isinstance(decoded, _Head):
        _require_version(decoded.version, name)  # before lines of another version are decoded
    return decoded


def _require_version(version: int, name: str) -> None:
    if version != VERSION:
        raise RecordingInvalid(
            f"{name} has version {version}, and this treadle reads version {VERSION}; "
            "record it again."
        )


def _exchange(lines: Sequence[_Line], end: _End, number: int, name: str) -> Exchange:
    if not lines or not isinstance(lines[0], _Request):
        raise _damaged(name, number, "a request is missing")
    request, response, pieces = lines[0], None, lines[1:]
    if pieces and isinstance(pieces[0], _Response):
        response, pieces = pieces[0], pieces[1:]
    elif pieces:
        raise _damaged(name, number, "the response of this request is missing")
    return Exchange(
        path=request.path,
        model=request.model,
        body=request.body,
        status=None if response is None else response.status,
        headers={} if response is None else response.headers,
        chunks=tuple(_bytes_of(line, number, name) for line in pieces),
        end=end.how,
        reason=end.reason,
    )


def _bytes_of(line: _Line, number: int, name: str) -> bytes:
    if isinstance(line, _Text):
        return line.text.encode()
    if isinstance(line, _Bytes):
        try:
            return base64.b64decode(line.base64, validate=True)
        except binascii.Error as error:
            raise _damaged(name, number, f"a piece of the body is not base64 ({error})") from error
    raise _damaged(name, number, "the lines of this exchange are not in order")


def _damaged(name: str, number: int, problem: str) -> RecordingInvalid:
    return RecordingInvalid(
        f"{name} is damaged at line {number}: {problem}. Restore it, or record it again."
    )
