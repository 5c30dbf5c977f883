"""Sessions of the page: a cookie that stands for a key and ends with it."""

import hashlib
import hmac
import secrets
import time
from http.cookies import CookieError, SimpleCookie

from msgspec import Struct

from treadle.server.keys import Keys, StoredKey

COOKIE = "treadle_session"
LIFETIME = 30 * 24 * 3600
"""How long a session lasts at most, in seconds."""

_MAX_COOKIE_CHARS = 4096


class Session(Struct, frozen=True):
    """A session: its id, its key, and when it ends, in Unix seconds."""

    id: str
    key: StoredKey
    ends: int


class Sessions:
    """The sessions of a server.

    A cookie contains its session, signed, so that every process with the same keys knows it, also
    after a restart. Those that were ended early are known to all servers of a PostgreSQL database;
    else to the process that ended them, and a browser drops their cookie.
    """

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    def start(self, key: StoredKey, *, is_secure: bool) -> str:
        """Returns the header `Set-Cookie` of a new session."""
        now = int(time.time())
        last = now + LIFETIME
        ends = last if key.expires_at is None else min(last, int(key.expires_at))
        id = f"{key.id}.{ends}.{secrets.token_hex(8)}"
        value = f"{id}.{self._signature(id)}"
        return f"{COOKIE}={value}; Max-Age={max(ends - now, 0)}{_attributes(is_secure)}"

    def find(self, header: str) -> Session | None:
        """Returns the session in a header `Cookie`, or None without one that holds."""
        id, _, signature = _cookie_in(header).rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(id).encode()):
            return None
        key_id, ends, _ = id.split(".")
        key = self._keys.by_id(key_id)
        session = None if key is None else Session(id, key, int(ends))
        return session if session is not None and self.holds(session) else None

    def holds(self, session: Session) -> bool:
        """Returns whether a session, and its key, have not ended."""
        return (
            time.time() < session.ends
            and not self._keys.has_ended(session.id, session.ends)
            and self._keys.holds(session.key)
        )

    async def end(self, session: Session) -> None:
        """Ends a session; streams and waits that were opened with it end soon."""
        await self._keys.end_session(session.id, session.ends)

    def _signature(self, id: str) -> str:
        secret, message = self._keys.session_secret.encode(), f"session:{id}".encode()
        return hmac.new(secret, message, hashlib.sha256).hexdigest()


def removed_cookie(*, is_secure: bool) -> str:
    """Returns the header `Set-Cookie` that removes the cookie of a session."""
    return f"{COOKIE}=; Max-Age=0{_attributes(is_secure)}"


def has_session(header: str) -> bool:
    """Returns whether a header `Cookie` has a session, valid or not."""
    return bool(_cookie_in(header))


def _cookie_in(header: str) -> str:
    if COOKIE not in header or len(header) > _MAX_COOKIE_CHARS:
        return ""
    try:
        morsel = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return morsel.value if morsel is not None else ""


def _attributes(is_secure: bool) -> str:
    return f"; Path=/; HttpOnly; SameSite=Strict{'; Secure' if is_secure else ''}"
