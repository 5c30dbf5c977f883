"""The body of a request for a response."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from treadle.domain.settings import ReasoningEffort

Metadata = dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]]


class StreamOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How to stream; obfuscation is accepted and never sent."""

    include_obfuscation: bool | None = None


class TextOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """The form of the answer: `text`, or `json_schema` with a schema."""

    format: dict[str, Any] | None = None
    verbosity: Literal["medium"] | None = None


class ReasoningOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How much a model reasons; how the reasoning is summed up is left to the agent."""

    effort: ReasoningEffort | None = None
    summary: str | None = None
    generate_summary: str | None = None


class ConversationId(Struct, frozen=True, forbid_unknown_fields=True):
    """A conversation."""

    id: str


class CreateResponse(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request for a response; `model` is the name of an agent.

    What is not listed here is refused by its name. Of these parameters, some are labels that are
    returned as they came (`metadata`, `safety_identifier`, `prompt_cache_key`, `service_tier`,
    `truncation`, `user`), and some are accepted without an effect (`include`, `stream_options`).
    """

    model: str
    input: str | list[Any]
    instructions: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationId | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    max_tool_calls: Annotated[int, Meta(ge=1)] | None = None
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    metadata: Annotated[Metadata, Meta(max_length=16)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Literal[0] | None = None
    frequency_penalty: Literal[0] | None = None
    top_logprobs: Literal[0] | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    parallel_tool_calls: bool | None = None
    include: list[str] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    service_tier: str | None = None
    user: str | None = None
