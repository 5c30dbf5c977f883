"""Random trees whose jobs do random things: they end, all settle once, and no failure is lost."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.errors import JobError
from treadle.jobs import Change, Commander, Job, Node, NodeSettled, NodeSubmitted, OnFailure
from treadle.testing.clock import run

POLICIES: tuple[OnFailure | None, ...] = (None, "fail_fast", "collect")
FINAL = {"completed", "failed", "cancelled"}


class Boom(Exception):
    """What a job or a callback of these trees raises."""


Action = tuple[Any, ...]

leaf_actions = st.one_of(
    st.tuples(st.just("sleep"), st.integers(0, 3)),
    st.just(("raise",)),
    st.just(("cancel self",)),
    st.just(("swallow",)),
    st.tuples(st.just("await"), st.integers(0, 5)),
    st.tuples(st.just("time out"), st.integers(0, 5)),
    st.tuples(st.just("cancel"), st.integers(0, 5), st.booleans()),
    st.just(("cancel parent",)),
    st.just(("gather",)),
    st.tuples(st.just("exit"), st.booleans()),
)


def plans(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    submit = st.tuples(st.just("submit"), children, st.booleans())
    goes_on = st.tuples(st.just("return"), children)
    return plan(st.lists(st.one_of(leaf_actions, submit, submit, goes_on), max_size=6))


def plan(actions: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    callbacks = st.sampled_from(("none", "sync", "async", "raises", "never ends", "submits"))
    return st.tuples(st.sampled_from(POLICIES), callbacks, actions)


trees = st.recursive(plan(st.lists(leaf_actions, max_size=3)), plans, max_leaves=12)


class Planned(Job[str]):
    """Does what its plan says."""

    def __init__(self, world: "World", plan: Any) -> None:
        self.world = world
        self._node_policy, callback, self.actions = plan
        world.jobs.append(self)
        self.on("settled", world.settled, inject_node=True)
        if callback != "none":
            self.on("settled", world.callbacks[callback], inject_node=True)

    async def task(self) -> Any:
        mine = list[Node[Any]]()
        for name, *arguments in self.actions:
            match name:
                case "sleep":
                    await asyncio.sleep(*arguments)
                case "raise":
                    raise Boom
                case "submit":
                    child, under_root = arguments
                    place = self.root if under_root else self
                    mine.append(await self.submit(Planned(self.world, child), parent=place))
                case "return":
                    return Planned(self.world, arguments[0])
                case "await" | "time out":
                    await self.wait(name, arguments[0])
                case "gather":
                    await asyncio.gather(*mine, return_exceptions=True)
                case _:
                    await self.stop(name, *arguments)
        return "done"

    async def wait(self, name: str, number: int) -> None:
        # Only for those submitted later: two that wait for each other would never end.
        later = [job for job in self.world.jobs if job.id > self.id]
        if not later:
            return
        if name == "await":
            await later[number % len(later)]
            return
        try:
            async with asyncio.timeout(1):
                await later[number % len(later)].settling()
        except TimeoutError:
            pass

    async def stop(self, name: str, *arguments: Any) -> None:
        match name:
            case "cancel self":
                await self.cancel()
            case "cancel parent":
                if self.parent is not None:
                    self.parent.cancel()
            case "cancel":
                number, waits = arguments
                placed = [job for job in self.world.jobs if job.id]
                cancelling = placed[number % len(placed)].cancel()
                later = placed[number % len(placed)].id > self.id
                if waits and later:
                    await cancelling
            case "swallow":
                try:
                    await asyncio.sleep(2)
                except asyncio.CancelledError:
                    await asyncio.sleep(1)
            case "exit":
                self.exit("exited", wait=arguments[0])


class World:
    """What happens in one tree."""

    def __init__(self) -> None:
        self.jobs = list[Planned]()
        self.settled_callbacks = dict[int, int]()
        self.changes = list[Change]()
        self.unseen = set[int]()
        self.callbacks: dict[str, Callable[..., object]] = {
            "sync": lambda node: None,
            "async": lambda node: asyncio.sleep(1),
            "raises": self.fail,
            "never ends": lambda node: asyncio.sleep(50),
            "submits": self.submit,
        }

    def hear(self, change: Change) -> None:
        self.changes.append(change)
        if isinstance(change, NodeSettled) and change.node.parent is None:
            tree = change.node._node_in_tree()
            nodes = (change.node, *self.jobs)
            failures = [failure for node in nodes for failure in kept(node) if not failure.seen]
            unseen = [failure.exception for failure in failures]
            # A callback that was cancelled has not failed.
            real = [error for error in unseen if not isinstance(error, asyncio.CancelledError)]
            self.unseen = {id(error) for error in real if not tree.ends_by(error)}

    def settled(self, node: Planned) -> None:
        assert node.state in FINAL
        assert not node.is_settled
        assert all(child.is_settled for child in node.children)
        self.settled_callbacks[node.id] = self.settled_callbacks.get(node.id, 0) + 1

    def fail(self, node: Planned) -> None:
        raise Boom

    async def submit(self, node: Planned) -> None:
        await node.submit(Planned(self, (None, "none", [("sleep", 1)])), parent=node.root)


def failures(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from failures(one)
    else:
        yield error


async def play(tree: Any, policy: OnFailure, limit: int | None, max_pending: int) -> None:
    world = World()
    tasks = asyncio.all_tasks()
    logged = list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    commander = Commander[str](
        on_failure=policy, limit=limit, max_pending=max_pending, listener=world.hear
    )
    raised = list[BaseException]()
    try:
        async with asyncio.timeout(10_000), commander:
            await commander.submit(Planned(world, tree))
    except Exception as error:  # noqa: BLE001 - whatever the tree raises
        raised = list(failures(error))
    assert {type(error) for error in raised} <= {Boom} | set(JobError.__subclasses__())
    check(world, commander, raised)
    assert asyncio.all_tasks() == tasks
    assert not logged


def check(world: World, commander: Commander[Any], raised: list[BaseException]) -> None:
    placed = [job for job in world.jobs if job.id]
    root = commander.root
    assert root.is_settled
    assert all(job.is_settled and job.state in FINAL for job in placed)
    assert world.settled_callbacks == {job.id: 1 for job in placed}
    settled = [change.node.id for change in world.changes if isinstance(change, NodeSettled)]
    submitted = [change.node.id for change in world.changes if isinstance(change, NodeSubmitted)]
    assert sorted(submitted) == sorted(job.id for job in placed)
    assert sorted(settled) == sorted([0, *submitted])
    order = {number: place for place, number in enumerate(settled)}
    for job in placed:
        assert all(order[job.id] < order[above.id] for above in job.ancestors)
    assert {id(error) for error in raised} == world.unseen


def kept(job: Node[Any]) -> Iterator[Any]:
    if job._node_failure is not None:
        yield job._node_failure
    yield from job._node_errors or ()
    yield from job._node_callback_errors or ()


@settings(max_examples=150)
@given(
    tree=trees,
    policy=st.sampled_from(("fail_fast", "collect")),
    limit=st.sampled_from((None, 1, 2)),
    max_pending=st.sampled_from((1, 2, 1024)),
)
def test_every_tree_ends_and_loses_nothing(
    tree: Any, policy: OnFailure, limit: int | None, max_pending: int
) -> None:
    run(play(tree, policy, limit, max_pending))
