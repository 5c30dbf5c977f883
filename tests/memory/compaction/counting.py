"""A model with a tokenizer of its own, which notices requests that are too long."""

import zlib
from collections.abc import AsyncGenerator, Callable

from treadle.domain.history import require_valid
from treadle.domain.items import Item
from treadle.domain.usage import Usage
from treadle.errors import ContextOverflow
from treadle.memory.compaction.tokens import frame_tokens, item_tokens
from treadle.models.base import ModelRequest
from treadle.streaming.demux import StreamEvent
from treadle.testing import Call, ScriptedModel, Text, Turn

Answer = Callable[[ModelRequest], tuple[Text | Call, ...]]


class CountingModel:
    """Answers with `answer`, and counts `ratio` times the tokens that treadle estimates.

    Single items differ from that by up to `spread`. It reports what it counted where `reports`,
    and refuses requests above `window`. `sizes` holds what it counted.
    """

    provider = "counting"

    def __init__(
        self,
        answer: Answer,
        *,
        ratio: float = 1.0,
        spread: float = 0.0,
        window: int | None = None,
        reports: bool = True,
        name: str = "counting",
    ) -> None:
        self.name = name
        self.sizes: list[int] = []
        self.requests: list[ModelRequest] = []
        self._answer = answer
        self._ratio = ratio
        self._spread = spread
        self._window = window
        self._reports = reports

    def count(self, request: ModelRequest) -> int:
        """Returns the tokens of a request."""
        return round(self._ratio * frame_tokens(request) + sum(map(self._of, request.items)))

    def _of(self, item: Item) -> float:
        noise = zlib.crc32(repr(item)[-40:].encode()) % 1000 / 1000 * 2 - 1
        return item_tokens(item) * self._ratio * (1 + self._spread * noise)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamEvent]:
        """Streams the answer; raises for requests that no provider accepts."""
        require_valid(request.items)
        size = self.count(request)
        self.requests.append(request)
        self.sizes.append(size)
        if self._window is not None and size > self._window:
            raise ContextOverflow(f"prompt is too long: {size} tokens > {self._window} maximum")
        usage = Usage(size if self._reports else 0, 5, requests=1)
        turn = Turn(self._answer(request), usage=usage)
        async for event in ScriptedModel([turn]).stream(request):
            yield event
