"""Histories that models, tools, hooks, users, failures, cancels and compaction can cause."""

import base64
import json
from typing import Any

import msgspec
from hypothesis import strategies as st

from treadle.domain.items import (
    FunctionCall,
    FunctionCallOutput,
    HostedCall,
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
    SummaryText,
)

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()
JPEG = base64.b64encode(b"\xff\xd8\xff\xe0" + bytes(40)).decode()

PROVIDERS = ["openai", "anthropic", "chat", "deepseek", "gemini", "bedrock", ""]
TEXTS = st.one_of(
    st.sampled_from(["", " ", "\n", "hi", "Grüße 😀", "\ud83d", "x\ude00", "<|im_end|>", "\x00"]),
    st.text(st.characters(exclude_categories=()), max_size=8),
)
NAMES = st.one_of(
    st.sampled_from(
        [
            "look",
            "",
            " ",
            "look up",
            "functions.look",
            "look<|channel|>commentary",
            'look" />',
            "look" * 40,
            "ünïcode",
            "\ud800",
            "a/b",
            "look\n",
        ]
    ),
    TEXTS,
)
ARGUMENTS = st.one_of(
    st.sampled_from(
        [
            "{}",
            "",
            " ",
            "null",
            '{"word": "loom"}',
            '{"word": "lo',
            '["loom"]',
            '"loom"',
            "7",
            "{'word': 'loom'}",
            '{"a": NaN}',
            '{"a": "\\ud800"}',
            '{"a": "\ud800"}',
            '{"a":1}{"b":2}',
            '{"a": 1e400}',
            '{"a":' * 150 + "1" + "}" * 150,
            '{"a":' + "[" * 5000,
            "{" * 100_000,
            '{"a": 123456789012345678901234567890}',
            "\ufeff{}",
            '{"\\u0000": "\\u0000"}',
        ]
    ),
    st.dictionaries(
        st.text(max_size=3),
        st.recursive(st.text(max_size=4) | st.integers(), st.lists, max_leaves=3),
        max_size=3,
    ).map(json.dumps),
    TEXTS,
)
CALL_IDS = st.one_of(
    st.sampled_from(["a", "call_1", "", "c" * 300, "functions.look:0", "toolu_01A", "ö", "a b"]),
    st.sampled_from(["\ud800", "abcdefgh1", "call_2", "call_3", "call_4", "fc-5"]),
)
IMAGES = st.builds(
    InputImage,
    st.sampled_from(
        [
            f"data:image/png;base64,{PNG}",
            f"data:image/jpeg;base64,{PNG}",
            "data:image/png;base64,",
            f"data:;base64,{JPEG}",
            f"data:image/svg+xml;base64,{base64.b64encode(b'<svg/>').decode()}",
            "data:image/png;base64,!!!",
            "data:image/svg+xml,%3Csvg/%3E",
            f"DATA:image/PNG;BASE64,{PNG}",
            "https://x/y.png",
            "http://x/y.png",
            "file:///etc/passwd",
            "",
            "x.png",
            "https://x/y z",
            f"data:image/png;charset=utf-8;base64,{PNG[:20]}\n{PNG[20:]}",
            "data:image/png;base64,iVBO",
            f"data:image/png;base64,{PNG.rstrip('=')}",
            "data:image/png;base64,\ud800",
            "\ud800",
        ]
    ),
)
PDF = base64.b64encode(b"%PDF-1.7\n" + bytes(40)).decode()
NOTES = base64.b64encode("Grüße\n".encode()).decode()
WAV = base64.b64encode(b"RIFF\x00\x00\x00\x00WAVEfmt " + bytes(40)).decode()
CONTENTS = [
    f"data:application/pdf;base64,{PDF}",
    f"data:image/png;base64,{PDF}",
    f"data:text/html;base64,{NOTES}",
    f"data:text/csv;base64,{NOTES}",
    f"data:audio/wav;base64,{WAV}",
    f"data:audio/mpeg;base64,{base64.b64encode(b'ID3' + bytes(40)).decode()}",
    f"data:audio/ogg;base64,{base64.b64encode(b'OggS' + bytes(40)).decode()}",
    f"data:application/zip;base64,{base64.b64encode(bytes(range(256))).decode()}",
    "data:application/pdf;base64,",
    "data:,x",
    "",
    "%PDF-",
    "https://x/y.pdf",
    "http://x/y.pdf",
    "https://x/y z",
    "file:///etc/passwd",
    "\ud800",
]
NAMES = st.sampled_from(["", "a.pdf", "../a.txt", "b.csv", 'x" onload="', "a\nb", "\ud800"])
KEPT = st.sampled_from(["", f"file_{'a' * 64}", "file-abc"])
FILES = st.builds(
    InputFile, st.sampled_from(CONTENTS), NAMES, st.sampled_from(["", "https://x/z.pdf"]), KEPT
)
AUDIO = st.builds(InputAudio, st.sampled_from(CONTENTS), KEPT)
MEDIA = st.one_of(IMAGES, FILES, AUDIO)
CITATION = {
    "type": "url_citation",
    "url": "https://x",
    "title": "x",
    "start_index": 0,
    "end_index": 1,
}
FIELDS: list[dict[str, Any]] = [
    {"phase": "commentary"},
    {"annotations": [[CITATION]]},
    {"citations": [{"type": "char_location", "cited_text": "x", "document_index": 0}]},
    {"extra_content": {"google": {"thought_signature": "c2ln"}}},
    {"thought_signature": "c2ln", "id": "fc_1"},
    {"thought_signatures": [[0, 1, "c2ln"], [2, 2, "c2ln"]]},
    {
        "mcp_approval_request": {
            "type": "mcp_approval_request",
            "id": "mcpr_1",
            "server_label": "docs",
            "name": "read",
            "arguments": "{}",
        }
    },
    {"mcp_approval_request": 5},
    {"text_field": "reasoning"},
    {"text_field": "thinking", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
]
PROVIDER_FIELDS = st.none() | st.builds(
    ProviderFields, st.sampled_from(PROVIDERS), st.sampled_from(FIELDS[:2] + FIELDS[3:])
)
ITEM_IDS = st.sampled_from(["", "msg_1", "x", "msg_" + "y" * 400, "rs_1", "rs_" + "z" * 400])
PARTS = st.one_of(
    st.builds(InputText, TEXTS), st.builds(OutputText, TEXTS), st.builds(Refusal, TEXTS), MEDIA
)


def messages(*roles: str) -> st.SearchStrategy[Message]:
    return st.builds(
        Message,
        st.sampled_from(roles),
        st.lists(PARTS, max_size=3).map(tuple),
        ITEM_IDS,
        provider_fields=PROVIDER_FIELDS,
    )


MESSAGES = messages("user", "assistant", "system", "developer")
REASONING = st.builds(
    Reasoning,
    ITEM_IDS,
    st.lists(st.builds(SummaryText, TEXTS), max_size=2).map(tuple),
    st.lists(st.builds(ReasoningText, TEXTS), max_size=2).map(tuple),
    st.sampled_from([None, "", "ZW5j"]),
    st.sampled_from(PROVIDERS),
    PROVIDER_FIELDS,
)
CALLED = st.none() | st.builds(
    HostedCall,
    st.sampled_from(["web_search", "code_interpreter", "mcp", "x y", ""]),
    st.sampled_from(["", "ws_1", "c1", "y" * 400, "\ud800"]),
    st.sampled_from(["in_progress", "completed", "failed"]),
    TEXTS,
    NAMES,
    st.sampled_from(["", "docs", "a b"]),
    TEXTS,
)
HOSTED = st.builds(
    ProviderItem,
    st.sampled_from(PROVIDERS),
    st.sampled_from(
        [
            {
                "type": "web_search_call",
                "id": "ws_1",
                "status": "completed",
                "action": {"type": "search", "query": "x"},
            },
            {"type": "computer_call", "id": "cu_1", "call_id": "c"},
        ]
    ).map(lambda fields: msgspec.Raw(msgspec.json.encode(fields))),
    CALLED,
)
SEARCH = {"type": "server_tool_use", "name": "web_search", "input": {"query": "x"}}
FOUND = {"type": "web_search_tool_result", "content": []}
HOSTED_GEMINI = st.builds(
    ProviderItem,
    st.sampled_from(["gemini", "openai"]),
    st.sampled_from(
        [
            msgspec.Raw(b'{"executableCode": {"language": "PYTHON", "code": "1"}}'),
            msgspec.Raw(b'{"groundingMetadata":{"webSearchQueries":["q"]}}'),
        ]
    ),
    CALLED,
)
HOSTED_MESSAGES = st.tuples(
    st.sampled_from(["anthropic", "openai"]),
    st.sampled_from([SEARCH, FOUND]),
    st.sampled_from(["srvtoolu_1", "srvtoolu_2"]),
    CALLED,
).map(
    lambda one: ProviderItem(
        one[0],
        msgspec.Raw(
            msgspec.json.encode({**one[1], ("id" if one[1] is SEARCH else "tool_use_id"): one[2]})
        ),
        one[3],
    )
)
HOSTED_CONVERSE = st.tuples(
    st.sampled_from(["bedrock", "openai"]),
    st.sampled_from(["toolUse", "toolResult"]),
    st.sampled_from(["tooluse_1", "tooluse_2"]),
    CALLED,
).map(
    lambda one: ProviderItem(
        one[0],
        msgspec.Raw(
            msgspec.json.encode(
                {
                    one[1]: {
                        "toolUseId": one[2],
                        **(
                            {"name": "nova_grounding", "input": {}, "type": "server_tool_use"}
                            if one[1] == "toolUse"
                            else {"content": [], "type": "nova_grounding_result"}
                        ),
                    }
                }
            )
        ),
        one[3],
    )
)
JUNK = st.builds(ProviderItem, st.sampled_from(PROVIDERS), st.just(msgspec.Raw(b"{junk")))
OUTPUTS = st.one_of(
    TEXTS, st.lists(st.one_of(st.builds(InputText, TEXTS), MEDIA), max_size=3).map(tuple)
)


@st.composite
def responses(draw: st.DrawFn, hosted: st.SearchStrategy[ProviderItem]) -> list[Item]:
    """One response with the outputs of its calls, as the fold of a thread puts them."""
    items: list[Item] = draw(
        st.lists(
            st.one_of(
                messages("assistant"),
                REASONING,
                hosted | JUNK,
                st.builds(
                    FunctionCall, CALL_IDS, NAMES, ARGUMENTS, provider_fields=PROVIDER_FIELDS
                ),
            ),
            max_size=5,
        )
    )
    outputs = [
        FunctionCallOutput(item.call_id, draw(OUTPUTS), is_error=draw(st.booleans()))
        for item in items
        if isinstance(item, FunctionCall)
    ]
    return [*items, *outputs]


@st.composite
def histories(draw: st.DrawFn, hosted: st.SearchStrategy[ProviderItem] = HOSTED) -> list[Item]:
    """A conversation, from which a hook may have taken, repeated or moved anything."""
    parts = draw(
        st.lists(st.one_of(MESSAGES.map(lambda one: [one]), responses(hosted)), max_size=6)
    )
    items = [item for part in parts for item in part]
    for _ in range(draw(st.integers(0, 2)) if items else 0):
        place = draw(st.integers(0, max(0, len(items) - 1)))
        change = draw(st.sampled_from(["drop", "repeat", "move", "cut"]))
        if change == "drop":
            del items[place : place + 1]
        elif change == "repeat":
            items[place:place] = items[place : place + 1]
        elif change == "move":
            items += [items.pop(place)] if items else []
        else:
            items = items[place:]
    return items
