"""Requests of the Gemini API: what is sent, and what is left out or replaced."""

import json
from typing import Any, Literal

import msgspec
import pytest
from tests.models.wire.odd_histories import JPEG, NOTES, PDF, PNG, WAV

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
    Refusal,
    message,
    user_message,
)
from treadle.domain.schema import OutputSchema, ToolSchema
from treadle.domain.settings import ModelSettings, NamedTool, ReasoningEffort
from treadle.models.base import ModelRequest, output_mode_of
from treadle.models.gemini import Gemini
from treadle.models.wire.gemini_contents import MEDIA
from treadle.models.wire.gemini_request import GeminiOptions, encode_request
from treadle.models.wire.gemini_schema import readable_schema

NEW, OLD = "gemini-3.8-flash", "gemini-2.5-flash"
LOOK = ToolSchema(
    "look",
    "Looks.",
    {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]},
    strict=True,
)


def sent(*items: Item, model: str = NEW, **more: Any) -> dict[str, Any]:
    request = ModelRequest(items=items or [user_message("hi")], **more)
    return json.loads(encode_request(model, request, GeminiOptions()).body)


def reasons(*items: Item, model: str = NEW) -> list[str]:
    encoded = encode_request(model, ModelRequest(items=items), GeminiOptions())
    return [change.reason for change in encoded.changes]


def called(*outputs: Any, is_error: bool = False) -> list[Item]:
    """A user's message, a call for each output, and the outputs."""
    calls = [FunctionCall(f"c{n}", "look", "{}") for n, _ in enumerate(outputs)]
    given = [FunctionCallOutput(f"c{n}", o, is_error=is_error) for n, o in enumerate(outputs)]
    return [user_message("hi"), *calls, *given]


def test_a_whole_request() -> None:
    settings = ModelSettings(temperature=0.5, top_p=0.9, max_output_tokens=100)
    body = sent(
        message("system", "Be brief."),
        user_message("Look."),
        FunctionCall("c1", "look", '{"at": "x"}'),
        FunctionCallOutput("c1", "A loom."),
        message("system", "It is late."),
        user_message("And?"),
        instructions="You look.",
        tools=(LOOK,),
        settings=settings,
    )
    assert body == {
        "systemInstruction": {"parts": [{"text": "You look."}, {"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Look."}]},
            {
                "role": "model",
                "parts": [
                    {
                        "functionCall": {"name": "look", "args": {"at": "x"}, "id": "c1"},
                        "thoughtSignature": "skip_thought_signature_validator",
                    }
                ],
            },
            {
                "role": "user",
                "parts": [
                    {
                        "functionResponse": {
                            "name": "look",
                            "response": {"output": "A loom."},
                            "id": "c1",
                        }
                    }
                ],
            },
            {
                "role": "user",
                "parts": [{"text": "<system>\nIt is late.\n</system>"}, {"text": "And?"}],
            },
        ],
        "tools": [
            {
                "functionDeclarations": [
                    {
                        "name": "look",
                        "description": "Looks.",
                        "parametersJsonSchema": LOOK.parameters,
                    }
                ]
            }
        ],
        "generationConfig": {"temperature": 0.5, "topP": 0.9, "maxOutputTokens": 100},
    }


def test_a_cache_holds_instructions_and_tools() -> None:
    name = "cachedContents/abc"
    settings = ModelSettings(
        extra_body={"cachedContent": name}, tool_choice="required", temperature=0.5
    )
    tool = ToolSchema("look", "Looks.", {"type": "object"}, strict=False)
    body = sent(user_message("hi"), instructions="Be brief.", tools=(tool,), settings=settings)
    assert body == {
        "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
        "generationConfig": {"temperature": 0.5},
        "cachedContent": name,
    }


def test_older_models_know_neither_ids_nor_signatures() -> None:
    contents = sent(*called("x"), model=OLD)["contents"]
    assert contents[1]["parts"] == [{"functionCall": {"name": "look", "args": {}}}]
    response = {"name": "look", "response": {"output": "x"}}
    assert contents[2]["parts"] == [{"functionResponse": response}]


