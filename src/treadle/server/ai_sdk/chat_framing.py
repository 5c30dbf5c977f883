"""A run as a stream of frames."""

from collections.abc import Set
from typing import cast

from treadle.domain.events import Event
from treadle.server.ai_sdk.chat_mapper import ChatMapper
from treadle.server.ai_sdk.chunks import Chunk, ChunkFrames
from treadle.server.ai_sdk.tool_kinds import ToolKinds
from treadle.server.problems import Problem
from treadle.server.sse import Framed
from treadle.server.stream import EndReason
from treadle.server.stream_ends import end_text


class ChatFraming:
    """The frames of a stream: the start of the message, its chunks, and the end.

    The message has the id of the run.
    """

    def __init__(
        self, thread_id: str, run_id: str, tools: ToolKinds, answered: Set[str] = frozenset()
    ) -> None:
        self._frames = ChunkFrames()
        self._mapper = ChatMapper(run_id, self._frames, tools, answered)
        self._start: Chunk = {
            "type": "start",
            "messageId": run_id,
            "messageMetadata": {"threadId": thread_id, "runId": run_id},
        }

    @property
    def is_over(self) -> bool:
        """Whether the stream is complete."""
        return self._mapper.is_over

    def feed(self, event: Event) -> None:
        """Takes an event that was stored before the stream began."""
        self._mapper.feed(event)

    def skip(self) -> None:
        """Leaves out what the client has already."""
        self._frames.clear()

    def settle(self) -> None:
        """Ends the stream if the run waits for answers."""
        self._mapper.settle()

    def first(self) -> bytes:
        """Returns the frames up to the present."""
        start = ChunkFrames()
        start.add(self._start)
        return start.take() + self._taken()

    def frame(self, envelope: Framed) -> bytes:
        """Returns the frames of an event."""
        self._mapper.feed(cast("Event", envelope.event))
        self._mapper.settle()
        return self._taken()

    def end(self, reason: EndReason, problem: Problem | None = None) -> bytes:
        """Returns the frames of a stream that ends before the message does."""
        again = "resume the stream of the answer"
        text = end_text(reason, "chat", again) if problem is None else problem.detail
        self._frames.add({"type": "error", "errorText": text})
        self._frames.add_done()
        return self._frames.take()

    def _taken(self) -> bytes:
        if self._mapper.is_over:
            self._frames.add_done()
        return self._frames.take()
