"""The body of a request: https://docs.ag-ui.com/concepts/agents, version 1.0 of the protocol.

Fields that are not listed here have no meaning for the server, and are ignored as the protocol
asks for.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

Metadata = dict[str, Any]
Id = Annotated[str, Meta(min_length=1, max_length=512)]


class _Wire(Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A part of a request; it is encoded again as it came."""


class DataSource(_Wire, frozen=True, tag_field="type", tag="data"):
    """A content in base64."""

    value: str
    mime_type: str


class UrlSource(_Wire, frozen=True, tag_field="type", tag="url"):
    """A content of the web."""

    value: str
    mime_type: str | None = None


class FileSource(_Wire, frozen=True, tag_field="type", tag="file"):
    """A file of the runtime; of another provider it is refused."""

    value: str
    provider: str | None = None
    mime_type: str | None = None


ContentSource = DataSource | UrlSource | FileSource


class TextPart(_Wire, frozen=True, tag_field="type", tag="text"):
    """A text."""

    text: str


class _MediaPart(_Wire, frozen=True):
    source: ContentSource
    metadata: Metadata | None = None


class ImagePart(_MediaPart, frozen=True, kw_only=True, tag_field="type", tag="image"):
    """An image."""


class AudioPart(_MediaPart, frozen=True, kw_only=True, tag_field="type", tag="audio"):
    """A sound."""


class VideoPart(_MediaPart, frozen=True, kw_only=True, tag_field="type", tag="video"):
    """A video, which no model reads here."""


class DocumentPart(_MediaPart, frozen=True, kw_only=True, tag_field="type", tag="document"):
    """A document; its name is `metadata.filename`."""


ContentPart = TextPart | ImagePart | AudioPart | VideoPart | DocumentPart
Content = str | list[ContentPart]


class FunctionOfCall(_Wire, frozen=True):
    """What is called, with arguments as JSON."""

    name: str
    arguments: str


class CallOfMessage(_Wire, frozen=True, tag_field="type", tag="function"):
    """A tool call in a message of the assistant."""

    id: str
    function: FunctionOfCall


class _InputMessage(_Wire, frozen=True):
    id: Id
    name: str | None = None
    metadata: Metadata | None = None
    subagent_run_id: str | None = None


class UserMessage(_InputMessage, frozen=True, kw_only=True, tag_field="role", tag="user"):
    """A message of the user."""

    content: Content


class AssistantMessage(_InputMessage, frozen=True, kw_only=True, tag_field="role", tag="assistant"):
    """A message of the model, or calls of it."""

    content: str | None = None
    tool_calls: list[CallOfMessage] | None = None


class ToolMessage(_InputMessage, frozen=True, kw_only=True, tag_field="role", tag="tool"):
    """The output of a call; `error` is set if it failed."""

    tool_call_id: str
    content: Content
    error: str | None = None


class SystemMessage(_InputMessage, frozen=True, kw_only=True, tag_field="role", tag="system"):
    """Instructions."""

    content: str


class DeveloperMessage(_InputMessage, frozen=True, kw_only=True, tag_field="role", tag="developer"):
    """Instructions."""

    content: str


class ReasoningMessage(_InputMessage, frozen=True, kw_only=True, tag_field="role", tag="reasoning"):
    """A reasoning of the model."""

    content: str = ""


class ActivityMessage(_InputMessage, frozen=True, kw_only=True, tag_field="role", tag="activity"):
    """A progress that a client shows; it belongs to no conversation."""

    activity_type: str = ""
    content: Any = None


InputMessage = (
    UserMessage
    | AssistantMessage
    | ToolMessage
    | SystemMessage
    | DeveloperMessage
    | ReasoningMessage
    | ActivityMessage
)


class ToolOfClient(_Wire, frozen=True):
    """A tool that the client answers."""

    name: str
    description: str = ""
    parameters: dict[str, Any] | None = None


class ContextOfClient(_Wire, frozen=True):
    """What the client tells of the moment."""

    description: str
    value: str


class ResumeEntry(_Wire, frozen=True):
    """The answer to an interrupt."""

    interrupt_id: str
    status: Literal["resolved", "cancelled"]
    payload: Any = None


class RunAgentInput(_Wire, frozen=True):
    """A request for a run.

    - `thread_id`: the conversation: an id of the client, or that of a thread.
    - `run_id`: an id of the client, which its events repeat.
    - `messages`: the conversation as the client knows it.
    - `tools`: those that the client answers. `context`: what the model reads after the
      instructions.
    - `state`: that of the client; only its memory blocks are replaced in what it gets back.
    - `resume`: the answers to the interrupts of the run before.
    - `forwarded_props`: kept in the metadata of the run, where tools read it.
    """

    thread_id: Id
    run_id: Id
    messages: list[InputMessage]
    parent_run_id: str | None = None
    protocol_version: str | None = None
    state: Any = None
    tools: list[ToolOfClient] | None = None
    context: list[ContextOfClient] | None = None
    forwarded_props: Any = None
    resume: list[ResumeEntry] | None = None


class RunQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """With `foreground` the run is cancelled if the client leaves before its end."""

    foreground: bool = False
