"""Whether the credentials of a request still hold, for responses that last."""

import time

from treadle.server.keys import Keys, StoredKey

ACCESS = "treadle.access"
"""The key of the `Access` of a request in its scope; None if it cannot end."""


class Access:
    """Credentials that may expire, or be revoked while a response is sent."""

    __slots__ = ("_expires_at", "_key", "_keys")

    def __init__(
        self, expires_at: float | None, keys: Keys | None = None, key: StoredKey | None = None
    ) -> None:
        self._expires_at = expires_at
        self._keys = keys
        self._key = key

    @property
    def holds(self) -> bool:
        """Whether a request with the same credentials would be let in now."""
        if self._expires_at is not None and time.time() >= self._expires_at:
            return False
        if self._keys is None or self._key is None:
            return True
        return self._keys.by_id(self._key.id) == self._key
