"""An exchange: one request to a provider and its response, as a recording keeps it."""

from collections.abc import Mapping
from typing import Literal

import msgspec
from msgspec import Struct

End = Literal[
    "complete", "left", "broken", "silent", "unreachable", "disconnected", "connect_timeout"
]
"""How an exchange ended.

- `complete`: the body was read to its end.
- `left`: the rest was not read, as after the terminal event or when a run is cancelled.
- `broken`: the connection broke in the middle of the body.
- `silent`: the provider sent nothing for longer than the timeout.
- `unreachable`, `connect_timeout`: there was no connection.
- `disconnected`: the connection broke before the response.
"""


class Exchange(Struct, frozen=True, kw_only=True):
    """A request and its response.

    `path` is that of the endpoint below the API's root. `body` is the decoded JSON of the request,
    or its text if it is not JSON. `status` is None if there was no response. `headers` are those of
    the response that treadle uses. `chunks` are the pieces in which the body arrived. `reason`
    describes the failure of the exchange.
    """

    path: str
    model: str
    body: object
    status: int | None = None
    headers: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    chunks: tuple[bytes, ...] = ()
    end: End = "left"
    reason: str = ""
