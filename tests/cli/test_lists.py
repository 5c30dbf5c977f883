"""`treadle schedules` and `treadle models`, as text and as JSON."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from click.testing import CliRunner, Result

import treadle
from treadle import Agent
from treadle.cli.commands import cli
from treadle.models.model_data import PROVIDER_MODELS
from treadle.models.presets import PRESETS
from treadle.testing import ScriptedModel

pytestmark = pytest.mark.real_clock

OPENAI_MODELS, GROQ_MODELS = (
    {
        f"{one.provider}:{model.name}"
        for one in PROVIDER_MODELS
        for model in one.models
        if one.provider == provider
    }
    for provider in ("openai", "groq")
)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


@pytest.fixture
def scheduled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A conversation with two schedules."""
    monkeypatch.setenv("TREADLE_DATABASE", str(tmp_path / "treadle.db"))

    async def make() -> str:
        agent: Agent[Any, str] = Agent(ScriptedModel([]))
        url = f"sqlite:///{tmp_path / 'treadle.db'}"
        async with treadle.open(url, agents=[agent]) as runtime:
            thread = await runtime.create_thread(agent)
            await thread.schedule("Water\x1b the\nplants.", cron="0 8 * * 1", tz="Europe/Paris")
            await thread.schedule("Once.", after=3600)
            return thread.id

    return anyio.run(make)


def test_schedules_are_listed_and_cancelled(scheduled: str) -> None:
    for named in ([], [scheduled]):
        shown = run("schedules", *named)
        assert shown.exit_code == 0, shown.output
        assert "(0 8 * * 1 Europe/Paris)  Water\ufffd the plants." in shown.output
        first, second = map(json.loads, run("schedules", *named, "--json").output.splitlines())
        assert (first["item"]["content"][0]["text"], first["thread_id"]) == ("Once.", scheduled)
    done = run("schedules", scheduled, "--cancel", first["id"], "--json")
    # No process drives the database: it waits in the inbox, and has its effect when one does.
    assert json.loads(done.output) == {
        "thread_id": scheduled,
        "schedule_id": first["id"],
        "cancelled": True,
    }
    assert second["cron"]
    for wrong, words in (
        (["--cancel", "x"], "Name the conversation too"),
        ([scheduled, "--cancel", "nope"], "has no schedule 'nope'"),
        (["thread_none"], "was not found"),
    ):
        refused = run("schedules", *wrong, "--json")
        assert refused.exit_code == 1
        assert words in json.loads(refused.output)["error"]["message"]


BEDROCK = "bedrock:global.anthropic.claude-sonnet-5"


@pytest.mark.parametrize(
    ("environ", "chosen", "usable"),
    [
        ({}, "demo", {"demo"}),
        ({"OPENAI_API_KEY": "k"}, "openai:gpt-5-mini", {*OPENAI_MODELS, "demo"}),
        ({"GROQ_API_KEY": "k"}, "groq:llama-3.3-70b-versatile", {*GROQ_MODELS, "demo"}),
        ({"TREADLE_MODEL": "nope:x"}, "nope:x", {"demo"}),
        ({"AWS_REGION": "eu-west-1"}, "demo", {BEDROCK, "demo"}),
    ],
)
def test_models(
    environ: dict[str, str], chosen: str, usable: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TREADLE_MODEL", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for preset in PRESETS.values():
        monkeypatch.delenv(preset.key, raising=False)
        if not preset.needs_key:
            url = preset.key.replace("_API_KEY", "_BASE_URL")
            monkeypatch.setenv(preset.url_variable or url, "http://127.0.0.1:9/v1")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    listed = [json.loads(line) for line in run("models", "--json").output.splitlines()]
    assert [one["model"] for one in listed if one["chosen"]] == [chosen]
    assert {one["model"] for one in listed if one["usable"]} == usable
    text = run("models").output
    assert f"* {chosen}" in text
    assert "needs a key: set ANTHROPIC_API_KEY" in text
    assert "needs a key: set MOONSHOT_API_KEY" in text
    assert "no server at http://127.0.0.1:9/v1" in text
    has_region = "AWS_REGION" in environ
    assert ("if there are credentials of AWS" in text) is has_region
    assert ("set AWS_REGION" in text) is not has_region
    if "OPENAI_API_KEY" in environ:
        assert "272K tokens; $0.25 in, $2 out per million; OPENAI_API_KEY is set" in text
        (mini,) = [one for one in listed if one["model"] == "openai:gpt-5-mini"]
        assert (mini["window"], mini["price"]["output"]) == (272_000, 2.0)
