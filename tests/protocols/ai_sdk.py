"""The UI message stream with the client of the AI SDK."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from tests.protocols.client_process import ClientProcess, ProcessPerson
from tests.protocols.protocol import ClientTool, Protocol, Seen
from tests.server.serving import Client

SCRIPT = "ai_sdk.mjs"


class ChatPerson(ProcessPerson):
    """A person with a chat; `more` is what its client has, beyond what all protocols have."""

    more: dict[str, Any]

    async def ask(self, verb: str, **arguments: object) -> Seen:
        seen = await self.get(verb, **arguments)
        self.more = seen.pop("more")
        return msgspec.convert(seen, Seen)


class AiSdk(Protocol):
    """`AbstractChat` with `DefaultChatTransport`."""

    name = "AI SDK"
    shows = Protocol.shows | {"hosted"}

    def __init__(self, process: ClientProcess) -> None:
        self._process = process

    @asynccontextmanager
    async def person(
        self, client: Client, agent: str, tools: Sequence[ClientTool]
    ) -> AsyncGenerator[ChatPerson]:
        yield ChatPerson(self._process, client, agent, tools)
