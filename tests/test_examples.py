"""Every example runs, with the demo model in a process of its own."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

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
    assert names == {*PRINTED, "sse_server.py"}


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
    done = subprocess.run(
        [sys.executable, EXAMPLES / name],
        input=TYPED.get(name, "").encode(),
        capture_output=True,
        env={**environ, "PYTHONIOENCODING": "utf-8", "PYTHONWARNINGS": "error"},
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_the_server(anyio_backend: str) -> None:
    app = runpy.run_path(str(EXAMPLES / "sse_server.py"))["app"]
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.get("/ask", params={"q": "Hello!"})
        refused = await client.get("/ask", params={"q": " "})
    frames = answer.text.strip().split("\n\n")
    assert all(frame.startswith('data: {"type":"') for frame in frames)
    assert '"run.completed"' in frames[-1]
    assert refused.status_code == 400
