"""Sessions of the page: a cookie that stands for a key and ends with it."""

import hashlib
import hmac
import time
from http.cookies import CookieError, SimpleCookie

from treadle.server.keys import Keys, StoredKey

COOKIE = "treadle_session"
LIFETIME = 30 * 24 * 3600
"""How long a session lasts at most, in seconds."""

_MAX_COOKIE_CHARS = 4096


def session_cookie(keys: Keys, key: StoredKey, *, is_secure: bool) -> str:
    """Returns the header `Set-Cookie` of a new session: the id of the key, an end, a signature."""
    now = int(time.time())
    ends = now + LIFETIME if key.expires_at is None else min(now + LIFETIME, int(key.expires_at))
    value = f"{key.id}.{ends}.{_signature(keys, key.id, ends)}"
    return f"{COOKIE}={value}; Max-Age={max(ends - now, 0)}{_attributes(is_secure)}"


def removed_cookie(*, is_secure: bool) -> str:
    """Returns the header `Set-Cookie` that ends a session."""
    return f"{COOKIE}=; Max-Age=0{_attributes(is_secure)}"


def key_of_session(keys: Keys, header: str) -> StoredKey | None:
    """Returns the key of the session in a header `Cookie`, or None without a valid one."""
    value = _cookie_in(header)
    id, _, rest = value.partition(".")
    ends, _, signature = rest.partition(".")
    if not (ends.isascii() and ends.isdigit() and len(ends) <= 12):
        return None
    if not hmac.compare_digest(signature.encode(), _signature(keys, id, int(ends)).encode()):
        return None
    return keys.by_id(id) if time.time() < int(ends) else None


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


def _signature(keys: Keys, id: str, ends: int) -> str:
    message = f"session:{id}:{ends}".encode()
    return hmac.new(keys.session_secret.encode(), message, hashlib.sha256).hexdigest()
