"""The tools of an MCP server that this program starts; one of them needs approval.

python examples/mcp_tools.py          (needs the extra treadle[mcp])
"""

import asyncio
import os
import sys
from collections.abc import Mapping

from mcp.server.mcpserver import Context, MCPServer

import treadle
from treadle.mcp import MCPTools

server = MCPServer("warehouse", log_level="WARNING")


@server.tool()
async def count_stock(article: str, context: Context) -> str:
    """Counts how many pieces of an article are in stock.

    Args:
        article: Name of the article.
    """
    await context.report_progress(1, 2, "looking at the shelves")
    return f"{len(article) * 3} pieces"


@server.tool()
def order_article(article: str) -> str:
    """Orders an article.

    Args:
        article: Name of the article.
    """
    return f"{article} are on their way"


def must_be_approved(context: treadle.RunContext[None], arguments: Mapping[str, object]) -> bool:
    """Returns whether a call needs approval."""
    return context.tool_name == "order_article" and arguments["article"] != "pencils"


async def main() -> None:
    """Asks for both tools, and approves the order."""
    model = os.environ.get("TREADLE_MODEL", "demo")
    command = [sys.executable, __file__, "serve"]
    async with MCPTools(command, name="warehouse", needs_approval=must_be_approved) as warehouse:
        agent = treadle.Agent(model, name="clerk", tools=[warehouse])
        async with treadle.open(agents=[agent]) as runtime:
            thread = await runtime.create_thread(agent)
            run = await thread.send("Count the stock of 'lamps', and order the article 'lamps'.")
            async for event in run:
                match event:
                    case treadle.ToolProgress(name=name, message=message):
                        print(f"{name}: {message}")
                    case treadle.RunRequiresAction():
                        for call, awaits in await thread.pending_calls():
                            print(f"{awaits} of {call.name} is asked for: yes")
                            await thread.approve(call.call_id)
                    case treadle.ToolOutputRecorded(name=name, item=output):
                        print(f"{name}: {output.text}")
                    case _:
                        pass
            print((await run.result()).text)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        server.run("stdio")
    else:
        asyncio.run(main())
