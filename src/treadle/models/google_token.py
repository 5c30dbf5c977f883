"""Tokens of the application default credentials of Google Cloud.

https://docs.cloud.google.com/docs/authentication/application-default-credentials
"""

import threading
from importlib import import_module
from typing import Any

from treadle.errors import MissingKey

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"


class DefaultToken:
    """Returns the current token, which `google-auth` renews when it expires; called in threads.

    Raises `MissingKey` without that package, and the errors of the package without credentials.
    """

    def __init__(self) -> None:
        self._credentials: Any = None
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
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
