"""Writes a database of the current version as SQL: `python -m tests.journal.schema_file`.

Run it before a migration is added, so that `schemas/` has a small file of each version.
"""

import asyncio
import sqlite3
import tempfile
from contextlib import suppress
from pathlib import Path

import treadle
from treadle import Agent, TreadleError, tool
from treadle.journal.schema_version import SchemaVersion
from treadle.testing import Call, ScriptedModel, Text

SCHEMAS = Path(__file__).with_name("schemas")


@tool(needs_approval=True)
async def pay(euros: int) -> str:
    """Pays."""
    return f"paid {euros}"


async def fill(path: Path) -> None:
    """Holds conversations that leave something in every table."""
    steps = [[Text("hello")], [Text("again")], [Call("pay", '{"euros": 5}')]]
    agent = Agent(name="clerk", model=ScriptedModel(steps), tools=[pay])
    broken = Agent(name="broken", model=ScriptedModel([]))
    async with treadle.open(f"sqlite:///{path}", agents=[agent, broken]) as runtime:
        first = await runtime.create_thread(agent, owner="ann", metadata={"ticket": "T-1"})
        for text in ("hi", "and again"):
            await (await first.send(text, key=text)).result()
        await (await runtime.connect(first.id)).fork(at=4)
        failing = await runtime.create_thread(broken, owner="bob")
        with suppress(TreadleError):  # the script of its model is empty
            await (await failing.send("hi")).result()
        waiting = await runtime.create_thread(agent, owner="bob", metadata={"n": 3})
        run = await waiting.send("pay 5 euros")
        async for event in run:
            if event.type == "run.requires_action":
                break
        await waiting.send("and then")
        await (await runtime.memory("style", owner="ann")).create("tone", "friendly")
    async with treadle.open(f"sqlite:///{path}", drive=False) as watching:
        await (await watching.connect(first.id)).send("later", key="later")


def dump(path: Path) -> str:
    """Returns a database as SQL."""
    with sqlite3.connect(path) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        lines = list(connection.iterdump())
    lines += [f"PRAGMA user_version = {version};", f"PRAGMA application_id = {application};"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "treadle.db"
        asyncio.run(fill(made))
        text = dump(made)
        stored = int(text.split("user_version = ")[1].split(";")[0])
        number = SchemaVersion.unpack(stored).number
        (SCHEMAS / f"v{number}.sql").write_text(text, encoding="utf-8")
