"""A real MCP server for the tests, on standard input and output; `server.py PORT` on HTTP.

With `LEGACY` in the environment it speaks the protocol as it was before 2026-07-28.
"""

import asyncio
import base64
import os
import sys

from mcp import MCPError
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.mcpserver import Context, Image, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server
from mcp.types import METHOD_NOT_FOUND
from pydantic import BaseModel

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
cancelled: list[str] = []
server = MCPServer("test", instructions="For tests.", log_level="ERROR")


async def refuse_discovery(ctx: ServerRequestContext, call_next: CallNext) -> HandlerResult:
    """Answers as a server that does not know `server/discover` yet."""
    if ctx.method == "server/discover":
        raise MCPError(METHOD_NOT_FOUND, "Method not found")
    return await call_next(ctx)


if "LEGACY" in os.environ:
    server.middleware.append(refuse_discovery)


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
    raise ToolError("the disk is full")


@server.tool()
def secret() -> str:
    """Says a secret."""
    raise ToolError(f"cannot log in with {os.environ.get('TOKEN')}")


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
async def wait(mark: str, ctx: Context) -> str:
    """Waits for a minute."""
    await ctx.report_progress(0)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        cancelled.append(mark)
        raise
    return "waited"


@server.tool()
async def was_cancelled(mark: str) -> bool:
    """Says whether a call of `wait` was cancelled, or is within a second."""
    for _ in range(100):
        if mark in cancelled:
            return True
        await asyncio.sleep(0.01)
    return False


@server.tool()
def pid() -> int:
    """Returns the id of the process."""
    return os.getpid()


@server.tool()
def die() -> str:
    """Ends the server."""
    os._exit(3)


@server.tool()
async def grow(name: str, ctx: Context) -> str:
    """Gets another tool."""

    def grown() -> str:
        """Is new."""
        return f"I am {name}"

    server.add_tool(grown, name=name)
    await ctx.notify_tools_changed()
    if "LEGACY" in os.environ:
        await ctx.session.send_tool_list_changed()
    return "grown"


async def run_legacy() -> None:
    """Serves the old protocol only; `server.run` lets the first request choose."""
    lowlevel = server._lowlevel_server
    options = lowlevel.create_initialization_options()
    async with stdio_server() as (read, write):
        await serve_loop(lowlevel, read, write, lifespan_state={}, init_options=options)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        server.run("streamable-http", port=int(sys.argv[1]))
    else:
        print("ready", file=sys.stderr)
        asyncio.run(run_legacy()) if "LEGACY" in os.environ else server.run("stdio")
