"""Tokens that a response, a step or a run has used."""

from msgspec import Struct


class Usage(Struct, frozen=True, gc=False, omit_defaults=True):
    """Token counts as the provider reports them.

    `cached_input_tokens` (read from the provider's prompt cache) and `cache_write_tokens` (written
    to it, if the provider reports that) are part of `input_tokens`, `reasoning_tokens` part of
    `output_tokens`. What providers charge for apart from tokens are the uses of hosted tools:
    `web_searches` of `WebSearch`, `file_searches` of `FileSearch` at OpenAI, and `code_containers`,
    the containers that `CodeInterpreter` began at OpenAI.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cached_input_tokens: int = 0
    reasoning_tokens: int = 0
    requests: int = 0
    cache_write_tokens: int = 0
    web_searches: int = 0
    file_searches: int = 0
    code_containers: int = 0

    @property
    def total_tokens(self) -> int:
        """Input and output tokens together."""
        return self.input_tokens + self.output_tokens

    @property
    def cache_hit_rate(self) -> float:
        """The share of the input that was read from the prompt cache, from 0 to 1."""
        return self.cached_input_tokens / self.input_tokens if self.input_tokens else 0.0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_input_tokens + other.cached_input_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            self.requests + other.requests,
            self.cache_write_tokens + other.cache_write_tokens,
            self.web_searches + other.web_searches,
            self.file_searches + other.file_searches,
            self.code_containers + other.code_containers,
        )


class Spent(Struct, frozen=True, gc=False, omit_defaults=True):
    """What a run or a thread has used up; limits are compared with it.

    `cost` is in the currency of the prices, `seconds` is without the time of waiting for outputs
    from outside, `tool_calls` counts the calls of the model, including refused ones.
    """

    usage: Usage = Usage()
    cost: float = 0.0
    steps: int = 0
    tool_calls: int = 0
    seconds: float = 0.0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.usage + other.usage,
            self.cost + other.cost,
            self.steps + other.steps,
            self.tool_calls + other.tool_calls,
            self.seconds + other.seconds,
        )


class Price(Struct, frozen=True):
    """The price of a model, in any one currency per million tokens.

    `cached_input` and `cache_write` (input that is read from the prompt cache, or written to it)
    default to the price of `input`. `web_search`, `file_search` and `code_container` are the prices
    of a thousand of what `Usage` counts of hosted tools.
    """

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    web_search: float = 0.0
    file_search: float = 0.0
    code_container: float = 0.0

    def cost(self, usage: Usage) -> float:
        """Returns the cost of `usage` in the currency of the price."""
        cached = self.input if self.cached_input is None else self.cached_input
        write = self.input if self.cache_write is None else self.cache_write
        fresh = usage.input_tokens - usage.cached_input_tokens - usage.cache_write_tokens
        total = fresh * self.input + usage.cached_input_tokens * cached
        total += usage.cache_write_tokens * write
        tokens = (total + usage.output_tokens * self.output) / 1_000_000
        tools = usage.web_searches * self.web_search + usage.file_searches * self.file_search
        tools += usage.code_containers * self.code_container
        return tokens + tools / 1_000
