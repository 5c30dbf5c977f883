"""Hosted tools against the simulator: declared, called, streamed, kept, approved, sent back."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from treadle import (
    Agent,
    CitationAdded,
    CodeInterpreter,
    FileCitation,
    FileSearch,
    HostedCall,
    HostedCallProgress,
    Limits,
    Message,
    ModelSettings,
    OutputText,
    Price,
    ProviderItem,
    ProviderItemAdded,
    RemoteMCP,
    RunRequiresAction,
    Runtime,
    Thread,
    ThreadRun,
    ToolCallRequested,
    UrlCitation,
    WebFetch,
    WebSearch,
    tool,
)
from treadle.domain.events import RunCompleted
from treadle.domain.hosted_tools import described
from treadle.domain.options import AllowedTools
from treadle.errors import (
    AccessDenied,
    BadRequest,
    ConfigurationError,
    Conflict,
    DuplicateTool,
    InvalidTool,
    ToolUnsupported,
)
from treadle.models import (
    AnthropicMessages,
    FallbackModel,
    Gemini,
    OpenAIChat,
    OpenAIResponses,
    VertexGemini,
)
from treadle.models.base import ModelRequest
from treadle.models.remote_tokens import tokens_of
from treadle.testing import Call, Hosted, ProviderSimulator, ScriptedModel, Text, Turn

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]
PAGE = UrlCitation("https://example.com/a", "A", 0, 5)
SEARCH = HostedCall("web_search", "", "completed", "weather Paris", sources=(PAGE,))
FILES = HostedCall("file_search", "", "completed", "plan")
CODE = HostedCall("code_interpreter", "", "completed", "print(7)", output="7")
ASKED = HostedCall("mcp", "", arguments='{"n":1}', name="read.page", server="docs")
REMOTE = HostedCall(
    *("mcp", "", "completed", '{"n":1}'), name="read.page", server="docs", output="page 1"
)
CALLS = (SEARCH, FILES, CODE, REMOTE)
TOKEN = "tok-123456789"
DOCS = RemoteMCP(url="https://mcp.example.com/mcp", name="docs", token=TOKEN)
TOOLS = (WebSearch(), FileSearch(stores=["vs_1"]), CodeInterpreter(), DOCS)
ANSWER = Turn((*map(Hosted, CALLS), Text("Sunny.", citations=(PAGE,))))
ASKS = Turn((Hosted(ASKED, needs_approval=True), Hosted(ASKED, needs_approval=True)))


def model(simulator: ProviderSimulator, kind: Any = OpenAIResponses) -> Any:
    return kind("m", api_key="k", base_url=simulator.base_url)


def body(simulator: ProviderSimulator, index: int = -1) -> Any:
    return simulator.requests[index].body


async def test_calls_and_citations_are_streamed_kept_and_sent_back(open_runtime: Open) -> None:
    async with ProviderSimulator([ANSWER, Turn((Text("Yes."),))]) as simulator:
        price = Price(input=0, output=0, web_search=10, file_search=2.5, code_container=30)
        agent = Agent(model(simulator), tools=TOOLS, limits=Limits(price=price))
        async with open_runtime(agent) as runtime:
            thread = await runtime.create_thread(agent)
            run = await thread.send("How is the weather?")
            events = [event async for event in run]
            progress = [event.call for event in events if isinstance(event, HostedCallProgress)]
            # A reader that comes late gets the newest of a call alone.
            known = ["plan", "print(7)", '{"n":1}']
            assert [one.arguments for one in progress if one.arguments] == known
            assert {one.status for one in progress} == {"in_progress"}
            added = [one.item.call for one in events if isinstance(one, ProviderItemAdded)]
            assert [(one.tool, one.arguments, one.output, one.name) for one in added if one] == [
                (one.tool, one.arguments, one.output, one.name) for one in CALLS
            ]
            ids = [one.call_id for one in added if one]
            assert ids == list(dict.fromkeys(one.call_id for one in progress))
            assert added[0] is not None
            assert added[0].sources == (UrlCitation(PAGE.url),)
            (cited,) = (event for event in events if isinstance(event, CitationAdded))
            assert cited.annotation == PAGE
            ended = events[-1]
            assert isinstance(ended, RunCompleted)
            used = ended.usage
            assert (used.web_searches, used.file_searches, used.code_containers) == (1, 1, 1)
            info = await thread.usage()
            assert info.cost == pytest.approx(0.010 + 0.0025 + 0.03)
            said = (await thread.history())[-1]
            assert isinstance(said, Message)
            assert said.content == (OutputText("Sunny.", (PAGE,)),)
            assert said.id == cited.item_id
        async with open_runtime(agent) as runtime:
            thread = await runtime.connect(thread.id)
            again = await (await thread.send("Sure?")).result()
            assert again.usage.code_containers == 0
        sent = body(simulator)
        assert sent["include"] == [
            "web_search_call.action.sources",
            "file_search_call.results",
            "code_interpreter_call.outputs",
        ]
        kinds = ["web_search", "file_search", "code_interpreter", "mcp"]
        assert [one["type"] for one in sent["tools"]] == kinds
        hosted = [f"{kind}_call" for kind in kinds]
        sent_items = [one["type"] for one in sent["input"]]
        assert sent_items == ["message", *hosted, "message", "message"]
        assert simulator.statistics().rejected == 0


async def test_messages_go_back_to_anthropic(open_runtime: Open) -> None:
    fetch = HostedCall("web_fetch", "", "completed", "https://x", output="Page")
    calls = (SEARCH, CODE, fetch, REMOTE)
    answer = Turn((*map(Hosted, calls), Text("Sunny.", citations=(PAGE,))))
    async with ProviderSimulator([answer, Turn((Text("Yes."),))]) as simulator:
        tools = [
            WebSearch(blocked_domains=["a.com"], max_uses=3),
            CodeInterpreter(container="c_1"),
            WebFetch(extra={"citations": {"enabled": True}}),
            replace(DOCS, needs_approval=False, allowed_tools=["read.page"]),
        ]
        agent = Agent(model(simulator, AnthropicMessages), tools=tools)
        async with open_runtime(agent) as runtime:
            thread = await runtime.create_thread(agent)
            result = await (await thread.send("How is the weather?")).result()
            assert result.usage.web_searches == 1
            await (await thread.send("Sure?")).result()
        sent = body(simulator)
        assert [one["type"] for one in sent["messages"][1]["content"]] == [
            *("server_tool_use", "web_search_tool_result"),
            *("server_tool_use", "bash_code_execution_tool_result"),
            *("server_tool_use", "web_fetch_tool_result"),
            *("mcp_tool_use", "mcp_tool_result", "text"),
        ]
        assert sent["messages"][1]["content"][-1]["citations"][0]["url"] == PAGE.url
        search, code, fetched, remote = sent["tools"]
        assert search == {
            "type": "web_search_20250305",
            "name": "web_search",
            "max_uses": 3,
            "blocked_domains": ["a.com"],
        }
        assert (code["name"], sent["container"]) == ("code_execution", "c_1")
        assert fetched["citations"] == {"enabled": True}
        assert remote["configs"] == {"read.page": {"enabled": True}}
        (server,) = sent["mcp_servers"]
        assert server["authorization_token"] == TOKEN
        assert simulator.requests[-1].headers["anthropic-beta"] == "mcp-client-2025-11-20"
        assert "tool_choice" not in sent
        assert simulator.statistics().rejected == 0


async def test_metadata_of_gemini_is_read_and_parts_go_back(open_runtime: Open) -> None:
    fetch = HostedCall("web_fetch", "", "completed", "https://x")
    cited = replace(PAGE, start_index=0, end_index=6)
    file = FileCitation("", "plan.pdf", 0, 3)
    answer = Turn((*map(Hosted, (SEARCH, CODE, fetch)), Text("Größe.", citations=(cited, file))))
    async with ProviderSimulator([answer, Turn((Text("Yes."),))]) as simulator:
        tools = [WebSearch(), WebFetch(), CodeInterpreter(), FileSearch(stores=["s"])]
        url = simulator.base_url.removesuffix("/v1")
        agent = Agent(Gemini("gemini-3-pro", api_key="k", base_url=url), tools=tools)
        async with open_runtime(agent) as runtime:
            thread = await runtime.create_thread(agent)
            run = await thread.send("How is the weather?")
            events = [event async for event in run]
            assert [e.annotation for e in events if isinstance(e, CitationAdded)] == [cited, file]
            (begun,) = (e.call for e in events if isinstance(e, HostedCallProgress))
            assert (begun.tool, begun.arguments) == ("code_interpreter", "print(7)")
            assert (await run.result()).usage.web_searches == 1
            items = [item for item in await thread.history() if isinstance(item, ProviderItem)]
            calls = [item.call for item in items if item.call]
            assert [(one.tool, one.status, one.arguments, one.output) for one in calls] == [
                ("code_interpreter", "in_progress", "print(7)", ""),
                ("code_interpreter", "completed", "print(7)", "7"),
                ("file_search", "completed", "weather Paris", ""),
                ("web_fetch", "completed", "https://x", ""),
            ]
            assert calls[0].call_id == calls[1].call_id
            assert calls[2].sources == (
                UrlCitation(PAGE.url, "A"),
                FileCitation(filename="plan.pdf"),
            )
            await (await thread.send("Sure?")).result()
        sent = body(simulator)
        assert [list(one) for one in sent["contents"][1]["parts"]] == [
            *(["executableCode"], ["codeExecutionResult"], ["text"]),
        ]
        assert sent["tools"] == [
            *({"googleSearch": {}}, {"urlContext": {}}, {"codeExecution": {}}),
            {"fileSearch": {"fileSearchStoreNames": ["s"]}},
        ]
        assert "toolConfig" not in sent
        assert simulator.statistics().rejected == 0


async def waiting(thread: Thread) -> tuple[ThreadRun, list[Any]]:
    """Sends a message, and returns the run and its calls once it waits."""
    run = await thread.send("Read.")
    events = list[Any]()
    async for event in run:
        events.append(event)
        if isinstance(event, RunRequiresAction):
            break
    return run, [one for one in events if isinstance(one, ToolCallRequested)]


async def test_a_person_approves_and_denies_calls_of_a_remote_server(open_runtime: Open) -> None:
    ends = Turn((Hosted(REMOTE), Text("Page 1.")))
    async with ProviderSimulator([ASKS, ends]) as simulator:
        agent = Agent(model(simulator), tools=[DOCS])
        async with open_runtime(agent) as runtime:
            thread = await runtime.create_thread(agent)
            _, requested = await waiting(thread)
            assert [one.awaits for one in requested] == ["approval", "approval"]
            assert [one.parameters for one in requested] == [None, None]
            first, second = (one.item for one in requested)
            assert (first.name, first.arguments) == ("docs_read_page", '{"n":1}')
            with pytest.raises(Conflict, match="with the arguments of the model"):
                await thread.approve(first.call_id, arguments={"n": 2})
            await thread.deny(second.call_id, "not that page")
        async with open_runtime(agent) as runtime:  # a new process
            thread = await runtime.connect(thread.id)
            await thread.approve(first.call_id)
            (info,) = await thread.runs()
            assert (await (await thread.run(info.id)).result()).text == "Page 1."
        answers = body(simulator)["input"][-4:]
        asked, answered = answers[:2], answers[2:]
        assert {one["type"] for one in asked} == {"mcp_approval_request"}
        assert {one["type"] for one in answered} == {"mcp_approval_response"}
        assert [one["approval_request_id"] for one in answered] == [one["id"] for one in asked]
        assert [(one["approve"], one.get("reason")) for one in answered] == [
            (True, None),
            (False, "The call was denied: not that page"),
        ]
        assert simulator.statistics().rejected == 0


async def test_a_tool_of_the_program_is_never_run_in_place_of_a_remote_one(
    open_runtime: Open,
) -> None:
    @tool
    async def docs_read_page(n: int) -> str:
        """Must not run."""
        raise AssertionError(n)

    script = ScriptedModel([Hosted(ASKED, needs_approval=True), "Page 1."])
    agent = Agent(script, tools=[docs_read_page, DOCS])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        run, (requested,) = await waiting(thread)
        await thread.approve(requested.item.call_id)
        assert (await run.result()).text == "Page 1."


async def test_a_conversation_is_forked_exported_and_cut_with_its_calls(
    open_runtime: Open,
) -> None:
    script = ScriptedModel([[Hosted(SEARCH), Text("Sunny.", citations=(PAGE,))], "Again."])
    agent = Agent(script, tools=[WebSearch()])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        await (await thread.send("How is it?")).result()
        history = await thread.history()
        hosted = history[1]
        assert isinstance(hosted, ProviderItem)
        assert hosted.call is not None
        assert hosted.call.arguments == SEARCH.arguments
        for copy in (await thread.fork(), await runtime.import_thread(await thread.export())):
            assert await copy.history() == history
        events = await thread.events()
        seq = next(event.seq for event in events if isinstance(event, ProviderItemAdded))
        await thread.remove_event(seq)
        assert await thread.history() == [history[0], *history[2:]]
        assert SEARCH.arguments.encode() not in b"".join(await thread.export())
        await thread.repair()
        await (await thread.send("Again.")).result()
        assert not any(isinstance(item, ProviderItem) for item in script.requests[1].items)


@pytest.mark.parametrize("kind", [OpenAIChat, AnthropicMessages, OpenAIResponses])
async def test_another_provider_reads_results_as_outputs_of_tools(kind: Any) -> None:
    async with ProviderSimulator([Turn((Text("Ok."),))]) as simulator:
        raw = ProviderItem("elsewhere", b'{"type":"x"}', CODE)  # type: ignore[arg-type]
        open_call = ProviderItem(
            "elsewhere",
            b"{}",  # type: ignore[arg-type]
            HostedCall("web_search", "w1", arguments="q"),
        )
        history = [Message("user", "Run it."), raw, open_call, Message("assistant", "7.")]
        await Agent(model(simulator, kind)).run("Sure?", history=history)
        text = json.dumps(body(simulator))
        assert '"code_interpreter"' in text
        assert "print(7)" in text
        assert "w1" not in text
        assert simulator.statistics().rejected == 0


def test_a_provider_without_a_tool_refuses_at_definition() -> None:
    chat = OpenAIChat("m", api_key="k")
    responses = OpenAIResponses("m", api_key="k")
    with pytest.raises(ToolUnsupported, match="OpenAI Responses, Anthropic Messages and Gemini"):
        Agent(chat, tools=[WebSearch()])
    with pytest.raises(ToolUnsupported, match="WebFetch is a hosted tool of Anthropic"):
        Agent(responses, tools=[WebFetch()])
    for search in (WebSearch(blocked_domains=["a.com"]), WebSearch(max_uses=3)):
        with pytest.raises(ToolUnsupported, match="takes no"):
            Agent(responses, tools=[search])
    with pytest.raises(ToolUnsupported):
        Agent(FallbackModel(responses, chat), tools=[WebSearch()])
    with pytest.raises(ToolUnsupported):
        Agent("demo", tools=[WebSearch()])
    Agent(FallbackModel(responses, responses), tools=[WebSearch()])
    messages = AnthropicMessages("m", api_key="k")
    for one in (FileSearch(stores=["v"]), CodeInterpreter(files=["f"]), DOCS):
        with pytest.raises(ToolUnsupported, match=f"{type(one).__name__} is a hosted tool of"):
            Agent(messages, tools=[one])
    gemini = Gemini("gemini-3-pro", api_key="k")
    for one in (
        *(WebSearch(allowed_domains=["a.com"]), WebFetch(max_uses=1)),
        *(CodeInterpreter(files=["f"]), DOCS),
    ):
        with pytest.raises(ToolUnsupported, match=f"{type(one).__name__} is a hosted tool of"):
            Agent(gemini, tools=[one])
    vertex = VertexGemini("gemini-3-pro", project="p", token="t")
    with pytest.raises(ToolUnsupported, match="Google AI has it"):
        Agent(vertex, tools=[FileSearch(stores=["s"])])
    Agent(messages, tools=[WebSearch(max_uses=3), WebFetch(), CodeInterpreter()])


async def test_another_model_of_one_run_must_have_the_tool_as_well(open_runtime: Open) -> None:
    agent = Agent(ScriptedModel(["Hi."]), tools=[WebSearch()])
    async with open_runtime(agent) as runtime:
        thread = await runtime.create_thread(agent)
        with pytest.raises(ToolUnsupported):
            await (await thread.send("Hi.", model="demo")).result()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: WebSearch(allowed_domains="a.com"), "pass a list of texts"),
        (lambda: WebSearch(allowed_domains=["a"], blocked_domains=["b"]), "not both"),
        (lambda: WebSearch(max_uses=0), "use 1 or more"),
        (lambda: FileSearch(stores=[]), "needs a store"),
        (lambda: CodeInterpreter(container="c", files=["f"]), "container or files"),
        (lambda: RemoteMCP(url="ftp://x", name="docs"), "use https://host/path"),
        (lambda: RemoteMCP(url="https://x", name="a b"), "letters, digits"),
        (lambda: RemoteMCP(url="https://x", name="a", needs_approval="read"), "list of texts"),
    ],
)
def test_declarations_are_checked(make: Callable[[], object], match: str) -> None:
    with pytest.raises(InvalidTool, match=match):
        make()


def test_names_are_unique() -> None:
    @tool
    async def web_search() -> str:
        """A tool with that name."""
        return ""

    with pytest.raises(DuplicateTool, match="web_search"):
        Agent(ScriptedModel([]), tools=[web_search, WebSearch()])
    with pytest.raises(DuplicateTool, match="docs"):
        Agent(ScriptedModel([]), tools=[DOCS, DOCS])


async def test_approvals_need_a_thread() -> None:
    with pytest.raises(ConfigurationError, match="needs_approval=False"):
        await Agent(ScriptedModel(["Hi."]), tools=[DOCS]).run("Hi.")
    open_docs = RemoteMCP(url="https://x", name="docs", needs_approval=False)
    assert (await Agent(ScriptedModel(["Hi."]), tools=[open_docs]).run("Hi.")).text == "Hi."


async def test_choices_of_tools_hold_for_hosted_ones() -> None:
    script = ScriptedModel(["a", "b", [Hosted(SEARCH), Text("c")]])
    agent = Agent(script, tools=[WebSearch(), CodeInterpreter()])
    await agent.run("Hi.", tool_choice="none")
    await agent.run("Hi.", tool_choice=AllowedTools(("web_search",)))
    result = await agent.run("Hi.", settings=ModelSettings(tool_choice="required"))
    assert [request.hosted for request in script.requests] == [
        (),
        (WebSearch(),),
        (WebSearch(), CodeInterpreter()),
    ]
    assert result.text == "c"


async def test_tokens_are_fetched_for_each_request_and_never_shown() -> None:
    tokens = iter(["first-token", "second-token"])

    async def current() -> str:
        return next(tokens)

    remote = RemoteMCP(url="https://x", name="docs", token=current, needs_approval=False)
    assert "first" not in repr(remote) + repr(DOCS)
    assert TOKEN not in repr(DOCS)
    async with ProviderSimulator([Turn((Text("a"),)), Turn((Text("b"),))]) as simulator:
        agent = Agent(model(simulator), tools=[remote])
        await agent.run("Hi.")
        await agent.run("Hi.")
        sent = [body(simulator, n)["tools"][0]["authorization"] for n in (0, 1)]
        assert sent == ["first-token", "second-token"]
        with pytest.raises(AccessDenied):
            await agent.run("Hi.")


async def test_a_model_can_call_its_own_tools_next_to_hosted_ones() -> None:
    @tool
    async def look() -> str:
        """Looks."""
        return "rain"

    turns = [Turn((Hosted(SEARCH), Call("look"))), Turn((Text("Rain."),))]
    async with ProviderSimulator(turns) as simulator:
        agent = Agent(model(simulator), tools=[look, WebSearch()])
        assert (await agent.run("Hi.")).text == "Rain."
        kinds = [one["type"] for one in body(simulator)["input"]]
        assert kinds == ["message", "web_search_call", "function_call", "function_call_output"]


async def test_gemini_is_told_that_it_may_use_both_kinds_of_tools() -> None:
    @tool
    async def look() -> str:
        """Looks."""
        return "rain"

    async with ProviderSimulator([Turn((Text("Rain."),))]) as simulator:
        url = simulator.base_url.removesuffix("/v1")
        asked = Gemini("gemini-3-pro", api_key="k", base_url=url)
        await Agent(asked, tools=[look, WebSearch()]).run("Hi.", tool_choice="auto")
        sent = body(simulator)
        assert [list(one) for one in sent["tools"]] == [["functionDeclarations"], ["googleSearch"]]
        assert sent["toolConfig"] == {
            "includeServerSideToolInvocations": True,
            "functionCallingConfig": {"mode": "AUTO"},
        }


async def test_a_refused_request_does_not_show_the_token() -> None:
    async with ProviderSimulator() as simulator:
        remote = RemoteMCP(url="https://x", name="docs", token=TOKEN, needs_approval=False)
        asked = OpenAIResponses(f"sim:{TOKEN}", api_key="k", base_url=simulator.base_url)
        with pytest.raises(BadRequest) as refused:
            await Agent(asked, tools=[remote]).run("Hi.")
        assert TOKEN not in refused.value.message


def test_secrets_of_a_remote_server_are_keys_and_nothing_else() -> None:
    def server(**extra: object) -> RemoteMCP:
        return RemoteMCP(url="https://x", name="docs", token="a-long-token", extra=extra)

    headers = {"X-Tenant": "1", "Accept-Language": "en-GB-oxendict", "X-Api-Key": "a-long-key"}
    given = server(headers=headers, authorization="Bearer another-one", top="plain-text")
    request = ModelRequest(items=(), hosted=(given,))
    assert set(tokens_of(request)) == {
        *("a-long-token", "a-long-key", "Bearer another-one", "another-one"),
    }
    # A key that is another one at each deploy does not make another agent.
    assert described(given) == described(server(authorization="Bearer third-one", top="plain-text"))
    assert described(given) != described(server(top="other-text"))
    with pytest.raises(InvalidTool, match="without a user"):
        RemoteMCP(url="https://user:password@x", name="docs")
