"""A call that waits for approval, which another runtime gives.

python examples/approval.py
"""

import asyncio
import os
import tempfile
from pathlib import Path

import treadle


@treadle.tool(needs_approval=True)
async def send_mail(to: str) -> str:
    """Sends a mail.

    Args:
        to: The address.
    """
    return f"sent to {to}"


async def person(url: str, thread_id: str) -> None:
    """Watches the thread with a second runtime, and approves its calls."""
    async with treadle.open(url, drive=False) as runtime:
        thread = await runtime.connect(thread_id)
        async for event in thread.subscribe():
            if isinstance(event, treadle.RunRequiresAction):
                for call, awaits in await thread.pending_calls():
                    print(f"{awaits} of {call.name} is asked for: yes")
                    await thread.approve(call.call_id)
            elif isinstance(event, treadle.RunCompleted):
                return


async def main() -> None:
    """Drives a thread while the person watches it."""
    model = os.environ.get("TREADLE_MODEL", "demo")
    agent = treadle.Agent(model, name="assistant", tools=[send_mail])
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder, 'treadle.db')}"
        async with treadle.open(url, agents=[agent]) as runtime:
            thread = await runtime.create_thread(agent)
            run = await thread.send("Send mail to ada@example.com.")
            await person(url, thread.id)
            result = await run.result()
            outputs = [i.text for i in result.items if isinstance(i, treadle.FunctionCallOutput)]
            print(result.status, outputs)


if __name__ == "__main__":
    asyncio.run(main())
