"""The UI message stream with the client of the AI SDK, in node: one process for all persons."""

import asyncio
import itertools
import subprocess
import threading
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from typing import IO, Any

import msgspec
from tests.families import NPM, node
from tests.protocols.protocol import ClientTool, File, Person, Protocol, Seen
from tests.server.serving import Client


class Node:
    """The process. Tests of several event loops use it, so a thread of its own reads from it."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._given: IO[bytes] = process.stdin
        self._numbers = itertools.count(1)
        self._asked: dict[int, Future[Any]] = {}
        self._reader = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self._reader.start()

    async def ask(self, **request: object) -> Any:
        """Lets a person do something; returns what it has seen."""
        number = next(self._numbers)
        self._asked[number] = asked = Future[Any]()
        self._given.write(msgspec.json.encode({"id": number, **request}) + b"\n")
        self._given.flush()
        answer = await asyncio.wrap_future(asked)
        assert "failed" not in answer, answer["failed"]
        return answer["seen"]

    def _read(self, printed: IO[bytes]) -> None:
        for line in printed:
            answer = msgspec.json.decode(line)
            self._asked.pop(answer["id"]).set_result(answer)
        for asked in self._asked.values():
            asked.set_result({"failed": "The process has ended."})


@contextmanager
def running_node() -> Generator[Node]:
    """Starts the process, and ends it."""
    command = [str(node()), str(NPM / "ai_sdk.mjs")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Node(process)
        assert process.stdin is not None
        process.stdin.close()


class ChatPerson(Person):
    """A person with a chat; `more` is what its client has, beyond what all protocols have."""

    _numbers = itertools.count(1)

    def __init__(
        self,
        node: Node,
        client: Client,
        agent: str,
        tools: Sequence[ClientTool] = (),
        chat: str = "",
    ) -> None:
        self._node = node
        self._who: dict[str, object] = {
            "person": str(next(self._numbers)),
            "url": str(client.http.base_url).rstrip("/"),
            "agent": agent,
            "tools": list(tools),
            "chat": chat,
        }
        self.more: dict[str, Any] = {}

    async def say(
        self, text: str, *, files: Sequence[File] = (), stop_after: int = 0, leave_after: int = 0
    ) -> Seen:
        given = [{**msgspec.to_builtins(file), "url": file.url} for file in files]
        return await self.ask(
            "say", text=text, files=given, stop_after=stop_after, leave_after=leave_after
        )

    async def answer(self, outputs: Mapping[str, str]) -> Seen:
        return await self.ask("answer", outputs=outputs)

    async def decide(self, approved: Mapping[str, bool]) -> Seen:
        return await self.ask("decide", approved=approved)

    async def resume(self) -> Seen:
        return await self.ask("resume")

    async def ask(self, verb: str, **arguments: object) -> Seen:
        """Does something; returns what was seen so far."""
        seen = await self._node.ask(**self._who, verb=verb, **arguments)
        self.more = seen.pop("more")
        return msgspec.convert(seen, Seen)


class AiSdk(Protocol):
    """`AbstractChat` with `DefaultChatTransport`."""

    name = "AI SDK"

    def __init__(self, node: Node) -> None:
        self._node = node

    @asynccontextmanager
    async def person(
        self, client: Client, agent: str, tools: Sequence[ClientTool]
    ) -> AsyncGenerator[ChatPerson]:
        yield ChatPerson(self._node, client, agent, tools)
