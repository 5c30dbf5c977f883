"""A real MCP server for the tests: `server.py` on standard input and output, `server.py PORT` on HTTP.

With `LEGACY` in the environment it speaks the protocol as it was before 2026-07-28.
"""

import asyncio
import base64
import os
import sys
from typing import Annotated

from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.types import CallToolResult, TextContent
from pydantic import BaseModel

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
cancelled: list[str] = []
server = MCPServer("test", instructions="For tests.")


class Place(BaseModel):
    """A place."""

    city: str
    degrees: int


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def place(city: str) -> Place:
    """Says how warm it is."""
    return Place(city=city, degrees=18)


@server.tool()
def picture() -> Image:
    """Returns a picture."""
    return Image(data=PIXEL, format="png")


@server.tool(structured_output=False)
def words(count: int) -> str:
    """Returns many words."""
    return "word " * count


@server.tool()
def fail() -> str:
    """Fails."""
    raise ValueError("the disk is full")


@server.tool()
def secret() -> str:
    """Says a secret."""
    raise ValueError(f"cannot log in with {os.environ.get('TOKEN')}")


@server.tool(name="odd.name/1")
def odd() -> str:
    """Has a name that providers refuse."""
    return "odd"


@server.tool()
async def steps(ctx: Context) -> str:
    """Reports its progress."""
    await ctx.report_progress(1, 2, "half")
    await ctx.report_progress(2)
    return "done"


@server.tool()
async def wait() -> str:
    """Waits for a minute."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        cancelled.append("wait")
        raise
    return "waited"


@server.tool()
def were_cancelled() -> int:
    """Counts the calls that were cancelled."""
    return len(cancelled)


@server.tool()
def pid() -> int:
    """Returns the id of the process."""
    return os.getpid()


@server.tool()
def die() -> str:
    """Ends the server."""
    os._exit(3)


@server.tool()
async def grow(ctx: Context) -> str:
    """Gets another tool."""

    def grown() -> str:
        """Is new."""
        return "grown"

    server.add_tool(grown)
    await ctx.notify_tools_changed()
    await ctx.session.send_tool_list_changed()
    return "grown"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", port=int(sys.argv[1]), log_level="ERROR")
    else:
        print("ready", file=sys.stderr)
        server.run("stdio")
