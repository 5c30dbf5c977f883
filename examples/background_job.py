"""A job that outlives its run and the process, and wakes the agent when it ends.

python examples/background_job.py
"""

import asyncio
import tempfile
from dataclasses import dataclass
from pathlib import Path

import treadle
from treadle.jobs import Job, job_context
from treadle.models import ModelRequest
from treadle.testing import Call, ScriptedModel


@dataclass
class Export(Job[str], restartable=True):
    """Exports the bookings of a year, in the background."""

    year: int

    async def task(self) -> str:
        attempt = job_context(self).attempt
        print(f"[the export of {self.year} runs, attempt {attempt}]")
        months = [await self.submit(export_month, self.year, month) for month in range(1, 13)]
        files = [await month for month in months]
        return f"{len(files)} files, the last one is {files[-1]}"


async def export_month(year: int, month: int) -> str:
    """Exports one month, slowly."""
    await asyncio.sleep(0.3)
    return f"{year}-{month:02}.csv"


@treadle.tool
async def export(ctx: treadle.RunContext, year: int) -> str:
    """Exports the bookings of a year.

    Args:
        year: The year.
    """
    await ctx.jobs.submit(Export(year), parent=ctx.jobs.root)
    return "The export has begun; its end will be announced."


def clerk(request: ModelRequest) -> str | Call:
    """A model that starts the export and reports its result."""
    last = request.items[-1]
    if isinstance(last, treadle.FunctionCallOutput):
        return "The export runs. I will tell you when it is there."
    if isinstance(last, treadle.Message) and "background job" in last.text:
        return f"It is there: {last.text.partition('] ')[2]}."
    return Call("export", '{"year": 2025}')


async def main() -> None:
    """Closes the runtime while the job runs; the next runtime restarts the job."""
    agent = treadle.Agent(ScriptedModel([clerk] * 8), name="clerk", tools=[export])
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder, 'treadle.db')}"
        async with treadle.open(url, agents=[agent]) as runtime:
            thread = await runtime.create_thread(agent)
            run = await thread.send("Export 2025, please.")
            print((await run.result()).text)
        print("[the process ends]")
        async with treadle.open(url, agents=[agent]) as runtime:
            thread = await runtime.connect(thread.id)
            async for event in thread.subscribe((await thread.state()).seq):
                if isinstance(event, treadle.MessageAdded) and event.origin == "model":
                    print(event.item.text)
                if isinstance(event, treadle.RunCompleted):
                    break
            print(await tree_of(thread))


async def tree_of(thread: treadle.Thread) -> treadle.ThreadTree:
    """Returns the runs and jobs of the thread."""
    tree = treadle.ThreadTree()
    for event in await thread.events():
        tree.apply(event)
    return tree


if __name__ == "__main__":
    asyncio.run(main())
