"""Threads that do not stay: some expire while they are used, some are not stored."""

import asyncio
import random
from contextlib import suppress
from datetime import UTC, datetime

from chaos.findings import Findings
from treadle import Runtime
from treadle.clock import now
from treadle.errors import ThreadNotFound, TreadleError
from treadle.journal import base, projection

UNSTORED_SECONDS = 4.0
"""After how long a thread that is not stored is deleted here; 10 minutes outside."""

GONE_SECONDS = 60.0


def shorten() -> None:
    """Lets this process delete threads that are not stored sooner."""
    base.UNSTORED_SECONDS = projection.UNSTORED_SECONDS = UNSTORED_SECONDS


class BriefThreads:
    """Threads that come and go; `answered` are the messages that must have been answered."""

    def __init__(self) -> None:
        self.ids: set[str] = set()
        self.answered: list[str] = []

    async def come(self, runtime: Runtime, name: str, agent: str) -> None:
        """Creates threads, one after another, and sends to each, until it is cancelled."""
        chance, number = random.Random(name), 0
        while True:
            await asyncio.sleep(chance.uniform(0.1, 1))
            number += 1
            message, expires_at = f"{name} {number}", None
            if chance.random() < 0.5:
                expires_at = datetime.fromtimestamp(now() + chance.uniform(0.5, 5), UTC)
            with suppress(TreadleError):
                thread = await runtime.create_thread(
                    agent, key=message, expires_at=expires_at, store=expires_at is not None
                )
                self.ids.add(thread.id)
                await thread.send(message, key=message)
                if expires_at is None:
                    self.answered.append(message)

    async def judge(self, runtime: Runtime, findings: Findings) -> None:
        """Waits until all of them are gone."""
        findings.counts["brief threads"] = len(self.ids)
        left = set(self.ids)
        with suppress(TimeoutError):
            async with asyncio.timeout(GONE_SECONDS):
                while left:
                    for id in list(left):
                        try:
                            await runtime.connect(id)
                        except ThreadNotFound:
                            left.discard(id)
                    await asyncio.sleep(0.5)
        findings.wrong += [f"{id} is still there" for id in left]
