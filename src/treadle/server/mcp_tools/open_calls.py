"""The calls that a server works on for clients of MCP, so that they can be cancelled."""

from treadle.runtime.thread_run import ThreadRun
from treadle.server.mcp_tools.rpc_message import RpcId

CallKey = tuple[str | None, str, str, RpcId]
"""The owner and the name of a principal, the session, and the id of the request."""


class OpenCalls:
    """The runs of calls, by what their client knows of them."""

    def __init__(self) -> None:
        self._runs: dict[CallKey, ThreadRun] = {}

    def add(self, key: CallKey, run: ThreadRun) -> None:
        """Adds a call."""
        self._runs[key] = run

    def remove(self, key: CallKey, run: ThreadRun) -> None:
        """Removes a call that has ended."""
        if self._runs.get(key) is run:
            del self._runs[key]

    def find(self, key: CallKey) -> ThreadRun | None:
        """Returns the run of a call, if it is open."""
        return self._runs.get(key)
