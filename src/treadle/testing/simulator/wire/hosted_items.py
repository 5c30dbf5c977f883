"""Items of Responses for the calls of hosted tools.

https://platform.openai.com/docs/api-reference/responses/object
"""

from treadle.domain.items import Annotation, HostedCall, UrlCitation
from treadle.testing.simulator.turn import Hosted

Object = dict[str, object]

_PHASES = {
    "web_search": "searching",
    "file_search": "searching",
    "code_interpreter": "interpreting",
}


def hosted_item(output: Hosted, address: str) -> Object:
    """Returns the item of a call, or of the request for its approval."""
    call = output.call
    remote = {"name": call.name, "server_label": call.server, "arguments": call.arguments}
    if output.needs_approval:
        return {"id": f"mcpr_{address}", "type": "mcp_approval_request", **remote}
    item: Object = {"type": f"{call.tool}_call", "status": call.status}
    match call.tool:
        case "web_search":
            urls = [one.url for one in call.sources if isinstance(one, UrlCitation)]
            sources = [{"type": "url", "url": url} for url in urls]
            action = {"type": "search", "query": call.arguments, "sources": sources}
            return {"id": f"ws_{address}", **item, "action": action}
        case "file_search":
            results = [
                {"file_id": one.file_id, "filename": one.filename, "text": call.output}
                for one in call.sources
                if not isinstance(one, UrlCitation)
            ]
            return {"id": f"fs_{address}", **item, "queries": [call.arguments], "results": results}
        case "code_interpreter":
            logs = [{"type": "logs", "logs": call.output}] if call.output else []
            made = {"code": call.arguments, "container_id": "cntr_sim", "outputs": logs}
            return {"id": f"ci_{address}", **item, **made}
        case _:
            ended: Object = {"output": call.output, "error": None}
            if call.status == "failed":
                ended = {"output": None, "error": call.output}
            return {"id": f"mcp_{address}", **item, **remote, **ended}


def begun_item(item: Object) -> Object:
    """Returns an item as it is announced, without what is not known yet."""
    begun = item | ({"status": "in_progress"} if "status" in item else {})
    for field, empty in (
        ("action", {"type": "search", "query": ""}),
        ("code", ""),
        ("output", None),
    ):
        if field in item:
            begun[field] = empty
    if "results" in item or "outputs" in item:
        begun |= {name: None for name in ("results", "outputs") if name in item}
    if "arguments" in item:
        begun["arguments"] = ""
    return begun


def phases(call: HostedCall) -> tuple[str, ...]:
    """Returns the ends of the names of the events between the start and the end of a call."""
    middle = _PHASES.get(call.tool)
    last = "failed" if call.status == "failed" and call.tool == "mcp" else "completed"
    return ("in_progress", *((middle,) if middle else ()), last)


def annotation(citation: Annotation) -> Object:
    """Returns a citation as an annotation of a text."""
    if isinstance(citation, UrlCitation):
        return {
            "type": "url_citation",
            "url": citation.url,
            "title": citation.title,
            "start_index": citation.start_index or 0,
            "end_index": citation.end_index or 0,
        }
    return {
        "type": "file_citation",
        "file_id": citation.file_id,
        "filename": citation.filename,
        "index": citation.start_index or 0,
    }
