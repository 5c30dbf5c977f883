"""The body of a request for a completion."""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from treadle.domain.arguments import shown
from treadle.domain.settings import ReasoningEffort
from treadle.server.openai.errors import ParameterRefused

Metadata = dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]]
Zero = Annotated[float, Meta(ge=0, le=0)]


class StreamOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """How to stream: whether the last chunk has the usage. Obfuscation is accepted, never sent."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class CreateCompletion(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request for a completion; `model` is the name of an agent.

    What is not listed here is refused by its name, and so is a value of the last ones that would
    change the result. Labels are kept with the run (`metadata`, `user`, `safety_identifier`); the
    other parameters without an effect are accepted.
    """

    model: str
    messages: Annotated[list[Any], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    reasoning_effort: ReasoningEffort | None = None
    store: bool | None = None
    metadata: Annotated[Metadata, Meta(max_length=16)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    service_tier: str | None = None
    prediction: Any = None
    presence_penalty: Zero | None = None
    frequency_penalty: Zero | None = None
    n: Literal[1] | None = None
    verbosity: Literal["medium"] | None = None
    logprobs: bool | None = None
    top_logprobs: Literal[0] | None = None
    logit_bias: dict[str, Any] | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    modalities: list[str] | None = None

    def require_served(self) -> None:
        """Raises 400 for a parameter whose value would change the result, and has no effect."""
        for name in ("logprobs", "logit_bias", "stop"):
            if value := getattr(self, name):
                raise _not_served(name, value)
        if self.seed is not None:
            raise _not_served("seed", self.seed)
        if self.modalities not in (None, ["text"]):
            raise _not_served("modalities", self.modalities)


def _not_served(name: str, value: object) -> ParameterRefused:
    return ParameterRefused(
        name, f"{name}={shown(value)} is not served; leave it out.", code="unsupported_parameter"
    )
