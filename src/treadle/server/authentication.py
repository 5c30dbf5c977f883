"""From the headers of a request to its principal."""

import inspect
from functools import partial

from starlette.requests import Request

from treadle.server.access import ACCESS, Access, not_authenticated
from treadle.server.api_request import Headers
from treadle.server.keys import StoredKey
from treadle.server.origins import is_own_origin
from treadle.server.principal import Principal, require_principal
from treadle.server.problems import RequestRefused
from treadle.server.services import Services
from treadle.server.sessions import Session, has_session
from treadle.server.stream import Scope

NOBODY = Principal(by="")
"""The principal of all requests to a server without authentication."""

_SAFE = frozenset({"GET", "HEAD"})
_OWN_SITES = frozenset({"", "same-origin", "none"})


async def authenticate(scope: Scope, services: Services) -> Principal:
    """Returns the principal of a request; raises 401 `not_authenticated`."""
    if services.authenticate is not None:
        given = services.authenticate(Request(scope))
        if inspect.isawaitable(given):
            given = await given
        if given is None:
            raise not_authenticated("The credentials of the request are missing or not valid.")
        principal = require_principal(given)
        if principal.expires_at is not None:
            scope[ACCESS] = access = Access(principal.expires_at)
            if not access.holds:
                raise not_authenticated("The credentials of the request have expired.")
        return principal
    if not services.settings.auth:
        return NOBODY
    key = await find_key(scope, services)
    if isinstance(key, Session):
        scope[ACCESS] = Access(key.ends, partial(services.sessions.holds, key))
        return key.key.principal
    scope[ACCESS] = Access(key.expires_at, partial(services.keys.holds, key))
    return key.principal


async def find_key(scope: Scope, services: Services) -> StoredKey | Session:
    """Returns the key of a request, or the session in its place; raises 401."""
    headers, keys = Headers(scope["headers"]), services.keys
    await keys.refresh()
    if b"authorization" in headers:
        if headers.count(b"authorization") > 1:
            raise not_authenticated("The header Authorization is there twice.")
        scheme, _, key = headers.get(b"authorization").partition(" ")
        known = keys.find(key.strip()) if scheme.lower() == "bearer" else None
        if known is None:
            raise not_authenticated("The key is unknown, revoked or expired.")
        return known
    cookie = headers.get(b"cookie")
    if has_session(cookie):
        session = services.sessions.find(cookie)
        if session is None:
            raise not_authenticated("The session has ended; sign in with a key.")
        _require_own_page(scope, headers)
        return session
    raise not_authenticated("Send a key as `Authorization: Bearer KEY`.")


def _require_own_page(scope: Scope, headers: Headers) -> None:
    """Raises 403 unless a request with a cookie comes from a page of this server.

    Browsers send no `Origin` with a `GET` to the same origin; the cookie is `SameSite=Strict`.
    """
    origin = headers.get(b"origin")
    if scope["method"] in _SAFE and not origin:
        if headers.get(b"sec-fetch-site") in _OWN_SITES:
            return
    elif is_own_origin(origin, headers.get(b"host")):
        return
    raise RequestRefused(
        403, "origin_not_allowed", "A session may be used by the pages of this server only."
    )
