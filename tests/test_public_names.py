"""What an editor offers after a dot is what users are meant to call, and nothing else."""

import pytest

import treadle
from treadle.testing import ScriptedModel

SHARED_BY_RUNS = {"cancel", "events", "finish", "partial_output", "result", "text", "text_stream"}
FACTS = {"history", "jobs", "spent", "step", "usage"}
PUBLIC: dict[type, set[str]] = {
    treadle.Agent: {
        "add_handoff",
        "as_tool",
        "check_options",
        "output_mode",
        "parse",
        "run",
        "run_sync",
        "stream",
    },
    treadle.Run: {*SHARED_BY_RUNS, "history", "spent", "thread_id"},
    treadle.ThreadRun: {*SHARED_BY_RUNS, "info", "subscribe"},
    treadle.Thread: {
        *("active_run", "add", "approve", "archive", "cancel_job", "cancel_schedule", "delete"),
        *("deny", "events", "export", "files", "fork", "history", "info", "item", "items", "jobs"),
        *("last_seq", "memory", "pending_calls", "pin", "remove_event", "remove_item", "repair"),
        *("run", "runs", "schedule", "schedules", "search", "send", "send_after", "state"),
        *("submit_tool_output", "subscribe", "unpin", "update", "usage", "view"),
    },
    treadle.Runtime: {
        *("agent", "agent_of", "agents", "archive", "calls", "connect", "create_thread"),
        *(
            "delete_owner",
            "drain",
            "files",
            "for_owner",
            "import_thread",
            "memories",
            "memory",
            "reach",
            "register",
            "run",
        ),
        *("schedules", "search", "shutdown", "spending", "start", "subscribe", "threads"),
    },
    treadle.RunContext: {
        *(*FACTS, "agent", "attempt", "call_id", "idempotency_key", "memory", "message", "owner"),
        *("progress", "run_agent", "schedules", "tool_name"),
    },
    treadle.HookContext: FACTS,
    treadle.CompletionContext: {
        *(*FACTS, "continue_with", "finish", "inject", "replace_history", "run_agent"),
    },
}
GIVEN = {
    *("action_timeout", "allowed_tools", "blocks", "budget", "description", "early_tools"),
    *("examples", "extra_instructions", "handoffs", "hooks", "hosted", "instructions", "limits"),
    *("max_corrections", "max_parallel_tools", "model", "name", "on_interruption"),
    *("on_job_failure", "output", "output_validators", "overridable", "price", "retry", "rules"),
    *("settings", "sleep_agent", "sources", "stream_fields", "thread_limits", "tools"),
}
"""What an agent was given or has from it, as attributes."""


def public(value: object) -> set[str]:
    return {name for name in dir(value) if not name.startswith("_")}


@pytest.mark.parametrize("kind", PUBLIC)
def test_the_names_of_a_class(kind: type) -> None:
    assert public(kind) == PUBLIC[kind]


def test_the_names_of_an_agent() -> None:
    agent = treadle.Agent(ScriptedModel([]))
    assert public(agent) == PUBLIC[treadle.Agent] | GIVEN
