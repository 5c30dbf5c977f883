"""Hosted tools of the Anthropic Messages API, as its requests declare them.

https://platform.claude.com/docs/en/agents-and-tools/tool-use/server-tools,
https://platform.claude.com/docs/en/agents-and-tools/mcp-connector
"""

from collections.abc import Iterable, Mapping
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

_BETA = "anthropic-beta"
_MCP = "mcp-client-2025-11-20"


def tool_refusal(tool: HostedTool) -> str:
    """Returns why the API does not take a hosted tool, as a sentence; "" if it does."""
    match tool:
        case FileSearch():
            return "Anthropic Messages has no FileSearch; send files, or search them with a tool."
        case CodeInterpreter() if tool.files:
            return "Anthropic Messages takes no files of a CodeInterpreter; send them in messages."
        case RemoteMCP() if tool.needs_approval:
            return (
                "Anthropic Messages asks for no approvals of RemoteMCP; declare it with "
                "needs_approval=False, or use treadle.mcp.MCPTools."
            )
        case _:
            return ""


def hosted_entries(tools: Iterable[HostedTool]) -> list[Object]:
    """Returns the entries of hosted tools in the `tools` of a request."""
    return [_entry(tool) | dict(tool.extra) for tool in tools]


def remote_servers(tools: Iterable[HostedTool]) -> list[Object]:
    """Returns the MCP servers of a request."""
    return [_server(tool) for tool in tools if isinstance(tool, RemoteMCP)]


def container_of(tools: Iterable[HostedTool]) -> str | None:
    """Returns the id of the container in which code runs, if there is one already."""
    given = (tool.container for tool in tools if isinstance(tool, CodeInterpreter))
    return next(given, "") or None


def hosted_headers(tools: Iterable[HostedTool], given: Mapping[str, str]) -> dict[str, str]:
    """Returns the headers of a request with those tools, joined with those of the settings."""
    if not any(isinstance(tool, RemoteMCP) for tool in tools):
        return {}
    name = next((name for name in given if name.lower() == _BETA), _BETA)
    betas = [beta.strip() for beta in given.get(name, "").split(",") if beta.strip()]
    return {name: ",".join(dict.fromkeys([*betas, _MCP]))}


def _server(tool: RemoteMCP) -> Object:
    server: Object = {"type": "url", "name": tool.name, "url": tool.url}
    return server | ({"authorization_token": tool.token} if tool.token else {})


def _entry(tool: HostedTool) -> Object:
    match tool:
        case WebSearch():
            return {"type": "web_search_20250305", "name": tool.name, **_limits(tool)}
        case WebFetch():
            return {"type": "web_fetch_20250910", "name": tool.name, **_limits(tool)}
        case CodeInterpreter():
            return {"type": "code_execution_20250825", "name": "code_execution"}
        case RemoteMCP():
            entry: Object = {"type": "mcp_toolset", "mcp_server_name": tool.name}
            if tool.allowed_tools:
                entry["default_config"] = {"enabled": False}
                entry["configs"] = {name: {"enabled": True} for name in tool.allowed_tools}
            return entry
        case FileSearch():
            return {"type": tool.name}  # refused where the agent is defined
        case _ as unreachable:
            assert_never(unreachable)


def _limits(tool: WebSearch | WebFetch) -> Object:
    fields: Object = {
        "max_uses": tool.max_uses,
        "allowed_domains": list(tool.allowed_domains),
        "blocked_domains": list(tool.blocked_domains),
    }
    return {name: value for name, value in fields.items() if value}
