"""Tools of servers that speak the Model Context Protocol: https://modelcontextprotocol.io.

The protocol itself is spoken by the official package `mcp`, which the extra `treadle[mcp]` brings.
"""

from treadle.errors import MissingExtra

try:
    from mcp import Client as _Client
except ImportError as error:
    raise MissingExtra(
        "treadle.mcp needs the package mcp, version 2 or newer: pip install 'treadle[mcp]'."
    ) from error

from treadle.mcp.tools import MCPTools

__all__ = ["MCPTools"]

del _Client
