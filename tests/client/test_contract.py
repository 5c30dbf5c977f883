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
    test_importing,
    test_memory,
    test_owners,
    test_removal,
    test_run_methods,
    test_run_subscription,
    test_spending,
    test_threads,
)

pytestmark = pytest.mark.anyio

INSIDE = {
    "test_a_function_that_changes_its_size_is_refused",
    "test_a_run_that_begins_and_ends_while_it_is_looked_for_is_read",
    "test_what_could_not_be_kept_leaves_no_vector",
    "test_what_is_put_in_is_an_event_and_is_found",
    "test_a_subscription_may_be_collected_in_another_thread",
    "test_a_subscription_that_is_dropped_is_forgotten",
    "test_a_waiting_run_without_timeout_waits_for_ever",
    "test_an_idle_thread_leaves_the_memory_and_comes_back",
    "test_connecting_takes_no_thread_and_fifty_entries_load_it_once",
    "test_shutting_down_twice_is_harmless",
    "test_what_has_arrived_is_taken_without_waiting",
    "test_an_owner_is_deleted_with_all_that_is_remembered",
}
"""What is inside of a runtime: its journal, its threads in memory, its queues."""

DIFFERENT = {
    "test_a_shared_memory_is_there_after_a_restart",  # one that was deleted is empty, not missing
    "test_after_the_end_nothing_is_searched",  # refused with the request, not with the handle
    "test_a_message_is_refused_if_something_came_between",  # compares the class of the run
    "test_a_changed_definition_applies_from_the_next_run",  # agents are registered at the server
    "test_a_position_behind_the_end_is_refused_where_it_is_given",  # refused where it is iterated
    "test_deps_that_fail_fail_the_run",  # the cause of an error stays on the server
    "test_a_run_by_its_id_alone",  # as does its text
}

LOCAL = INSIDE | DIFFERENT

MODULES = (
    test_archive,
    test_continuing,
    test_edited_arguments,
    test_threads,
    test_run_methods,
    test_run_subscription,
    test_finding,
    test_importing,
    test_memory,
    test_owners,
    test_removal,
    test_spending,
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
