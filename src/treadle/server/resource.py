"""One path of the API as an ASGI application: chooses the operation by the method."""

from collections.abc import Iterable

from treadle.server.gate import ROUTE
from treadle.server.operation import Operation
from treadle.server.problems import RequestRefused
from treadle.server.services import Services
from treadle.server.stream import Receive, Scope, Send


class Resource:
    """The operations of one path; `HEAD` is answered like `GET`, without a body."""

    def __init__(self, operations: Iterable[Operation], services: Services) -> None:
        self._operations = {operation.method: operation for operation in operations}
        self._services = services
        allowed = set(self._operations)
        if "GET" in allowed:
            allowed.add("HEAD")
        self._allow = ", ".join(sorted(allowed))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves a request."""
        method = scope["method"]
        operation = self._operations.get("GET" if method == "HEAD" else method)
        if operation is None:
            scope[ROUTE] = next(iter(self._operations.values())).full_path
            raise RequestRefused(
                405,
                "method_not_allowed",
                f"This path answers {self._allow}.",
                headers=((b"allow", self._allow.encode()),),
            )
        await operation.serve(self._services, scope, receive, send)
