"""Hosted tools of the Gemini API, as its requests declare them.

https://ai.google.dev/gemini-api/docs/tools
"""

from collections.abc import Iterable
from typing import assert_never

from treadle.domain.hosted_tools import (
    CodeInterpreter,
    FileSearch,
    HostedTool,
    RemoteMCP,
    WebFetch,
    WebSearch,
)

Object = dict[str, object]


def tool_refusal(tool: HostedTool) -> str:
    """Returns why the API does not take a hosted tool, as a sentence; "" if it does."""
    match tool:
        case RemoteMCP():
            return "Gemini has no RemoteMCP; use treadle.mcp.MCPTools."
        case WebSearch() | WebFetch() if tool.allowed_domains or tool.blocked_domains:
            return f"Gemini takes no domains for {type(tool).__name__}."
        case WebSearch() | WebFetch() if tool.max_uses is not None:
            return f"Gemini takes no max_uses for {type(tool).__name__}."
        case CodeInterpreter() if tool.container or tool.files:
            return "Gemini takes neither container nor files of a CodeInterpreter."
        case _:
            return ""


def hosted_entries(tools: Iterable[HostedTool]) -> list[Object]:
    """Returns the entries of hosted tools in the `tools` of a request."""
    return [_entry(tool) for tool in tools]


def _entry(tool: HostedTool) -> Object:
    extra = dict(tool.extra)
    match tool:
        case WebSearch():
            return {"googleSearch": extra}
        case WebFetch():
            return {"urlContext": extra}
        case CodeInterpreter():
            return {"codeExecution": extra}
        case FileSearch():
            stores: Object = {"fileSearchStoreNames": list(tool.stores)}
            most: Object = {"topK": tool.max_results} if tool.max_results else {}
            return {"fileSearch": {**stores, **most, **extra}}
        case RemoteMCP():
            return {"mcpServers": []}  # refused where the agent is defined
        case _ as unreachable:
            assert_never(unreachable)
