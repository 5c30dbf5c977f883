"""A reader of a thread: it is cut at any byte, comes back, and folds what it gets into texts."""

import asyncio
import json
import random
from typing import Any

import aiohttp

PAUSE = 0.2
CUT_AFTER = 6000
GONE = 410


class Reader:
    """Reads the events of a thread until it is deleted.

    `texts` are the messages of the model in their order, and `wrong` is what should not be.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, chance: random.Random) -> None:
        self._session = session
        self._url = url
        self._chance = chance
        self._position = ""
        self._seq = 0
        self._growing: dict[str, str] = {}
        self.texts: list[str] = []
        self.wrong: list[str] = []
        self.cuts = 0

    async def read(self) -> None:
        """Reads to the end of the thread."""
        while not await self._visit():
            self.cuts += 1
            await asyncio.sleep(self._chance.random() * PAUSE)

    async def _visit(self) -> bool:
        """Reads until the connection is cut; returns whether the thread is gone."""
        headers = {"Last-Event-ID": self._position} if self._position else {}
        left = self._chance.randrange(CUT_AFTER) if self._chance.random() < 0.8 else None
        async with self._session.get(self._url, headers=headers) as response:
            if response.status == GONE or (response.status == 404 and not self._position):
                return True
            if response.status != 200:
                self.wrong.append(f"status {response.status} at {self._position!r}")
                return True
            buffer = b""
            async for chunk in response.content.iter_any():
                if left is not None and (left := left - len(chunk)) <= 0:
                    response.close()  # also in the middle of a frame
                    return False
                buffer += chunk
                while (end := buffer.find(b"\n\n")) >= 0:
                    block, buffer = buffer[:end], buffer[end + 2 :]
                    if self._take(block.decode()):
                        return True
        return False

    def _take(self, block: str) -> bool:
        """Takes a frame; returns whether the thread was deleted."""
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        self._position = fields.get("id", self._position)
        if "data" not in fields:
            return False
        kind, data = fields["event"], json.loads(fields["data"])
        if kind == "stream.ended":
            return data["reason"] == "thread_deleted"
        self._fold(kind, data)
        return False

    def _fold(self, kind: str, data: Any) -> None:
        if "seq" in data:
            if data["seq"] != self._seq + 1:
                self.wrong.append(f"event {data['seq']} after {self._seq}")
            self._seq = data["seq"]
        if kind == "text.delta":
            key = data["item_id"]
            self._growing[key] = self._growing.get(key, "") + data["delta"]
        elif kind == "step.interrupted":
            self._growing.clear()
        elif kind == "message.added" and data["origin"] == "model":
            text = "".join(part["text"] for part in data["item"]["content"])
            added = self._growing.pop(data["item"]["id"], "")
            if added != text:
                self.wrong.append(f"deltas {added!r} of the text {text!r}")
            self.texts.append(text)
