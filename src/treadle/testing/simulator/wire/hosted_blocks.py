"""Blocks of Messages for the calls of hosted tools.

https://platform.claude.com/docs/en/agents-and-tools/tool-use/server-tools
"""

from typing import cast

import msgspec

from treadle.domain.items import Annotation, HostedCall, UrlCitation

Object = dict[str, object]


def hosted_blocks(call: HostedCall, address: str) -> tuple[Object, Object]:
    """Returns the block of a call, and the one of its result."""
    failed = call.status == "failed"
    if call.tool == "mcp":
        use_id = f"mcptoolu_{address}"
        given = cast("object", msgspec.json.decode(call.arguments or "{}"))
        names = {"name": call.name, "server_name": call.server, "input": given}
        text = [{"type": "text", "text": call.output}]
        result: Object = {"tool_use_id": use_id, "is_error": failed, "content": text}
        return (
            {"type": "mcp_tool_use", "id": use_id, **names},
            {"type": "mcp_tool_result", **result},
        )
    use_id = f"srvtoolu_{address}"
    name, field = _NAMES.get(call.tool, (call.tool, "query"))
    content = _content(call, name)
    if failed:
        content = {"type": f"{name}_tool_result_error", "error_code": call.output}
    return (
        {"type": "server_tool_use", "id": use_id, "name": name, "input": {field: call.arguments}},
        {"type": f"{name}_tool_result", "tool_use_id": use_id, "content": content},
    )


_NAMES = {"code_interpreter": ("bash_code_execution", "command"), "web_fetch": ("web_fetch", "url")}


def _content(call: HostedCall, name: str) -> object:
    if name == "web_search":
        return [
            {
                "type": "web_search_result",
                "url": one.url,
                "title": one.title,
                "encrypted_content": "c2lt",
                "page_age": None,
            }
            for one in call.sources
            if isinstance(one, UrlCitation)
        ]
    if name == "web_fetch":
        source = {"type": "text", "media_type": "text/plain", "data": call.output}
        document = {"type": "document", "title": "", "source": source}
        return {"type": "web_fetch_result", "url": call.arguments, "content": document}
    return {
        "type": f"{name}_result",
        "stdout": call.output,
        "stderr": "",
        "return_code": 0,
        "content": [],
    }


def block_citation(citation: Annotation) -> Object:
    """Returns a citation as one of a block of text."""
    if isinstance(citation, UrlCitation):
        return {
            "type": "web_search_result_location",
            "url": citation.url,
            "title": citation.title,
            "cited_text": citation.cited_text,
            "encrypted_index": "c2lt",
        }
    return {
        "type": "page_location",
        "document_index": 0,
        "document_title": citation.filename,
        "cited_text": citation.cited_text,
        "start_page_number": citation.page or 1,
        "end_page_number": (citation.page or 1) + 1,
    }
