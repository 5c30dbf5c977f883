"""Servers that refuse whatever their API does not accept, with the rules of the public reports.

Each `check_*` raises `Refused`, as the API answers 400. The rules come from the types of the
providers' SDKs, from their errors, and from the chat templates of Mistral, Qwen and Gemma.
"""

import base64
import itertools
import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import pydantic

Json = dict[str, Any]

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
MAX_TEXT = 10_485_760
MAX_DEPTH = 128
IMAGE_MARKS = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff",
    "image/gif": b"GIF8",
    "image/webp": b"RIFF",
}
FILE_TYPES = {
    "application/pdf",
    "text/plain",
    "text/markdown",
    "text/csv",
    "application/json",
}
HOSTED = {"web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call"}


# An SDK takes more than a second to import, and every worker would import it to collect the tests.


@cache
def messages_sdk() -> pydantic.TypeAdapter[Any]:
    from anthropic.types.message_create_params import MessageCreateParamsStreaming

    return pydantic.TypeAdapter(MessageCreateParamsStreaming)


@cache
def chat_sdk() -> pydantic.TypeAdapter[Any]:
    from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming

    return pydantic.TypeAdapter(CompletionCreateParamsStreaming)


@cache
def responses_sdk() -> pydantic.TypeAdapter[Any]:
    from openai.types.responses.response_input_item_param import ResponseInputItemParam

    return pydantic.TypeAdapter(ResponseInputItemParam)


@cache
def responses_tool() -> pydantic.TypeAdapter[Any]:
    from openai.types.responses.tool_param import ToolParam

    return pydantic.TypeAdapter(ToolParam)


class Refused(AssertionError):
    """The server answers 400."""


def require(condition: object, text: str) -> None:
    if not condition:
        raise Refused(text)


def parsed(body: bytes) -> Json:
    """The body as a server reads it: UTF-8, JSON without NaN and without halves of characters."""

    def refuse(text: str) -> None:
        raise Refused(f"not JSON: {text}")

    found = json.loads(body.decode(), parse_constant=refuse)
    for text in strings(found):
        require(is_whole(text), f"no low surrogate in string {text[:20]!r}")
        require(len(text) <= MAX_TEXT or text.startswith("data:"), "string too long")
    return found


def strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from strings(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings(inner)


def is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def depth(value: Any) -> int:
    if isinstance(value, dict | list):
        inner = value.values() if isinstance(value, dict) else value
        return 1 + max(map(depth, inner), default=0)
    return 0


def check_arguments(text: str, where: str) -> None:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Refused(f"{where}: Failed to parse tool call arguments as JSON: {error}") from error
    require(isinstance(found, dict), f"{where}: arguments must be an object")
    require(depth(found) <= MAX_DEPTH, f"{where}: recursion limit exceeded")
    require(all(map(is_whole, strings(found))), f"{where}: half of a character")


def check_image(url: str, where: str) -> None:
    require(
        re.match(r"https?://\S+$", url) or url.startswith("data:image/"), f"{where}: {url[:40]}"
    )
    if url.startswith("data:"):
        head, _, data = url.partition(";base64,")
        check_bytes(head.removeprefix("data:"), data, where)


def check_bytes(media_type: str, data: str, where: str) -> None:
    require(media_type in IMAGE_MARKS, f"{where}: media type {media_type!r}")
    try:
        found = base64.b64decode(data, validate=True)
    except ValueError as error:
        raise Refused(f"{where}: invalid base64 data") from error
    require(found.startswith(IMAGE_MARKS[media_type]), f"{where}: image does not match its type")


def check_file(url: str, name: str, where: str) -> None:
    head, _, data = url.partition(";base64,")
    require(name, f"{where}: missing filename")
    require(head.removeprefix("data:") in FILE_TYPES, f"{where}: media type {head!r}")
    try:
        require(base64.b64decode(data, validate=True), f"{where}: empty file")
    except ValueError as error:
        raise Refused(f"{where}: invalid base64 data") from error


def check_schema(schema: Json, where: str) -> None:
    require(schema.get("type") == "object", f"{where}: schema must have type 'object'")
    require(
        isinstance(schema.get("properties"), dict), f"{where}: object schema missing properties"
    )
    top = schema.keys() & {"oneOf", "anyOf", "allOf", "enum", "not"}
    require(not top, f"{where}: {top} at the top level")


# Responses


def check_responses(body: Json) -> None:
    entries = body["input"]
    require(isinstance(entries, list) and entries, "input: empty array")
    called: set[str] = set()
    open_calls: set[str] = set()
    asked: list[str] = []
    servers = {tool.get("server_label") for tool in body.get("tools", ())}
    for number, entry in enumerate(entries):
        where, kind = f"input[{number}]", entry.get("type")
        walked(responses_sdk().validate_python(_typed(entry)))
        if kind == "message":
            check_response_message(entry, where)
        elif kind == "function_call":
            require(1 <= len(entry["call_id"]) <= 64, f"{where}.call_id: string too long")
            require(NAME.fullmatch(entry["name"]), f"{where}.name: {entry['name'][:30]!r}")
            require(entry["call_id"] not in called, f"{where}: duplicate call_id")
            check_arguments(entry["arguments"], where)
            called.add(entry["call_id"])
            open_calls.add(entry["call_id"])
        elif kind == "function_call_output":
            require(entry["call_id"] in open_calls, f"{where}: no tool call found")
            open_calls.discard(entry["call_id"])
            check_response_output(entry["output"], where)
        elif kind == "reasoning":
            check_reasoning(entries, number, where)
        elif kind == "mcp_approval_request":
            require("docs" in servers, f"{where}: unknown MCP server")
            asked.append(entry["id"])
        elif kind == "mcp_approval_response":
            require(entry["approval_request_id"] in asked, f"{where}: unknown approval request")
            asked.remove(entry["approval_request_id"])
        else:
            require(kind in HOSTED, f"{where}: type {kind!r}")
    require(not open_calls, f"No tool output found for function call {open_calls}")
    require(not asked, f"No answer found for approval request {asked}")
    walked([responses_tool().validate_python(tool) for tool in body.get("tools", ())])
    check_tools(body, body.get("tools", ()))


def _typed(entry: Json) -> Json:
    """An entry as the SDK types it: the API does not need the id and the annotations of a text."""
    if entry.get("type") == "reasoning":
        return {"id": "rs_1", **entry}
    if entry.get("role") != "assistant":
        return entry
    parts = [
        {"annotations": [], **part} if part["type"] == "output_text" else part
        for part in entry["content"]
    ]
    return {"id": "msg_1", "status": "completed", **entry, "content": parts}


def check_response_message(entry: Json, where: str) -> None:
    role, content = entry["role"], entry["content"]
    require(role in {"user", "assistant", "system", "developer"}, f"{where}.role")
    require(isinstance(content, list) and content, f"{where}.content: empty array")
    if "id" in entry:
        require(re.fullmatch(r"msg_.{1,60}", entry["id"]), f"{where}.id: must begin with 'msg'")
        require(role == "assistant" and entry.get("status") == "completed", f"{where}.status")
    for part in content:
        if role == "assistant":
            require(part["type"] in {"output_text", "refusal"}, f"{where}.content: {part['type']}")
            require(part.get("text") or part.get("refusal"), f"{where}.content: empty")
        elif part["type"] == "input_image":
            require(role == "user", f"{where}.content: image in a {role} message")
            check_image(part["image_url"], where)
        elif part["type"] == "input_file":
            require(role == "user", f"{where}.content: file in a {role} message")
            check_response_file(part, where)
        else:
            require(part["type"] == "input_text" and part["text"], f"{where}.content")


def check_response_output(output: Any, where: str) -> None:
    if isinstance(output, str):
        return
    require(output, f"{where}.output: empty array")
    for part in output:
        require(part["type"] in {"input_text", "input_image", "input_file"}, f"{where}.output")
        if part["type"] == "input_image":
            check_image(part["image_url"], where)
        elif part["type"] == "input_file":
            check_response_file(part, where)


def check_response_file(part: Json, where: str) -> None:
    require(len(part.keys() & {"file_url", "file_data"}) == 1, f"{where}: one content")
    if "file_url" in part:
        require(re.match(r"https?://\S+$", part["file_url"]), f"{where}: file_url")
    else:
        check_file(part["file_data"], part["filename"], where)


def check_reasoning(entries: Sequence[Json], number: int, where: str) -> None:
    entry = entries[number]
    require(entry["encrypted_content"], f"{where}.encrypted_content: empty")
    require(isinstance(entry["summary"], list), f"{where}.summary")
    require("id" not in entry or re.fullmatch(r"rs_.{1,61}", entry["id"]), f"{where}.id")
    following = next((e for e in entries[number + 1 :] if e["type"] != "reasoning"), {})
    kinds = {"function_call", "mcp_approval_request", *HOSTED}
    led = following.get("type") in kinds or following.get("role") == "assistant"
    require(led, f"{where}: reasoning without its required following item")


def check_tools(body: Json, tools: Sequence[Json]) -> None:
    if not tools:
        settings = body.keys() & {"tool_choice", "parallel_tool_calls", "tools"}
        require(not settings, f"{settings} is only allowed when 'tools' are specified")
    for tool in tools:
        if not tool.keys() & {"function", "parameters", "input_schema"}:
            continue  # a hosted one
        function = tool.get("function", tool)
        require(NAME.fullmatch(function["name"]), "tools.name")
        check_schema(function.get("parameters", function.get("input_schema")), function["name"])


# Chat Completions


def check_chat(body: Json, *, call_ids: str = r"[!-~]{1,40}") -> None:
    """OpenAI's own rules, and those of servers that parse what is sent back to them."""
    messages = body["messages"]
    if not any(is_thinking(message) for message in messages):  # a part that Mistral alone has
        walked(chat_sdk().validate_python(body))
    require(messages, "messages: empty array")
    called: set[str] = set()
    open_calls: list[str] = []
    for number, message in enumerate(messages):
        where, role = f"messages[{number}]", message["role"]
        require(role in {"system", "user", "assistant", "tool"}, f"{where}.role")
        if role == "tool":
            require(message["tool_call_id"] in open_calls, f"{where}: no preceding 'tool_calls'")
            open_calls.remove(message["tool_call_id"])
            require(isinstance(message["content"], str), f"{where}.content")
            require(message["content"].strip(), f"{where} must not be empty")
            continue
        require(not open_calls, f"{where}: tool_calls without outputs: {open_calls}")
        content = message.get("content")
        calls = message.get("tool_calls")
        require(content or (role == "assistant" and calls), f"{where} must not be empty")
        check_chat_content(content, role, where)
        require(calls is None or (role == "assistant" and calls), f"{where}.tool_calls")
        for call in calls or ():
            require(re.fullmatch(call_ids, call["id"]), f"{where}.tool_calls.id: {call['id'][:50]}")
            require(call["id"] not in called, f"{where}: duplicate id")
            require(NAME.fullmatch(call["function"]["name"]), f"{where}.tool_calls.function.name")
            check_arguments(call["function"]["arguments"], where)
            called.add(call["id"])
            open_calls.append(call["id"])
    require(not open_calls, f"tool_calls without outputs: {open_calls}")
    check_tools(body, body.get("tools", ()))


def is_thinking(message: Json) -> bool:
    content = message.get("content")
    return isinstance(content, list) and any(part["type"] == "thinking" for part in content)


def check_chat_content(content: Any, role: str, where: str) -> None:
    if content is None:
        return
    if isinstance(content, str):
        require(content.strip(), f"{where}.content must not be blank")
        return
    for part in content:
        if part["type"] == "image_url":
            require(role == "user", f"{where}.content: image in a {role} message")
            check_image(part["image_url"]["url"], where)
        elif part["type"] == "file":
            require(role == "user", f"{where}.content: file in a {role} message")
            file = part["file"]
            check_file(file["file_data"], file["filename"], where)
            require(file["file_data"].startswith("data:application/pdf;"), f"{where}: not a PDF")
        elif part["type"] == "input_audio":
            require(role == "user", f"{where}.content: audio in a {role} message")
            require(part["input_audio"]["format"] in {"wav", "mp3"}, f"{where}: format")
            base64.b64decode(part["input_audio"]["data"], validate=True)
        elif part["type"] == "thinking":
            require(role == "assistant", f"{where}.content: thinking")
        else:
            require(part["type"] == "text" and part["text"].strip(), f"{where}.content")


def check_template(body: Json) -> None:
    """The chat templates of Mistral, Qwen and Gemma, and Mistral's API."""
    messages = body["messages"]
    roles = [message["role"] for message in messages]
    require("system" not in roles[1:], "System message must be at the beginning")
    require("user" in roles, "No user query found in messages")
    require(roles[-1] in {"user", "tool"}, f"Expected last role User or Tool but got {roles[-1]}")
    pairs = itertools.pairwise(roles)
    require(("tool", "user") not in pairs, "Unexpected role 'user' after role 'tool'")
    turns = [m["role"] for m in messages if m["role"] == "user" or _is_answer(m)]
    expected = ["user", "assistant"] * len(turns)
    require(turns == expected[: len(turns)], f"Conversation roles must alternate: {roles}")


def _is_answer(message: Json) -> bool:
    return message["role"] == "assistant" and not message.get("tool_calls")


def check_needs_reasoning(body: Json) -> None:
    """DeepSeek, while it thinks."""
    for message in body["messages"]:
        if message.get("tool_calls"):
            text = "The `reasoning_content` in the thinking mode must be passed back to the API."
            require(isinstance(message.get("reasoning_content"), str), text)


# Messages


def check_messages(body: Json) -> None:
    # The connector for MCP servers is a part of the beta of the API.
    plain = [tool for tool in body.get("tools", ()) if tool.get("type") != "mcp_toolset"]
    walked(messages_sdk().validate_python({**body, "tools": plain}))
    named = {tool["mcp_server_name"] for tool in body.get("tools", ()) if tool not in plain}
    require(named == {one["name"] for one in body.get("mcp_servers", ())}, "mcp_servers")
    turns = body["messages"]
    require(turns and turns[0]["role"] == "user", 'first message must use the "user" role')
    called: list[str] = []
    seen: set[str] = set()
    for number, turn in enumerate(turns):
        where, content = f"messages.{number}", turn["content"]
        require(content, f"{where}: content must not be empty")
        require(not number or turn["role"] != turns[number - 1]["role"], f"{where}: alternate")
        answered = [b["tool_use_id"] for b in content if b["type"] == "tool_result"]
        require(sorted(answered) == sorted(called), f"{where}: {called} answered by {answered}")
        first = [b["type"] == "tool_result" for b in content]
        require(first == sorted(first, reverse=True), f"{where}: tool_result must come first")
        called = [b["id"] for b in content if b["type"] == "tool_use"]
        require(not seen & set(called) and len(set(called)) == len(called), f"{where}: unique ids")
        seen |= set(called)
        for block in content:
            check_block(block, turn["role"], where)
        check_hosted(content, where, is_last=number == len(turns) - 1)
    require(not called, f"`tool_use` ids without `tool_result`: {called}")
    last = turns[-1]
    if last["role"] == "assistant":
        kind = last["content"][-1]["type"]
        # A response that was paused goes back as it is, and is continued.
        is_paused = kind in {"server_tool_use", "web_search_tool_result"}
        require(is_paused, f"the conversation must end with the user, not {kind}")
    check_thinking(body)
    check_tools(body, body.get("tools", ()))


def walked(value: object) -> None:
    """Walks through what pydantic returns: it checks an iterable only when it is read."""
    if isinstance(value, dict):
        for inner in value.values():
            walked(inner)
    elif isinstance(value, Iterable) and not isinstance(value, str):
        for inner in value:
            walked(inner)


def check_block(block: Json, role: str, where: str) -> None:
    kind = block["type"]
    if kind == "text":
        require(block["text"].strip(), f"{where}: text must contain non-whitespace text")
    elif kind == "image":
        require(role == "user", f"{where}: image in a turn of the assistant")
        source = block["source"]
        if source["type"] == "base64":
            check_bytes(source["media_type"], source["data"], where)
            require(len(source["data"]) <= 5 * 1024 * 1024, f"{where}: image exceeds 5 MB")
        else:
            require(source["url"].startswith("https://"), f"{where}: https only")
    elif kind == "document":
        require(role == "user", f"{where}: document in a turn of the assistant")
        source = block["source"]
        if source["type"] == "base64":
            require(source["media_type"] == "application/pdf", f"{where}: not a PDF")
            require(base64.b64decode(source["data"], validate=True), f"{where}: empty document")
        elif source["type"] == "text":
            require(source["media_type"] == "text/plain" and source["data"], f"{where}: text")
        else:
            require(source["url"].startswith("https://"), f"{where}: https only")
    elif kind == "tool_use":
        require(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", block["id"]), f"{where}.tool_use.id")
        require(NAME.fullmatch(block["name"]), f"{where}.tool_use.name")
        require(isinstance(block["input"], dict), f"{where}.tool_use.input")
        require(depth(block["input"]) <= MAX_DEPTH, f"{where}: recursion limit exceeded")
    elif kind == "tool_result":
        content = block.get("content")
        require(not block.get("is_error") or content, f"{where}: content of an error")
        for part in content if isinstance(content, list) else ():
            require(not block.get("is_error") or part["type"] == "text", f"{where}: text only")
            check_block(part, role, where)
    elif kind in {"thinking", "redacted_thinking"}:
        require(block.get("signature") or block.get("data"), f"{where}: Invalid `signature`")


def check_hosted(content: Sequence[Json], where: str, *, is_last: bool) -> None:
    uses = [b["id"] for b in content if b["type"] == "server_tool_use"]
    results = [b["tool_use_id"] for b in content if b["type"] == "web_search_tool_result"]
    require(set(results) <= set(uses), f"{where}: result without `server_tool_use`")
    require(is_last or set(uses) <= set(results), f"{where}: `server_tool_use` without a result")


def check_thinking(body: Json) -> None:
    turns, thinking = body["messages"], body.get("thinking", {})
    blocks = turns[-1]["content"]
    if turns[-1]["role"] == "assistant":
        kind = blocks[-1]["type"]
        require(kind not in {"thinking", "redacted_thinking"}, "The final block cannot be thinking")
    if thinking.get("type") == "enabled" and any(b["type"] == "tool_result" for b in blocks):
        first = turns[-2]["content"][0]["type"]
        require(first in {"thinking", "redacted_thinking"}, f"Expected `thinking`, found `{first}`")


# Gemini


GEMINI_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.:-]{0,63}")
GEMINI_MEDIA = {
    "image/png",
    "image/jpeg",
    "image/webp",
    "application/pdf",
    "audio/wav",
    "audio/mpeg",
    "audio/aac",
    "audio/ogg",
    "audio/flac",
    "audio/mp4",
}
PART_KINDS = {
    "text",
    "inlineData",
    "fileData",
    "functionCall",
    "functionResponse",
    "executableCode",
    "codeExecutionResult",
}


def check_gemini(body: Json, *, is_old: bool = False) -> None:
    contents = body["contents"]
    require(contents and contents[0]["role"] == "user", "contents: begins with the user")
    require(contents[-1]["role"] == "user", "contents: ends with the user")
    calls: list[Json] = []
    for number, content in enumerate(contents):
        where, parts = f"contents[{number}]", content["parts"]
        require(parts, f"{where}.parts must not be empty")
        for part in parts:
            check_part(part, content["role"], where)
        answers = [part["functionResponse"] for part in parts if "functionResponse" in part]
        require(not calls or len(parts) == len(answers), f"{where}: function responses alone")
        require(len(answers) == len(calls), f"{where}: number of function response parts")
        for call, answer in zip(calls, answers, strict=True):
            same = call["name"] == answer["name"] and call.get("id") == answer.get("id")
            require(same, f"{where}: {answer} does not answer {call}")
        called = [part for part in parts if "functionCall" in part]
        calls = [part["functionCall"] for part in called]
        if called:
            require(contents[number - 1]["role"] == "user", f"{where}: call after a user's turn")
            signed = "thoughtSignature" in called[0]
            require(is_old or signed, f"{where} is missing a `thought_signature`")
    require(not calls, "function calls without responses")
    for tool in body.get("tools", ()):
        require(len(tool) == 1, "tools: one kind")
        for declared in tool.get("functionDeclarations", ()):
            require(GEMINI_NAME.fullmatch(declared["name"]), "tools: name")
            check_schema(declared["parametersJsonSchema"], declared["name"])
    require("tools" in body or "toolConfig" not in body, "toolConfig needs tools")


def check_part(part: Json, role: str, where: str) -> None:
    kinds = part.keys() & PART_KINDS
    require(len(kinds) == 1, f"{where}: one kind of data, not {kinds}")
    signature = part.get("thoughtSignature")
    if signature is not None:
        require(role == "model", f"{where}: signature of the user")
        base64.urlsafe_b64decode(signature)
    if "text" in part:
        require(part["text"].strip() or signature, f"{where}: blank text")
    elif "inlineData" in part:
        check_blob(part["inlineData"], where)
    elif "fileData" in part:
        require(re.match(r"https?://\S+$", part["fileData"]["fileUri"]), f"{where}: fileUri")
        require("/" in part["fileData"]["mimeType"], f"{where}: mimeType")
    elif "functionCall" in part:
        require(role == "model", f"{where}: call of the user")
        call = part["functionCall"]
        require(GEMINI_NAME.fullmatch(call["name"]), f"{where}: {call['name']!r}")
        require(isinstance(call["args"], dict), f"{where}: args")
        require(depth(call["args"]) <= MAX_DEPTH, f"{where}: recursion limit exceeded")
    elif "functionResponse" in part:
        require(role == "user", f"{where}: response of the model")
        response = part["functionResponse"]
        require(isinstance(response["response"], dict), f"{where}: response")
        for inner in response.get("parts", ()):
            require(inner.keys() == {"inlineData"}, f"{where}: part of a response")
            check_blob(inner["inlineData"], where)


def check_blob(blob: Json, where: str) -> None:
    require(blob["mimeType"] in GEMINI_MEDIA, f"{where}: {blob['mimeType']!r}")
    require(base64.b64decode(blob["data"], validate=True), f"{where}: empty data")
    if blob["mimeType"].startswith("image/"):
        check_bytes(blob["mimeType"], blob["data"], where)


# Converse


CONVERSE_KINDS = {
    "user": {"text", "image", "document", "audio", "toolResult", "cachePoint"},
    "assistant": {"text", "toolUse", "toolResult", "reasoningContent"},
}


def check_converse(body: Json, *, maker: str = "anthropic") -> None:
    """Bedrock's own rules, and those of the models of a maker."""
    messages = body["messages"]
    require(messages and messages[0]["role"] == "user", "must start with a user message")
    require(messages[-1]["role"] == "user", "must end with a user message")
    called: list[str] = []
    seen: set[str] = set()
    names: list[str] = []
    for number, message in enumerate(messages):
        where, role, content = f"messages.{number}", message["role"], message["content"]
        require(content, f"{where}.content is empty")
        require(not number or role != messages[number - 1]["role"], f"{where}: alternate")
        kinds = [check_converse_block(block, role, where) for block in content]
        results = [b["toolResult"] for b in content if "toolResult" in b and role == "user"]
        answered = [result["toolUseId"] for result in results]
        require(sorted(answered) == sorted(called), f"{where}: Expected toolResult blocks")
        first = [kind == "toolResult" for kind in kinds]
        require(role == "assistant" or first == sorted(first, reverse=True), f"{where}: first")
        check_beside(kinds, role, maker, where)
        calls = [b["toolUse"] for b in content if "toolUse" in b and "type" not in b["toolUse"]]
        called = [call["toolUseId"] for call in calls]
        require(not seen & set(called) and len(set(called)) == len(called), f"{where}: unique ids")
        seen |= set(called)
        check_hosted_converse(content, where)
        for result in results:
            require("status" not in result or maker in {"anthropic", "amazon"}, f"{where}.status")
            names += [b["document"]["name"] for b in result["content"] if "document" in b]
        documents = [b["document"]["name"] for b in content if "document" in b]
        require(not documents or "text" in kinds, f"{where}: a document without a text")
        names += documents
    require(not called, "Expected toolResult blocks")
    require(len({n.casefold() for n in names}) == len(names), "duplicate document names")
    config = body.get("toolConfig")
    has_tools = any("toolUse" in b or "toolResult" in b for m in messages for b in m["content"])
    require(config or not has_tools, "The toolConfig field must be defined")
    for tool in [
        tool["toolSpec"] for tool in (config or {"tools": []})["tools"] if "toolSpec" in tool
    ]:
        require(NAME.fullmatch(tool["name"]) and tool.get("description", "x"), "toolSpec")
        check_schema(tool["inputSchema"]["json"], tool["name"])
    points = json.dumps(body).count('"cachePoint"')
    require(points <= (4 if maker == "anthropic" else 0), f"{points} cache points")
    check_converse_choice(body, maker)


def check_converse_block(block: Json, role: str, where: str) -> str:
    (kind,) = block  # "can only set one of the following keys"
    require(kind in CONVERSE_KINDS[role], f"{where}: {kind} of the {role}")
    value = block[kind]
    if kind == "text":
        require(value.strip(), f"{where}: the text field is blank")
    elif kind in {"image", "document", "audio"}:
        check_converse_file(kind, value, where)
    elif kind == "toolUse":
        require(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", value["toolUseId"]), f"{where}.toolUseId")
        require(NAME.fullmatch(value["name"]), f"{where}.toolUse.name")
        require(isinstance(value["input"], dict), f"{where}.toolUse.input")
        require(depth(value["input"]) <= MAX_DEPTH, f"{where}: recursion limit exceeded")
    elif kind == "toolResult" and role == "user":
        content = value["content"]
        require(content, f"{where}.toolResult.content")
        for part in content:
            (inner,) = part
            require(inner in {"text", "json", "image", "document"}, f"{where}: {inner}")
            require(value.get("status") != "error" or inner == "text", f"{where}: text only")
            if inner == "text":
                require(part["text"], f"{where}: blank")
            elif inner != "json":
                check_converse_file(inner, part[inner], where)
    elif kind == "reasoningContent":
        (inner,) = value
        data = value.get("redactedContent") or value["reasoningText"]["signature"]
        require(data, f"{where}: Invalid `signature`")
        if inner == "redactedContent":
            base64.b64decode(data, validate=True)
    return kind


def check_converse_file(kind: str, file: Json, where: str) -> None:
    data = file["source"]["bytes"]
    require(base64.b64decode(data, validate=True), f"{where}: empty")
    if kind == "image":
        check_bytes(f"image/{file['format']}", data, where)
        require(len(data) <= 5 * 1024 * 1024, f"{where}: image exceeds 3.75 MB")
    elif kind == "document":
        require(file["format"] == "pdf", f"{where}: {file['format']}")
        require(re.fullmatch(r"(?!.*  )[a-zA-Z0-9 ()\[\]-]{1,200}", file["name"]), file["name"])


def check_beside(kinds: Sequence[str], role: str, maker: str, where: str) -> None:
    """What may be in one message with calls or their outputs."""
    tools = {"toolUse"} if role == "assistant" else {"toolResult"}
    others = set(kinds) - tools - {"cachePoint"}
    if not tools & set(kinds):
        return
    if maker in {"meta", "mistral", "writer"}:
        text = "Conversation blocks and tool result blocks cannot be provided in the same turn."
        require(not others - {"toolResult", "toolUse"}, f"{where}: {text}")
    if maker == "anthropic" and role == "user":
        require("document" not in others, f"{where}: document next to a toolResult")


def check_hosted_converse(content: Sequence[Json], where: str) -> None:
    uses = [b["toolUse"] for b in content if "toolUse" in b and "type" in b["toolUse"]]
    results = [b["toolResult"]["toolUseId"] for b in content if "toolResult" in b]
    if uses:
        require(sorted(u["toolUseId"] for u in uses) == sorted(results), f"{where}: hosted")


def check_converse_choice(body: Json, maker: str) -> None:
    choice = body.get("toolConfig", {}).get("toolChoice", {})
    additional = body.get("additionalModelRequestFields", {})
    require(not choice or maker not in {"meta", "writer"}, "toolConfig.toolChoice")
    require("tool" not in choice or maker in {"anthropic", "amazon", "openai"}, "toolChoice.tool")
    thinking = additional.get("thinking", {})
    require(not thinking or maker == "anthropic", "extraneous key [thinking] is not permitted")
    if thinking.get("type") == "enabled":
        require(not choice, "Thinking may not be enabled when tool_choice forces tool use.")
        limit = body["inferenceConfig"]["maxTokens"]
        require(1024 <= thinking["budget_tokens"] < limit, "max_tokens must be greater")
        blocks = body["messages"][-1]["content"]
        if any("toolResult" in block for block in blocks):
            first = next(iter(body["messages"][-2]["content"][0]))
            require(first == "reasoningContent", f"Expected `thinking`, but found `{first}`")
