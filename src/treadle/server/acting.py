"""Requests that a program makes with its own key in the place of one of its users."""

from urllib.parse import unquote_to_bytes

from msgspec.structs import replace

from treadle.errors import InvalidInput
from treadle.server.api_request import Headers
from treadle.server.principal import Principal
from treadle.server.problems import RequestRefused

OWNER = b"x-treadle-owner"
"""The header that names the owner whose threads alone are found: UTF-8, percent-encoded."""

BY = b"x-treadle-by"
"""The header that names the person; it is recorded behind the name of the key."""

MAX_BY = 256
"""Characters of the longest name of a person."""


def acting(principal: Principal, headers: Headers) -> Principal:
    """Returns the principal of a request whose headers may name an owner and a person.

    Both take something away, or add to what is recorded, so every key may be used with them.
    Raises `InvalidInput` if a key with an owner names another one, and for a name that is too long,
    and 400 `invalid_request` for a header that is not valid.
    """
    owner, acts_for = principal.owner, principal.acts_for
    if OWNER in headers:
        given = _text(headers, OWNER)
        if owner is not None and given != owner:
            raise InvalidInput(
                "The key belongs to one owner, and the header X-Treadle-Owner names another; leave "
                "it out."
            )
        owner = given
    if BY in headers:
        acts_for = _text(headers, BY)
        if len(acts_for) > MAX_BY or not acts_for.isprintable():
            raise InvalidInput(
                f"The header X-Treadle-By has {len(acts_for)} characters; use at most {MAX_BY}, "
                "without line breaks and control characters."
            )
    if owner == principal.owner and acts_for == principal.acts_for:
        return principal
    return replace(principal, owner=owner, acts_for=acts_for)


def _text(headers: Headers, name: bytes) -> str:
    if headers.count(name) > 1:
        raise _invalid(f"The header {name.decode()} is there twice.")
    try:
        return unquote_to_bytes(headers.get(name)).decode()
    except UnicodeDecodeError as error:
        raise _invalid(f"The header {name.decode()} is not UTF-8 with percent-encoding.") from error


def _invalid(detail: str) -> RequestRefused:
    return RequestRefused(400, "invalid_request", detail)
