"""The objects of the Assistants API as JSON values."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from treadle.domain.files import InputAudio, InputFile, InputImage
from treadle.domain.items import (
    ContentPart,
    FileCitation,
    HostedCall,
    InputText,
    Message,
    OutputText,
    Refusal,
)
from treadle.domain.stop_reason import StopReason
from treadle.domain.usage import Usage
from treadle.errors import InvalidInput
from treadle.journal.base import ThreadInfo
from treadle.journal.projection import RunRecord
from treadle.loop.definition import AgentDefinition
from treadle.server.openai.errors import failure_code

Json = dict[str, Any]

LABELS = "assistants_run"
"""The key in the metadata of a run with the metadata of its request."""


class ObjectQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Which objects of a list; the newest come first."""

    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    order: Literal["asc", "desc"] = "desc"
    after: str = ""
    before: str = ""
    run_id: str = ""
    include: tuple[str, ...] = ()


def page_of(objects: list[Json], query: ObjectQuery) -> Json:
    """Returns a page of objects, which are given from the oldest to the newest."""
    objects = objects if query.order == "asc" else objects[::-1]
    begin, end = 0, len(objects)
    if query.after:
        begin = _place(objects, "after", query.after) + 1
    if query.before:
        end = _place(objects, "before", query.before)
        begin = max(begin, end - query.limit)
    page = objects[begin : min(end, begin + query.limit)]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": begin > 0 if query.before else begin + len(page) < end,
    }


def _place(objects: list[Json], name: str, id: str) -> int:
    for place, one in enumerate(objects):
        if one["id"] == id:
            return place
    raise InvalidInput(f"{name}={id[:100]!r} is not the id of an object of the list.")


def assistant_object(agent: AgentDefinition[Any, Any]) -> Json:
    """Returns an agent as an assistant; its instructions and tools are its own affair."""
    return {
        "id": agent.name,
        "object": "assistant",
        "created_at": 0,
        "name": agent.name,
        "description": agent.description or None,
        "model": agent.model.name,
        "instructions": None,
        "tools": [],
        "metadata": {},
        "temperature": None,
        "top_p": None,
        "response_format": "auto",
    }


def thread_object(info: ThreadInfo) -> Json:
    """Returns a thread."""
    return {
        "id": info.id,
        "object": "thread",
        "created_at": int(info.created_at),
        "metadata": dict(info.metadata),
        "tool_resources": {},
    }


def message_object(
    thread_id: str, message: Message, at: float, *, run_id: str | None = None, agent: str = ""
) -> Json:
    """Returns a message that is complete; `agent` wrote it in a run."""
    return {
        "id": message.id,
        "object": "thread.message",
        "created_at": int(at),
        "thread_id": thread_id,
        "role": "assistant" if message.role == "assistant" else "user",
        "content": [_content(part) for part in message.content] or [text_content("")],
        "status": "completed",
        "completed_at": int(at),
        "incomplete_at": None,
        "incomplete_details": None,
        "assistant_id": agent or None,
        "run_id": run_id,
        "attachments": [],
        "metadata": {},
    }


def _content(part: ContentPart) -> Json:
    match part:
        case OutputText():
            return text_content(part.text, [*_file_citations(part)])
        case InputText():
            return text_content(part.text)
        case InputImage(image_url=url) if url:
            return {"type": "image_url", "image_url": {"url": url, "detail": part.detail}}
        case InputImage():
            return {"type": "image_file", "image_file": {"file_id": part.file_id}}
        case InputFile():
            return text_content(f"[file {part.filename or part.file_id}]")
        case InputAudio():
            return text_content("[audio]")
        case Refusal():
            return {"type": "refusal", "refusal": part.refusal}


def text_content(text: str, annotations: Sequence[Json] = ()) -> Json:
    """Returns the content of a text."""
    return {"type": "text", "text": {"value": text, "annotations": list(annotations)}}


