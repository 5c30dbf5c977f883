"""A model that measures how many runs are worked on at a time."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import treadle
from treadle import Agent, Runtime
from treadle.domain.items import Message, OutputText
from treadle.domain.usage import Usage
from treadle.models.base import ModelRequest
from treadle.streaming.demux import ItemFinished, ResponseFinished, StreamEvent


class Gauge:
    """A model that takes its time, and notes how many requests of each owner are under way."""

    name = provider = "gauge"

    def __init__(self, seconds: float = 10, shared: "Gauge | None" = None) -> None:
        self.seconds = seconds
        self.now: Counter[str] = shared.now if shared else Counter()
        self.most: Counter[str] = shared.most if shared else Counter()
        self.order: list[str] = shared.order if shared else []
        self.requests = 0

    async def stream(self, request: ModelRequest) -> AsyncIterator[StreamEvent]:
        said = [item for item in request.items if isinstance(item, Message)][-1].text
        owner = said.split()[0]
        self.requests += 1
        number = self.requests
        self.order.append(said)
        self.now[owner] += 1
        self.most[owner] = max(self.most[owner], self.now[owner])
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.now[owner] -= 1
        message = Message("assistant", (OutputText("Done."),), f"msg_{id(self)}_{number}")
        yield ItemFinished(0, message)
        yield ResponseFinished("r", "stop", Usage(100, 1, requests=1))


async def begin(runtime: Runtime, agent: Agent, owner: str, text: str = "") -> treadle.ThreadRun:
    thread = await runtime.create_thread(agent, owner=owner)
    return await thread.send(f"{owner or 'none'} {text}")
