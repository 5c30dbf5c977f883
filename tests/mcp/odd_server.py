"""A server that speaks just enough of the protocol of 2024 to do one thing wrong: its argument.

Written by hand, because the real ones do not do such things, and because it starts at once.
"""

import json
import os
import sys
from typing import Any

ODDITY = sys.argv[1]
SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
RESULTS: dict[str, dict[str, Any]] = {
    "bare": {},
    "untyped": {"structuredContent": {"n": 4}},
    "texts": {"content": "four", "structuredContent": None},
    "listed": {"content": [{"type": "text", "text": "four"}], "structuredContent": [4]},
    "props": {"content": ["one", {"type": "odd", "n": 2}, {"type": "text", "text": "3", "x": 1}]},
}
listings = 0


class Refused(Exception):
    """Answered as an error."""


def tool(name: str, **more: object) -> dict[str, Any]:
    return {"name": name, "inputSchema": {"type": "object"}, **more}


def list_tools(params: dict[str, Any]) -> dict[str, Any]:
    global listings
    listings += 1
    match ODDITY:
        case "pages":
            page = int(params.get("cursor", 0))
            more = {} if page == 2 else {"nextCursor": str(page + 1)}
            return {"tools": [tool(f"tool{page}"), tool("everywhere")], **more}
        case "endless pages":
            return {"tools": [tool(f"tool{listings}")], "nextCursor": "again"}
        case "no list":
            raise Refused("the list is lost")
        case "no list at first" if listings == 1:
            raise Refused("not yet")
        case "invalid list":
            return {"tools": "none"}
        case "odd tools":
            return {
                "tools": [
                    {"title": "has no name"},
                    7,
                    {"name": "bare"},
                    {"name": "untyped", "inputSchema": {"type": "object"}, "outputSchema": {}},
                    tool("texts", description=["a", "b"], annotations=3, icons="none"),
                    {"name": "listed", "inputSchema": {"type": "array", "required": "a"}},
                    {"name": "props", "inputSchema": {"type": "object", "properties": None}},
                ]
            }
        case "silent":
            sys.stdin.read()
    return {"tools": [tool("pid"), tool("typed", outputSchema=SCHEMA)]}


def answer(method: str, params: dict[str, Any]) -> dict[str, Any]:
    match method:
        case "initialize":
            return {
                "protocolVersion": "2024-11-05",
                "capabilities": {} if ODDITY == "no tools" else {"tools": {}},
                "serverInfo": {"name": "odd", "version": "1"},
            }
        case "tools/list":
            return list_tools(params)
        case "tools/call" if params["name"] == "pid":
            if ODDITY == "mortal" and not params["arguments"]:
                sys.exit()
            return {"content": [{"type": "text", "text": str(os.getpid())}]}
        case "tools/call" if params["name"] in RESULTS:
            return RESULTS[params["name"]]
        case "tools/call":
            return {"content": [], "structuredContent": {"n": "no number"}}
    raise Refused(f"no {method} here")


for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        continue
    reply: dict[str, Any] = {"jsonrpc": "2.0", "id": request["id"]}
    try:
        reply["result"] = answer(request["method"], request.get("params", {}))
    except Refused as error:
        reply["error"] = {"code": -32601, "message": str(error)}
    print(json.dumps(reply), flush=True)
