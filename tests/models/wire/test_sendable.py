"""Whatever a history contains, each wire makes a request of it that its API accepts."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.models.wire.odd_histories import (
    HOSTED,
    HOSTED_CONVERSE,
    HOSTED_GEMINI,
    HOSTED_MESSAGES,
    JPEG,
    NOTES,
    PDF,
    PNG,
    WAV,
    histories,
)
from tests.models.wire.strict_servers import (
    Json,
    Refused,
    check_chat,
    check_converse,
    check_gemini,
    check_messages,
    check_needs_reasoning,
    check_responses,
    check_template,
    parsed,
)

from treadle.domain.hosted_tools import CodeInterpreter, RemoteMCP, WebSearch
from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    InputAudio,
    InputFile,
    InputImage,
    InputText,
    Item,
    Message,
    OutputText,
    ProviderFields,
    ProviderItem,
    Reasoning,
    ReasoningText,
    message,
    user_message,
)
from treadle.domain.schema import ToolSchema
from treadle.domain.settings import ModelSettings, NamedTool
from treadle.errors import ItemRefused
from treadle.models.base import ModelRequest
from treadle.models.presets import PRESETS, dialect_of
from treadle.models.wire import (
    anthropic_request,
    chat_request,
    converse_request,
    gemini_request,
    responses_request,
)
from treadle.models.wire.anthropic_request import AnthropicOptions
from treadle.models.wire.chat_dialects import AZURE, COMPATIBLE, OPENAI, ChatDialect
from treadle.models.wire.chat_request import ChatOptions
from treadle.models.wire.converse_families import family_of, maker_of
from treadle.models.wire.converse_request import ConverseOptions
from treadle.models.wire.gemini_request import GeminiOptions
from treadle.models.wire.refused_item import named_item
from treadle.models.wire.responses_request import ResponsesOptions
from treadle.models.wire.sendable import MAX_TEXT, EncodedRequest

UNION = {
    "type": "object",
    "oneOf": [
        {"properties": {"a": {"type": "string"}}, "required": ["a"]},
        {"properties": {"b": {"type": "string"}}, "required": ["b"]},
    ],
}
TOOLS = (
    ToolSchema("look", "Looks.", {"type": "object"}, strict=False),
    ToolSchema("union", "", UNION, strict=False),
)
HOSTED_TOOLS = (
    WebSearch(extra={}),
    CodeInterpreter(),
    RemoteMCP(url="https://x", name="docs", token="t", needs_approval=False, allowed_tools=["a"]),
)
SETTINGS = st.builds(
    ModelSettings,
    tool_choice=st.sampled_from(
        [None, "auto", "none", "required", NamedTool("look"), NamedTool("x")]
    ),
    parallel_tool_calls=st.sampled_from([None, True, False]),
    reasoning_effort=st.sampled_from([None, "high"]),
)
REQUESTS: Callable[..., st.SearchStrategy[ModelRequest]] = lambda items: st.builds(  # noqa: E731
    ModelRequest,
    items=items,
    instructions=st.sampled_from(["", "Be brief.", "\ud800"]),
    tools=st.sampled_from([(), TOOLS]),
    hosted=st.sampled_from([(), HOSTED_TOOLS]),
    settings=SETTINGS,
)
NINE = ChatDialect(call_ids="nine")
DEEPSEEK = ChatDialect(needs_reasoning=True)
GEMINI = ChatDialect(needs_signature=True)


def responses(request: ModelRequest, *, strict: bool = False) -> EncodedRequest:
    return responses_request.encode_request("gpt-5", request, ResponsesOptions(strict=strict))


def chat(
    request: ModelRequest, dialect: ChatDialect = COMPATIBLE, *, strict: bool = False
) -> EncodedRequest:
    options = ChatOptions(provider="deepseek", dialect=dialect, strict=strict)
    return chat_request.encode_request("m", request, options)


def messages(request: ModelRequest, *, strict: bool = False) -> EncodedRequest:
    # A model that thinks within a budget, which makes the API stricter.
    options = AnthropicOptions(strict=strict)
    return anthropic_request.encode_request("claude-opus-4-5", request, options)


def gemini(
    request: ModelRequest, model: str = "gemini-3.8-flash", *, strict: bool = False
) -> EncodedRequest:
    return gemini_request.encode_request(model, request, GeminiOptions(strict=strict))


CLAUDE = "eu.anthropic.claude-opus-4-5-20251101-v1:0"  # which thinks within a budget


def converse(request: ModelRequest, model: str = CLAUDE, *, strict: bool = False) -> EncodedRequest:
    # Reasoning and hosted items of the same maker.
    options = ConverseOptions(
        provider="bedrock", model=model, family=family_of(model), strict=strict
    )
    return converse_request.encode_request(request, options)


# A history is checked by several at a time: to make one costs many times what they do.


@given(REQUESTS(histories()))
def test_any_history_is_accepted_by_responses_and_chat_completions(request: ModelRequest) -> None:
    check_responses(parsed(responses(request).body))
    check_chat(parsed(chat(request, OPENAI).body))
    for_templates = parsed(chat(request).body)
    check_chat(for_templates, call_ids=r"[!-~]{1,4096}")
    check_template(for_templates)
    for_mistral = parsed(chat(request, NINE).body)
    check_chat(for_mistral, call_ids=r"[a-zA-Z0-9]{9}")
    check_template(for_mistral)
    check_needs_reasoning(parsed(chat(request, DEEPSEEK).body))


@given(REQUESTS(histories(HOSTED_MESSAGES)))
def test_any_history_is_accepted_by_messages(request: ModelRequest) -> None:
    check_messages(parsed(messages(request).body))


@given(REQUESTS(histories(HOSTED_GEMINI)))
def test_any_history_is_accepted_by_gemini_and_its_older_models(request: ModelRequest) -> None:
    check_gemini(parsed(gemini(request).body))
    check_gemini(parsed(gemini(request, "gemini-2.5-flash").body), is_old=True)


CONVERSE_MODELS = [
    CLAUDE,
    "us.amazon.nova-2-lite-v1:0",
    "us.meta.llama4-maverick-17b-instruct-v1:0",
    "mistral.mistral-large-3-675b-instruct",
    "openai.gpt-oss-120b-1:0",
    "qwen.qwen3-32b-v1:0",
    "arn:aws:bedrock:eu-west-1:123456789012:application-inference-profile/abc",
]


@given(REQUESTS(histories(HOSTED_CONVERSE | HOSTED)))
def test_any_history_is_accepted_by_converse(request: ModelRequest) -> None:
    for model in CONVERSE_MODELS:
        check_converse(parsed(converse(request, model).body), maker=maker_of(model))


ENCODERS = [responses, chat, messages, gemini, converse]


@given(REQUESTS(histories()))
def test_a_strict_model_refuses_exactly_what_would_be_changed(request: ModelRequest) -> None:
    for encode in ENCODERS:
        encoded = encode(request)
        if not encoded.changes:
            assert encode(request, strict=True).body == encoded.body
            continue
        with pytest.raises(ItemRefused) as caught:
            encode(request, strict=True)
        assert caught.value.item == encoded.changes[0].item
        assert caught.value.code == "item_refused"


@given(REQUESTS(histories()))
def test_every_entry_of_a_request_knows_its_items(request: ModelRequest) -> None:
    given = [id(item) for item in request.items]
    outputs = [item for item in request.items if isinstance(item, FunctionCallOutput)]
    for encode in ENCODERS:
        encoded = encode(request)
        assert len(encoded.sources) == len(entries_of(json.loads(encoded.body)))
        for item in (item for entry in encoded.sources for item in entry):
            # An output that was missing, and the call of another provider's hosted tool, were made
            # by the encoder.
            made = isinstance(item, FunctionCallOutput) and item not in outputs
            made = made or (isinstance(item, FunctionCall) and item.call_id.startswith("hosted_"))
            assert item is None or made or id(item) in given


@pytest.mark.parametrize(
    "check", [check_chat, check_responses, check_messages, check_gemini, check_converse]
)
def test_the_strict_servers_are_strict(check: Callable[[Json], None]) -> None:
    """A body with a call of a strange name is refused by each."""
    request = ModelRequest(
        items=[user_message("hi"), FunctionCall("c", "look", "{}"), FunctionCallOutput("c", "x")]
    )
    encode = {
        check_chat: chat,
        check_responses: responses,
        check_messages: messages,
        check_gemini: gemini,
        check_converse: converse,
    }[check]
    body = parsed(encode(request).body)
    check(body)
    text = json.dumps(body).replace('"name": "look"', '"name": "look up"')
    with pytest.raises(Refused):
        check(json.loads(text))


def entries_of(body: Any) -> Any:
    return next(body[name] for name in ("input", "messages", "contents") if name in body)


def asked(*items: Item, **more: Any) -> ModelRequest:
    return ModelRequest(items=[user_message("hi"), *items], **more)


def called(name: str = "look", arguments: str = "{}", call_id: str = "c") -> ModelRequest:
    return asked(FunctionCall(call_id, name, arguments), FunctionCallOutput(call_id, "x"))


def sent_calls(
    encode: Callable[[ModelRequest], EncodedRequest], request: ModelRequest
) -> list[Any]:
    """The calls of a request as (id, name, decoded arguments)."""
    body = json.loads(encode(request).body)
    if "input" in body:
        calls = [entry for entry in body["input"] if entry["type"] == "function_call"]
        return [(c["call_id"], c["name"], json.loads(c["arguments"])) for c in calls]
    found: list[Any] = []
    for content in body.get("contents", ()):
        calls = [part["functionCall"] for part in content["parts"] if "functionCall" in part]
        found += [(call["id"], call["name"], call["args"]) for call in calls]
    for entry in body.get("messages", ()):
        for call in entry.get("tool_calls", ()):
            function = call["function"]
            found.append((call["id"], function["name"], json.loads(function["arguments"])))
        for block in entry["content"] if isinstance(entry.get("content"), list) else ():
            if "toolUse" in block:
                call = block["toolUse"]
                found.append((call["toolUseId"], call["name"], call["input"]))
            elif block.get("type") == "tool_use":
                found.append((block["id"], block["name"], block["input"]))
    return found


EVERY_API = pytest.mark.parametrize("encode", ENCODERS)


@EVERY_API
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("look<|channel|>commentary", "look_channel_commentary"),
        ("functions.look", "functions_look"),
        ("look up", "look_up"),
        ("", "unnamed_tool"),
        ("look" * 40, "look" * 16),
    ],
)
def test_names_no_provider_takes_back(
    encode: Callable[[ModelRequest], EncodedRequest], name: str, expected: str
) -> None:
    request = called(name)
    assert sent_calls(encode, request) == [("c", expected, {})]
    (change,) = encode(request).changes
    assert (change.item, change.reason) == (request.items[1], "tool_name")
    assert expected in change.text


@EVERY_API
@pytest.mark.parametrize("arguments", ['{"word": "lo', '["loom"]', '"loom"', "{'a': 1}", "\ud800"])
def test_arguments_that_are_not_an_object_go_back_inside_one(
    encode: Callable[[ModelRequest], EncodedRequest], arguments: str
) -> None:
    request = called(arguments=arguments)
    wrapped = {"INVALID_JSON": arguments.replace("\ud800", "?")}
    assert sent_calls(encode, request) == [("c", "look", wrapped)]
    assert [change.reason for change in encode(request).changes] == ["arguments"]


@EVERY_API
@pytest.mark.parametrize("arguments", ["", "null", " ", "{}"])
def test_a_call_without_arguments_goes_back_with_an_empty_object(
    encode: Callable[[ModelRequest], EncodedRequest], arguments: str
) -> None:
    request = called(arguments=arguments)
    assert sent_calls(encode, request) == [("c", "look", {})]
    assert not encode(request).changes


@EVERY_API
@pytest.mark.parametrize("opening", ['{"a":', "["])
def test_arguments_nested_too_deeply_go_back_as_text(
    encode: Callable[[ModelRequest], EncodedRequest], opening: str
) -> None:
    closing = {"{": "}", "[": "]"}[opening[0]]
    deep = '{"a":' + opening * 100 + "1" + closing * 100 + "}"
    assert sent_calls(encode, called(arguments=deep)) == [("c", "look", {"INVALID_JSON": deep})]
    brackets = json.dumps({"code": "[{(" * 1000, "list": [[], {}] * 100})
    assert sent_calls(encode, called(arguments=brackets)) == [("c", "look", json.loads(brackets))]


@pytest.mark.parametrize(
    ("encode", "most"),
    [(responses, 64), (lambda request: chat(request, OPENAI), 40), (messages, 64), (gemini, 64)],
)
def test_ids_are_cut_to_what_the_api_takes(
    encode: Callable[[ModelRequest], EncodedRequest], most: int
) -> None:
    for length, is_kept in ((most, True), (most + 1, False)):
        ((sent, _, _),) = sent_calls(encode, called(call_id="c" * length))
        assert (sent == "c" * length) is is_kept
        assert len(sent) <= most
        assert encode(called(call_id="c" * length)).body.count(f'"{sent}"'.encode()) == 2


def test_mistral_gets_ids_of_nine_letters_and_digits() -> None:
    for call_id in ("call_0fypS1hVX", "a", "abcdefgh1"):
        request = called(call_id=call_id)
        sent = json.loads(chat(request, NINE).body)["messages"]
        assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"]
        assert len(sent[2]["tool_call_id"]) == 9
        assert (sent[2]["tool_call_id"] == call_id) is (call_id == "abcdefgh1")


@pytest.mark.parametrize(
    ("url", "model", "expected"),
    [
        ("https://api.openai.com/v1", "gpt-5", OPENAI),
        ("https://x.openai.azure.com/openai/v1", "gpt-5", AZURE),
        ("https://api.mistral.ai/v1", "m", PRESETS["mistral"].dialect),
        ("https://codestral.mistral.ai/v1", "m", PRESETS["mistral"].dialect),
        ("http://127.0.0.1:8000/v1", "Devstral-Small", NINE),
        ("https://api.deepseek.com", "deepseek-chat", PRESETS["deepseek"].dialect),
        ("https://generativelanguage.googleapis.com/v1beta/openai", "gemini-3-pro", GEMINI),
        ("http://127.0.0.1:8000/v1", "qwen3", COMPATIBLE),
        ("https://notopenai.com/v1", "gpt-5", COMPATIBLE),
        ("http://[", "x", COMPATIBLE),
    ],
)
def test_a_server_is_recognised(url: str, model: str, expected: ChatDialect) -> None:
    assert dialect_of(url, model) == expected


PICTURE = f"data:image/png;base64,{PNG}"


def pictures(encode: Callable[[ModelRequest], EncodedRequest], url: str) -> tuple[str, list[str]]:
    """The body with an image of `url`, and the reasons of what was changed in it."""
    seen = Message("user", (InputText("see"), InputImage(url)))
    encoded = encode(ModelRequest(items=[seen]))
    return encoded.body.decode(), [change.reason for change in encoded.changes]


@EVERY_API
@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("data:image/png;base64,", "it is empty"),
        ("data:image/png;base64,Z2FyYmFnZQ==", "not a PNG, JPEG, GIF or WebP image"),
        ("data:image/png;base64,!!!!", "not valid base64"),
        ("data:image/svg+xml,<svg/>", "not in base64"),
        ("file:///etc/passwd", "not of the form https://"),
        ("", "not of the form https://"),
    ],
)
def test_an_image_that_is_none_is_replaced_by_a_text(
    encode: Callable[[ModelRequest], EncodedRequest], url: str, problem: str
) -> None:
    body, reasons = pictures(encode, url)
    assert "[An image was left out here: " in body
    assert problem in body
    assert reasons == ["image"]


@EVERY_API
def test_an_image_of_another_type_than_it_claims_is_sent_as_what_it_is(
    encode: Callable[[ModelRequest], EncodedRequest],
) -> None:
    body, reasons = pictures(encode, f"data:image/png;base64,{JPEG}")
    assert "image/jpeg" in body or '"format":"jpeg"' in body
    assert "png" not in body
    assert reasons == ["media_type"]
    for url in (PICTURE, PICTURE.rstrip("="), f"data:image/png;base64,{PNG[:8]}\r\n{PNG[8:]}"):
        body, reasons = pictures(encode, url)
        assert PNG in body
        assert not reasons


def test_anthropic_takes_small_images_and_https_only() -> None:
    large = f"data:image/png;base64,{PNG.rstrip('=')}{'A' * 6_000_000}"
    for url, problem in ((large, "larger than"), ("http://x/y.png", "https: URLs only")):
        body, reasons = pictures(messages, url)
        assert problem in body
        assert reasons == ["image"]
        assert pictures(responses, url)[1] == []


@EVERY_API
def test_an_image_of_the_assistant_is_replaced_by_a_text(
    encode: Callable[[ModelRequest], EncodedRequest],
) -> None:
    request = asked(
        Message("assistant", (OutputText("Here."), InputImage(PICTURE))), user_message("ok")
    )
    encoded = encode(request)
    assert b"[An image was left out here" in encoded.body
    assert [change.reason for change in encoded.changes] == ["image"]


def test_a_text_beyond_the_limit_is_cut() -> None:
    request = ModelRequest(items=[user_message("x" * (MAX_TEXT + 1))])
    for encode in (responses, chat):
        encoded = encode(request)
        parsed(encoded.body)
        assert [change.reason for change in encoded.changes] == ["too_long"]
        assert b"characters are left out here]" in encoded.body


@EVERY_API
def test_calls_and_outputs_are_paired(encode: Callable[[ModelRequest], EncodedRequest]) -> None:
    request = ModelRequest(
        items=[
            FunctionCallOutput("gone", "of a call that was removed"),
            user_message("hi"),
            FunctionCall("a", "look", "{}"),
            FunctionCall("b", "look", "{}"),
            user_message("a hook injected this"),
            FunctionCallOutput("b", "second"),
        ]
    )
    encoded = encode(request)
    text = encoded.body.decode()
    assert text.index("not known") < text.index("second") < text.index("a hook injected this")
    assert "of a call that was removed" not in text
    assert [change.reason for change in encoded.changes] == ["pairing", "pairing"]


def roles(request: ModelRequest, dialect: ChatDialect = COMPATIBLE) -> list[tuple[str, Any]]:
    sent = json.loads(chat(request, dialect).body)["messages"]
    return [(one["role"], one.get("content")) for one in sent]


def test_chat_templates_get_user_and_assistant_in_turn() -> None:
    request = asked(
        user_message("there"),
        message("system", "Be brief."),
        FunctionCall("c", "look", "{}"),
        FunctionCallOutput("c", "x"),
        user_message("well?"),
        message("assistant", "So."),
        instructions="Be kind.",
    )
    assert roles(request) == [
        ("system", "Be kind."),
        ("user", "hi\n\nthere\n\n<system>\nBe brief.\n</system>"),
        ("assistant", None),
        ("tool", "x"),
        ("assistant", "(The tools have answered.)"),
        ("user", "well?"),
        ("assistant", "So."),
        ("user", "(Continue.)"),
    ]
    assert roles(request, OPENAI) == [
        ("system", "Be kind."),
        ("user", "hi"),
        ("user", "there"),
        ("system", "Be brief."),
        ("assistant", None),
        ("tool", "x"),
        ("user", "well?"),
        ("assistant", "So."),
    ]
    greeted = ModelRequest(items=[message("system", "One."), message("assistant", "Hello!")])
    assert roles(greeted) == [
        ("system", "One."),
        ("user", "(The conversation begins.)"),
        ("assistant", "Hello!"),
        ("user", "(Continue.)"),
    ]


def thought(text: str, provider: str = "deepseek", **fields: Any) -> Reasoning:
    extra = ProviderFields(provider, fields) if fields else None
    return Reasoning("rs", content=(ReasoningText(text),), provider=provider, provider_fields=extra)


def test_reasoning_goes_back_in_the_field_it_came_in() -> None:
    details = [{"type": "reasoning.encrypted", "data": "ZGF0YQ=="}]
    request = asked(
        thought("I need it.", text_field="reasoning", reasoning_details=details),
        FunctionCall("c", "look", "{}"),
        FunctionCallOutput("c", "x"),
        thought("Of another.", "openai"),
        message("assistant", "So."),
        user_message("on"),
    )
    _, with_call, _, answer, _ = json.loads(chat(request).body)["messages"]
    assert with_call["reasoning"] == "I need it."
    assert with_call["reasoning_details"] == details
    assert answer == {"role": "assistant", "content": "So."}
    other = chat_request.encode_request("m", request, ChatOptions(provider="chat:other"))
    assert b"reasoning" not in other.body


def test_mistral_gets_its_thinking_back_as_a_part() -> None:
    request = asked(
        thought("Hm.", text_field="thinking"), message("assistant", "So."), user_message("on")
    )
    assert json.loads(chat(request, NINE).body)["messages"][1]["content"] == [
        {"type": "thinking", "thinking": [{"type": "text", "text": "Hm."}]},
        {"type": "text", "text": "So."},
    ]


def test_a_server_that_thinks_gets_reasoning_with_every_call() -> None:
    request = asked(
        FunctionCall("a", "look", "{}"),
        FunctionCallOutput("a", "x"),
        thought("I need it."),
        FunctionCall("b", "look", "{}"),
        FunctionCallOutput("b", "x"),
    )
    sent = json.loads(chat(request).body)["messages"]
    assert [one.get("reasoning_content") for one in sent if "tool_calls" in one] == [
        "",
        "I need it.",
    ]
    unthought = ModelRequest(
        items=[item for item in request.items if not isinstance(item, Reasoning)]
    )
    assert b"reasoning_content" not in chat(unthought).body
    check_needs_reasoning(json.loads(chat(unthought, DEEPSEEK).body))


def test_gemini_gets_a_signature_with_calls_of_other_models() -> None:
    signed = ProviderFields("deepseek", {"extra_content": {"google": {"thought_signature": "c"}}})
    second = FunctionCall("b", "look", "{}")
    outputs = [FunctionCallOutput("a", "x"), FunctionCallOutput("b", "x")]
    for fields, expected in ((None, "skip_thought_signature_validator"), (signed, "c")):
        first = FunctionCall("a", "look", "{}", provider_fields=fields)
        sent = json.loads(chat(asked(first, second, *outputs), GEMINI).body)["messages"][1]
        one, other = sent["tool_calls"]
        assert one["extra_content"]["google"]["thought_signature"] == expected
        assert "extra_content" not in other


def test_fields_of_a_provider_go_back_to_it_alone() -> None:
    signature = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
    call = FunctionCall("c", "look", "{}", provider_fields=ProviderFields("deepseek", signature))
    cited = [{"type": "url_citation", "url": "https://x", "title": "x"}]
    said = Message(
        "assistant",
        (OutputText("So."),),
        "msg_1",
        provider_fields=ProviderFields("openai", {"phase": "commentary", "annotations": [cited]}),
    )
    quoted = Message(
        "assistant",
        (OutputText("Or so."),),
        provider_fields=ProviderFields("anthropic", {"citations": [{"cited_text": "x"}]}),
    )
    request = asked(said, quoted, call, FunctionCallOutput("c", "x"))
    (with_call,) = [m for m in json.loads(chat(request).body)["messages"] if "tool_calls" in m]
    assert with_call["tool_calls"][0]["extra_content"] == signature["extra_content"]
    assert json.loads(responses(request).body)["input"][1:3] == [
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "So.", "annotations": cited}],
            "phase": "commentary",
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Or so."}],
        },
    ]
    blocks = json.loads(messages(request).body)["messages"][1]["content"]
    assert [block.get("citations") for block in blocks] == [None, [{"cited_text": "x"}], None]
    for encode, foreign in ((chat, b"phase"), (responses, b"signature"), (messages, b"phase")):
        assert foreign not in encode(request).body


@pytest.mark.parametrize("encrypted", ["", None])
def test_reasoning_that_cannot_be_read_again_is_not_sent(encrypted: str | None) -> None:
    items = [
        Reasoning(
            "rs_1", encrypted_content=encrypted, provider=provider, content=(ReasoningText("x"),)
        )
        for provider in ("openai", "anthropic")
    ]
    request = asked(*items, message("assistant", "So."), user_message("on"))
    for encode in (responses, messages):
        assert b"rs_1" not in encode(request).body
        assert b"thinking" not in encode(request).body


def test_responses_gets_reasoning_with_what_it_led_to_only() -> None:
    own = Reasoning("rs_1", encrypted_content="ZW5j", provider="openai")
    call = FunctionCall("c", "look", "{}")
    for items, expected in (
        ([own], []),
        ([own, user_message("on")], []),
        ([call, own, FunctionCallOutput("c", "x")], ["function_call", "function_call_output"]),
        (
            [own, call, FunctionCallOutput("c", "x")],
            ["reasoning", "function_call", "function_call_output"],
        ),
    ):
        sent = json.loads(responses(asked(*items)).body)["input"][1:]
        assert [one["type"] for one in sent if one.get("role") != "user"] == expected


def test_the_id_of_a_message_goes_with_its_reasoning() -> None:
    said = Message("assistant", (OutputText("So."),), "msg_1")
    own = Reasoning("rs_1", encrypted_content="ZW5j", provider="openai")
    lost = Reasoning("rs_1", provider="openai")
    for items, expected in (
        ([own, said], "msg_1"),
        ([lost, said], None),
        ([said], None),
        ([said, own, FunctionCall("c", "look", "{}"), FunctionCallOutput("c", "x")], None),
        ([own, Message("assistant", (OutputText("So."),), "other")], None),
    ):
        sent = json.loads(responses(asked(*items)).body)["input"]
        (message,) = [one for one in sent if one.get("role") == "assistant"]
        assert message.get("id") == expected


def test_a_budget_needs_thinking_before_calls() -> None:
    settings = ModelSettings(reasoning_effort="high")
    foreign = called()
    own = asked(Reasoning("r", (), (ReasoningText("hm"),), "sig", "anthropic"), *foreign.items[1:])
    for request, is_on in ((foreign, False), (own, True), (asked(), True)):
        sent = messages(ModelRequest(items=request.items, settings=settings))
        assert ("thinking" in json.loads(sent.body)) is is_on


def test_half_of_a_hosted_call_is_left_out() -> None:
    def hosted(kind: str, **fields: str) -> ProviderItem:
        raw = msgspec.json.encode({"type": kind, **fields})
        return ProviderItem("anthropic", msgspec.Raw(raw))

    use = hosted("server_tool_use", id="s1", name="web_search")
    result = hosted("web_search_tool_result", tool_use_id="s1")
    for items, expected, changes in (
        ([use, result, user_message("on")], ["server_tool_use", "web_search_tool_result"], 0),
        ([use, user_message("on")], [], 1),
        ([result, user_message("on")], [], 1),
        ([use], ["server_tool_use"], 0),  # paused: its tool still runs
    ):
        encoded = messages(asked(*items))
        turns = json.loads(encoded.body)["messages"]
        sent = [block["type"] for turn in turns[1:] for block in turn["content"]]
        assert [kind for kind in sent if kind != "text"] == expected
        assert len(encoded.changes) == changes


@pytest.mark.parametrize(
    ("encode", "named"),
    [
        (
            lambda r: responses_request.encode_request(
                "m", r, ResponsesOptions(named_choice=False)
            ),
            "required",
        ),
        (chat, "required"),
        (
            lambda r: anthropic_request.encode_request(
                "m", r, AnthropicOptions(named_choice=False, eager_input_streaming=False)
            ),
            {"type": "any"},
        ),
    ],
)
def test_a_server_named_by_url_is_forced_with_one_tool(
    encode: Callable[[ModelRequest], EncodedRequest], named: object
) -> None:
    settings = ModelSettings(tool_choice=NamedTool("look"))
    body = json.loads(encode(asked(tools=TOOLS, settings=settings)).body)
    assert body["tool_choice"] == named
    (tool,) = body["tools"]
    assert tool.get("function", tool)["name"] == "look"


@EVERY_API
def test_settings_of_tools_need_tools(encode: Callable[[ModelRequest], EncodedRequest]) -> None:
    settings = ModelSettings(tool_choice="required", parallel_tool_calls=False)
    body = json.loads(encode(asked(settings=settings)).body)
    assert not body.keys() & {"tool_choice", "parallel_tool_calls", "tools"}


@EVERY_API
def test_a_union_at_the_top_becomes_an_object(
    encode: Callable[[ModelRequest], EncodedRequest],
) -> None:
    body = json.loads(encode(asked(tools=TOOLS)).body)
    tools = body.get("toolConfig", body)["tools"]
    tools = tools[0].get("functionDeclarations", tools)
    names = ("parameters", "input_schema", "parametersJsonSchema", "json")
    look, union = [
        next(found[name] for name in names if name in found)
        for found in (
            tool.get("function") or tool.get("toolSpec", {}).get("inputSchema") or tool
            for tool in tools
            if "cachePoint" not in tool
        )
    ]
    assert look == {"type": "object", "properties": {}}
    assert union["properties"] == {"a": {"type": "string"}, "b": {"type": "string"}}
    assert "required" not in union
    assert not union.keys() & {"oneOf", "anyOf", "allOf"}
    assert '"required":["a"]' in union["description"]


@pytest.mark.parametrize(
    ("encode", "error", "expected"),
    [
        (responses, "Invalid 'input[2].name': string does not match pattern.", 2),
        (responses, "No tool output found for function call call_12345.", 2),
        (chat, "Invalid 'messages[1].tool_calls[1].id': string too long.", 2),
        (chat, "messages.[2].content: invalid", 3),
        (chat, "[{'loc': ('body', 'messages', 2, 'content')}]", 3),
        (messages, "messages.1.content.1.tool_use.name: String should match pattern", 2),
        (messages, "messages.2.content.0: x", 3),
        (messages, "messages.2: x", 3),
        (messages, "prompt is too sad", None),
        (messages, "messages.99.content", None),
        (converse, "The text field in the ContentBlock object at messages.1.content.1 is", 2),
        (converse, "Expected toolResult blocks at messages.2.content", 3),
        (messages, "messages: at least one message is required", None),
    ],
)
def test_an_error_names_its_item(
    encode: Callable[[ModelRequest], EncodedRequest], error: str, expected: int | None
) -> None:
    request = asked(
        FunctionCall("call_abc", "look", "{}"),
        FunctionCall("call_12345", "look", "{}"),
        FunctionCallOutput("call_abc", "x"),
        FunctionCallOutput("call_12345", "x"),
        message("developer", "On."),
    )
    found = named_item(encode(request).sources, error)
    assert found is (None if expected is None else request.items[expected])


PDF_FILE = InputFile(f"data:application/pdf;base64,{PDF}", "r.pdf")
NOTES_FILE = InputFile(f"data:text/csv;base64,{NOTES}", "n.csv")
WAV_AUDIO = InputAudio(f"data:audio/wav;base64,{WAV}")


def sent_parts(encode: Callable[[ModelRequest], EncodedRequest], part: Any) -> tuple[Any, Any]:
    """How a part is sent in a message and in an output, and the reasons of what was changed."""
    request = ModelRequest(
        items=[
            Message("user", (part,)),
            FunctionCall("call_000a", "f", "{}"),
            FunctionCallOutput("call_000a", (part,)),
        ]
    )
    encoded = encode(request)
    body = parsed(encoded.body)
    entries = body.get("input", body.get("messages"))
    (sent,) = entries[0]["content"]
    last = entries[-1].get("output", entries[-1].get("content"))
    returned = last[0].get("content", [last[0]])[0] if encode is messages else last[0]
    assert returned.pop("cache_control", None) is None or encode is messages
    sent.pop("cache_control", None)
    assert sent == returned
    return sent, [change.reason for change in encoded.changes]


def test_a_document_is_sent_as_each_api_reads_it() -> None:
    url = f"data:application/pdf;base64,{PDF}"
    sent, _ = sent_parts(responses, PDF_FILE)
    assert sent == {"type": "input_file", "filename": "r.pdf", "file_data": url}
    sent, _ = sent_parts(chat, PDF_FILE)
    assert sent == {"type": "file", "file": {"filename": "r.pdf", "file_data": url}}
    sent, _ = sent_parts(messages, PDF_FILE)
    source = {"type": "base64", "media_type": "application/pdf", "data": PDF}
    assert sent == {"type": "document", "source": source, "title": "r.pdf"}


def test_a_text_file_is_sent_as_each_api_reads_it() -> None:
    sent, _ = sent_parts(responses, NOTES_FILE)
    assert sent["file_data"] == NOTES_FILE.file_data
    sent, _ = sent_parts(chat, NOTES_FILE)
    assert sent == {"type": "text", "text": '<file name="n.csv">\nGrüße\n\n</file>'}
    sent, _ = sent_parts(messages, NOTES_FILE)
    source = {"type": "text", "media_type": "text/plain", "data": "Grüße\n"}
    assert sent == {"type": "document", "source": source, "title": "n.csv"}


def test_a_file_of_the_web_is_loaded_by_the_provider() -> None:
    file = InputFile(file_url="https://x/y.pdf")
    assert sent_parts(responses, file)[0] == {"type": "input_file", "file_url": "https://x/y.pdf"}
    source = {"type": "url", "url": "https://x/y.pdf"}
    assert sent_parts(messages, file)[0] == {"type": "document", "source": source}
    sent, reasons = sent_parts(chat, file)
    assert "[A file was left out here: the API loads no files from URLs.]" in sent["text"]
    assert reasons == ["file", "file"]


def test_audio_is_sent_by_chat_completions_only() -> None:
    sent, reasons = sent_parts(chat, WAV_AUDIO)
    assert sent == {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}}
    assert not reasons
    for encode in (responses, messages):
        sent, reasons = sent_parts(encode, WAV_AUDIO)
        assert "[Audio was left out here: the API reads no audio of this kind" in sent["text"]
        assert reasons == ["audio", "audio"]


@pytest.mark.parametrize("encode", [responses, chat, messages])
def test_a_file_that_is_not_kept_here_is_replaced_by_a_text(
    encode: Callable[[ModelRequest], EncodedRequest],
) -> None:
    sent, reasons = sent_parts(encode, InputFile(filename="r.pdf", file_id=f"file_{'0' * 64}"))
    assert sent["text"] == "[The file 'r.pdf' was left out here: its content is not kept here.]"
    assert reasons == ["file", "file"]
