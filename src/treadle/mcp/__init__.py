"""Tools of servers of the Model Context Protocol: https://modelcontextprotocol.io.

The official package `mcp` implements the protocol; the extra `treadle[mcp]` installs it.
"""

from treadle.errors import MissingExtra

try:
    from mcp import Client as _Client
except ImportError as error:
    raise MissingExtra(
        "treadle.mcp needs the package mcp, version 2 or newer: pip install 'treadle[mcp]'."
    ) from error

from treadle.mcp.oauth import OAuthToken
from treadle.mcp.restart import RestartPolicy
from treadle.mcp.tools import MCPTools

__all__ = ["MCPTools", "OAuthToken", "RestartPolicy"]

del _Client
