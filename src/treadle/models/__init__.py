"""Language models: the providers, and the parts to write another one.

Agent(OpenAIChat("qwen3", api_key="", base_url="http://127.0.0.1:8000/v1"))
"""

from typing import TYPE_CHECKING

from treadle.lazy_names import lazy_name

if TYPE_CHECKING:
    from treadle.domain.schema import OutputSchema, ToolSchema
    from treadle.domain.settings import (
        ModelSettings,
        NamedTool,
        ReasoningEffort,
        ReasoningSummary,
        ToolChoice,
    )
    from treadle.models.anthropic import AnthropicMessages
    from treadle.models.api_key import ApiKey
    from treadle.models.aws_signature import AwsSession
    from treadle.models.base import (
        CacheWritten,
        ItemChange,
        ItemsAdapted,
        Model,
        ModelEvent,
        ModelRequest,
    )
    from treadle.models.bedrock import Bedrock
    from treadle.models.fallback import FallbackModel
    from treadle.models.gemini import Gemini, VertexGemini
    from treadle.models.http import HttpModel, Timeouts
    from treadle.models.model_data import PROVIDER_MODELS, ModelData, ProviderModels
    from treadle.models.openai import OpenAIChat, OpenAIResponses
    from treadle.models.overflow import OVERFLOW_CODES, OVERFLOW_TEXTS
    from treadle.models.presets import PRESETS, Preset
    from treadle.models.prices import PRICES
    from treadle.models.resolve import resolve_model
    from treadle.models.retry import RetryPolicy
    from treadle.models.session import NetworkTransport
    from treadle.models.transport import HttpRequest, HttpResponse, ResponseBody, Transport
    from treadle.models.windows import WINDOWS
    from treadle.models.wire.base import Decoder, Wire
    from treadle.models.wire.chat_dialects import ChatDialect
    from treadle.models.wire.reasoning import ReasoningRule
    from treadle.models.wire.sendable import EncodedRequest
    from treadle.streaming.demux import Demux, ItemFinished, ResponseFinished, StreamEvent
    from treadle.streaming.sse import SseParser
    from treadle.streaming.streamed_fields import StreamedFields, StreamedParameters

__all__ = [
    "OVERFLOW_CODES",
    "OVERFLOW_TEXTS",
    "PRESETS",
    "PRICES",
    "PROVIDER_MODELS",
    "WINDOWS",
    "AnthropicMessages",
    "ApiKey",
    "AwsSession",
    "Bedrock",
    "CacheWritten",
    "ChatDialect",
    "Decoder",
    "Demux",
    "EncodedRequest",
    "FallbackModel",
    "Gemini",
    "HttpModel",
    "HttpRequest",
    "HttpResponse",
    "ItemChange",
    "ItemFinished",
    "ItemsAdapted",
    "Model",
    "ModelData",
    "ModelEvent",
    "ModelRequest",
    "ModelSettings",
    "NamedTool",
    "NetworkTransport",
    "OpenAIChat",
    "OpenAIResponses",
    "OutputSchema",
    "Preset",
    "ProviderModels",
    "ReasoningEffort",
    "ReasoningRule",
    "ReasoningSummary",
    "ResponseBody",
    "ResponseFinished",
    "RetryPolicy",
    "SseParser",
    "StreamEvent",
    "StreamedFields",
    "StreamedParameters",
    "Timeouts",
    "ToolChoice",
    "ToolSchema",
    "Transport",
    "VertexGemini",
    "Wire",
    "resolve_model",
]

_MODULES = {
    "AnthropicMessages": "treadle.models.anthropic",
    "ApiKey": "treadle.models.api_key",
    "AwsSession": "treadle.models.aws_signature",
    "Bedrock": "treadle.models.bedrock",
    "CacheWritten": "treadle.models.base",
    "ChatDialect": "treadle.models.wire.chat_dialects",
    "Decoder": "treadle.models.wire.base",
    "Demux": "treadle.streaming.demux",
    "EncodedRequest": "treadle.models.wire.sendable",
    "FallbackModel": "treadle.models.fallback",
    "Gemini": "treadle.models.gemini",
    "HttpModel": "treadle.models.http",
    "HttpRequest": "treadle.models.transport",
    "HttpResponse": "treadle.models.transport",
    "ItemChange": "treadle.models.base",
    "ItemFinished": "treadle.streaming.demux",
    "ItemsAdapted": "treadle.models.base",
    "ModelData": "treadle.models.model_data",
    "Model": "treadle.models.base",
    "ModelEvent": "treadle.models.base",
    "ModelRequest": "treadle.models.base",
    "ModelSettings": "treadle.domain.settings",
    "NamedTool": "treadle.domain.settings",
    "NetworkTransport": "treadle.models.session",
    "OVERFLOW_CODES": "treadle.models.overflow",
    "OVERFLOW_TEXTS": "treadle.models.overflow",
    "OpenAIChat": "treadle.models.openai",
    "PRESETS": "treadle.models.presets",
    "OpenAIResponses": "treadle.models.openai",
    "ProviderModels": "treadle.models.model_data",
    "Preset": "treadle.models.presets",
    "OutputSchema": "treadle.domain.schema",
    "PROVIDER_MODELS": "treadle.models.model_data",
    "PRICES": "treadle.models.prices",
    "ReasoningEffort": "treadle.domain.settings",
    "ReasoningRule": "treadle.models.wire.reasoning",
    "ReasoningSummary": "treadle.domain.settings",
    "ResponseBody": "treadle.models.transport",
    "ResponseFinished": "treadle.streaming.demux",
    "RetryPolicy": "treadle.models.retry",
    "SseParser": "treadle.streaming.sse",
    "StreamEvent": "treadle.streaming.demux",
    "StreamedFields": "treadle.streaming.streamed_fields",
    "StreamedParameters": "treadle.streaming.streamed_fields",
    "Timeouts": "treadle.models.http",
    "ToolChoice": "treadle.domain.settings",
    "ToolSchema": "treadle.domain.schema",
    "Transport": "treadle.models.transport",
    "VertexGemini": "treadle.models.gemini",
    "WINDOWS": "treadle.models.windows",
    "Wire": "treadle.models.wire.base",
    "resolve_model": "treadle.models.resolve",
}


def __getattr__(name: str) -> object:
    # Imported when first named: the providers need an HTTP client, which is slow to import.
    return lazy_name(__name__, _MODULES, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
