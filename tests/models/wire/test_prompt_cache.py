"""Which parts of a request providers are asked to cache, and how its requests stay together."""

import json
from typing import Any

from treadle.domain.items import FunctionCallOutput, Item, message, user_message
from treadle.domain.schema import ToolSchema
from treadle.domain.usage import Usage
from treadle.models import OpenAIResponses, resolve_model
from treadle.models.base import ModelRequest
from treadle.models.presets import PRESETS, dialect_of
from treadle.models.wire.anthropic_request import AnthropicOptions
from treadle.models.wire.anthropic_request import encode_request as encode_messages
from treadle.models.wire.chat_request import ChatOptions, encode_request
from treadle.models.wire.prompt_cache import cache_key

TOOL = ToolSchema("look", "Looks.", {"type": "object"}, strict=False)
MARK = {"type": "ephemeral", "ttl": "5m"}


def test_a_conversation_has_one_key() -> None:
    first = user_message("hi")
    answer = message("assistant", "hello")
    whole: list[Item] = [first, answer, user_message("and now?")]
    key = cache_key("m", ModelRequest(items=[first]))
    assert len(key) == 32
    assert cache_key("m", ModelRequest(items=whole, instructions="Edited.")) == key
    assert cache_key("m", ModelRequest(items=whole[2:], conversation=whole)) == key
    assert cache_key("other", ModelRequest(items=[first])) != key
    assert cache_key("m", ModelRequest(items=[user_message("hi")])) != key
    assert cache_key("m", ModelRequest(items=[])) == ""
    odd = [FunctionCallOutput("a", "\ud800")]
    assert len(cache_key("m", ModelRequest(items=odd))) == 32


def test_who_gets_the_key() -> None:
    request = ModelRequest(items=[user_message("hi")])
    key = cache_key("m", request)

    def chat(url: str) -> tuple[Any, Any]:
        encoded = encode_request("m", request, ChatOptions(dialect=dialect_of(url, "m")))
        return json.loads(encoded.body).get("prompt_cache_key"), dict(encoded.headers)

    assert chat("https://api.openai.com/v1") == (key, {})
    assert chat("https://me.openai.azure.com/openai/v1") == (None, {})
    assert chat(PRESETS["xai"].base_url) == (None, {"x-grok-conv-id": key})
    assert chat("http://127.0.0.1:8000/v1") == (None, {})

    def responses(model: Any) -> Any:
        return json.loads(model._wire.encode("m", request).body).get("prompt_cache_key")

    assert responses(resolve_model("openai:m", {"OPENAI_API_KEY": "k"})) == key
    assert responses(OpenAIResponses("m", api_key="k", base_url="http://h/v1")) is None


def marks(request: ModelRequest) -> tuple[list[bool], list[tuple[str, bool]]]:
    body = json.loads(encode_messages("m", request, AnthropicOptions()).body)
    system = [(one["text"], one.get("cache_control") == MARK) for one in body["system"]]
    count = json.dumps(body).count("cache_control")
    assert count <= 4
    return ["cache_control" in one for one in body["tools"]], system


def test_an_edit_of_memory_leaves_tools_and_instructions_in_the_cache() -> None:
    asked = [user_message("hi"), message("assistant", "hello"), user_message("on")]
    request = ModelRequest(
        items=asked, instructions="Be brief.\n\n<memory>…", tools=(TOOL,), stable_chars=9
    )
    # One mark stands for tools and instructions, so that two are left for the turns.
    assert marks(request) == ([False], [("Be brief.", True), ("<memory>…", True)])
    without = ModelRequest(items=asked, instructions="Be brief.", tools=(TOOL,))
    assert marks(without) == ([True], [("Be brief.", True)])
    only_memory = ModelRequest(items=asked, instructions="<memory>…", tools=(TOOL,))
    assert marks(only_memory) == ([True], [("<memory>…", True)])


def test_the_share_of_the_input_that_was_cached() -> None:
    assert Usage(100, 5, 80).cache_hit_rate == 0.8
    assert Usage().cache_hit_rate == 0.0
