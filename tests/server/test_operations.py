"""The HTTP API has what a runtime and its threads have."""

import pytest

from treadle import Archive, Files, Memory, Runtime, Thread, ThreadRun
from treadle.server.operation import PREFIX
from treadle.server.operations import all_operations

OF_METHODS: dict[type, dict[str, str]] = {
    Runtime: {
        "agent": "read_agent",
        "agents": "list_agents",
        "archive": "search_archive",
        "calls": "list_all_calls",
        "connect": "read_thread",
        "create_thread": "create_thread",
        "delete_owner": "delete_owner",
        "files": "put_file",
        "import_thread": "import_thread",
        "memories": "list_memories",
        "memory": "shared_list_blocks",
        "run": "read_run",
        "schedules": "all_schedules",
        "search": "search",
        "spending": "read_spending",
        "subscribe": "desk_events",
        "threads": "list_threads",
    },
    Thread: {
        "active_run": "read_state",
        "add": "add_items",
        "approve": "approve_call",
        "archive": "insert_text",
        "cancel_job": "cancel_job",
        "cancel_schedule": "cancel_schedule",
        "delete": "delete_thread",
        "deny": "deny_call",
        "events": "thread_events",
        "export": "export_thread",
        "files": "put_thread_file",
        "fork": "fork_thread",
        "history": "read_state",
        "info": "read_thread",
        "item": "read_item",
        "items": "list_items",
        "jobs": "list_jobs",
        "last_seq": "read_state",
        "memory": "list_blocks",
        "pending_calls": "list_calls",
        "pin": "pin_message",
        "remove_event": "remove_event",
        "remove_item": "remove_item",
        "repair": "repair_thread",
        "run": "read_run",
        "runs": "list_runs",
        "schedule": "add_schedule",
        "schedules": "list_schedules",
        "search": "search",
        "send": "send_message",
        "send_after": "send_message",
        "state": "read_state",
        "submit_tool_output": "submit_output",
        "subscribe": "thread_events",
        "unpin": "unpin_message",
        "update": "update_thread",
        "usage": "read_usage",
        "view": "read_state",
    },
    ThreadRun: {
        "cancel": "cancel_run",
        "events": "run_events",
        "finish": "finish_run",
        "info": "read_run",
        "partial_output": "run_events",
        "result": "read_result",
        "subscribe": "run_events",
        "text": "read_result",
        "text_stream": "run_events",
    },
    Memory: {
        "append": "edit_block",
        "blocks": "list_blocks",
        "changes": "list_changes",
        "configure": "edit_block",
        "create": "edit_block",
        "delete": "delete_block",
        "get": "read_block",
        "insert": "edit_block",
        "replace": "edit_block",
        "rewrite": "put_block",
        "undo": "undo_change",
    },
    Archive: {
        "get": "read_text",
        "insert": "insert_text",
        "insert_many": "insert_text",
        "remove": "remove_text",
        "search": "search_archive",
        "statistics": "archive_statistics",
    },
    Files: {
        "delete": "delete_file",
        "get": "read_content",
        "info": "read_file",
        "put": "put_file",
    },
}
"""The operation that does what a method does, or the one of several."""

LEFT_OUT: dict[type, dict[str, str]] = {
    Runtime: {
        "agent_of": "is for the parts of the runtime",
        "drain": "is for the process that serves, before it ends",
        "for_owner": "is chosen by the key, and by the headers that name an owner",
        "reach": "is for the parts of the runtime",
        "register": "agents are code, which no client may bring",
        "shutdown": "ends the process that serves",
        "start": "begins the process that serves",
    },
    Archive: {
        "follow": "waits for the index of one process; a search finds what it needs itself",
    },
}

OF_SERVER = {"answer_calls", "read_me", "start_session", "end_session"}
"""Operations without a method: several answers at once, and who the client is."""


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")}


@pytest.mark.parametrize("kind", OF_METHODS, ids=lambda kind: kind.__name__)
def test_the_api_has_what_a_handle_has(kind: type) -> None:
    left_out = LEFT_OUT.get(kind, {})
    assert OF_METHODS[kind].keys() & left_out.keys() == set()
    assert OF_METHODS[kind].keys() | left_out.keys() == public(kind)


def test_each_operation_is_one_of_a_method() -> None:
    operations = {one.id for one in all_operations() if one.prefix == PREFIX}
    named = {one for methods in OF_METHODS.values() for one in methods.values()}
    assert named | OF_SERVER <= operations
    same = {"read_thread_file", "read_thread_content"}  # as `read_file`, of a thread
    shared = {name for name in operations if name.startswith("shared_")}
    assert operations - named - OF_SERVER == same | shared - named
