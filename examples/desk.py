"""A desk in another process: it approves what agents of a server ask for, over the network.

python examples/desk.py
"""

import asyncio
import os
import sys
from pathlib import Path

import treadle
from treadle.client import Client


@treadle.tool(needs_approval=True)
async def send_mail(to: str) -> str:
    """Sends a mail to an address."""
    return f"sent to {to}"


model = os.environ.get("TREADLE_MODEL", "demo")
agent = treadle.Agent(model, name="assistant", tools=[send_mail])


async def desk(client: Client) -> None:
    """Answers the calls that wait, and then those that come."""
    page = await client.calls(awaits="approval")
    async with client.subscribe(types=["run.requires_action"], after=page.position) as events:
        while True:
            for waiting in page:
                print(f"{waiting.agent} asks for {waiting.tool} {waiting.arguments}: yes")
                thread = await client.connect(waiting.thread_id)
                await thread.approve(waiting.call.call_id)
            await anext(events)
            page = await client.calls(awaits="approval")


async def main() -> None:
    """Starts a server and a desk, and sends a message that needs the desk."""
    serve = ("serve", f"{Path(__file__).stem}:agent", "--memory", "--no-auth", "--port", "0")
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "treadle", *serve, stdout=-1, cwd=Path(__file__).parent
    )
    assert server.stdout is not None
    url = (await server.stdout.readline()).decode().split(" on ")[1].partition("/api")[0]
    async with Client(url, key="") as client, asyncio.TaskGroup() as group:
        at_desk = group.create_task(desk(client))
        thread = await client.create_thread("assistant")
        run = await thread.send("Send a mail to ada@example.com.")
        print(await run.text())
        at_desk.cancel()
    server.terminate()
    await server.wait()


if __name__ == "__main__":
    asyncio.run(main())
