"""Whether the credentials of a request still hold, for responses that last."""

import time
from collections.abc import Callable

from treadle.server.problems import RequestRefused

ACCESS = "treadle.access"
"""The key of the `Access` of a request in its scope; it has none if its credentials do not end."""


class Access:
    """Credentials that may expire, or be revoked while a response is sent.

    `is_valid` is asked until `expires_at`, in Unix seconds.
    """

    __slots__ = ("_expires_at", "_is_valid")

    def __init__(
        self, expires_at: float | None, is_valid: Callable[[], bool] | None = None
    ) -> None:
        self._expires_at = expires_at
        self._is_valid = is_valid

    @property
    def holds(self) -> bool:
        """Whether a request with the same credentials would be let in now."""
        if self._expires_at is not None and time.time() >= self._expires_at:
            return False
        return self._is_valid is None or self._is_valid()


def not_authenticated(detail: str) -> RequestRefused:
    """Returns the error for a request whose credentials are missing, or hold no more."""
    challenge = (b"www-authenticate", b'Bearer realm="treadle"')
    return RequestRefused(401, "not_authenticated", detail, headers=(challenge,))
