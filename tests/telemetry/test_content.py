import json

from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    InputImage,
    InputText,
    Message,
    OutputText,
    Reasoning,
    Refusal,
    SummaryText,
)
from treadle.telemetry.content import input_messages, output_messages


def test_what_the_model_was_given() -> None:
    images = (InputImage("data:image/png;base64,aGk="), InputImage("https://host/a.png"))
    message = Message("user", (InputText("See"), *images))
    assert json.loads(input_messages([message])) == [
        {
            "role": "user",
            "parts": [
                {"type": "text", "content": "See"},
                {
                    "type": "blob",
                    "modality": "image",
                    "mime_type": "image/png",
                    "content": "aGk=",
                },
                {"type": "uri", "modality": "image", "uri": "https://host/a.png"},
            ],
        }
    ]


def test_what_the_model_said() -> None:
    items = [
        Reasoning(summary=(SummaryText("Hm."),)),
        Reasoning(encrypted_content="…"),
        Message("assistant", (OutputText("Hi."), Refusal("No."))),
        FunctionCall("c1", "look", '{"at": 1}'),
        FunctionCall("c2", "look", '{"at": '),
        FunctionCallOutput("c1", "not of the model"),
    ]
    assert json.loads(output_messages(items, "stop")) == [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "Hm."},
                {"type": "text", "content": "Hi."},
                {"type": "refusal", "content": "No."},
                {"type": "tool_call", "id": "c1", "name": "look", "arguments": {"at": 1}},
                {"type": "tool_call", "id": "c2", "name": "look", "arguments": '{"at": '},
            ],
            "finish_reason": "stop",
        }
    ]
