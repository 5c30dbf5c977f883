"""The HTTP protocol of our server: that of uvicorn, with the connection in the scope."""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from treadle.server.stream import TRANSPORT


class Protocol(HttpToolsProtocol):
    """Puts the connection into the scope, so that a client that takes nothing can be cut.

    Through ASGI alone, a response to such a client cannot be ended: the transport would wait until
    the client has read what was written before.
    """

    transport: asyncio.Transport

    def on_message_begin(self) -> None:
        """Makes the scope of a request."""
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)[TRANSPORT] = self.transport
