"""What the routes share: the runtime, the settings, the open requests, the keys."""

from collections.abc import Awaitable, Callable
from typing import Any, cast

from starlette.requests import Request

from treadle.loop.definition import reachable_from
from treadle.runtime.runtime import Runtime
from treadle.runtime.view import RuntimeView
from treadle.server.keys import Keys
from treadle.server.limits import Limits
from treadle.server.mcp_tools.open_calls import OpenCalls
from treadle.server.metrics import Metrics
from treadle.server.open_requests import OpenRequests
from treadle.server.principal import Principal
from treadle.server.responses.delta_cuts import KnownCuts
from treadle.server.sessions import Sessions
from treadle.server.settings import ServerSettings
from treadle.server.stream import StreamLimits

Authenticate = Callable[[Request], Principal | Awaitable[Principal | None] | None]
"""Returns who makes a request, or None if that is not known."""


class Services:
    """The parts of a server that its routes use.

    `served` are the names of the agents that users talk to: those to which no other hands over, and
    that work for no other.
    """

    def __init__(
        self,
        runtime: Runtime,
        settings: ServerSettings,
        keys: Keys,
        authenticate: Authenticate | None,
    ) -> None:
        self.runtime = runtime
        self.served = _roots(runtime)
        self.settings = settings
        self.keys = keys
        if runtime.journal.has_nodes:
            keys.use_rows(cast("Any", runtime.journal).access)
        self.sessions = Sessions(keys)
        self.authenticate = authenticate
        self.metrics = Metrics()
        self.limits = Limits(settings)
        shortest = min(settings.keep_alive_seconds, settings.write_timeout_seconds)
        self.open_requests = OpenRequests(min(shortest / 4, 1.0), keys.refresh)
        self.stream_limits = StreamLimits(
            settings.keep_alive_seconds, settings.write_timeout_seconds
        )
        self.delta_cuts = KnownCuts()
        self.mcp_calls = OpenCalls()
        self.is_ready = False

    def view_of(self, principal: Principal) -> RuntimeView:
        """Returns the runtime as a principal sees it."""
        if principal.owner is None and not principal.recorded:
            return self.runtime
        return self.runtime.for_owner(principal.owner, by=principal.recorded)


def _roots(runtime: Runtime) -> list[str]:
    agents = runtime.agents
    roots = [
        name
        for name in agents
        if not any(name in reachable_from(one) for other, one in agents.items() if other != name)
    ]
    return roots or list(agents)
