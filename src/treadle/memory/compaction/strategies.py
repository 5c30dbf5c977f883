"""What an agent does about a window that is finite: the values of its `context`.

Each says how long a request may be, and what is done where the next one would be longer.
"""

from msgspec import Struct

from treadle.domain.block_edits import require_blocks
from treadle.domain.blocks import Block
from treadle.errors import ConfigurationError
from treadle.memory.compaction.tokens import Count
from treadle.models.base import Model


class NoCompaction(Struct, frozen=True, kw_only=True):
    """Leaves the history as it is: a request that does not fit fails before it is sent.

    - `max_tokens`: how long request and response may be together; None takes the window of the
      model, where it is known.
    - `reserve`: how much of it is left to the response, in tokens; None takes `max_output_tokens`
      of the agent's settings, or an eighth of the window, 32,000 tokens at most.
    - `count`: a tokenizer, as a quick function from a text to a number of tokens; None estimates
      from the length of texts. What the provider counts is used in any case.

    Raises `ConfigurationError` for what cannot work.
    """

    max_tokens: int | None = None
    reserve: int | None = None
    count: Count | None = None

    def __post_init__(self) -> None:
        _require_numbers(self, "max_tokens", "reserve")
        if self.max_tokens is not None and self.reserve is not None:
            _require_room(self.max_tokens, self.reserve)


class SlidingWindow(Struct, frozen=True, kw_only=True):
    """Lets the oldest messages leave what the model reads.

    - `max_tokens`, `reserve`, `count`: see `NoCompaction`.
    - `share` of `max_tokens` above which messages leave, until half as much is left.
    - `max_messages` above which messages leave, until half as many are left; calls and their
      outputs count as messages. None is no limit.
    - `keep`: how many of the newest messages are left at least, where the window has room for them.

    System messages, pinned ones and the last user message always stay. Raises `ConfigurationError`
    for what cannot work.
    """

    max_tokens: int | None = None
    keep: int = 10
    max_messages: int | None = None
    share: float = 0.8
    reserve: int | None = None
    count: Count | None = None

    def __post_init__(self) -> None:
        _require_window(self)


class Summarize(Struct, frozen=True, kw_only=True):
    """Has a model write a summary of what leaves the window, and of the summary before it.

    It is written beside the conversation, which only waits for it where there is no room left. If
    it cannot be written, messages leave without.

    - `model` writes it, by default that of the agent; `fallback_model` does where that fails. Both
      are models or strings such as `"openai:gpt-5-mini"`.
    - `block`: the label of the memory block in which the summary lives. By default it is a message
      that stands where what it tells of stood.
    - `timeout`: seconds that each model has for it.
    - `instructions`: what a summary shall be like; None has it keep facts, decisions, and what is
      still to do.
    - the rest: see `SlidingWindow`.

    Raises `ConfigurationError` for what cannot work.
    """

    model: Model | str | None = None
    fallback_model: Model | str | None = None
    block: str = ""
    timeout: float = 60.0
    instructions: str | None = None
    max_tokens: int | None = None
    keep: int = 10
    max_messages: int | None = None
    share: float = 0.8
    reserve: int | None = None
    count: Count | None = None

    def __post_init__(self) -> None:
        _require_window(self)
        if not self.timeout > 0:
            raise ConfigurationError("Summarize.timeout must be above 0 seconds.")
        if self.block:
            require_blocks([Block(self.block)])


ContextStrategy = NoCompaction | SlidingWindow | Summarize


def _require_window(strategy: SlidingWindow | Summarize) -> None:
    _require_numbers(strategy, "max_tokens", "reserve", "max_messages")
    name, most = type(strategy).__name__, strategy.max_messages
    if not 0 < strategy.share <= 1:
        raise ConfigurationError(f"{name}.share must be above 0 and at most 1.")
    if strategy.keep < 1:
        raise ConfigurationError(f"{name}.keep must be at least 1.")
    if most is not None and strategy.keep > most:
        raise ConfigurationError(
            f"{name}.keep is {strategy.keep} and max_messages is {most}: it cannot keep more than "
            "it lets stand. Make keep smaller or max_messages larger."
        )
    if strategy.max_tokens is not None and strategy.reserve is not None:
        _require_room(strategy.max_tokens, strategy.reserve)


def _require_numbers(strategy: ContextStrategy, *names: str) -> None:
    for name in names:
        value: object = getattr(strategy, name)
        least = 0 if name == "reserve" else 1
        if value is not None and (not isinstance(value, int) or value < least):
            raise ConfigurationError(
                f"{type(strategy).__name__}.{name} must be a number of at least {least}, or None."
            )


def _require_room(window: int, reserve: int) -> None:
    if reserve >= window:
        raise ConfigurationError(
            f"The reserve of {reserve:,} tokens leaves nothing of a window of {window:,}."
        )
