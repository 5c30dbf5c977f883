"""A program with one key acts for its users, and reaches no more than they do."""

from collections.abc import Callable

import pytest
from tests.server.serving import NO_AUTH, serving
from tests.server.test_security import AUTH, ring

from treadle import Agent, Runtime
from treadle.client import Client
from treadle.errors import InvalidInput, ScopeMissing, ThreadNotFound
from treadle.server.principal import Principal, require_principal
from treadle.testing import ScriptedModel

pytestmark = pytest.mark.anyio

Open = Callable[..., Runtime]


def headers(owner: str = "", by: str = "") -> dict[str, str]:
    given = {"x-treadle-owner": owner, "x-treadle-by": by}
    return {name: value for name, value in given.items() if value}


async def test_headers_narrow_a_key_to_one_owner(open_runtime: Open) -> None:
    keys = ring(backend=(None, "write read"), alice=("alice", "admin"))
    agent = Agent(ScriptedModel(["Hi."] * 9))
    async with serving(open_runtime(agent), AUTH, keys=keys.keys) as client:
        backend, alice = keys.headers("backend"), keys.headers("alice")
        for_alice, for_bob = backend | headers("alice", "al%2Fan"), backend | headers("bob")
        thread = await client.call("POST", "/threads", {}, headers=for_alice)
        assert thread["owner"] == "alice"
        path = f"/threads/{thread['id']}"
        await client.call("POST", f"{path}/messages?wait=9", {"message": "x"}, headers=for_alice)
        for method, target, body in (
            ("GET", path, None),
            ("POST", f"{path}/messages", {"message": "x"}),
            ("GET", f"{path}/events", None),
        ):
            refused = await client.send(method, target, body, headers=for_bob)
            assert (refused.status_code, refused.json()["code"]) == (404, "thread_not_found")
        assert (await client.call("GET", "/threads", headers=for_bob))["data"] == []
        assert len((await client.call("GET", "/threads", headers=backend))["data"]) == 1
        me = await client.call("GET", "/me", headers=for_alice)
        name = (await client.call("GET", "/me", headers=backend))["by"]
        assert (me["owner"], me["by"]) == ("alice", f"{name}/al/an")
        events = (
            await client.call(
                "GET", f"{path}/events", headers=alice | {"accept": "application/json"}
            )
        )["data"]
        by = {event["type"]: event["by"] for event in events if event.get("by")}
        assert by["message.added"] == f"{name}/al/an"
        # No more than the key itself may.
        assert (await client.send("GET", path, headers=alice | headers("bob"))).status_code == 400
        assert (await client.send("GET", path, headers=alice | headers("alice"))).status_code == 200
        forged = {"history": [{"role": "assistant", "content": "x"}]}
        refused = await client.send("POST", "/threads", forged, headers=for_alice)
        assert refused.json()["code"] == "scope_missing"


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ([("x-treadle-owner", "%ff")], "invalid_request"),
        ([("x-treadle-by", "%c3")], "invalid_request"),
        ([("x-treadle-owner", "a"), ("x-treadle-owner", "b")], "invalid_request"),
        ([("x-treadle-by", "x" * 257)], "invalid_input"),
        ([("x-treadle-by", "ann%0akey:1")], "invalid_input"),
        ([("x-treadle-by", "%00")], "invalid_input"),
    ],
)
async def test_headers_that_are_not_valid(
    open_runtime: Open, given: list[tuple[str, str]], code: str
) -> None:
    async with serving(open_runtime(Agent(ScriptedModel([])))) as client:
        refused = await client.http.get("/api/v1/threads", headers=given)
        assert (refused.status_code, refused.json()["code"]) == (400, code)


async def test_a_view_of_a_client(open_runtime: Open) -> None:
    keys = ring(backend=(None, "admin"), alice=("alice", "read"))
    agent = Agent(ScriptedModel(["Hi."] * 9), name="a")
    async with (
        serving(open_runtime(agent), AUTH, keys=keys.keys) as served,
        Client(str(served.http.base_url), key=keys.of["backend"]) as client,
    ):
        alice, unowned = client.for_owner("alice ä/b", by="42"), client.for_owner("")
        assert (alice.owner, alice.by) == ("alice ä/b", f"{client.by}/42")
        assert alice.for_owner("alice ä/b", by="43").by == f"{client.by}/43"
        assert client.for_owner(None, by="root").by == f"{client.by}/root"
        thread = await alice.create_thread("a", key="k")
        assert (await thread.info()).owner == "alice ä/b"
        assert (await alice.connect(key="k")).id == thread.id
        assert await (await thread.send("x")).text() == "Hi."
        async with alice.subscribe(after="start") as desk:
            assert (await anext(desk)).thread_id == thread.id
        for other in (unowned, client.for_owner("bob")):
            with pytest.raises(ThreadNotFound):
                await other.connect(thread.id)
            assert await other.threads() == []
        assert await client.threads(owner="") == []
        assert len(await client.threads()) == 1
        with pytest.raises(InvalidInput, match="one owner"):
            alice.for_owner("bob")
        with pytest.raises(InvalidInput, match="all owners"):
            client.for_owner(None)
        file = await alice.files.put(b"text")
        assert (await alice.files.info(file.id)).size == 4
        await (await alice.memory("team")).create("notes", "x")
        assert [one.memory for one in await alice.memories()] == ["team"]
        assert await unowned.memories() == []
        with pytest.raises(InvalidInput, match="owner is empty"):
            await unowned.delete_owner()
        await alice.delete_owner()
        assert await client.threads() == []
        async with Client(str(served.http.base_url), key=keys.of["alice"]) as reader:
            assert reader.for_owner("alice").owner == "alice"
            with pytest.raises(ScopeMissing):
                await reader.delete_owner()
            with pytest.raises(InvalidInput, match="one owner"):
                reader.for_owner("bob")


async def test_a_server_without_keys(open_runtime: Open) -> None:
    async with (
        serving(open_runtime(Agent(ScriptedModel([]), name="a")), NO_AUTH) as served,
        Client(str(served.http.base_url), key="") as client,
    ):
        ann = client.for_owner("acme", by="ann")
        assert ann.by == "ann"
        thread = await ann.create_thread("a", history=[{"role": "user", "content": "x"}])
        assert [getattr(event, "by", "") for event in await thread.events()] == ["ann"]


def test_the_principal_of_a_program() -> None:
    named = Principal(by="app", acts_for="ann")
    assert require_principal(named).recorded == "app/ann"
    with pytest.raises(InvalidInput):
        require_principal(Principal(by="app", acts_for=3))  # type: ignore[arg-type]
