"""The server keeps what its OpenAPI document says: requests that schemathesis makes from it.

Streams are left out: it would read an endless body to its end (schemathesis issue 3633).
"""

import asyncio
import threading
from collections.abc import Generator
from typing import Any, NamedTuple

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from tests.server.serving import serving

import treadle
from treadle import Agent, tool
from treadle.server.operation import Operation
from treadle.server.operations import all_operations
from treadle.testing import Call, ScriptedModel

pytestmark = pytest.mark.real_clock

EXAMPLES = 8
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
]
OPERATIONS = [
    operation
    for operation in all_operations()
    if not (operation.is_stream and operation.method == "GET")
]


@tool(needs_approval=True)
async def pay(amount: int) -> str:
    """Pays."""
    return f"paid {amount}"


class Served(NamedTuple):
    """A server in another thread."""

    url: str
    schema: Any


@pytest.fixture(scope="module")
def served() -> Generator[Served]:
    started, ended = threading.Event(), threading.Event()
    found: dict[str, Any] = {}

    async def main() -> None:
        turns = [Call("pay", '{"amount": 1}', "call_1"), "Yes."] * 1000
        agent = Agent(ScriptedModel(turns), tools=[pay], name="payer")
        async with serving(treadle.open(None, agents=[agent])) as client:
            found.update(
                url=str(client.http.base_url),
                schema=(await client.http.get("/openapi.json")).json(),
            )
            started.set()
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    try:
        assert started.wait(30)
        # schemathesis knows OpenAPI 3.1, which differs from 3.2 by what describes streams alone.
        schema = schemathesis.openapi.from_dict(found["schema"] | {"openapi": "3.1.0"})
        yield Served(found["url"], schema)
    finally:
        ended.set()
        thread.join(30)


def known_ids(session: requests.Session, url: str) -> dict[str, str]:
    """Returns ids that exist: of a new thread, whose run may wait for an answer, and of a file."""
    thread_id = session.post(f"{url}/threads", json={}).json()["id"]
    path = f"{url}/threads/{thread_id}"
    sent = session.post(f"{path}/messages", json={"message": "Hi."}).json()
    session.get(f"{url}/runs/{sent['run_id']}/result?wait=10")
    items = session.get(f"{path}/items").json()["data"]
    return {
        "thread_id": thread_id,
        "run_id": sent["run_id"],
        "item_id": items[0]["id"],
        "call_id": "call_1",
        "file_id": session.post(f"{url}/files", data=b"text").json()["id"],
        "name": "payer",
    }


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: f"{one.method} {one.path}")
def test_answers_are_those_of_the_document(served: Served, operation: Operation) -> None:
    described = served.schema[operation.full_path][operation.method]
    strategies = [
        described.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode
    ]
    session = requests.Session()
    session.trust_env = False  # it would look through the environment for a proxy at each request
    ids = known_ids(session, f"{served.url}/api/v1")

    @seed(1)
    @settings(
        max_examples=EXAMPLES,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(case=st.one_of(strategies), is_known=st.booleans())
    def check(case: Any, is_known: bool) -> None:
        if is_known:
            for name in case.path_parameters or {}:
                case.path_parameters[name] = ids.get(name, case.path_parameters[name])
        if isinstance(case.query, dict):
            for name in ("stream", "foreground", "wait"):
                case.query.pop(name, None)
        response = case.call(base_url=served.url, session=session, timeout=20)
        case.validate_response(response, checks=CHECKS)

    with session:
        check()
