"""Clients in node: one process for all persons of a protocol."""

import asyncio
import itertools
import subprocess
import threading
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import IO, Any

import msgspec
from tests.families import NPM, node
from tests.protocols.protocol import ClientTool, File, Person, Seen
from tests.server.serving import Client


class ClientProcess:
    """The process. Tests of several event loops use it, so a thread of its own reads from it.

    It gets one line of JSON for each verb, `{"id": 1, "person": "1", "verb": "say", …}` with the
    arguments of the verb, and answers each with one line, in any order: `{"id": 1, "seen": …}` with
    all that was seen so far, in the form of `Seen`, or `{"id": 1, "failed": …}`. It ends when its
    standard input does. Time is real while it lives.
    """

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
def running_clients(script: str) -> Generator[ClientProcess]:
    """Starts the process with a script of tests/npm, and ends it."""
    command = [str(node()), str(NPM / script)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield ClientProcess(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


class ProcessPerson(Person):
    """A person whose client runs in the process; `chat` names a conversation that there is."""

    _numbers = itertools.count(1)

    def __init__(
        self,
        process: ClientProcess,
        client: Client | str,
        agent: str,
        tools: Sequence[ClientTool] = (),
        chat: str = "",
    ) -> None:
        self._process = process
        url = client if isinstance(client, str) else str(client.http.base_url)
        self._who: dict[str, object] = {
            "person": str(next(self._numbers)),
            "url": url.rstrip("/"),
            "agent": agent,
            "tools": list(tools),
            "chat": chat,
        }

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
        return msgspec.convert(await self.get(verb, **arguments), Seen)

    async def growths(self) -> int:
        """Returns how often a text has grown so far, while another verb is in progress."""
        return await self.get("growths")

    async def get(self, verb: str, **arguments: object) -> Any:
        """Does something; returns what the process answers."""
        return await self._process.ask(**self._who, verb=verb, **arguments)
