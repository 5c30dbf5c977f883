"""Calls of hosted tools and citations in the protocols of others, with their clients."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace
from openai import AsyncOpenAI
from openai.types.beta.threads import Message as AssistantsMessage
from openai.types.beta.threads.runs import RunStep
from tests.server import test_assistants
from tests.server.ag_ui_events import events_of as events_of_ag_ui
from tests.server.ag_ui_events import given, kinds, user
from tests.server.serving import serving
from tests.server.test_ai_sdk import Browser, mapped, said
from tests.server.test_responses import connected, events_of, unique, valid

from treadle import (
    Agent,
    CodeInterpreter,
    FileCitation,
    FileSearch,
    HostedCall,
    ProviderItem,
    RemoteMCP,
    Runtime,
    UrlCitation,
    WebFetch,
    WebSearch,
)
from treadle.domain.events import ProviderItemAdded
from treadle.server.ai_sdk.message_fold import MessageFold
from treadle.testing import Hosted, ScriptedModel, Text

pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

Open = Callable[..., Runtime]
PAGE = UrlCitation("https://x/a", "A", 0, 5)
FILE = FileCitation("file_1", "lamps.pdf", start_index=4, end_index=5)
SEARCH = HostedCall("web_search", "ws_1", "completed", "oil", sources=(PAGE,))
CALLS = (
    SEARCH,
    HostedCall("web_fetch", "wf_1", "completed", "https://x", output="Page"),
    HostedCall(
        "file_search", "fs_1", "completed", "a\nb", output="t", sources=(FileCitation("f"),)
    ),
    HostedCall("code_interpreter", "ci_1", "completed", "print(1)", output="1"),
    HostedCall("mcp", "mcp_1", "completed", "{}", "read", "docs", "page"),
    HostedCall("mcp", "mcp_2", "failed", "{}", "read", "docs", "no"),
)
TOOLS = (
    *(WebSearch(), WebFetch(), FileSearch(stores=["v"]), CodeInterpreter()),
    RemoteMCP(url="https://x", name="docs", needs_approval=False),
)


def helper() -> Agent:
    script = [[*map(Hosted, CALLS), Text("First."), Text("Sunny.", citations=(PAGE,))], "Yes."]
    return Agent(ScriptedModel(script), name="helper", tools=TOOLS)


async def test_items_of_responses(open_runtime: Open) -> None:
    async with connected(open_runtime(helper())) as (api, _):
        stream = await api.responses.create(model="helper", input="Hi.", stream=True)
        events = await events_of(stream)
        final = valid(events[-1].response)
        kinds = ["web_search_call", "web_search_call", "file_search_call", "code_interpreter_call"]
        assert [item.type for item in final.output] == [
            *(*kinds, "mcp_call", "mcp_call", "message", "message"),
        ]
        search, fetch, files, code, remote, failed, _, said = (
            item.to_dict() for item in final.output
        )
        assert search["action"]["query"] == "oil"
        assert fetch["action"] == {"type": "open_page", "url": "https://x"}
        assert files["queries"] == ["a", "b"]
        assert code["outputs"] == [{"type": "logs", "logs": "1"}]
        assert (remote["server_label"], remote["output"]) == ("docs", "page")
        assert (failed["status"], failed["output"]) == ("failed", None)
        assert said["content"][0]["annotations"][0]["url"] == PAGE.url
        again = await events_of(await api.responses.retrieve(final.id, stream=True))
        assert unique(again) == unique(events)
        # A client that keeps the history itself sends them back.
        given: Any = [*(item.to_dict() for item in final.output), {"role": "user", "content": "?"}]
        answer = await api.responses.create(model="helper", input=given, store=False)
        assert answer.output_text == "Yes."


async def test_annotations_of_completions(open_runtime: Open) -> None:
    runtime = open_runtime(helper(), replace_agent())
    async with serving(runtime) as client:
        url = f"{client.http.base_url}/v1"
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as api:
            asked: Any = {"model": "other", "messages": [{"role": "user", "content": "Hi."}]}
            whole = await api.chat.completions.create(**asked)
            message = whole.choices[0].message
            assert message.content == "First.\n\nSunny."
            (cited,) = message.annotations or ()
            place = cited.url_citation
            assert message.content[place.start_index : place.end_index] == "Sunny"
            assert (place.url, place.title) == (PAGE.url, "A")
            chunks = [one async for one in await api.chat.completions.create(**asked, stream=True)]
            found = [one.choices[0].delta.to_dict().get("annotations") for one in chunks]
            assert [one for one in found if one] == [[cited.to_dict()]]


def replace_agent() -> Agent:
    bad = replace(PAGE, url="javascript:alert(1)")
    said = [Text("First.", citations=(bad,)), Text("Sunny.", citations=(PAGE,))]
    return Agent(ScriptedModel([said, said]), name="other")


def test_parts_of_the_ai_sdk() -> None:
    use = ProviderItem("p", b"{}", replace(SEARCH, status="in_progress"))  # type: ignore[arg-type]
    items = [use, *(ProviderItem("p", b"{}", call) for call in CALLS)]  # type: ignore[arg-type]
    chunks = mapped([ProviderItemAdded(run_id="r", item=item) for item in items])
    shown = [one for one in chunks if one["type"].startswith("tool-")]
    assert [one["type"] for one in shown if one["toolCallId"] == "ws_1"] == [
        *("tool-input-start", "tool-input-available", "tool-output-available"),
    ]
    assert all(one["providerExecuted"] for one in shown)
    assert shown[-1] == {
        "type": "tool-output-error",
        "toolCallId": "mcp_2",
        "providerExecuted": True,
        "dynamic": True,
        "errorText": "no",
    }
    fold = MessageFold("m")
    for chunk in chunks:
        fold.add(chunk)
    parts = [one for one in json.loads(json.dumps(fold.message))["parts"] if "toolCallId" in one]
    assert [one["toolName"] for one in parts] == [
        *("web_search", "web_fetch", "file_search", "code_interpreter", "docs.read", "docs.read"),
    ]
    assert parts[0]["input"] == {"query": "oil"}
    assert parts[0]["output"] == {"text": "", "sources": [{"url": PAGE.url, "title": "A"}]}


async def test_activities_of_ag_ui(open_runtime: Open) -> None:
    async with serving(open_runtime(helper())) as client:
        events = await events_of_ag_ui(client.http, given(user("u1", "Hi.")))
    shown = [one for one in events if one["type"] == "ACTIVITY_SNAPSHOT"]
    assert {one["activityType"] for one in shown} == {"treadle.hosted_call"}
    last = {one["messageId"]: one["content"] for one in shown}
    assert [one["call_id"] for one in last.values()] == [call.call_id for call in CALLS]
    assert last["ci_1_hosted"]["output"] == "1"
    assert last["mcp_2_hosted"]["status"] == "failed"


async def test_a_chat_of_the_ai_sdk_is_stored_as_it_was_shown(open_runtime: Open) -> None:
    unfinished = HostedCall("web_search", "ws_9", arguments="oil")
    script = [[*map(Hosted, CALLS), Hosted(unfinished), Text("So.", citations=(FILE,))], "Bye."]
    async with serving(open_runtime(Agent(ScriptedModel(script), name="helper"))) as client:
        browser = Browser(client)
        await browser.post(said("m1"))
        parts = [one for one in browser.messages[-1]["parts"] if "toolCallId" in one]
        assert [one["state"] for one in parts[-2:]] == ["output-error", "output-error"]
        assert (await browser.stored())[-1] == browser.messages[-1]
        await browser.post(said("m2"))
        assert browser.messages[-1]["parts"][-1]["text"] == "Bye."


async def test_activities_do_not_make_conversations_differ(open_runtime: Open) -> None:
    script = [[Hosted(SEARCH), Text("Sunny.")], "Bye.", "Oh."]
    async with serving(open_runtime(Agent(ScriptedModel(script), name="helper"))) as client:
        hi = user("u1", "Hi.")
        events = await events_of_ag_ui(client.http, given(hi))
        begun = [one["messageId"] for one in events if one["type"] == "TEXT_MESSAGE_START"]
        answer = {"id": begun[0], "role": "assistant", "content": "Sunny."}
        more = given(hi, answer, user("u2", "And?"), run="r2")
        assert "MESSAGES_SNAPSHOT" not in kinds(await events_of_ag_ui(client.http, more))
        # A client that begins anew gets them.
        events = await events_of_ag_ui(client.http, given(user("u3", "Oh."), run="r3"))
        snapshot = next(one for one in events if one["type"] == "MESSAGES_SNAPSHOT")
        roles = [one["role"] for one in snapshot["messages"]]
        assert roles == ["user", "activity", "assistant", "user", "assistant"]


async def test_pages_of_items_go_over_hosted_calls(open_runtime: Open) -> None:
    async with connected(open_runtime(helper())) as (api, _):
        talk = await api.conversations.create()
        asked: Any = {"model": "helper", "input": "Hi.", "conversation": talk.id}
        made = await api.responses.create(**asked)
        items = [one async for one in api.conversations.items.list(talk.id, order="asc", limit=1)]
        assert [one.type for one in items[1:]] == [one.type for one in made.output]
        found = await api.conversations.items.retrieve("ws_1", conversation_id=talk.id)
        assert found.to_dict() == items[1].to_dict()


async def test_steps_of_assistants() -> None:
    turn = [*map(Hosted, CALLS), Text("Oil 3.", citations=(FILE, PAGE))]
    agent = Agent(ScriptedModel([turn]), name="helper")
    async with test_assistants.connected(agent) as (beta, _):
        thread_id = await test_assistants.started(beta)
        run = await beta.threads.runs.create_and_poll(thread_id=thread_id, assistant_id="helper")
        steps = (await beta.threads.runs.steps.list(run.id, thread_id=thread_id, order="asc")).data
        for step in steps:
            RunStep.model_validate(step.to_dict())
        called = [one.step_details.tool_calls[0] for one in steps if one.type == "tool_calls"]
        assert [one.type for one in called] == ["file_search", "code_interpreter"]
        assert called[0].file_search.results[0].file_id == "f"
        assert called[1].code_interpreter.outputs[0].logs == "1"
        (message,) = (await beta.threads.messages.list(thread_id, limit=1)).data
        content: Any = AssistantsMessage.model_validate(message.to_dict()).content[0]
        (cited,) = content.text.annotations
        assert (cited.text, cited.file_citation.file_id) == ("3", "file_1")
