"""Conversations side by side until enough runs have ended, and what they found."""

import asyncio
import random
from dataclasses import dataclass, field

import aiohttp

from chaos.soak.reader import Reader
from chaos.soak.server_process import ServerProcess

READERS = 3
RUNS_OF_ONE = 8
PARTS = 10


@dataclass
class Wear:
    """What a server went through."""

    runs: int = 0
    conversations: int = 0
    cuts: int = 0
    wrong: list[str] = field(default_factory=list[str])
    resident: list[int] = field(default_factory=list[int])
    """After each tenth of the runs, in bytes."""
    descriptors: list[int] = field(default_factory=list[int])
    """After each tenth of the runs."""


async def wear(server: ServerProcess, runs: int, seed: int, settle: float, at_a_time: int) -> Wear:
    """Holds so many conversations at a time until so many runs have ended.

    It waits `settle` seconds before it measures.
    """
    worn = Wear()
    timeout = aiohttp.ClientTimeout(total=None, sock_read=120)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        worker = _Worker(session, server.url, runs, worn)
        await worker.converse(random.Random(seed))  # imports, caches and pools of the first use
        await connector.close()
    worn.runs = 0
    for part in range(1, PARTS + 1):
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            worker = _Worker(session, server.url, runs * part // PARTS, worn)
            async with asyncio.TaskGroup() as tasks:
                for number in range(at_a_time):
                    tasks.create_task(worker.work(random.Random(f"{seed} {part} {number}")))
        await asyncio.sleep(settle)
        worn.resident.append(server.resident())
        worn.descriptors.append(server.descriptors())
    return worn


class _Worker:
    def __init__(self, session: aiohttp.ClientSession, url: str, runs: int, worn: Wear) -> None:
        self._session = session
        self._url = url
        self._runs = runs
        self._worn = worn

    async def work(self, chance: random.Random) -> None:
        while self._worn.runs < self._runs:
            await self.converse(chance)

    async def converse(self, chance: random.Random) -> None:
        """Holds one conversation before readers, and deletes it."""
        thread = await self._post("/threads", {})
        url = f"{self._url}/threads/{thread['id']}"
        readers = [
            Reader(self._session, f"{url}/events", random.Random(chance.random()))
            for _ in range(READERS)
        ]
        texts: list[str] = []
        async with asyncio.TaskGroup() as tasks:
            for reader in readers:
                tasks.create_task(reader.read())
            for number in range(RUNS_OF_ONE):
                # A reader that left in the middle of an older text would get its event alone.
                await _read_by_all(readers, number - 1)
                path = f"/threads/{thread['id']}/messages?wait=100"
                result = await self._post(path, {"message": f"Message {number}."})
                texts.append(result.get("text", f"no result: {result}"))
                self._worn.runs += 1
            await _read_by_all(readers, len(texts))
            async with self._session.delete(url) as response:
                if response.status != 204:
                    self._worn.wrong.append(f"The deletion was answered with {response.status}.")
        self._worn.conversations += 1
        for reader in readers:
            self._worn.cuts += reader.cuts
            self._worn.wrong += reader.wrong
            if reader.texts != texts:
                self._worn.wrong.append(f"{reader.texts!r} was read of {texts!r}")

    async def _post(self, path: str, body: object) -> dict[str, str]:
        async with self._session.post(self._url + path, json=body) as response:
            return await response.json()


async def _read_by_all(readers: list[Reader], texts: int) -> None:
    """Waits until each reader has so many texts, unless it has found something."""
    while any(len(reader.texts) < texts and not reader.wrong for reader in readers):
        await asyncio.sleep(0.02)
