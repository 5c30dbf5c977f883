"""A model that asks the next model if one fails before its first event."""

from collections.abc import AsyncGenerator

from treadle.domain.files import Media
from treadle.domain.hosted_tools import HostedTool
from treadle.domain.schema import OutputMode
from treadle.errors import ConfigurationError, ModelError
from treadle.models.base import (
    CacheWritten,
    ItemsAdapted,
    Model,
    ModelEvent,
    ModelRequest,
    ReadsMedia,
    output_mode_of,
    tool_refusal,
)


class FallbackModel:
    """Asks each model in order until one begins to answer.

    Any `ModelError` before the first event leads to the next model, including errors that are not
    retryable, such as an exceeded quota. The error of the last model is raised.
    """

    def __init__(self, *models: Model) -> None:
        if not models:
            raise ConfigurationError("A FallbackModel needs at least one model.")
        self._models = models

    @property
    def name(self) -> str:
        """The name of the first model."""
        return self._models[0].name

    @property
    def provider(self) -> str:
        """The provider of the first model."""
        return self._models[0].provider

    def refusal(self, part: Media, /) -> str:
        """Returns why none of the models reads a part, as a sentence; "" if one does."""
        refusals = [
            model.refusal(part) if isinstance(model, ReadsMedia) else "" for model in self._models
        ]
        return refusals[0] if all(refusals) else ""

    def tool_refusal(self, tool: HostedTool, /) -> str:
        """Returns why one of the models cannot have a hosted tool; "" if all can."""
        return next((why for model in self._models if (why := tool_refusal(model, tool))), "")

    @property
    def output_mode(self) -> OutputMode:
        """A mode that all of the models can be asked in."""
        modes = {output_mode_of(model) for model in self._models}
        # The next in this order can be understood by any model that is asked for one before it.
        order: tuple[OutputMode, ...] = ("prompted", "tool", "native")
        return next(mode for mode in order if mode in modes)

    @property
    def schema_with_tools(self) -> bool:
        """Whether all of the models call tools if they are held to a schema."""
        return all(getattr(model, "schema_with_tools", True) for model in self._models)

    async def stream(self, request: ModelRequest) -> AsyncGenerator[ModelEvent]:
        """Streams the response of the first model that begins to answer."""
        *others, last = self._models
        for model in others:
            seen = False
            try:
                async for event in model.stream(request):
                    # The next model may need other changes of the items, and reports its own.
                    seen = seen or not isinstance(event, (ItemsAdapted, CacheWritten))
                    yield event
                return
            except ModelError:
                if seen:
                    raise
        async for event in last.stream(request):
            yield event
