"""Chats: send a message and stream its answer, resume the stream, stop the run, load messages."""

from typing import Any

from msgspec import Struct

from treadle.server.ai_sdk.chat_messages import chat_messages
from treadle.server.ai_sdk.chat_request import ChatRequest
from treadle.server.ai_sdk.chat_start import start_run
from treadle.server.ai_sdk.chats import PREFIX, find_chat
from treadle.server.ai_sdk.chunks import STREAM_HEADER
from treadle.server.ai_sdk.errors import AI_SDK_ERRORS
from treadle.server.ai_sdk.stream_run import stream_run
from treadle.server.api_request import ApiRequest
from treadle.server.operation import Answer, Operations
from treadle.server.streams import NO_CONTENT, StreamAnswer, require_may_stream, run_headers

CHATS = Operations("AI SDK chats", prefix=PREFIX, errors=AI_SDK_ERRORS)


class ChatQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether the run ends with the request that streams it; a resumed stream ignores that.

    Clients use the query of a chat for all of its requests.
    """

    foreground: bool = False


@CHATS.add(
    "POST",
    "/{agent}",
    id="send_chat",
    scope="write",
    query=ChatQuery,
    body=ChatRequest,
    answers={200: dict[str, Any]},
    is_stream=True,
)
async def send_chat(request: ApiRequest[ChatQuery, ChatRequest]) -> StreamAnswer:
    """Sends what is new in a chat, and streams the run."""
    services = request.services
    require_may_stream(request)
    agent = services.runtime.agent(request.path["agent"])
    thread, run, known = await start_run(request, agent)
    framing, source = await stream_run(services.runtime, thread, run, known)
    return StreamAnswer(
        services,
        source,
        first=framing.first(),
        framing=framing,
        in_step=not framing.is_over,
        headers=(STREAM_HEADER, *run_headers(run)),
        on_leave=run.cancel if request.query.foreground else None,
    )


@CHATS.add(
    "GET",
    "/{agent}/{thread_id}/stream",
    id="resume_chat",
    scope="read",
    query=ChatQuery,
    answers={200: dict[str, Any], 204: None},
    is_stream=True,
)
async def resume_chat(request: ApiRequest[ChatQuery, None]) -> object:
    """Streams the run of a chat that is in progress or waits, from its beginning."""
    services = request.services
    services.runtime.agent(request.path["agent"])
    thread = await find_chat(request, request.path["thread_id"])
    run = None if thread is None else await thread.active_run()
    if thread is None or run is None:
        return NO_CONTENT
    require_may_stream(request)
    framing, source = await stream_run(services.runtime, thread, run)
    return StreamAnswer(
        services,
        source,
        first=framing.first(),
        framing=framing,
        in_step=not framing.is_over,
        headers=(STREAM_HEADER, *run_headers(run)),
    )


@CHATS.add("POST", "/{agent}/{thread_id}/stop", id="stop_chat", scope="write", answers={204: None})
async def stop_chat(request: ApiRequest[Any, None]) -> Answer:
    """Cancels the run of a chat; has no effect if none is in progress."""
    request.services.runtime.agent(request.path["agent"])
    thread = await find_chat(request, request.path["thread_id"])
    run = None if thread is None else await thread.active_run()
    if run is not None:
        await run.cancel()
    return NO_CONTENT


@CHATS.add(
    "GET",
    "/{agent}/{thread_id}/messages",
    id="list_chat_messages",
    scope="read",
    query=ChatQuery,
    answers={200: list[dict[str, Any]]},
)
async def list_chat_messages(request: ApiRequest[ChatQuery, None]) -> list[dict[str, Any]]:
    """Lists the messages of a chat, the oldest first; none for a chat that has not begun."""
    runtime = request.services.runtime
    runtime.agent(request.path["agent"])
    thread = await find_chat(request, request.path["thread_id"])
    return [] if thread is None else await chat_messages(runtime, thread)
