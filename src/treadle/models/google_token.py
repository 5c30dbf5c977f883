"""Tokens of the application default credentials of Google Cloud.

https://docs.cloud.google.com/docs/authentication/application-default-credentials
"""

import threading
from importlib import import_module
from typing import Any

from treadle.errors import MissingKey
from treadle.models.shared_call import SharedCall

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class DefaultToken:
    """Returns the current token, which `google-auth` renews when it expires.

    However many requests wait for a token, it is asked for once at a time.

    Raises `MissingKey` without that package, and the errors of the package without credentials.
    """

    def __init__(self) -> None:
        self._credentials: Any = None
        self._lock = threading.Lock()
        self._asking = SharedCall(self._current)

    async def __call__(self) -> str:
        return await self._asking.result()

    def _current(self) -> str:
        with self._lock:  # for several event loops
            try:
                auth = import_module("google.auth")
                requests = import_module("google.auth.transport.requests")
            except ImportError as error:
                raise MissingKey(
                    "The token of Vertex AI needs the package google-auth: install "
                    "'treadle[vertex]', or pass token=… ."
                ) from error
            if self._credentials is None:
                self._credentials, _ = auth.default(scopes=[_SCOPE])
            if not self._credentials.valid:
                self._credentials.refresh(requests.Request())
            return str(self._credentials.token)
