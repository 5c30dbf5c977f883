"""The bodies of requests of the Assistants API."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from treadle.domain.settings import ReasoningEffort

Metadata = dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]]
Labels = Annotated[Metadata, Meta(max_length=16)]


class NewMessage(Struct, frozen=True, forbid_unknown_fields=True):
    """A message; those of the assistant need the scope `admin`."""

    role: Literal["user", "assistant"]
    content: Any
    attachments: Annotated[list[Any], Meta(max_length=0)] | None = None
    metadata: Annotated[Metadata, Meta(max_length=0)] | None = None


class NewThread(Struct, frozen=True, forbid_unknown_fields=True):
    """A thread, and the messages with which it begins."""

    messages: list[NewMessage] | None = None
    metadata: Labels | None = None
    tool_resources: Annotated[dict[str, Any], Meta(max_length=0)] | None = None


class ThreadChange(Struct, frozen=True, forbid_unknown_fields=True):
    """The labels to set."""

    metadata: Labels | None = None
    tool_resources: Annotated[dict[str, Any], Meta(max_length=0)] | None = None


class Truncation(Struct, frozen=True, forbid_unknown_fields=True):
    """What the model reads is left to the agent."""

    type: Literal["auto"] = "auto"
    last_messages: None = None


class NewRun(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run; `assistant_id` is the name of an agent. What is not listed is refused by its name."""

    assistant_id: str
    stream: bool | None = None
    instructions: str | None = None
    additional_instructions: str | None = None
    additional_messages: list[NewMessage] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: Any = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_prompt_tokens: Annotated[int, Meta(ge=1)] | None = None
    reasoning_effort: ReasoningEffort | None = None
    truncation_strategy: Truncation | None = None
    metadata: Labels | None = None


class NewThreadAndRun(NewRun, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run on a new thread."""

    thread: NewThread | None = None
    tool_resources: Annotated[dict[str, Any], Meta(max_length=0)] | None = None


class ToolOutput(Struct, frozen=True, forbid_unknown_fields=True):
    """The output of a call."""

    tool_call_id: str
    output: str = ""


class ToolOutputs(Struct, frozen=True, forbid_unknown_fields=True):
    """The outputs of all calls that the run waits for."""

    tool_outputs: list[ToolOutput]
    stream: bool | None = None
