"""Calls of hosted tools as items of the Responses API, whatever provider made them."""

from treadle.domain.items import FileCitation, HostedCall, UrlCitation
from treadle.server.responses.response_object import Json


def hosted_item(call: HostedCall) -> Json:
    """Returns the item of a call whose result is known."""
    item: Json = {"id": call.call_id, "status": call.status}
    match call.tool:
        case "web_search":
            sources = [
                {"type": "url", "url": one.url}
                for one in call.sources
                if isinstance(one, UrlCitation)
            ]
            action: Json = {"type": "search", "query": call.arguments, "sources": sources}
            return {**item, "type": "web_search_call", "action": action}
        case "web_fetch":
            action = {"type": "open_page", "url": call.arguments}
            return {**item, "type": "web_search_call", "action": action}
        case "file_search":
            results = [
                {"file_id": one.file_id, "filename": one.filename, "text": call.output}
                for one in call.sources
                if isinstance(one, FileCitation)
            ]
            queries = call.arguments.splitlines()
            return {**item, "type": "file_search_call", "queries": queries, "results": results}
        case "code_interpreter":
            logs = [{"type": "logs", "logs": call.output}] if call.output else []
            ran: Json = {"code": call.arguments, "container_id": "", "outputs": logs}
            return {**item, "type": "code_interpreter_call", **ran}
        case _:
            return _remote_item(call, item)


def _remote_item(call: HostedCall, item: Json) -> Json:
    """Returns the call of a tool of an MCP server, or of one without a type of its own here."""
    named = {"server_label": call.server or call.tool, "name": call.name or call.tool}
    ended: Json = {"output": call.output, "error": None}
    if call.status == "failed":
        text = {"type": "text", "text": call.output}
        ended = {
            "output": None,
            "error": {"type": "mcp_tool_execution_error", "content": [text]},
        }
    return {**item, "type": "mcp_call", **named, "arguments": call.arguments, **ended}
