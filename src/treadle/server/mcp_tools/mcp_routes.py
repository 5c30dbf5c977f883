"""The address of the agents for clients of MCP: Streamable HTTP, with an answer for each request.

https://modelcontextprotocol.io/specification/2025-11-25/basic/transports
"""

import secrets
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from msgspec import UNSET

from treadle.domain.arguments import is_mapping, shown
from treadle.domain.entries import OnBusy
from treadle.domain.inputs import as_message
from treadle.errors import RunInProgress, ThreadNotFound
from treadle.loop.definition import AgentDefinition
from treadle.runtime.thread import Thread
from treadle.runtime.thread_run import ThreadRun
from treadle.server.api_request import ApiRequest, own_owner
from treadle.server.mcp_tools.call_mapper import CallMapper, decision_in
from treadle.server.mcp_tools.open_calls import CallKey
from treadle.server.mcp_tools.rpc_message import (
    INVALID_PARAMS,
    METHOD_NOT_FOUND,
    RpcId,
    RpcMessage,
    error_of,
    result_of,
)
from treadle.server.operation import Answer, Content, Operations
from treadle.server.services import Services
from treadle.server.stream import Receive, Scope, Send, Source
from treadle.server.streams import StreamAnswer, require_may_stream
from treadle.server.waiting import waits_for_answer

MCP = Operations("MCP", prefix="/mcp")

_VERSION = version("treadle")

VERSIONS = ("2025-11-25", "2025-06-18", "2025-03-26")
"""The versions of the protocol that are served, the newest first."""

_SESSION = b"mcp-session-id"
_ASKS = ".asks"
"""The end of the id of a session whose client can ask a person."""

_INPUT = {
    "type": "object",
    "properties": {
        "message": {
            "type": "string",
            "description": "The task, with everything the agent must know.",
        },
        "conversation": {
            "type": "string",
            "description": "The conversation of an earlier result, to continue it.",
        },
    },
    "required": ["message"],
}
_OUTPUT = {
    "type": "object",
    "properties": {"answer": {}, "conversation": {"type": "string"}},
    "required": ["answer", "conversation"],
}

Request = ApiRequest[Any, RpcMessage]
Agent = AgentDefinition[Any, Any]


@MCP.add(
    "POST",
    "",
    id="mcp",
    scope="write",
    body=RpcMessage,
    answers={200: dict[str, Any], 202: None},
    is_stream=True,
)
async def answer_mcp(request: Request) -> object:
    """Answers a message of a client of MCP."""
    message = request.body
    id = message.id
    if message.method and id is not UNSET and id is not None:
        return await _answer(request, id)
    if message.method == "notifications/cancelled":
        cancelled = message.params.get("requestId")
        if isinstance(cancelled, str | int):
            key = _key(request, cancelled)
            run = None if key is None else request.services.mcp_calls.find(key)
            if run is not None:
                await run.cancel()
    elif not message.method and isinstance(id, str):
        await _decide(request, id)
    return Answer(202, Content(b"", b"application/json"))


async def _answer(request: Request, id: RpcId) -> object:
    message = request.body
    match message.method:
        case "initialize":
            headers = ((_SESSION, _new_session(message.params).encode()),)
            return Answer(200, result_of(id, _server(message.params)), headers)
        case "ping":
            return result_of(id, {})
        case "tools/list":
            return result_of(id, {"tools": _tools(request.services)})
        case "tools/call":
            return await _call(request, id)
        case method:
            return error_of(id, METHOD_NOT_FOUND, f"The method {method[:100]!r} is not served.")


def _new_session(params: Mapping[str, Any]) -> str:
    """Returns the id of a session; it tells what the client can do, and has no authority."""
    capabilities = params.get("capabilities")
    asks = is_mapping(capabilities) and capabilities.get("elicitation") is not None
    return secrets.token_urlsafe(16) + (_ASKS if asks else "")


def _server(params: Mapping[str, Any]) -> dict[str, object]:
    asked = params.get("protocolVersion")
    return {
        "protocolVersion": asked if asked in VERSIONS else VERSIONS[0],
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "treadle", "version": _VERSION},
    }


