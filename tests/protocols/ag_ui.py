"""AG-UI with its client from npm."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from tests.protocols.client_process import ClientProcess, ProcessPerson
from tests.protocols.protocol import ClientTool, Protocol
from tests.server.serving import Client

SCRIPT = "ag_ui.mjs"


class AgUi(Protocol):
    """`HttpAgent` of `@ag-ui/client`."""

    name = "AG-UI"

    def __init__(self, process: ClientProcess) -> None:
        self._process = process

    @asynccontextmanager
    async def person(
        self, client: Client, agent: str, tools: Sequence[ClientTool]
    ) -> AsyncGenerator[ProcessPerson]:
        yield ProcessPerson(self._process, client, agent, tools)
