"""Describes why a server cannot be started or reached, for people and models."""

import asyncio
from typing import cast

import httpx2
from mcp import MCPError
from mcp.types import CONNECTION_CLOSED

from treadle.tools.failure import explain_failure


def explain_end(error: BaseException) -> str:
    """Returns why a connection could not be opened, or broke, as the end of a sentence."""
    cause = _innermost(error)
    match cause:
        case FileNotFoundError() | NotADirectoryError():  # the command, or the folder
            return f"{cause.filename} was not found; check its spelling, and PATH"
        case PermissionError():
            return f"{cause.filename} may not be executed; check its permissions"
        case httpx2.ConnectTimeout():
            return "no connection was possible in time; check the address and the network"
        case httpx2.ConnectError():
            return f"no connection was possible ({cause}); check the address and the network"
        case MCPError() if cause.code == CONNECTION_CLOSED:
            return "it ended before it answered"
        case MCPError():
            return f"it answered: {cause.message}"
        case asyncio.CancelledError():
            return "the connection was closed"
        case _:
            return explain_failure(cause)


def _innermost(error: BaseException) -> BaseException:
    """Returns the first cause in a group of any depth."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error
