"""Completions: create one."""

from typing import Any

from treadle.clock import now
from treadle.server.api_request import ApiRequest
from treadle.server.chat_completions.completion_answer import CompletionAnswer
from treadle.server.chat_completions.completion_mapper import CompletionMapper
from treadle.server.chat_completions.completion_request import CreateCompletion
from treadle.server.chat_completions.completion_start import start_completion
from treadle.server.openai.errors import OPENAI_ERRORS, ParameterRefused
from treadle.server.openai.models import PREFIX
from treadle.server.operation import Operations
from treadle.server.streams import require_may_stream

COMPLETIONS = Operations("OpenAI chat completions", prefix=PREFIX, errors=OPENAI_ERRORS)

TO_USER_HEADER = b"x-to-user"


@COMPLETIONS.add(
    "POST",
    "/chat/completions",
    id="create_chat_completion",
    scope="write",
    body=CreateCompletion,
    answers={200: dict[str, Any]},
    is_stream=True,
)
async def create_completion(request: ApiRequest[Any, CreateCompletion]) -> object:
    """Creates a completion: streams it, or answers once it is complete."""
    services, body = request.services, request.body
    shows_to_user = _shows_to_user(request.headers.get(TO_USER_HEADER))
    require_may_stream(request)
    agent = services.runtime.agent(body.model)
    started = await start_completion(request, agent)
    is_streamed = body.stream is True
    has_form = body.response_format not in (None, {"type": "text"})
    mapper = CompletionMapper(
        started.id,
        agent,
        int(now()),
        services.runtime.agent,
        is_structured=has_form or agent.output is not None,
        shows_to_user=shows_to_user,
        is_streamed=is_streamed,
        approvals=started.approvals,
        has_usage=body.stream_options is not None and body.stream_options.include_usage is True,
    )
    source = await started.run.subscribe(started.after)
    return CompletionAnswer(services, started, mapper, source, is_streamed=is_streamed)


def _shows_to_user(value: str) -> bool:
    if value not in {"", "on", "off"}:
        raise ParameterRefused("X-To-User", f"X-To-User={value[:100]!r} must be 'on' or 'off'.")
    return value != "off"
