"""The demo model: the simulator's brain, behind the simulator in a process of its own."""

from collections.abc import AsyncGenerator, Mapping

from treadle.models.base import ModelRequest
from treadle.models.openai import OpenAIResponses
from treadle.models.transport import Transport
from treadle.per_loop import PerLoop
from treadle.streaming.demux import StreamEvent
from treadle.testing.simulator import SimulatorProcess

# Slow enough to be seen streaming, quick enough for a greeting of a hundred deltas in a second.
_SCENARIO = "demo:every=8"
_PROCESSES = PerLoop(SimulatorProcess)


class DemoModel:
    """A small deterministic model that needs no key and no network.

    It finds intents in the last message by patterns over the declared tools, calls the tools, and
    answers with their outputs. It is reached over HTTP like any other model; its process starts
    with the first request of an event loop and ends with that loop.
    """

    name = "demo"
    provider = "openai"

    async def stream(self, request: ModelRequest) -> AsyncGenerator[StreamEvent]:
        """Streams the answer to `request`; see `Model.stream`."""
        process = await _PROCESSES.get()
        model = OpenAIResponses(_SCENARIO, api_key="", base_url=process.base_url)
        async for event in model.stream(request):
            yield event


def demo(name: str, url: str, environ: Mapping[str, str], transport: Transport | None) -> DemoModel:
    """Returns the demo model; there is only one, wherever it is asked for."""
    return DemoModel()
