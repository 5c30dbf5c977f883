"""AG-UI with its client from npm."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from tests.families import NPM, node
from tests.protocols.protocol import ClientTool, Person, Protocol, process_person
from tests.server.serving import Client


class AgUi(Protocol):
    """`HttpAgent` of `@ag-ui/client`."""

    name = "AG-UI"

    def person(
        self, client: Client, agent: str, tools: Sequence[ClientTool]
    ) -> AbstractAsyncContextManager[Person]:
        command = [str(node()), str(NPM / "ag_ui.mjs")]
        return process_person(command, client, agent, tools)