@pytest.mark.parametrize(
    ("name", "is_old"),
    [
        ("gemini-2.5-pro", True),
        ("gemini-2.0-flash-001", True),
        ("gemini-1.5-pro", True),
        ("tunedModels/gemini-2.5-flash-x", True),
        ("gemini-3.1-pro-preview", False),
        ("gemini-4-argon", False),
        ("gemini-flash-latest", False),
        ("gemini-20", False),
    ],
)
def test_generations_of_models(name: str, is_old: bool) -> None:
    signed = "thoughtSignature" in sent(*called("x"), model=name)["contents"][1]["parts"][0]
    assert signed is not is_old
    model = Gemini(name, api_key="k")
    assert output_mode_of(model, with_tools=True) == ("tool" if is_old else "native")
    assert output_mode_of(model, with_tools=False) == "native"


def test_outputs_of_parallel_calls_are_one_content_in_the_order_of_the_calls() -> None:
    items = called("first", "second")
    items[-2:] = reversed(items[-2:])
    _, model, user = sent(*items)["contents"]
    assert [("thoughtSignature" in part) for part in model["parts"]] == [True, False]
    found = [part["functionResponse"]["response"] for part in user["parts"]]
    assert found == [{"output": "first"}, {"output": "second"}]


def test_a_failure_is_an_error() -> None:
    (part,) = sent(*called("no", is_error=True))["contents"][2]["parts"]
    assert part["functionResponse"]["response"] == {"error": "no"}


PICTURE = InputImage(f"data:image/png;base64,{PNG}")
GIF = InputImage("data:image/gif;base64,R0lGODlhAQABAAAAACw=")
PDF_FILE = InputFile(f"data:application/pdf;base64,{PDF}", "r.pdf")
NOTES_FILE = InputFile(f"data:text/csv;base64,{NOTES}", "n.csv")
WAV_AUDIO = InputAudio(f"data:audio/wav;base64,{WAV}")


def blob(media_type: str, data: str) -> dict[str, Any]:
    return {"inlineData": {"mimeType": media_type, "data": data}}


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (PICTURE, blob("image/png", PNG)),
        (InputImage(f"data:image/png;base64,{JPEG}"), blob("image/jpeg", JPEG)),
        (PDF_FILE, blob("application/pdf", PDF)),
        (NOTES_FILE, {"text": '<file name="n.csv">\nGrüße\n\n</file>'}),
        (WAV_AUDIO, blob("audio/wav", WAV)),
        (
            InputImage("https://x/a.webp?b=c.png"),
            {"fileData": {"fileUri": "https://x/a.webp?b=c.png", "mimeType": "image/webp"}},
        ),
        (
            InputImage("https://x/a"),
            {"fileData": {"fileUri": "https://x/a", "mimeType": "image/jpeg"}},
        ),
        (
            InputFile(file_url="http://x/a"),
            {"fileData": {"fileUri": "http://x/a", "mimeType": "application/pdf"}},
        ),
    ],
)
def test_media_of_a_message(part: Any, expected: dict[str, Any]) -> None:
    (content,) = sent(Message("user", (InputText("See"), part)))["contents"]
    assert content["parts"] == [{"text": "See"}, expected]
    assert MEDIA.refusal(part) == ""


@pytest.mark.parametrize(
    ("part", "reason", "said"),
    [
        (GIF, "image", "the API reads no images of this kind (image/gif)"),
        (InputAudio("https://x/a.wav"), "audio", "the API loads no audio from URLs"),
        (InputFile("data:application/zip;base64,UEsDBA=="), "file", "files of this kind"),
    ],
)
def test_media_that_the_api_does_not_read(part: Any, reason: str, said: str) -> None:
    (content,) = sent(Message("user", (part,)))["contents"]
    assert said in content["parts"][0]["text"]
    assert reasons(Message("user", (part,))) == [reason]
    assert said in MEDIA.refusal(part)


