"""Programs that are written for a runtime run with a client: the tests of the runtime do.

All tests of the modules below that open a runtime by the fixture `open_runtime` run here again,
with the fixture of this folder. Those that are left out are listed, with the reason.
"""

import inspect
from types import ModuleType

import pytest
from tests.runtime import (
    test_archive,
    test_continuing,
    test_edited_arguments,
    test_finding,
    test_memory,
    test_run_methods,
    test_run_subscription,
    test_threads,
)

pytestmark = pytest.mark.anyio

INSIDE = {
    "test_a_function_that_changes_its_size_is_refused",
    "test_what_could_not_be_kept_leaves_no_vector",
    "test_what_is_put_in_is_an_event_and_is_found",
    "test_a_subscription_may_be_collected_in_another_thread",
    "test_a_subscription_that_is_dropped_is_forgotten",
    "test_a_waiting_run_without_timeout_waits_for_ever",
    "test_an_idle_thread_leaves_the_memory_and_comes_back",
    "test_connecting_takes_no_thread_and_fifty_entries_load_it_once",
    "test_shutting_down_twice_is_harmless",
    "test_what_has_arrived_is_taken_without_waiting",
}
"""What is inside of a runtime: its journal, its threads in memory, its queues."""

NOT_SERVED = {
    "test_an_owner_is_deleted_with_all_that_is_remembered",
    "test_many_texts",
    "test_owners_never_meet",
    "test_what_belongs_to_a_thread_is_deleted_with_it",
    "test_what_does_not_belong_to_the_conversation_is_not_between",
    "test_a_call_that_was_added_is_removed_with_its_output",
    "test_a_key_names_one_thread_of_its_owner",
    "test_a_message_continues_here_or_in_a_copy",
    "test_a_thread_begins_with_a_history",
    "test_items_are_added_without_a_run",
    "test_messages_that_wait_survive_a_restart",
    "test_several_messages_are_answered_by_one_run",
    "test_a_run_by_its_id_alone",
    "test_a_thread_is_updated",
    "test_calls_of_all_threads",
    "test_items_by_id_and_in_pages",
}
"""They use what the HTTP API does not have: `for_owner`, `pin`, `remove_event`, statistics."""

DIFFERENT = {
    "test_a_shared_memory_is_there_after_a_restart",  # one that was deleted is empty, not missing
    "test_after_the_end_nothing_is_searched",  # refused with the request, not with the handle
    "test_a_message_is_refused_if_something_came_between",  # compares the class of the run
    "test_a_changed_definition_applies_from_the_next_run",  # agents are registered at the server
    "test_a_position_behind_the_end_is_refused_where_it_is_given",  # refused where it is iterated
    "test_deps_that_fail_fail_the_run",  # the cause of an error stays on the server
}

LOCAL = INSIDE | NOT_SERVED | DIFFERENT

MODULES = (
    test_archive,
    test_continuing,
    test_edited_arguments,
    test_threads,
    test_run_methods,
    test_run_subscription,
    test_finding,
    test_memory,
)


def contract(module: ModuleType) -> dict[str, object]:
    found = {}
    for name, value in vars(module).items():
        if not name.startswith("test_") or not inspect.isfunction(value) or name in LOCAL:
            continue
        if list(inspect.signature(value).parameters) == ["open_runtime"]:
            found[name] = value
    return found


for one in MODULES:
    globals().update(contract(one))


def test_what_is_left_out_exists() -> None:
    assert {name for module in MODULES for name in vars(module)} >= LOCAL
