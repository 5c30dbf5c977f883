"""A document is uploaded once, sent by its id, and answered with a file of a tool.

python examples/send_files.py
"""

import asyncio

import treadle
from treadle import File, FunctionCallOutput, InputFile, Message
from treadle.models import ModelRequest
from treadle.testing import Call, ScriptedModel

REPORT = "month,pieces\n" + "\n".join(f"{month},{month * 100}" for month in range(1, 13))


@treadle.tool
async def plot() -> list[str | File]:
    """Plots the report."""
    return ["The plot:", File(b"%PDF-1.7\n" + bytes(20_000), "plot.pdf")]


def answer(request: ModelRequest) -> str:
    """A model that reads the file in the message and the one that the tool returned."""
    message, output = request.items[0], request.items[-1]
    assert isinstance(message, Message)
    assert isinstance(output, FunctionCallOutput)
    names = [
        f"{part.filename} ({part.media_type}, {part.size} bytes)"
        for part in [*message.content, *output.output]
        if isinstance(part, InputFile)
    ]
    return f"I read {' and '.join(names)}."


agent = treadle.Agent(ScriptedModel([Call("plot", "{}"), answer]), tools=[plot])


async def main() -> None:
    """One conversation of one owner."""
    async with treadle.open(agents=[agent]) as runtime:
        ada = runtime.for_owner("ada")
        uploaded = await ada.files.put(REPORT.encode() * 50, name="../report.csv")
        thread = await ada.create_thread(agent)
        message: treadle.Input = ["Plot this.", InputFile(file_id=uploaded.id)]
        run = await thread.send(message)
        print((await run.result()).output)
        events = sum(len(event) for event in await thread.export())
        print(f"The events have {events:,} bytes; the files are stored next to them.")


if __name__ == "__main__":
    asyncio.run(main())
