"""Faults: the ways in which real providers, proxies and networks fail, each with a name.

A fault is written `NAME[@AT][=VALUE]`; several are joined by `+`. `FAULTS` lists them all.
"""

import re
from collections.abc import Iterable, Mapping

from msgspec import Struct

from treadle.errors import TestingError

FAULTS: Mapping[str, str] = {
    "429": "HTTP 429 without Retry-After",
    "429-after": "HTTP 429 with Retry-After: VALUE seconds (default 1)",
    "quota": "HTTP 429 with the code insufficient_quota; messages: HTTP 402, billing_error; "
    "converse: HTTP 400, ServiceQuotaExceededException",
    "context": "HTTP 400 with the code context_length_exceeded; messages: invalid_request_error",
    "400…599": "any other HTTP error status, before the stream: 400, 401, 403, 404, 500, 503, …",
    "error-mid": "an error frame of the code VALUE (default server_error) after frame AT, "
    "default the middle; then the body ends",
    "failed": "as error-mid, but the event response.failed; elsewhere the same as error-mid",
    "cut": "the connection breaks after AT bytes of the body",
    "end": "the body ends in good order after AT bytes",
    "stall": "silence after AT bytes; the connection stays open until the client leaves",
    "garbage": "a frame that is not JSON after frame AT (default 1)",
    "unknown": "an event of an unknown type after frame AT (default 1)",
    "damaged": "converse: a frame with a wrong checksum after frame AT (default 1)",
    "comments": "an SSE comment before each frame",
    "no-terminal": "the body ends in good order without its terminal event",
    "no-finish": "chat: [DONE] without a finish_reason; messages: no message_delta; gemini: no "
    "last frame; converse: no messageStop",
    "json": "one JSON document instead of the stream that was asked for",
    "close": "the connection is closed after the response, without an announcement",
    "strict-args": "HTTP 500 for a call in the request whose arguments are not a JSON object",
    "needs-reasoning": "chat: HTTP 400 for calls in the request without reasoning_content",
    "no-index": "responses: no output_index, content_index and sequence_number",
    "no-ids": "chat, gemini: calls without ids",
    "dup-ids": "all calls share one call id",
    "whole-args": "arguments in one piece",
    "empty-args": "calls with empty arguments",
    "bad-args": "arguments that are not valid JSON; gemini: MALFORMED_FUNCTION_CALL",
    "merged-calls": "chat: all calls in one chunk",
    "split-utf8": "writes that cut each multi-byte character",
    "one-byte": "one byte a write",
    "crlf": "lines end in CR LF",
    "no-space": "no space after `data:`",
}
NEEDS_AT = frozenset({"cut", "end", "stall"})
TAKES_AT = NEEDS_AT | {"garbage", "unknown", "damaged", "error-mid", "failed"}
TAKES_VALUE = frozenset({"429-after", "error-mid", "failed"})
MAX_AT = 1 << 30
MAX_FAULTS = 16

_FAULT = re.compile(r"(?P<name>[a-z0-9-]{1,32})(?:@(?P<at>\d{1,10}))?(?:=(?P<value>[\w.-]{1,64}))?")


class InvalidScenario(TestingError):
    """A scenario or fault with invalid syntax; the simulator answers it with HTTP 400."""

    code = "invalid_scenario"


class Fault(Struct, frozen=True):
    """A named failure, one of `FAULTS`.

    `at` counts bytes of the body or frames, depending on the fault; `value` is its argument.
    """

    name: str
    at: int | None = None
    value: str = ""


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Parses `NAME[@AT][=VALUE]`, joined by `+`. Raises `InvalidScenario`."""
    parts = text.split("+")
    if len(parts) > MAX_FAULTS:
        raise InvalidScenario(f"More than {MAX_FAULTS} faults; use fewer.")
    return tuple(_parse_fault(part) for part in parts)


def check_faults(faults: Iterable[Fault]) -> None:
    """Raises `InvalidScenario` for a fault that does not exist or lacks its argument."""
    for fault in faults:
        _check(fault)


def find(faults: Iterable[Fault], name: str) -> Fault | None:
    """Returns the first fault of that name."""
    return next((fault for fault in faults if fault.name == name), None)


def _parse_fault(text: str) -> Fault:
    match = _FAULT.fullmatch(text)
    if match is None:
        raise InvalidScenario(f"The fault {text[:64]!r} is not NAME[@AT][=VALUE].")
    at = match["at"]
    fault = Fault(match["name"], None if at is None else int(at), match["value"] or "")
    _check(fault)
    return fault


def _check(fault: Fault) -> None:
    name = fault.name
    if name not in FAULTS and not is_status(name):
        raise InvalidScenario(f"No fault is named {name!r}. There are: {', '.join(FAULTS)}.")
    if fault.at is None and name in NEEDS_AT:
        raise InvalidScenario(f"The fault {name!r} needs a number of bytes: {name}@1200.")
    if fault.at is not None and (name not in TAKES_AT or not 0 <= fault.at <= MAX_AT):
        raise InvalidScenario(f"The fault {name!r} takes no @{fault.at}.")
    if fault.value and name not in TAKES_VALUE:
        raise InvalidScenario(f"The fault {name!r} takes no value.")
    if name == "429-after" and not re.fullmatch(r"\d{0,6}(\.\d{1,3})?", fault.value):
        raise InvalidScenario("Retry-After is a number of seconds: 429-after=2.")


def is_status(name: str) -> bool:
    """Tells whether a fault's name is an HTTP error status."""
    return len(name) == 3 and name.isdecimal() and 400 <= int(name) <= 599
