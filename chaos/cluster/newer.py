"""A node of a version after this one: it adds to the tables, and pins messages all the time."""

import asyncio
import random
from contextlib import suppress

from chaos.cluster.node import run
from chaos.cluster.records import Pinned
from chaos.evidence import Evidence
from treadle import Runtime
from treadle.domain.items import Message
from treadle.errors import TreadleError
from treadle.journal import postgres_database
from treadle.journal.schema_version import ADDITIVE

TABLES = ("thread", "event", "activity", "run", "call", "sent", "inbox", "snapshot", "node")
COLUMNS = "\n".join(f"ALTER TABLE {name} ADD COLUMN newer int DEFAULT 7;" for name in TABLES)
MIGRATION = f"{ADDITIVE}\nCREATE TABLE newer (n int);\n{COLUMNS}"

PINNERS = 4
"""How many messages at a time are pinned: an older node that has the thread keeps one waiting."""


async def pin(runtime: Runtime, evidence: Evidence, name: str) -> None:
    """Pins messages, one after another, until it is cancelled."""
    chance = random.Random(name)
    while True:
        await asyncio.sleep(chance.uniform(0.2, 1))
        with suppress(TreadleError):  # the thread has expired, or no newer node has it yet
            infos = await runtime.threads(limit=100)
            thread = await runtime.connect(chance.choice(infos).id)
            items = [one for one in await thread.history() if isinstance(one, Message)]
            if items:
                message_id = chance.choice(items).id
                await thread.pin(message_id)
                evidence.add(Pinned(thread.id, message_id))


if __name__ == "__main__":
    known = vars(postgres_database)["_migrations"]
    setattr(postgres_database, "_migrations", lambda: [*known(), MIGRATION])  # noqa: B010 - private
    asyncio.run(run(*[pin] * PINNERS))