def test_media_in_an_output_are_part_of_it() -> None:
    output = (InputText("Here"), PICTURE, PDF_FILE, NOTES_FILE)
    *_, user = sent(*called(output, "x"))["contents"]
    first, second = [part["functionResponse"] for part in user["parts"]]
    assert first["parts"] == [blob("image/png", PNG), blob("application/pdf", PDF)]
    assert first["response"]["output"].startswith('Here\n<file name="n.csv">')
    assert "parts" not in second


@pytest.mark.parametrize(
    ("model", "part"), [(OLD, PICTURE), (NEW, WAV_AUDIO), (NEW, InputImage("https://x/a.png"))]
)
def test_other_media_follow_the_outputs(model: str, part: Any) -> None:
    """With another part, the content of the outputs would not have as many as there are calls."""
    *_, outputs, following = sent(*called((part,), "x"), user_message("So?"), model=model)[
        "contents"
    ]
    found = [part["functionResponse"]["response"] for part in outputs["parts"]]
    assert found == [{"output": "The files are in the next message."}, {"output": "x"}]
    assert following["role"] == "user"
    assert following["parts"][0].keys() <= {"inlineData", "fileData"}
    assert following["parts"][1] == {"text": "So?"}


def test_media_of_the_model_are_left_out() -> None:
    said = Message("assistant", (OutputText("Here."), PICTURE))
    parts = sent(user_message("hi"), said, user_message("on"))["contents"][1]["parts"]
    assert parts[0] == {"text": "Here."}
    assert "An image was left out here" in parts[1]["text"]


def test_the_first_and_the_last_turn_are_of_the_user() -> None:
    contents = sent(message("assistant", "Hello!"))["contents"]
    assert [content["role"] for content in contents] == ["user", "model", "user"]
    assert sent(Message("user", (InputText(" "),)))["contents"][0]["role"] == "user"
    greeted = sent(message("system", "Be kind."))
    assert greeted["contents"][0]["parts"] == [{"text": "(The conversation begins.)"}]


def test_items_of_others_are_left_out() -> None:
    raw = json.dumps({"executableCode": {"code": "1"}}).encode()
    own = ProviderItem("gemini", msgspec.Raw(raw))
    foreign = ProviderItem("openai", msgspec.Raw(raw))
    thought = Reasoning(content=(ReasoningText("Hm"),), encrypted_content="x", provider="vertex")
    refused = Message("assistant", (Refusal("No."),))
    contents = sent(user_message("hi"), own, foreign, thought, refused, user_message("on"))
    assert contents["contents"][1]["parts"] == [json.loads(raw), {"text": "No."}]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, None),
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        (NamedTool("look"), {"mode": "ANY", "allowedFunctionNames": ["look"]}),
        (NamedTool("other"), None),
    ],
)
def test_tool_choice(choice: Any, expected: dict[str, Any] | None) -> None:
    settings = ModelSettings(tool_choice=choice)
    config = sent(tools=(LOOK,), settings=settings).get("toolConfig")
    assert config == (expected and {"functionCallingConfig": expected})
    assert "toolConfig" not in sent(settings=settings)


def test_structured_output() -> None:
    schema = {"type": "object", "properties": {"kind": {"const": "a"}}}
    config = sent(output=OutputSchema("o", schema, strict=True))["generationConfig"]
    assert config == {
        "responseMimeType": "application/json",
        "responseJsonSchema": {"type": "object", "properties": {"kind": {"enum": ["a"]}}},
    }


