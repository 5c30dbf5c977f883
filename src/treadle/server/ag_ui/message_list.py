"""The items of a conversation as messages of AG-UI, and messages of a client as items."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, assert_never, cast

import msgspec

from treadle.domain.events import ToolCallRequested
from treadle.domain.files import InputAudio, InputFile, InputImage, Media, data_of
from treadle.domain.inputs import as_history, as_message
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    HostedCall,
    InputText,
    Item,
    Message,
    OutputText,
    ProviderItem,
    Reasoning,
    Refusal,
    parts_of,
)
from treadle.errors import InvalidInput
from treadle.server.ag_ui.run_frames import Json
from treadle.server.ag_ui.run_input import (
    ActivityMessage,
    AssistantMessage,
    AudioPart,
    Content,
    ContentPart,
    DataSource,
    DeveloperMessage,
    DocumentPart,
    FileSource,
    ImagePart,
    InputMessage,
    ReasoningMessage,
    RunAgentInput,
    SystemMessage,
    TextPart,
    ToolMessage,
    UrlSource,
    UserMessage,
    VideoPart,
)
from treadle.server.call_texts import said_id, said_text, shown_arguments
from treadle.tools.output_type import OUTPUT_TOOL

PROVIDER = "treadle"
"""The provider of the files that the runtime keeps."""


# From a client


def user_message_of(given: UserMessage) -> Message:
    """Returns a message of a client, with its id; raises `InvalidInput`."""
    content = _content_in(given.content)
    return as_message({"role": "user", "id": given.id, "content": content})


def history_of(given: Iterable[InputMessage]) -> list[Item]:
    """Returns the messages with which a client begins a conversation.

    They are data: calls in them are not run. Raises `InvalidInput` for a call without an output.
    """
    entries: list[Json] = []
    for one in given:
        if one.subagent_run_id is not None:
            continue  # it is not of this conversation
        match one:
            case AssistantMessage():
                calls = [msgspec.to_builtins(call) for call in one.tool_calls or ()]
                if one.content or calls:
                    entries.append(_entry(one.id, "assistant", one.content, tool_calls=calls))
            case ToolMessage():
                output = output_in(one)
                entries.append(_entry(one.id, "tool", output, tool_call_id=one.tool_call_id))
            case UserMessage():
                entries.append(_entry(one.id, "user", _content_in(one.content)))
            case SystemMessage():
                entries.append(_entry(one.id, "system", one.content))
            case DeveloperMessage():
                entries.append(_entry(one.id, "developer", one.content))
            case _:
                pass  # a reasoning is read again by the model that wrote it, on its own thread
    return list(as_history(entries))


def output_in(given: ToolMessage) -> Any:
    """Returns the output of a call: a text, or parts if it contains media."""
    if given.error is not None and not given.content:
        return given.error
    parts = parts_of("user", _content_in(given.content))
    texts = [part.text for part in parts if isinstance(part, InputText)]
    return "".join(texts) if len(texts) == len(parts) else list(parts)


def _entry(id: str, role: str, content: object, **fields: object) -> Json:
    return {"id": id, "role": role, "content": content, **fields}


def _content_in(content: Content) -> str | list[Json]:
    return content if isinstance(content, str) else [_part_in(part) for part in content]


def _part_in(part: ContentPart) -> Json:
    match part:
        case TextPart():
            return {"type": "text", "text": part.text}
        case ImagePart():
            return {"type": "input_image", **_source_in(part.source, "image_url")}
        case AudioPart():
            return {"type": "input_audio", **_source_in(part.source, "audio_url")}
        case DocumentPart():
            fields = _source_in(part.source, "file_url")
            name = (part.metadata or {}).get("filename")
            return {"type": "input_file", **fields, "filename": name if _is_text(name) else ""}
        case VideoPart():
            raise InvalidInput("A message contains a video, which models do not read here.")


def _source_in(source: DataSource | UrlSource | FileSource, url: str) -> Json:
    match source:
        case DataSource():
            # The media type is told from the bytes.
            return {url: f"data:{source.mime_type};base64,{source.value}"}
        case UrlSource():
            return {url: source.value}
        case FileSource(provider=None | "treadle"):
            return {"file_id": source.value}
        case FileSource():
            raise InvalidInput(
                f"The file {source.value[:100]!r} is kept by another provider; send its content."
            )


def _is_text(value: object) -> bool:
    return isinstance(value, str)


# To a client


class MessageList:
    """The conversation as a client should have it: `messages`, which grow with the run.

    - `to_user`: the argument of each tool that is shown to the user.
    - `given`: what the client sent; of messages of the user and outputs of calls its form is kept.
    """

    def __init__(self, to_user: Mapping[str, str], given: RunAgentInput) -> None:
        self.messages: list[Json] = []
        self._to_user = to_user
        self._calls: dict[str, str] = {}
        self._users: dict[str, UserMessage] = {}
        self._outputs: dict[str, ToolMessage] = {}
        for one in given.messages:
            if isinstance(one, UserMessage):
                self._users[one.id] = one
            elif isinstance(one, ToolMessage):
                self._outputs[one.tool_call_id] = one

    def add(self, item: Item, subagent: str | None = None) -> None:
        """Adds an item, of the agent that works on the thread `subagent`."""
        owner = {} if subagent is None else {"subagentRunId": subagent}
        for message in self._messages_of(item):
            self.messages.append({**message, **owner})

    def add_given(self, message: InputMessage) -> None:
        """Adds a message as the client has it."""
        self.messages.append(msgspec.to_builtins(message))

    @property
    def shown_ids(self) -> set[str]:
        """The ids of what the client has of other agents, calls as well."""
        ids: set[str] = set()
        for message in self.messages:
            if "subagentRunId" in message:
                ids.add(str(message["id"]))
                ids |= {call["id"] for call in cast("list[Any]", message.get("toolCalls", ()))}
        return ids

    def is_answered_by_client(self, call_id: str) -> bool:
        """Whether the client has the output of a call already."""
        return call_id in self._outputs

    def is_of_client(self, id: str) -> bool:
        """Whether the client has a message of the user already."""
        return id in self._users

    def differs(self, given: Iterable[InputMessage], new: Collection[str]) -> bool:
        """Whether a client has other messages than these; `new` are those that it has added.

        Reasonings and activities need not be the same.
        """
        theirs = {
            one.id
            for one in given
            if not isinstance(one, ReasoningMessage | ActivityMessage) and one.id not in new
        }
        ours = (one for one in self.messages if one["role"] not in {"reasoning", "activity"})
        return theirs != {one["id"] for one in ours}

    def _messages_of(self, item: Item) -> Iterable[Json]:
        match item:
            case Message():
                if item.role == "user":
                    yield self._user(item)
                elif text := shown_text(item):
                    yield {"id": item.id, "role": item.role, "content": text}
            case Reasoning():
                if item.id and item.text:
                    yield {"id": item.id, "role": "reasoning", "content": item.text}
            case FunctionCall():
                yield from self._call(item)
            case FunctionCallOutput():
                if self._calls.get(item.call_id) != OUTPUT_TOOL:
                    yield self._output(item)
            case ProviderItem():
                # A call and its result may be two items; the second one contains both.
                call = item.call
                if call is not None and call.status != "in_progress":
                    yield {"id": hosted_id(call), "role": "activity", **hosted_activity(call)}
            case _:
                assert_never(item)

    def _user(self, item: Message) -> Json:
        given = self._users.get(item.id)
        if given is not None:  # a file that was sent with its content has it there
            return msgspec.to_builtins(given)
        return {"id": item.id, "role": "user", "content": content_of(item.content)}

    def _call(self, item: FunctionCall) -> Iterable[Json]:
        self._calls[item.call_id] = item.name
        if item.name == OUTPUT_TOOL:
            yield {"id": item.id, "role": "assistant", "content": item.arguments}
            return
        asked = ToolCallRequested(run_id="", item=item, to_user=self._to_user.get(item.name, ""))
        if said := said_text(asked):
            yield {"id": said_id(item.id), "role": "assistant", "content": said}
        function = {"name": item.name, "arguments": shown_arguments(asked)}
        call = {"id": item.call_id, "type": "function", "function": function}
        yield {"id": item.call_id, "role": "assistant", "toolCalls": [call]}

    def _output(self, item: FunctionCallOutput) -> Json:
        given = self._outputs.get(item.call_id)
        if given is not None:
            return msgspec.to_builtins(given)
        error = {"error": item.text} if item.is_error else {}
        content = content_of(item.output)
        return {
            "id": output_id(item),
            "role": "tool",
            "toolCallId": item.call_id,
            "content": content,
            **error,
        }


def hosted_id(call: HostedCall) -> str:
    """Returns the id of the activity that is a call of a hosted tool."""
    return f"{call.call_id}_hosted"


def hosted_activity(call: HostedCall) -> Json:
    """Returns a call of a tool that the provider of the model runs, as an activity."""
    return {"activityType": "treadle.hosted_call", "content": msgspec.to_builtins(call)}


def shown_text(item: Message) -> str:
    """Returns what a message of the model shows: its text, or why there is none."""
    return item.text + item.refusal


def output_id(item: FunctionCallOutput) -> str:
    """Returns the id of the message with an output."""
    return item.id or f"{item.call_id}_output"


def content_of(content: str | Iterable[object]) -> str | list[Json]:
    """Returns the content of a message: a text, or parts if it contains media."""
    if isinstance(content, str):
        return content
    parts: list[Json] = []
    has_media = False
    for part in content:
        match part:
            case InputText() | OutputText():
                parts.append({"type": "text", "text": part.text})
            case InputImage() | InputFile() | InputAudio():
                has_media = True
                parts.append(_media(part))
            case Refusal():
                parts.append({"type": "text", "text": part.refusal})
            case _:
                pass
    return parts if has_media else "".join(str(part["text"]) for part in parts)


def _media(part: Media) -> Json:
    kinds = {InputImage: "image", InputFile: "document", InputAudio: "audio"}
    named = {"mimeType": part.media_type} if part.media_type else {}
    source: Json
    if part.file_id:
        source = {"type": "file", "value": part.file_id, "provider": PROVIDER, **named}
    elif (url := data_of(part)).startswith("data:"):
        head, _, data = url.partition(",")
        kind = head.removeprefix("data:").partition(";")[0]
        source = {"type": "data", "value": data, "mimeType": part.media_type or kind}
    else:
        source = {"type": "url", "value": url, **named}
    made: Json = {"type": kinds[type(part)], "source": source}
    if isinstance(part, InputFile) and part.filename:
        made["metadata"] = {"filename": part.filename}
    return made
