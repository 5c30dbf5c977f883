"""Tools of servers that speak the Model Context Protocol: https://modelcontextprotocol.io.

The protocol itself is spoken by the official package `mcp`, which the extra `weft[mcp]` brings.
"""

from weft.errors import MissingExtra

try:
    from mcp import Client as _Client
except ImportError as error:
    raise MissingExtra(
        "weft.mcp needs the package mcp, version 2 or newer: pip install 'weft[mcp]'."
    ) from error

from weft.mcp.tools import MCPTools

__all__ = ["MCPTools"]

del _Client
