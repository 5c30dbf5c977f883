"""The strategies for an agent's `context`: what happens when a request exceeds the window."""

from msgspec import Struct

from treadle.domain.block_edits import require_blocks
from treadle.domain.blocks import Block
from treadle.errors import ConfigurationError
from treadle.memory.compaction.tokens import Count
from treadle.models.base import Model


class NoCompaction(Struct, frozen=True, kw_only=True):
    """Never shortens the history; a request that does not fit fails before it is sent.

    - `max_tokens`: the most tokens of request and response together; None uses the window of the
      model, if it is known.
    - `reserve`: the part of it for the response, in tokens; None uses `max_output_tokens` of the
      agent's settings, or an eighth of the window, at most 32,000 tokens.
    - `count`: a tokenizer, as a fast function from a text to its number of tokens; None estimates
      from the length of texts. Counts of the provider are used in either case.

    Raises `ConfigurationError` for values that cannot work.
    """

    max_tokens: int | None = None
    reserve: int | None = None
    count: Count | None = None

    def __post_init__(self) -> None:
        _require_numbers(self, "max_tokens", "reserve")
        if self.max_tokens is not None and self.reserve is not None:
            _require_room(self.max_tokens, self.reserve)


class SlidingWindow(Struct, frozen=True, kw_only=True):
    """Removes the oldest messages from what the model reads.

    - `max_tokens`, `reserve`, `count`: see `NoCompaction`.
    - `share`: the share of `max_tokens` above which messages leave, until half as much is left.
    - `max_messages`: the number of messages above which messages leave, until half as many are
      left; calls and their outputs count as messages. None for no limit.
    - `keep`: the number of newest messages that stay at least, if the window has room for them.

    System messages, pinned messages and the last user message always stay. Raises
    `ConfigurationError` for values that cannot work.
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
    """Asks a model for a summary of the messages that leave the window.

    The new summary also covers the previous one. It is written in parallel to the conversation,
    which waits for it only if the window has no room left. If no summary can be written, the
    messages leave without one.

    - `model`: the model that writes the summary, by default the model of the agent.
      `fallback_model`: is used if `model` fails. Both are models or strings such as
      `"openai:gpt-5-mini"`.
    - `block`: the label of the memory block for the summary. By default the summary is a message
      in place of the messages that have left.
    - `timeout`: the seconds that each model has for a summary.
    - `instructions`: what a summary should contain; by default facts, decisions and open tasks.
    - the rest: see `SlidingWindow`.

    Raises `ConfigurationError` for values that cannot work.
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
            raise ConfigurationError(
                f"Summarize.timeout must be above 0 seconds, not {self.timeout!r:.100}."
            )
        if self.block:
            require_blocks([Block(self.block)])


ContextStrategy = NoCompaction | SlidingWindow | Summarize


def _require_window(strategy: SlidingWindow | Summarize) -> None:
    _require_numbers(strategy, "max_tokens", "reserve", "max_messages")
    name, most = type(strategy).__name__, strategy.max_messages
    if not 0 < strategy.share <= 1:
        raise ConfigurationError(
            f"{name}.share must be above 0 and at most 1, not {strategy.share!r:.100}."
        )
    if strategy.keep < 1:
        raise ConfigurationError(f"{name}.keep must be at least 1, not {strategy.keep!r:.100}.")
    if most is not None and strategy.keep > most:
        raise ConfigurationError(
            f"{name}.keep is {strategy.keep} and max_messages is {most}; make keep smaller or "
            "max_messages larger."
        )
    if strategy.max_tokens is not None and strategy.reserve is not None:
        _require_room(strategy.max_tokens, strategy.reserve)


def _require_numbers(strategy: ContextStrategy, *names: str) -> None:
    for name in names:
        value: object = getattr(strategy, name)
        least = 0 if name == "reserve" else 1
        if value is not None and (not isinstance(value, int) or value < least):
            raise ConfigurationError(
                f"{type(strategy).__name__}.{name} must be a number of at least {least}, or "
                f"None, not {value!r:.100}."
            )


def _require_room(window: int, reserve: int) -> None:
    if reserve >= window:
        raise ConfigurationError(
            f"The reserve of {reserve:,} tokens leaves nothing of a window of {window:,}."
        )