def _tools(services: Services) -> list[dict[str, object]]:
    agents = [services.runtime.agent(name) for name in services.served]
    return [
        {
            "name": agent.name,
            "description": agent.description or f"Asks the agent {agent.name}.",
            "inputSchema": _INPUT,
            "outputSchema": _OUTPUT,
        }
        for agent in agents
    ]


async def _call(request: Request, id: RpcId) -> object:
    services, params = request.services, request.body.params
    name, arguments = params.get("name"), params.get("arguments")
    if name not in services.served:
        return error_of(id, INVALID_PARAMS, f"There is no tool {shown(name)}.")
    message = arguments.get("message") if is_mapping(arguments) else None
    conversation = arguments.get("conversation") or "" if is_mapping(arguments) else ""
    if not (isinstance(message, str) and message.strip() and isinstance(conversation, str)):
        return error_of(
            id,
            INVALID_PARAMS,
            "The arguments need a message, and may name a conversation; both are texts.",
        )
    require_may_stream(request)
    agent = services.runtime.agent(name)
    try:
        thread, run = await _send(request, agent, message, conversation)
    except ThreadNotFound:
        return error_of(id, INVALID_PARAMS, f"There is no conversation {conversation[:100]!r}.")
    except RunInProgress:
        text = "The conversation is busy with another message; call again after its answer."
        return result_of(id, {"content": [{"type": "text", "text": text}], "isError": True})
    asks = request.headers.get(_SESSION).endswith(_ASKS) and request.principal.may("approve")
    meta = params.get("_meta")
    token = meta.get("progressToken") if is_mapping(meta) else None
    mapper = CallMapper(
        id, agent, thread.id, progress=token if isinstance(token, str | int) else None, asks=asks
    )
    source = await run.subscribe()
    return _CallAnswer(services, source, mapper, run, _key(request, id))


async def _send(
    request: Request, agent: Agent, text: str, conversation: str
) -> tuple[Thread, ThreadRun]:
    runtime, limits = request.runtime, request.services.limits
    message = as_message(text)
    limits.require_size([message])
    owner = own_owner(request, None)
    on_busy: OnBusy = "reject"
    if conversation:
        thread = await runtime.connect(conversation)
        await limits.require_run(runtime, (await thread.info()).owner, thread.id)
        if await waits_for_answer(thread):
            on_busy = "cancel"  # its client was told that the call failed
    else:
        await limits.require_run(runtime, owner, "")
        thread = await runtime.create_thread(agent.name, owner=owner)
    return thread, await thread.send(message, agent=agent.name, on_busy=on_busy)


async def _decide(request: Request, id: str) -> None:
    """Takes the answer of a person to the question `id`, which names a thread and a call."""
    request.require("approve", "To approve a call")
    thread_id, _, call_id = id.partition("/")
    thread = await request.runtime.connect(thread_id)
    message = request.body
    if message.result is UNSET:
        await thread.deny(call_id, "The client could not ask the user.")
        return
    approved, reason = decision_in(message.result)
    if approved:
        await thread.approve(call_id)
    else:
        await thread.deny(call_id, reason)


def _key(request: Request, id: RpcId) -> CallKey | None:
    """Returns the key of a call, None without a session: ids of different clients are the same."""
    principal, session = request.principal, request.headers.get(_SESSION)
    return (principal.owner, principal.by, session, id) if session else None


class _CallAnswer(StreamAnswer):
    """The stream of a call, which its client may cancel; it also ends with its connection."""

    def __init__(
        self,
        services: Services,
        source: Source,
        mapper: CallMapper,
        run: ThreadRun,
        key: CallKey | None,
    ) -> None:
        super().__init__(services, source, framing=mapper, in_step=True, on_leave=run.cancel)
        self._calls = services.mcp_calls
        self._run = run
        self._key = key

    async def send(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Writes the response."""
        if self._key is None:
            await super().send(scope, receive, send)
            return
        self._calls.add(self._key, self._run)
        try:
            await super().send(scope, receive, send)
        finally:
            self._calls.remove(self._key, self._run)
