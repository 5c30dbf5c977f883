"""The session of the page, and who the client is."""

from typing import Any

from treadle.errors import InvalidInput
from treadle.server.api_request import ApiRequest
from treadle.server.authentication import find_key
from treadle.server.bodies import Me
from treadle.server.operation import Answer, NoFields, Operations
from treadle.server.origins import is_loopback
from treadle.server.sessions import Session, removed_cookie

SESSION = Operations("Session")


@SESSION.add("GET", "/me", scope="", answers={200: Me})
async def read_me(request: ApiRequest[Any, None]) -> Me:
    """Returns the principal of the request."""
    principal = request.principal
    return Me(by=principal.recorded, owner=principal.owner, scopes=sorted(principal.scopes))


@SESSION.add("POST", "/session", scope="", body=NoFields, answers={200: Me})
async def start_session(request: ApiRequest[Any, None]) -> Answer:
    """Exchanges the key in `Authorization` for a cookie."""
    services = request.services
    if services.authenticate is not None or not services.settings.auth:
        raise InvalidInput("This server has no keys, so it has no sessions.")
    found = await find_key(request.scope, services)
    key = found.key if isinstance(found, Session) else found
    cookie = services.sessions.start(key, is_secure=_is_secure(request))
    return Answer(200, await read_me(request), ((b"set-cookie", cookie.encode()),))


@SESSION.add("DELETE", "/session", scope="", answers={204: None})
async def end_session(request: ApiRequest[Any, None]) -> Answer:
    """Ends the session of the request, with the streams that it opened, and removes the cookie."""
    sessions = request.services.sessions
    await request.services.keys.refresh()
    session = sessions.find(request.headers.get(b"cookie"))
    if session is not None:
        await sessions.end(session)
    cookie = removed_cookie(is_secure=_is_secure(request))
    return Answer(204, None, ((b"set-cookie", cookie.encode()),))


def _is_secure(request: ApiRequest[Any, Any]) -> bool:
    """Returns whether the cookie is for https only: everywhere but on loopback by http."""
    return request.scope.get("scheme") == "https" or not is_loopback(request.headers.get(b"host"))