def test_schemas_are_written_as_the_api_reads_them() -> None:
    schema = {
        "$defs": {"Dog": {"properties": {"const": {"const": 1}, "is": {"const": True}}}},
        "properties": {
            "pet": {"$ref": "#/$defs/Dog", "description": "A pet.", "default": None},
            "enum": {"anyOf": [{"const": "x"}, {"type": "null"}], "default": {"const": 1}},
        },
        "required": ["pet"],
        "enum": [{"const": 1}],
    }
    assert readable_schema(schema) == {
        "$defs": {"Dog": {"properties": {"const": {"enum": [1]}, "is": {"const": True}}}},
        "properties": {
            "pet": {"$ref": "#/$defs/Dog"},
            "enum": {"anyOf": [{"enum": ["x"]}, {"type": "null"}], "default": {"const": 1}},
        },
        "required": ["pet"],
        "enum": [{"const": 1}],
    }


@pytest.mark.parametrize(
    ("model", "effort", "expected"),
    [
        (NEW, None, None),
        (NEW, "none", {"includeThoughts": False, "thinkingLevel": "low"}),
        (NEW, "minimal", {"includeThoughts": True, "thinkingLevel": "low"}),
        (NEW, "medium", {"includeThoughts": True, "thinkingLevel": "medium"}),
        (NEW, "xhigh", {"includeThoughts": True, "thinkingLevel": "high"}),
        ("gemini-3.5-flash-lite", "none", {"includeThoughts": False, "thinkingLevel": "minimal"}),
        (
            "gemini-3-flash-preview",
            "minimal",
            {"includeThoughts": True, "thinkingLevel": "minimal"},
        ),
        ("gemini-4-argon", "minimal", {"includeThoughts": True, "thinkingLevel": "low"}),
        (OLD, "none", {"includeThoughts": False, "thinkingBudget": 0}),
        (OLD, "low", {"includeThoughts": True, "thinkingBudget": 4096}),
        (OLD, "xhigh", {"includeThoughts": True, "thinkingBudget": 24576}),
        ("gemini-2.5-pro", "none", {"includeThoughts": False, "thinkingBudget": 128}),
        ("gemini-2.0-flash", "high", None),
        (OLD, 2_000, {"includeThoughts": True, "thinkingBudget": 2_000}),
        (OLD, 99_000, {"includeThoughts": True, "thinkingBudget": 24_576}),
        (OLD, 0, {"includeThoughts": False, "thinkingBudget": 0}),
        (NEW, 5_000, {"includeThoughts": True, "thinkingLevel": "medium"}),
    ],
)
def test_thinking(
    model: str, effort: ReasoningEffort | int | None, expected: dict[str, Any] | None
) -> None:
    body = sent(model=model, settings=ModelSettings(reasoning_effort=effort))
    assert body.get("generationConfig", {}).get("thinkingConfig") == expected


def test_thoughts_leave_room_for_an_answer() -> None:
    settings = ModelSettings(reasoning_effort="high", max_output_tokens=1000)
    config = sent(model=OLD, settings=settings)["generationConfig"]
    assert config["thinkingConfig"]["thinkingBudget"] == 750


def test_more_of_the_body_is_merged() -> None:
    extra = {
        "generationConfig": {"topK": 5, "temperature": 1},
        "tools": [{"googleSearch": {}}],
        "labels": {"a": "b"},
        "contents": "mine",
    }
    body = sent(tools=(LOOK,), settings=ModelSettings(temperature=0.5, extra_body=extra))
    assert body["generationConfig"] == {"temperature": 1, "topK": 5}
    assert [list(tool) for tool in body["tools"]] == [["functionDeclarations"], ["googleSearch"]]
    assert (body["labels"], body["contents"]) == ({"a": "b"}, "mine")


@pytest.mark.parametrize("kind", ["list", "text"])
def test_odd_fields_of_a_message_do_no_harm(kind: Literal["list", "text"]) -> None:
    """A history may have been imported: fields of a provider can have any form."""
    odd: Any = [["x", None], [1]] if kind == "list" else "odd"
    fields = ProviderFields("gemini", {"thought_signatures": odd})
    said = Message("assistant", (OutputText("So."),), provider_fields=fields)
    contents = sent(user_message("hi"), said, user_message("on"))["contents"]
    assert contents[1]["parts"] == [{"text": "So."}]