def _file_citations(part: OutputText) -> Iterator[Json]:
    """Yields the files that a text cites; the protocol knows no pages of the web."""
    for one in part.annotations:
        if not isinstance(one, FileCitation) or not one.file_id:
            continue
        start, end = one.start_index or 0, one.end_index or 0
        if 0 <= start <= end <= len(part.text):
            yield {
                "type": "file_citation",
                "text": part.text[start:end],
                "start_index": start,
                "end_index": end,
                "file_citation": {"file_id": one.file_id},
            }


def hosted_call(call: HostedCall) -> Json | None:
    """Returns a call of a tool that the provider of the model runs, if the protocol knows it."""
    shown: Json = {"id": call.call_id, "type": call.tool}
    if call.tool == "code_interpreter":
        outputs = [{"type": "logs", "logs": call.output}] if call.output else []
        return {**shown, call.tool: {"input": call.arguments, "outputs": outputs}}
    if call.tool == "file_search":
        files = [one for one in call.sources if isinstance(one, FileCitation)]
        results = [{"file_id": one.file_id, "file_name": one.filename, "score": 0} for one in files]
        return {**shown, call.tool: {"results": results}}
    return None


def step_object(
    step_id: str,
    run: Json,
    kind: Literal["message_creation", "tool_calls"],
    details: Json,
    agent: str,
) -> Json:
    """Returns a step of a run that has begun; `agent` writes it."""
    return {
        "id": step_id,
        "object": "thread.run.step",
        "created_at": run["started_at"] or run["created_at"],
        "run_id": run["id"],
        "assistant_id": agent,
        "thread_id": run["thread_id"],
        "type": kind,
        "status": "in_progress",
        "cancelled_at": None,
        "completed_at": None,
        "expired_at": None,
        "failed_at": None,
        "last_error": None,
        "step_details": {"type": kind, kind: details},
        "usage": None,
        "metadata": {},
    }


def run_object(run_id: str, thread_id: str, agent: str) -> Json:
    """Returns a run that has not begun."""
    return {
        "id": run_id,
        "object": "thread.run",
        "created_at": 0,
        "thread_id": thread_id,
        "assistant_id": agent,
        "status": "queued",
        "required_action": None,
        "last_error": None,
        "expires_at": None,
        "started_at": None,
        "cancelled_at": None,
        "failed_at": None,
        "completed_at": None,
        "incomplete_details": None,
        "model": agent,
        "instructions": "",
        "tools": [],
        "metadata": {},
        "usage": None,
        "temperature": None,
        "top_p": None,
        "max_prompt_tokens": None,
        "max_completion_tokens": None,
        "truncation_strategy": {"type": "auto", "last_messages": None},
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "response_format": "auto",
    }


def usage_object(usage: Usage) -> Json:
    """Returns token counts."""
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }


def run_of(record: RunRecord, thread_id: str) -> Json:
    """Returns a run that asks for nothing, as its row has it."""
    run, status = run_object(record.id, thread_id, record.agent), record.status
    run["status"] = "in_progress" if status == "requires_action" else status
    run["created_at"] = int(record.queued_at or record.started_at or 0)
    run["started_at"] = seconds(record.started_at)
    run["metadata"] = labels_of(record.metadata)
    if record.ended_at is not None:
        run["usage"] = usage_object(record.usage)
        if f"{status}_at" in run:
            run[f"{status}_at"] = seconds(record.ended_at)
    if status == "incomplete":
        run["incomplete_details"] = incomplete_details(record.stop_reason)
    if (error := record.error) is not None:
        run["last_error"] = last_error(error.code, error.message)
    return run


def labels_of(metadata: Mapping[str, object]) -> object:
    """Returns the metadata of the request of a run."""
    return metadata.get(LABELS) or {}


def incomplete_details(stop_reason: StopReason | None) -> Json:
    """Returns which limit stopped a run; the protocol knows two."""
    is_input = stop_reason == "max_input_tokens"
    return {"reason": "max_prompt_tokens" if is_input else "max_completion_tokens"}


def last_error(code: str, message: str) -> Json:
    """Returns why a run failed."""
    return {"code": failure_code(code), "message": message}


def seconds(at: float | None) -> int | None:
    """Returns a time, in seconds."""
    return None if at is None else int(at)
