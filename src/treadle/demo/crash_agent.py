"""The process that answers in `treadle demo crash`: an agent with a tool, on a database.

Its model is a program that writes slowly, so that the process can be killed in the middle.
"""

import asyncio
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

from treadle.agent import Agent
from treadle.domain.items import FunctionCallOutput
from treadle.domain.usage import Usage
from treadle.models.base import ModelRequest
from treadle.runtime.runtime import open as open_runtime
from treadle.streaming.demux import Demux, StreamEvent
from treadle.tools.function import tool

QUESTION = "How does a loom keep its pattern? Look it up first."
PACE_SECONDS = 0.035
KEY = "demo"
FOUND = "treadles lift the shafts; the order in which they are pressed is the pattern"
ANSWER = """\
**A loom keeps its pattern in the order of its treadles.**

Each treadle lifts some of the shafts, and with them every warp thread that runs through their \
heddles. The weaver presses one treadle, throws the shuttle through the open shed, beats the weft \
into place, and presses the next.

- The *warp* is fixed before the first throw, and stays.
- The *weft* is added thread by thread, and is never taken back.
- What is pressed next follows from what was pressed before.

So a weaver who is called away in the middle of a row comes back, looks at the last whole thread, \
and continues with the next one: nothing that is woven is lost, and no thread is woven twice. The \
unfinished throw is taken out and thrown again."""


class SlowModel:
    """Calls the tool, then writes the answer word by word; fulfils `Model`."""

    name = "slow"
    provider = "demo"

    async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamEvent]:
        """Streams the call of the tool, or the answer once it has its output."""
        demux = Demux(self.provider, request.used_call_ids)
        if not any(isinstance(item, FunctionCallOutput) for item in request.items):
            demux.call(0, "", "look_up")
            demux.arguments(0, '{"word":"loom"}')
            demux.finish(0)
        else:
            for word in ANSWER.split(" "):
                demux.text("text", word if word == ANSWER.split(" ", maxsplit=1)[0] else f" {word}")
                for event in demux.take():
                    yield event
                await asyncio.sleep(PACE_SECONDS)
        demux.finish_all(truncated=False)
        demux.usage = Usage(requests=1)
        demux.end("stop")
        for event in demux.take():
            yield event


def crash_agent(folder: Path) -> Agent[None, str]:
    """Returns the agent; each run of its tool is a line in the file `tool-runs`."""

    @tool
    async def look_up(word: str) -> str:
        """Looks a word up.

        Args:
            word: The word.
        """
        with (folder / "tool-runs").open("a") as runs:
            runs.write(f"{word}\n")
        await asyncio.sleep(0.5)
        return FOUND

    return Agent(SlowModel(), name="weaver", tools=[look_up])


async def answer(folder: Path) -> None:
    """Drives the database in `folder` until the process is killed; prints the conversation's id."""
    agent = crash_agent(folder)
    async with open_runtime(f"sqlite:///{folder / 'treadle.db'}", agents=[agent]) as runtime:
        thread = await runtime.create_thread(agent, key=KEY)
        sys.stdout.write(f"{thread.id}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(answer(Path(sys.argv[1])))
