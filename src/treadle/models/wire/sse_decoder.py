"""The common part of decoders for event streams: frames, and a required terminal event."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from treadle.errors import StreamIncomplete
from treadle.streaming.demux import Demux, StreamEvent
from treadle.streaming.sse import SseParser


class SseDecoder(ABC):
    """Fulfils `Decoder` for responses that are event streams; see `Demux` for `used_call_ids`."""

    def __init__(self, provider: str, used_call_ids: Iterable[str] = ()) -> None:
        self._provider = provider
        self._sse = SseParser()
        self._demux = Demux(provider, used_call_ids)
        self.finished = False

    def feed(self, chunk: bytes) -> list[StreamEvent]:
        """Returns the events that `chunk` completes."""
        return self._frames(self._sse.feed(chunk))

    def end(self) -> list[StreamEvent]:
        """Decodes the rest of the body; raises `StreamIncomplete` without a terminal event."""
        events = [*self._frames(self._sse.flush(), cut=True), *self._last()]
        if not self.finished:
            raise StreamIncomplete(
                "The provider's stream ended before the response was complete; try again."
            )
        return events

    def _last(self) -> Sequence[StreamEvent]:
        """Returns the events that the end of the body completes."""
        return ()

    @abstractmethod
    def _frames(
        self, frames: Sequence[tuple[bytes, bytes]], *, cut: bool = False
    ) -> list[StreamEvent]:
        """Returns the events of frames, each a name and its data; `cut` ones may be incomplete."""
