"""Hosted tools of the OpenAI Responses API, as its requests declare them.

https://platform.openai.com/docs/guides/tools
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

# What a call found is part of the response only if it is asked for.
_INCLUDED: Mapping[type[HostedTool], str] = {
    WebSearch: "web_search_call.action.sources",
    FileSearch: "file_search_call.results",
    CodeInterpreter: "code_interpreter_call.outputs",
}


def tool_refusal(tool: HostedTool) -> str:
    """Returns why the API does not take a hosted tool, as a sentence; "" if it does."""
    match tool:
        case WebFetch():
            return "OpenAI Responses has no WebFetch; WebSearch opens the pages that it finds."
        case WebSearch() if tool.blocked_domains:
            return "OpenAI Responses takes no blocked_domains; use allowed_domains."
        case WebSearch() if tool.max_uses is not None:
            return (
                "OpenAI Responses takes no max_uses; limit all hosted calls of a response with "
                'ModelSettings(extra_body={"max_tool_calls": 5}).'
            )
        case _:
            return ""


def hosted_entries(tools: Iterable[HostedTool]) -> list[Object]:
    """Returns the entries of hosted tools in the `tools` of a request."""
    return [_entry(tool) | dict(tool.extra) for tool in tools]


def included(tools: Iterable[HostedTool]) -> list[str]:
    """Returns what a request asks for in addition, for those tools."""
    return [found for tool in tools if (found := _INCLUDED.get(type(tool)))]


def _entry(tool: HostedTool) -> Object:
    match tool:
        case WebSearch():
            domains = list(tool.allowed_domains)
            filters: Object = {"filters": {"allowed_domains": domains}} if domains else {}
            return {"type": "web_search", **filters}
        case FileSearch():
            entry: Object = {"type": "file_search", "vector_store_ids": list(tool.stores)}
            return entry | ({"max_num_results": tool.max_results} if tool.max_results else {})
        case CodeInterpreter():
            made: Object = {"type": "auto"}
            if tool.files:
                made["file_ids"] = list(tool.files)
            return {"type": "code_interpreter", "container": tool.container or made}
        case RemoteMCP():
            return _remote(tool)
        case WebFetch():
            return {"type": tool.name}  # refused where the agent is defined
        case _ as unreachable:
            assert_never(unreachable)


def _remote(tool: RemoteMCP) -> Object:
    rule = tool.needs_approval
    approval: object = "always" if rule is True else "never"
    if not isinstance(rule, bool) and rule:
        approval = {"always": {"tool_names": list(rule)}}
    entry: Object = {
        "type": "mcp",
        "server_label": tool.name,
        "server_url": tool.url,
        "require_approval": approval,
    }
    if tool.token:
        entry["authorization"] = tool.token
    if tool.allowed_tools:
        entry["allowed_tools"] = list(tool.allowed_tools)
    return entry
